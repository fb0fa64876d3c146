"""The films that an evaluation scores, and the films that its baselines learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from lib.dataset import provenance
from lib.dataset.manifest import (
    FilmRecord,
    SplitRecord,
    read_manifest,
    read_split,
    read_split_digest,
)
from lib.run.errors import JobError


@dataclass(frozen=True)
class LabelledFilm:
    """One film with its label, wherever it comes from."""

    name: str  # path below the folder of its set, as in predictions.csv
    file: Path
    label: str
    group: str  # films of one group (patient) are not independent
    source: str  # collection that it seems to come from
    record: FilmRecord


@dataclass(frozen=True)
class LeftOut:
    """A file of a folder from elsewhere that is not scored; a row of excluded.csv."""

    path: str  # below the folder
    label: str  # empty where it has none
    reason: str  # of a few fixed ones, to be counted
    detail: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """What is known about a set of films that comes from elsewhere."""

    name: str  # of the folder
    left_out: Sequence[LeftOut]
    no_home: str  # why copies of the model's own films were not looked for; empty: they were
    namesakes: int  # films whose patient has the name of a patient in the model's split


@dataclass(frozen=True)
class EvaluationSet:
    """Films to score, with what is known about their collection."""

    films: Sequence[LabelledFilm]
    folder: Path  # that the films' names start from
    training: Sequence[LabelledFilm]  # what baselines learn from
    manifest: Sequence[FilmRecord]  # every file of the collection, unreadable ones too
    raw: Path  # folder that the manifest's paths start from
    elsewhere: Elsewhere | None = None  # None: the test films of the model's own split
    validation: Sequence[LabelledFilm] = ()  # of the model's own split

    @property
    def names(self) -> list[str]:
        """Of the films to score, in order."""
        return [film.name for film in self.films]

    @property
    def labels(self) -> list[str]:
        """Of the films to score, in order."""
        return [film.label for film in self.films]

    @cached_property
    def file_of(self) -> dict[str, Path]:
        """Name of a film to score → its file."""
        return {film.name: film.file for film in self.films}

    @property
    def kind(self) -> str:
        """What the films to score are called in tables and pages."""
        return "external films" if self.elsewhere else "test films"

    @staticmethod
    def of_split(data_dir: Path, split_sha256: str) -> "EvaluationSet":
        """The test films of data/split.csv; baselines learn from its training films.

        `split_sha256` is the digest of the split that the model was trained on.

        Raises:
            JobError: no split, no manifest, no test film, or a film that the manifest lacks; or
                another split, whose test films may be among the model's training films.
        """
        records = read_manifest(data_dir)
        films = films_of_split(data_dir, records)
        if not films["test"]:
            raise JobError(f"{data_dir / 'split.csv'} has no test film. Run the split job again.")
        if split_sha256 != read_split_digest(data_dir):
            raise JobError(
                "this model was trained on another split than data/split.csv, so the test films "
                "may be among its training films. Train on this split first, or restore the split "
                "(same films, seed and fractions)."
            )
        raw, folder = data_dir / "raw", data_dir / "test"
        return EvaluationSet(
            films["test"], folder, films["train"], records, raw, validation=films["val"]
        )


def films_of_split(data_dir: Path, records: Sequence[FilmRecord]) -> dict[str, list[LabelledFilm]]:
    """The films of each side of data/split.csv; `records` are the rows of the manifest.

    Raises:
        JobError: no split, or a film that the manifest lacks.
    """
    sources = provenance.sources(records)
    known = {record.path: (record, source) for record, source in zip(records, sources, strict=True)}
    films: dict[str, list[LabelledFilm]] = {"train": [], "val": [], "test": []}
    for row in read_split(data_dir):
        if not row.split:
            continue
        if row.path not in known:
            raise JobError(
                f"{row.path} is in split.csv but not in the manifest. Run the split job again."
            )
        films[row.split].append(_film(row, data_dir, *known[row.path]))
    return films


def _film(row: SplitRecord, data_dir: Path, record: FilmRecord, source: str) -> LabelledFilm:
    name = f"{row.label}/{PurePosixPath(row.path).name}"
    return LabelledFilm(name, data_dir / row.file, row.label, row.group, source, record)
