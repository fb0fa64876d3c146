"""The rows of a table that is not finished: on disk as they come, reused after an interruption.

The journal lies beside the table, named .TABLE.journal. Its first line says which model and
settings the rows belong to. Every other line is one record: size and modification time of the
file, then the values of the table's columns. The table is written from the journal at the end.
"""

import csv
import heapq
import json
import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, BinaryIO

from lib.run.errors import JobError
from lib.storage import atomic
from lib.storage.cells import from_cell
from lib.storage.lines import LineCodec, Record
from lib.storage.stamp import Stamp
from lib.storage.tables import Table

ROWS_PER_FLUSH = 256
SECONDS_PER_FLUSH = 2.0
IsCurrent = Callable[[str, Stamp, Record], bool]  # by name and stamp of the film, and its row
_Keyed = tuple[str, int, Record]  # name; 0 for a new row, 1 for an earlier one; the row


class Journal:
    """The rows of one table, keyed by the sorted names of its inputs.

    A context manager. The caller holds the lock of the table.
    """

    def __init__(self, table: Table, names: Sequence[str], belongs_to: Mapping[str, Any]) -> None:
        """`names` are sorted; a new journal takes them as they come. One of the table's columns is
        `error`.

        `belongs_to` describes model and settings as JSON; a journal with another one is refused.
        """
        self.path = atomic.hidden_neighbour(table.path, "journal")
        self.table, self.names = table, names
        self._codec = LineCodec(table.columns)
        self._error = [column.name for column in table.columns].index("error")
        self._belongs_to = dict(belongs_to)
        self._offsets = array("q")  # of each name's row in the file; -1 or beyond the end: none
        self._failures = bytearray()  # rows with an error per name; 2 stands for more
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

    def open(self, resume: bool, is_current: IsCurrent) -> int:
        """Open the journal for rows. Returns how many rows of an interrupted run are reused.

        Complete rows that are current are reused. A row with an error is reused from the second
        error on, so that unreadable files do not slow every rerun. An incomplete last line is cut
        off.

        Raises:
            JobError: the journal belongs to another model or to other settings.
        """
        if not resume:
            self.path.unlink(missing_ok=True)
        end = self._reuse(is_current) if self.path.exists() else 0
        self._file = open(self.path, "ab")  # noqa: SIM115  # closed by __exit__
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)
        if end == 0:
            self._file.write(json.dumps(self._belongs_to).encode() + b"\n")
            self._flush()
        return sum(offset >= 0 for offset in self._offsets)

    def missing(self) -> Iterable[int]:
        """Indices of the names without a row; those whose row has an error come last.

        In a new journal they come as the names do.
        """
        if not self._offsets:
            return (index for index, _ in enumerate(self.names))
        without = array("q", (index for index, offset in enumerate(self._offsets) if offset < 0))
        failed = array("q", (index for index in without if self._failures[index]))
        return array("q", (index for index in without if not self._failures[index])) + failed

    def add(self, index: int, stamp: Stamp, record: Record) -> None:
        """Append the row of `names[index]`. It is on disk after 256 rows, or with the first row
        that comes two seconds later.
        """
        if self._file is None:
            raise ValueError("the journal is not open")
        line = self._codec.encode(record)
        offset = self._file.tell()
        self._file.write(b"%d,%d,%b" % (stamp.size, stamp.mtime_ns, line))
        self._offsets.extend(repeat(-1, index + 1 - len(self._offsets)))
        self._offsets[index] = offset
        self._unflushed += 1
        is_late = time.monotonic() - self._last_flush > SECONDS_PER_FLUSH
        if self._unflushed >= ROWS_PER_FLUSH or is_late:
            self._flush()

    def publish(self, keep: bool = False) -> None:
        """Write the table, sorted by name. `keep`: the rows of an earlier table stay, unless there
        is a new row of the same path.

        Raises:
            JobError: the earlier table has other columns, or cannot be read.
        """
        self._flush()
        earlier = self._earlier_rows() if keep and self.table.path.exists() else iter(())
        with open(self.path, "rb") as file:
            rows = heapq.merge(self._rows(file), earlier, key=itemgetter(0, 1))
            self.table.write(_first_of_each_name(rows))

    def remove(self) -> None:
        """Delete the journal: the table is complete."""
        self.path.unlink(missing_ok=True)

    def _rows(self, file: BinaryIO) -> Iterator[_Keyed]:
        def lines() -> Iterator[str]:
            for offset in self._offsets:
                file.seek(offset)
                yield file.readline().decode()

        for name, cells in zip(self.names, csv.reader(lines()), strict=True):
            yield name, 0, self._codec.decode(cells[2:])

    def _earlier_rows(self) -> Iterator[_Keyed]:
        for record in self.table.records():
            yield from_cell(str(record[0])), 1, record

    def _reuse(self, is_current: IsCurrent) -> int:
        """Register the rows of an interrupted run. Returns the offset behind the last good one."""
        with open(self.path, "rb") as file:
            header = file.readline()
            try:
                belongs_to = json.loads(header)
            except ValueError:
                return 0
            if not header.endswith(b"\n"):
                return 0
            self._require_same(belongs_to)
            self._offsets = array("q", [-1]) * len(self.names)
            self._failures = bytearray(len(self.names))
            end = len(header)
            for line in file:
                try:
                    stamp, record = self._parsed(line)
                except (ValueError, IndexError, csv.Error, StopIteration):
                    break
                self._register(stamp, record, end, is_current)
                end += len(line)
        return end

    def _require_same(self, belongs_to: Mapping[str, Any]) -> None:
        if belongs_to != self._belongs_to:
            wanted = self._belongs_to
            changed = [name for name in wanted if belongs_to.get(name) != wanted[name]]
            raise JobError(
                f"{self.path} holds the rows of an interrupted run with other settings "
                f"({', '.join(changed)}). Finish it with those, give another --output, or start "
                "again with --noresume."
            )

    def _parsed(self, line: bytes) -> tuple[Stamp, Record]:
        """Raises: ValueError, IndexError, csv.Error or StopIteration for anything but a row."""
        if not line.endswith(b"\n"):
            raise ValueError("incomplete")
        cells = next(csv.reader([line.decode()], strict=True))
        return Stamp(int(cells[0]), int(cells[1])), self._codec.decode(cells[2:])

    def _register(self, stamp: Stamp, record: Record, offset: int, is_current: IsCurrent) -> None:
        name = from_cell(str(record[0]))
        index = bisect_left(self.names, name)
        if index == len(self.names) or self.names[index] != name:
            return
        has_error = bool(record[self._error])
        if has_error:
            self._failures[index] = min(self._failures[index] + 1, 2)
        is_first_failure = has_error and self._failures[index] == 1
        if not is_first_failure and is_current(name, stamp, record):
            self._offsets[index] = offset

    def _flush(self) -> None:
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._unflushed, self._last_flush = 0, time.monotonic()


def _first_of_each_name(rows: Iterable[_Keyed]) -> Iterator[Record]:
    last = None
    for name, _, record in rows:
        if name != last:
            yield record
        last = name
