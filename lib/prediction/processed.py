"""The contents that earlier runs have processed: what a run over a growing folder leaves out."""

import errno
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from lib.images.inputs import Inputs
from lib.run.errors import JobError, mapped
from lib.storage.stamp import Stamp
from lib.workers.threads import map_ordered

ATTEMPTS = 3  # runs that try a content whose failure may pass
_TABLES = """
CREATE TABLE IF NOT EXISTS contents (sha256 TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT
) WITHOUT ROWID;
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


class Processed:
    """A database of SHA-256 digests.

    A file that has kept its name, size and modification time is not read again for its digest.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, or make a new one.

        Raises:
            JobError: the file is no such database, or cannot be written.
        """
        self.path = path
        self._examined: dict[str, tuple[Stamp, str]] = {}  # by `new`: name → stamp, digest
        with _database_errors(path):
            self._database = sqlite3.connect(path)
            self._database.executescript(_TABLES)

    def new(self, films: Inputs, threads: int) -> list[str]:
        """The names of the films whose content no earlier run has recorded, or cannot be read."""
        names = []
        with _database_errors(self.path):
            known = {
                name: (Stamp(size, mtime), digest) for name, size, mtime, digest in self._rows()
            }
            examined = map_ordered(
                lambda name: _examine(films, name, known.get(_key(name))), films.names, threads
            )
            for name, (stamp, digest) in zip(films.names, examined, strict=True):
                self._examined[name] = stamp, digest
                query = "SELECT 1 FROM contents WHERE sha256 = ?"
                if not digest or self._database.execute(query, (digest,)).fetchone() is None:
                    names.append(name)
        return names

    def record(self, films: Inputs, failed: Collection[str] = ()) -> None:
        """Record every file that `new` has examined and that has not changed since.

        `failed` are names whose failure may pass (`may_pass`): their contents stay new until
        `ATTEMPTS` runs have failed.
        """
        unchanged = [
            (_key(name), stamp.size, stamp.mtime_ns, digest)
            for name, (stamp, digest) in self._examined.items()
            if digest and films.stamp(name) == stamp
        ]
        again = {self._examined[name][1] for name in failed if name in self._examined}
        with _database_errors(self.path), self._database:
            self._database.executemany(
                "INSERT INTO failures VALUES (?, 1) "
                "ON CONFLICT (sha256) DO UPDATE SET attempts = attempts + 1",
                ((digest,) for digest in again),
            )
            again &= {digest for (digest,) in self._unfinished()}
            self._database.executemany(
                "INSERT OR IGNORE INTO contents VALUES (?)",
                ((row[3],) for row in unchanged if row[3] not in again),
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", unchanged
            )

    def _unfinished(self) -> Iterator[tuple[str]]:
        query = "SELECT sha256 FROM failures WHERE attempts < ?"
        yield from self._database.execute(query, (ATTEMPTS,))

    def _rows(self) -> Iterator[tuple[bytes, int, int, str]]:
        yield from self._database.execute("SELECT name, size, mtime_ns, sha256 FROM files")


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _examine(films: Inputs, name: str, known: tuple[Stamp, str] | None) -> tuple[Stamp, str]:
    stamp = films.stamp(name)
    return known if known and known[0] == stamp else (stamp, films.sha256(name))


def _database_errors(path: Path) -> AbstractContextManager[None]:
    def translate(error: sqlite3.Error) -> JobError:
        return JobError(
            f"--incremental {path}: {error}. Give a new file name, or free space, and run again."
        )

    return mapped({sqlite3.Error: translate})
