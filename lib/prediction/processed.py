"""Contents that earlier runs have classified: a run over a growing folder skips them."""

import errno
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.images.inputs import Place
from lib.run.errors import JobError
from lib.storage.stamp import Stamp
from lib.workers.threads import map_ordered

ATTEMPTS = 3  # runs that try a content whose failure may pass
_TABLES = """
CREATE TABLE IF NOT EXISTS contents (sha256 TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (sha256 TEXT PRIMARY KEY, attempts INTEGER) WITHOUT ROWID;
"""
_PASSING = (  # in the error of a row: time, memory, input and output
    "took longer than",
    "memory",
    "changed while it was read",
    "cannot be fetched",
    *(
        os.strerror(number)
        for number in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY)
    ),
)


def may_pass(error: str) -> bool:
    """Whether the error of a row may be gone in the next run, with the same file."""
    return any(words in error for words in _PASSING)


class Seen:
    """A database of digests.

    A file that has kept its name, size and time is not read again to know its content.
    """

    def __init__(self, path: Path) -> None:
        """Open it, or make a new one.

        Raises:
            JobError: not such a database, or it cannot be written.
        """
        self.path = path
        self._looked_at: dict[str, tuple[Stamp, str]] = {}
        with _explained(path):
            self._database = sqlite3.connect(path)
            self._database.executescript(_TABLES)

    def unseen(self, place: Place, threads: int) -> list[str]:
        """The names of `place` whose content no earlier run has recorded, and those that cannot be
        read.
        """
        found = []
        with _explained(self.path):
            known = {
                name: (Stamp(size, mtime), digest) for name, size, mtime, digest in self._rows()
            }
            digests = map_ordered(
                lambda name: _look(place, name, known.get(_key(name))), place.names, threads
            )
            for name, (stamp, digest) in zip(place.names, digests, strict=True):
                self._looked_at[name] = stamp, digest
                query = "SELECT 1 FROM contents WHERE sha256 = ?"
                if not digest or self._database.execute(query, (digest,)).fetchone() is None:
                    found.append(name)
        return found

    def record(self, place: Place, failed: Collection[str] = ()) -> None:
        """Remember every file that `unseen` looked at and that has not changed since.

        `failed` are names whose failure may pass (`may_pass`): their contents stay unseen until
        `ATTEMPTS` runs have failed.
        """
        kept = [
            (_key(name), stamp.size, stamp.mtime_ns, digest)
            for name, (stamp, digest) in self._looked_at.items()
            if digest and place.stamp(name) == stamp
        ]
        again = {self._looked_at[name][1] for name in failed if name in self._looked_at}
        with _explained(self.path), self._database:
            self._database.executemany(
                "INSERT INTO failures VALUES (?, 1) "
                "ON CONFLICT (sha256) DO UPDATE SET attempts = attempts + 1",
                ((digest,) for digest in again),
            )
            again &= {digest for (digest,) in self._unfinished()}
            self._database.executemany(
                "INSERT OR IGNORE INTO contents VALUES (?)",
                ((row[3],) for row in kept if row[3] not in again),
            )
            self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", kept)

    def _unfinished(self) -> Iterator[tuple[str]]:
        query = "SELECT sha256 FROM failures WHERE attempts < ?"
        yield from self._database.execute(query, (ATTEMPTS,))

    def _rows(self) -> Iterator[tuple[bytes, int, int, str]]:
        yield from self._database.execute("SELECT name, size, mtime_ns, sha256 FROM files")


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _look(place: Place, name: str, known: tuple[Stamp, str] | None) -> tuple[Stamp, str]:
    stamp = place.stamp(name)
    return known if known and known[0] == stamp else (stamp, place.sha256(name))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise JobError(
            f"--incremental {path}: {error}. Give a new file name, or free space, and run again."
        ) from error
