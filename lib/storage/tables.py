"""A finished table of predictions as CSV or Parquet: the suffix of its name decides.

Rows come and go as lines of CSV, which is what a journal holds. So both formats have the same text
in the same cell, and a CSV is written without a look into its rows.
"""

import csv
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from lib import __version__
from lib.run.errors import JobError, UsageError
from lib.storage import atomic

ROWS_PER_GROUP = (
    100_000  # of Parquet; a row group is the most that a writer or reader holds in memory
)
ROWS_PER_BLOCK = 10_000  # that are parsed at once
_PART = re.compile(r"part-\d{5,}\.parquet")


class Table(Protocol):
    """A table on disk that is whole or absent."""

    @property
    def path(self) -> Path:
        """Its name; a table in parts is a folder."""

    @property
    def columns(self) -> Sequence[str]:
        """In order, `path` first."""

    def write(self, lines: Iterable[bytes]) -> None:
        """Put these rows, each a line of CSV, in the place of what is there. Lines are taken one by
        one, not gathered.
        """

    def lines(self) -> Iterator[bytes]:
        r"""Its rows, each a line of CSV with its "\n".

        Raises:
            JobError: it has other columns, or cannot be read.
        """


def check(path: Path, rows_per_file: int) -> None:
    """Refuse a name that no table can have, before any work.

    Raises:
        UsageError: another suffix, a CSV in parts, or a folder that is not a table in parts.
        JobError: the package that Parquet needs is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"--output {path}: tables are CSV or Parquet, give a name that ends in .csv or .parquet."
        )
    if rows_per_file and suffix == ".csv":
        raise UsageError(
            f"--rows_per_file {rows_per_file}: only Parquet is written in parts, give --output a name in .parquet."
        )
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise JobError(
            "Parquet needs pyarrow, which is not installed here. Take the image that has it (IMAGE=cxr-jobs:cluster), install "
            "requirements-ray.lock, or give --output a name that ends in .csv."
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


def table_of(path: Path, columns: Sequence[str], rows_per_file: int = 0) -> Table:
    """The table that `path`, which `check` has seen, names. `rows_per_file`: 0, or it becomes a
    folder of parts.
    """
    if path.suffix.lower() == ".csv":
        return Csv(path, columns)
    if rows_per_file:
        atomic.recover_folder(path)
    return Parquet(path, columns, rows_per_file)


def rows(table: Table) -> Iterator[dict[str, str]]:
    """Its rows by column, as text, the same for both formats."""
    for cells in csv.reader(line.decode() for line in table.lines()):
        yield dict(zip(table.columns, cells, strict=True))


@dataclass(frozen=True)
class Csv:
    """Lines below a header."""

    path: Path
    columns: Sequence[str]

    def write(self, lines: Iterable[bytes]) -> None:
        with atomic.whole_file(self.path) as out:
            out.write((",".join(self.columns) + "\n").encode())
            out.writelines(lines)

    def lines(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            if file.readline().decode().rstrip("\r\n") != ",".join(self.columns):
                raise _other_columns(self.path)
            yield from file


@dataclass(frozen=True)
class Parquet:
    """Text as in the cells of a CSV, numbers as doubles, needs_review as a boolean; the same rows
    give the same bytes.
    """

    path: Path
    columns: Sequence[str]
    rows_per_file: int = (
        0  # 0: one file; else a folder of part-00000.parquet, part-00001.parquet, …
    )

    def write(self, lines: Iterable[bytes]) -> None:
        if not self.rows_per_file:
            with atomic.whole_file(self.path) as file:
                self._write_file(file, iter(lines))
            return
        new = atomic.hidden_neighbour(self.path, f"new{atomic.PARTIAL}")
        shutil.rmtree(new, ignore_errors=True)
        for number, part in enumerate(_parts(iter(lines), self.rows_per_file)):
            with atomic.whole_file(new / f"part-{number:05}.parquet") as file:
                self._write_file(file, part)
        if self.path.is_dir():
            _require_only_parts(self.path)
        atomic.swap_folder(new, self.path)

    def lines(self) -> Iterator[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self._files():
            try:
                with pq.ParquetFile(path) as file:
                    if not file.schema_arrow.equals(self._schema()):
                        raise _other_columns(path)
                    for batch in file.iter_batches(ROWS_PER_BLOCK):
                        yield from _lines_of(batch)
            except pa.ArrowException as error:
                raise JobError(
                    f"{path} cannot be read: {error}. Give the new rows a table of their own."
                ) from error

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        return sorted(self.path.iterdir(), key=lambda path: (len(path.name), path.name))

    def _schema(self) -> Any:
        import pyarrow as pa

        kinds = {
            "needs_review": pa.bool_(),
            "confidence": pa.float64(),
            "outside_lungs": pa.float64(),
        }
        return pa.schema(
            [
                (name, kinds.get(name, pa.float64() if name.startswith("prob_") else pa.string()))
                for name in self.columns
            ]
        )

    def _write_file(self, file: BinaryIO, lines: Iterator[bytes]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._schema()
        with pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
            writer.add_key_value_metadata({"program": f"cxr-jobs {__version__}"})
            while group := [
                _parsed(block, schema) for block in _blocks(islice(lines, ROWS_PER_GROUP))
            ]:
                writer.write_table(pa.concat_tables(group), row_group_size=ROWS_PER_GROUP)


def _parts(lines: Iterator[bytes], size: int) -> Iterator[Iterator[bytes]]:
    """Runs of `size` lines, each to be used up before the next; one without lines where there are
    none.
    """
    for number in count():
        first = list(islice(lines, 1))
        if number and not first:
            return
        yield chain(first, islice(lines, size - 1))


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    while block := b"".join(islice(lines, ROWS_PER_BLOCK)):
        yield block


def _parsed(block: bytes, schema: Any) -> Any:
    """Lines of CSV as an Arrow table. An empty cell is null, but for text other than the
    prediction.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    table = pa_csv.read_csv(
        pa.py_buffer(block),
        pa_csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=schema.names),
        convert_options=pa_csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            true_values=["True"],
            false_values=["False"],
        ),
    )
    for number, field in enumerate(schema):
        if field.type == pa.string() and field.name != "prediction":
            table = table.set_column(number, field, table.column(number).fill_null(""))
    return table.cast(schema)


def _lines_of(batch: Any) -> Iterator[bytes]:
    """The way back from `_parsed`."""
    cells = [
        _cells(name, column.to_pylist())
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    writer = csv.writer(_Echo(), lineterminator="\n")
    for row in zip(*cells, strict=True):
        yield writer.writerow(row).encode()  # what _Echo.write returned


def _cells(column: str, values: Sequence[Any]) -> Iterator[str]:
    digits = 3 if column == "outside_lungs" else 6
    for value in values:
        if isinstance(value, float):
            usual = f"{value:.{digits}f}"
            yield usual if float(usual) == value else repr(value)
        else:
            yield "" if value is None else str(value)


class _Echo:
    """A file for a CSV writer, whose rows then come back from `writerow`."""

    def write(self, line: str) -> str:
        return line


def _require_only_parts(folder: Path) -> None:
    """What we did not write is never deleted."""
    for path in sorted(folder.iterdir()):
        if not _PART.fullmatch(path.name) or not path.is_file():
            raise UsageError(
                f"--output {folder} is a folder that holds more than the parts of a table: {path.name}. "
                "Give another name, or move the folder away."
            )


def _other_columns(path: Path) -> JobError:
    return JobError(
        f"{path} has other columns than the new rows. Give the new rows a table of their own."
    )
