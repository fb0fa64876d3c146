"""Typed columns of a table, and one row of it as a line of CSV."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Value = str | float | bool | None
Record = tuple[Value, ...]  # the values of one row, in the order of the columns


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
            (index, column.format)
            for index, column in enumerate(self.columns)
            if column.kind == "number"
        ]
        self._flags = [i for i, column in enumerate(self.columns) if column.kind == "flag"]
        self._nullable = [i for i, column in enumerate(self.columns) if column.nullable]
        self._writer = csv.writer(_Line(), lineterminator="\n")

    def cells(self, record: Record) -> list[str]:
        """The text of each cell."""
        cells = list(record)
        for index, form in self._formats:
            value = cells[index]
            cells[index] = "" if value is None else format(value, form)
        return ["" if cell is None else str(cell) for cell in cells]

    def encode(self, record: Record) -> bytes:
        r"""The record as one line of UTF-8 that ends with "\n"."""
        line: str = self._writer.writerow(self.cells(record))
        return line.encode()

    def decode(self, cells: Sequence[str]) -> Record:
        """The record of a line's cells.

        Raises:
            ValueError: another number of cells, or a cell of another type than its column.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        values: list[Value] = list(cells)
        for index, _ in self._formats:
            values[index] = float(cells[index]) if cells[index] else None
        for index in self._flags:
            values[index] = _flag(cells[index])
        for index in self._nullable:
            values[index] = cells[index] or None
        return tuple(values)

    def decode_lines(self, lines: Iterable[str]) -> Iterator[Record]:
        """The records of lines of CSV. Raises: as `decode`."""
        return map(self.decode, csv.reader(lines))


def _flag(cell: str) -> bool:
    match cell.lower():
        case "true":
            return True
        case "false":
            return False
    raise ValueError(f"{cell!r} is neither True nor False")


class _Line:
    """A file for a CSV writer, whose `writerow` returns what `write` returns: the line itself."""

    def write(self, line: str) -> str:
        return line
