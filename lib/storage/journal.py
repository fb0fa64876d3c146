"""A table that is being written: rows are safe on disk as they come, and an interrupted run is
taken up where it stopped.

The journal lies beside the table, named .TABLE.journal. Its first line says which model and
settings the rows belong to; every other line is a row of the table behind size and time of the file
that it speaks of. The table itself, CSV or Parquet, is made from the journal at the end and appears
whole.
"""

import csv
import heapq
import io
import json
import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, BinaryIO

from lib.run.errors import JobError
from lib.storage import atomic
from lib.storage.cells import from_cell
from lib.storage.stamp import Stamp
from lib.storage.tables import Table

ROWS_PER_FLUSH = 256
SECONDS_PER_FLUSH = 2.0


class Journal:
    """The rows of one table, keyed by the sorted names of its inputs. Use it as a context manager,
    under the table's lock.
    """

    def __init__(self, table: Table, names: Sequence[str], belongs_to: Mapping[str, Any]) -> None:
        """The table's columns hold `error`; `names` are sorted; `belongs_to` is compared on
        resumption.
        """
        self.path = atomic.hidden_neighbour(table.path, "journal")
        self.table, self.columns, self.names = table, list(table.columns), names
        self._belongs_to = dict(belongs_to)
        self._offsets = array("q", [-1]) * len(names)
        self._failed = bytearray(
            len(names)
        )  # how many rows of a file have an error; 2 stands for more
        self._file: BinaryIO | None = None
        self._unflushed, self._last_flush = 0, 0.0

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            try:
                self._flush()
            finally:
                self._file.close()
                self._file = None

    def open(self, resume: bool, is_current: Callable[[str, Stamp], bool]) -> int:
        """Open the journal for rows. Returns how many good rows of an interrupted run are taken
        over.

        Taken over is a whole row of a file that `is_current` by name and stamp, and an error only
        after a second try: files that cannot be read must not cost every run their time again. A
        torn end is cut off.

        Raises:
            JobError: it belongs to another model or to other settings.
        """
        if not resume:
            self.path.unlink(missing_ok=True)
        end = self._take_over(is_current) if self.path.exists() else 0
        self._file = open(self.path, "ab")  # noqa: SIM115  # closed by __exit__
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)
        if end == 0:
            self._file.write(json.dumps(self._belongs_to).encode() + b"\n")
            self._flush()
        return sum(offset >= 0 for offset in self._offsets)

    def missing(self) -> Sequence[int]:
        """Numbers of the names that have no row yet; behind them those whose row has an error and
        that are tried again.
        """
        without = array("q", (number for number, offset in enumerate(self._offsets) if offset < 0))
        failed = array("q", (number for number in without if self._failed[number]))
        return array("q", (number for number in without if not self._failed[number])) + failed

    def add(self, number: int, stamp: Stamp, row: Mapping[str, Any]) -> None:
        """Append the row of `names[number]`; it is on disk at the latest after 256 rows or two
        seconds of rows.
        """
        if self._file is None:
            raise ValueError("the journal is not open")
        line = io.StringIO()
        writer = csv.DictWriter(line, ["size", "mtime_ns", *self.columns], lineterminator="\n")
        writer.writerow({"size": stamp.size, "mtime_ns": stamp.mtime_ns, **row})
        offset = self._file.tell()
        self._file.write(line.getvalue().encode())
        self._offsets[number] = offset
        self._unflushed += 1
        if (
            self._unflushed >= ROWS_PER_FLUSH
            or time.monotonic() - self._last_flush > SECONDS_PER_FLUSH
        ):
            self._flush()

    def publish(self, keep: bool = False) -> None:
        """Make the table of the rows, sorted by path. `keep`: rows of an earlier table stay, those
        of a same path give way.

        Raises:
            JobError: the earlier table has other columns, or cannot be read.
        """
        self._flush()
        earlier = self._earlier_rows() if keep and self.table.path.exists() else iter(())
        with open(self.path, "rb") as journal:
            ours = ((name, 0, row) for name, row in self._rows(journal))
            self.table.write(_first_of_each(heapq.merge(ours, earlier, key=itemgetter(0, 1))))

    def remove(self) -> None:
        """Forget the rows: the table is whole."""
        self.path.unlink(missing_ok=True)

    def _rows(self, journal: BinaryIO) -> Iterator[tuple[str, bytes]]:
        for name, offset in zip(self.names, self._offsets, strict=True):
            journal.seek(offset)
            yield name, journal.readline().split(b",", 2)[2]

    def _earlier_rows(self) -> Iterator[tuple[str, int, bytes]]:
        for line in self.table.lines():
            yield from_cell(next(csv.reader([line.decode()]))[0]), 1, line

    def _take_over(self, is_current: Callable[[str, Stamp], bool]) -> int:
        """Read what is there; returns where the good part ends."""
        with open(self.path, "rb") as file:
            header = file.readline()
            try:
                found = json.loads(header)
            except ValueError:
                return 0
            if not header.endswith(b"\n"):
                return 0
            if found != self._belongs_to:
                changed = [
                    key for key in self._belongs_to if found.get(key) != self._belongs_to[key]
                ]
                raise JobError(
                    f"{self.path} holds the rows of an interrupted run with other settings ({', '.join(changed)}). "
                    "Finish it with those, give another --output, or start again with --noresume."
                )
            end = len(header)
            for line in file:
                cells = _cells(line)
                if cells is None or len(cells) != 2 + len(self.columns):
                    break
                self._accept(cells, end, is_current)
                end += len(line)
        return end

    def _accept(
        self, cells: Sequence[str], offset: int, is_current: Callable[[str, Stamp], bool]
    ) -> None:
        name, stamp = from_cell(cells[2]), Stamp(int(cells[0]), int(cells[1]))
        number = bisect_left(self.names, name)
        is_wanted = number < len(self.names) and self.names[number] == name
        has_error = is_wanted and bool(cells[2 + self.columns.index("error")])
        if has_error:
            self._failed[number] = min(self._failed[number] + 1, 2)
        if is_wanted and not (has_error and self._failed[number] == 1) and is_current(name, stamp):
            self._offsets[number] = offset

    def _flush(self) -> None:
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._unflushed, self._last_flush = 0, time.monotonic()


def _first_of_each(rows: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    last = None
    for name, _, row in rows:
        if name != last:
            yield row
        last = name


def _cells(line: bytes) -> list[str] | None:
    """The cells of a whole row; None for anything else."""
    try:
        cells = next(csv.reader([line.decode()], strict=True))
        int(cells[0]), int(cells[1])
    except (ValueError, IndexError, csv.Error, StopIteration):
        return None
    return cells if line.endswith(b"\n") else None
