"""A finished table as CSV or Parquet: the suffix of its name decides.

Rows are records of typed values (lib/storage/lines.py). A CSV holds numbers with the digits of
their column, Parquet holds them as doubles.
"""

import csv
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from lib import __version__
from lib.run.errors import JobError, UsageError, mapped
from lib.storage import atomic
from lib.storage.lines import Column, LineCodec, Record

ROWS_PER_GROUP = 100_000  # rows of a Parquet row group, the most that is held in memory
ROWS_PER_BLOCK = 10_000  # rows that become Arrow arrays at once
_PART = re.compile(r"part-\d{5,}\.parquet")


class Table(Protocol):
    """A table on disk that is whole or absent."""

    @property
    def path(self) -> Path:
        """Its name; a table in parts is a folder."""

    @property
    def columns(self) -> Sequence[Column]:
        """In order, `path` first."""

    def write(self, records: Iterable[Record]) -> None:
        """Replace the table on disk by these rows. Rows are written as they come, not gathered."""

    def records(self) -> Iterator[Record]:
        """The rows on disk, read as they are asked for.

        Raises:
            JobError: the table has other columns, or cannot be read.
        """


def check(path: Path, rows_per_file: int) -> None:
    """Refuse a name that no table can have.

    Raises:
        UsageError: another suffix, a CSV in parts, or a folder that is not a table in parts.
        JobError: the package that Parquet needs is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"--output {path}: tables are CSV or Parquet, give a name that ends in .csv or "
            ".parquet."
        )
    if rows_per_file and suffix == ".csv":
        raise UsageError(
            f"--rows_per_file {rows_per_file}: only Parquet is written in parts, give --output a "
            "name that ends in .parquet."
        )
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise JobError(
            "Parquet needs pyarrow, which is not installed here. Take the image that has it "
            "(IMAGE=cxr-jobs:cluster), install requirements-ray.lock, or give --output a name that "
            "ends in .csv."
        )
    if path.is_dir() and not rows_per_file:
        in_parts = (
            " To write a table in parts there, give --rows_per_file."
            if suffix == ".parquet"
            else ""
        )
        raise UsageError(f"--output {path} is a folder; give a file name.{in_parts}")
    if path.is_dir():
        _require_only_parts(path)


def table_of(path: Path, columns: Sequence[Column], rows_per_file: int = 0) -> Table:
    """The table of that name, which `check` has accepted.

    `rows_per_file` above 0 makes a Parquet table a folder of parts.
    """
    if path.suffix.lower() == ".csv":
        return Csv(path, columns)
    if rows_per_file:
        atomic.recover_folder(path)
    return Parquet(path, columns, rows_per_file)


@dataclass(frozen=True)
class Csv:
    """A `Table`: one line per row below a header."""

    path: Path
    columns: Sequence[Column]

    def write(self, records: Iterable[Record]) -> None:
        """See `Table`."""
        encode = LineCodec(self.columns).encode
        with atomic.whole_file(self.path) as out:
            out.write((",".join(column.name for column in self.columns) + "\n").encode())
            out.writelines(map(encode, records))

    def records(self) -> Iterator[Record]:
        """See `Table`."""
        codec = LineCodec(self.columns)
        errors = (ValueError, csv.Error)
        with open(self.path, encoding="utf-8", newline="") as file, _readable(self.path, *errors):
            reader = csv.reader(file)
            if next(reader, None) != [column.name for column in self.columns]:
                raise _other_columns(self.path)
            yield from map(codec.decode, reader)


@dataclass(frozen=True)
class Parquet:
    """A `Table` of text, doubles and booleans. The same rows give the same bytes."""

    path: Path
    columns: Sequence[Column]
    rows_per_file: int = 0  # 0: one file; else a folder of part-00000.parquet, part-00001.parquet …

    def write(self, records: Iterable[Record]) -> None:
        """See `Table`."""
        if not self.rows_per_file:
            with atomic.whole_file(self.path) as file:
                self._write_file(file, iter(records))
            return
        new = atomic.hidden_neighbour(self.path, f"new{atomic.PARTIAL}")
        shutil.rmtree(new, ignore_errors=True)
        for number, part in enumerate(_parts(iter(records), self.rows_per_file)):
            with atomic.whole_file(new / f"part-{number:05}.parquet") as file:
                self._write_file(file, part)
        if self.path.is_dir():
            _require_only_parts(self.path)
        atomic.swap_folder(new, self.path)

    def records(self) -> Iterator[Record]:
        """See `Table`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self._files():
            with _readable(path, pa.ArrowException), pq.ParquetFile(path) as file:
                if not file.schema_arrow.equals(self._schema()):
                    raise _other_columns(path)
                for batch in file.iter_batches(ROWS_PER_BLOCK):
                    yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        return sorted(self.path.iterdir(), key=lambda path: (len(path.name), path.name))

    def _schema(self) -> Any:
        import pyarrow as pa

        types = {"text": pa.string(), "number": pa.float64(), "flag": pa.bool_()}
        return pa.schema([(column.name, types[column.kind]) for column in self.columns])

    def _write_file(self, file: BinaryIO, records: Iterator[Record]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._schema()
        with pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
            writer.add_key_value_metadata({"program": f"cxr-jobs {__version__}"})
            while group := list(_batches(islice(records, ROWS_PER_GROUP), schema)):
                writer.write_table(pa.Table.from_batches(group), row_group_size=ROWS_PER_GROUP)


def _parts(records: Iterator[Record], size: int) -> Iterator[Iterator[Record]]:
    """Runs of `size` records, each to be used up before the next. No records give one empty run."""
    for number in count():
        first = list(islice(records, 1))
        if number and not first:
            return
        yield chain(first, islice(records, size - 1))


def _batches(records: Iterator[Record], schema: Any) -> Iterator[Any]:
    """Arrow record batches of `ROWS_PER_BLOCK` rows."""
    import pyarrow as pa

    while block := list(islice(records, ROWS_PER_BLOCK)):
        columns = zip(zip(*block, strict=True), schema, strict=True)
        arrays = [pa.array(values, field.type) for values, field in columns]
        yield pa.record_batch(arrays, schema=schema)


def _readable(path: Path, *kinds: type[Exception]) -> AbstractContextManager[None]:
    """Map the errors of a reader to one that says what to do."""
    advice = "Give the new rows a table of their own."
    return mapped(
        {
            kind: lambda error: JobError(f"{path} cannot be read: {error}. {advice}")
            for kind in kinds
        }
    )


def _require_only_parts(folder: Path) -> None:
    """Refuse a folder with files that this program did not write: it would delete them."""
    for path in sorted(folder.iterdir()):
        if not _PART.fullmatch(path.name) or not path.is_file():
            raise UsageError(
                f"--output {folder} is a folder that holds more than the parts of a table: "
                f"{path.name}. Give another name, or move the folder away."
            )


def _other_columns(path: Path) -> JobError:
    return JobError(
        f"{path} has other columns than the new rows. Give the new rows a table of their own."
    )
