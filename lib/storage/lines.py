"""Typed columns of a table, and one row of it as a line of CSV."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Value = str | float | bool | None
Record = tuple[Value, ...]  # the values of one row, in the order of the columns

# Python's reader refuses cells above 131,072 characters, its writer does not: a value of a DICOM
# header may be longer. A limit of the process, for every table that is read after this import.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Column:
    """Name and type of a column. A missing value is None: an empty cell in CSV, null in Parquet."""

    name: str
    kind: Literal["text", "number", "flag"] = "text"
    format: str = ".6f"  # of a number in CSV, as Python's format specification
    nullable: bool = False  # text: an empty cell is None, not ""; numbers always are


class LineCodec:
    """Records of one list of columns as lines of CSV, and back."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._formats = [
            (index, f"{{:{column.format}}}".format)
            for index, column in enumerate(self.columns)
            if column.kind == "number"
        ]
        self._numbers = [index for index, _ in self._formats]
        self._flags = [i for i, column in enumerate(self.columns) if column.kind == "flag"]
        self._nullable = [i for i, column in enumerate(self.columns) if column.nullable]
        self._writer = csv.writer(_Line(), lineterminator="\n")

    def cells(self, record: Record) -> list[str]:
        """The text of each cell."""
        return ["" if cell is None else str(cell) for cell in self._formatted(record)]

    def encode(self, record: Record) -> bytes:
        r"""The record as one line of UTF-8 that ends with "\n"."""
        line: str = self._writer.writerow(self._formatted(record))
        return line.encode()

    def _formatted(self, record: Record) -> list[Value]:
        """The record with its numbers as text; a CSV writer knows what to do with the rest."""
        cells = list(record)
        for index, text_of in self._formats:
            if cells[index] is not None:
                cells[index] = text_of(cells[index])
        return cells

    def decode(self, cells: Sequence[str]) -> Record:
        """The record of a line's cells.

        Raises:
            ValueError: another number of cells, or a cell of another type than its column.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        values: list[Value] = list(cells)
        for index in self._numbers:
            values[index] = float(cells[index]) if cells[index] else None
        for index in self._flags:
            values[index] = _flag(cells[index])
        for index in self._nullable:
            values[index] = cells[index] or None
        return tuple(values)


def _flag(cell: str) -> bool:
    if cell in ("True", "False"):
        return cell == "True"
    raise ValueError(f"{cell!r} is neither True nor False")


class _Line:
    """A file for a CSV writer, whose `writerow` returns what `write` returns: the line itself."""

    def write(self, line: str) -> str:
        return line
