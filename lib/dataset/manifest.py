"""The indexes that pass between the jobs: data/raw/manifest.csv and data/split.csv."""

import csv
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from lib.run.errors import JobError
from lib.storage.atomic import sha256_of, write_csv

Row = TypeVar("Row", "FilmRecord", "SplitRecord")
READER_MARK = "labelled:"  # in front of the origin of a film that joined with a reader's label
_REPEATED = {"label", "mode", "source", "status", "split", "excluded_because"}  # few values


@dataclass(frozen=True, slots=True)  # a million of them take 0.8 GB, without slots 1.1 GB
class FilmRecord:
    """One file below data/raw.

    Unreadable files are rows too, with `status` "unreadable" and the reason in `problem`.
    """

    path: str  # below data/raw, forward slashes
    label: str
    sha256: str
    dhash: str
    width: int
    height: int
    mode: str
    bytes: int
    tint: float  # mean difference of the colour channels, 0 to 255; 0 for a grey film
    brightness: float  # mean grey level, 0 to 255
    contrast: float  # standard deviation of the grey levels
    source: str  # collection by the file name, or empty
    patient: str  # patient by the file name or the DICOM header, or empty
    status: str  # "ok" or "unreadable"
    problem: str
    origin: str  # path within the source it came from

    @property
    def is_from_reader(self) -> bool:
        """Whether a reader gave the label, and not the dataset (lib/dataset/joined.py)."""
        return self.origin.startswith(READER_MARK)


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """One row of split.csv: a film's side of the split, or why it has none.

    The film lies at data/<split>/<label>/<name>.
    """

    path: str  # below data/raw, forward slashes
    label: str
    split: str  # "train", "val", "test", or empty when excluded
    group: str  # films of one group never lie on two sides
    excluded_because: str
    sha256: str

    @property
    def file(self) -> str:
        """Path below the data folder."""
        return f"{self.split}/{self.path}"


def write_rows(path: Path, rows: Iterable[FilmRecord] | Iterable[SplitRecord], kind: type) -> None:
    """Write one CSV row per record, whole or not at all."""
    names = [field.name for field in fields(kind)]
    values_of = attrgetter(*names)
    write_csv(path, names, (dict(zip(names, values_of(row), strict=True)) for row in rows))


def read_manifest(data_dir: Path) -> list[FilmRecord]:
    """Rows of data/raw/manifest.csv.

    Raises:
        JobError: there is none, or it is not a manifest.
    """
    path = data_dir / "raw" / "manifest.csv"
    return _read(path, FilmRecord, "Run the ingest job first (make ingest).")


def read_split(data_dir: Path) -> list[SplitRecord]:
    """Rows of data/split.csv.

    Raises:
        JobError: there is none, or it is not a split.
    """
    return _read(data_dir / "split.csv", SplitRecord, "Run the split job first (make split).")


def read_split_digest(data_dir: Path) -> str:
    """SHA-256 of data/split.csv: the identity of the data that a model was trained and scored on.

    Raises:
        JobError: there is none.
    """
    path = data_dir / "split.csv"
    if not path.exists():
        raise JobError(f"there is no {path}. Run the split job first (make split).")
    return sha256_of(path)


def _read(path: Path, kind: type[Row], remedy: str) -> list[Row]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            readers = [
                (header.index(field.name), _reader_of(field.name, field.type))
                for field in fields(kind)
            ]
            return [kind(*(read(row[at]) for at, read in readers)) for row in reader if row]
    except FileNotFoundError:
        raise JobError(f"there is no {path}. {remedy}") from None
    except (TypeError, ValueError, IndexError, csv.Error) as error:
        raise JobError(f"{path} is damaged ({error}). {remedy}") from error


def _reader_of(column: str, kind: Any) -> Callable[[str], Any]:
    """What makes a cell of the column a value. Words of few kinds are kept once each."""
    reader: Callable[[str], Any] = sys.intern if column in _REPEATED else kind
    return reader
