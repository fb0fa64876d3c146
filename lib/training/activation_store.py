"""Cached activations of one view and one output of the backbone, found by the content of a film."""

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.run.errors import JobError
from lib.storage import atomic

SHARD_FILMS = 4096  # a shard with fewer is appended to; with more, the next filling begins another
KEY_BYTES = 32  # the SHA-256 of a film's file
SUFFIX = ".f16"
Activations = NDArray[np.float16]


class Shard:
    """`(films, *shape) float16`, appended to, and beside it a file with the key of each row.

    A key is written after its row is on the disk, so a row counts as soon as it has a key. Space
    without keys is what an interrupted filling had reserved; the next one uses it.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.row_bytes = 2 * math.prod(shape)
        self.keys = self._read_keys()
        self._synced = len(self.keys)

    def _read_keys(self) -> list[bytes]:
        try:
            content = _keys_path(self.path).read_bytes()
            films = min(len(content) // KEY_BYTES, self.path.stat().st_size // self.row_bytes)
        except FileNotFoundError:
            return []
        return [content[at * KEY_BYTES : (at + 1) * KEY_BYTES] for at in range(films)]

    def reserve(self, films: int) -> None:
        """Allocate space for more films: a full disk is noticed here.

        The caller holds the lock of the folder, as for `append` and `sync`.
        """
        self._write_keys([])  # first: a key that a damaged file has lost the row of is dropped
        size = (len(self.keys) + films) * self.row_bytes
        # Where a file system cannot allocate, glibc writes the blocks: it must read them too, and
        # refuses a file that is open for appending.
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            elif file.seek(0, os.SEEK_END) < size:  # macOS: the size alone
                file.truncate(size)

    def append(self, keys: Sequence[bytes], rows: Activations) -> None:
        """Write rows. `sync` makes them durable and lets them count."""
        with open(self.path, "r+b") as file:
            file.seek(len(self.keys) * self.row_bytes)
            file.write(rows.astype(np.float16).tobytes())
        self.keys += keys

    def sync(self) -> None:
        """Flush the rows to the disk, then write their keys."""
        if len(self.keys) > self._synced:
            with open(self.path, "r+b") as file:
                os.fsync(file.fileno())
            self._write_keys(self.keys[self._synced :])
            self._synced = len(self.keys)

    def _write_keys(self, more: Sequence[bytes]) -> None:
        path = _keys_path(self.path)
        with open(path, "r+b" if path.exists() else "wb") as file:
            file.seek(self._synced * KEY_BYTES)
            file.write(b"".join(more))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        atomic.sync_folder(path.parent)

    def rows(self) -> Activations:
        """The rows that count, memory-mapped: `(films, *shape) float16`."""
        shape = (len(self.keys), *self.shape)
        return np.asarray(np.memmap(self.path, np.float16, "r", shape=shape))


def delete_shard(path: Path) -> None:
    """Delete both files of a shard. A process that reads the rows keeps them until it ends."""
    _keys_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _keys_path(path: Path) -> Path:
    return path.with_suffix(".keys")


@dataclass(frozen=True)
class StoredRows:
    """Where the activations of a list of films lie."""

    shards: Sequence[Shard]
    shard_of: NDArray[np.int64]  # by film, -1: not stored
    row_of: NDArray[np.int64]
    mapped: Sequence[Activations]

    @property
    def missing(self) -> list[int]:
        """Numbers of the films that are not stored."""
        return np.flatnonzero(self.shard_of < 0).tolist()

    @property
    def used(self) -> list[Shard]:
        """The shards that hold one of the films."""
        return [self.shards[number] for number in np.unique(self.shard_of).tolist() if number >= 0]

    def read(self, films: Sequence[int]) -> Activations:
        """The rows of stored films, by number: `(films, *shape) float16`.

        Raises:
            JobError: one of the films is not stored.
        """
        shards, rows = self.shard_of[films], self.row_of[films]
        if (shards < 0).any():
            raise JobError(
                f"the feature cache lacks {(shards < 0).sum()} of {len(shards)} films: another "
                "run made room there. Run the job again; it computes what is missing."
            )
        if len(shards) and (shards == shards[0]).all():
            together: Activations = self.mapped[shards[0]][rows]
            return together
        places = zip(shards.tolist(), rows.tolist(), strict=True)
        return np.stack([self.mapped[shard][row] for shard, row in places])


class ActivationStore:
    """The shards of one view and one output, in one folder or several.

    Several processes may read while one, which holds the lock of the first folder, writes.
    """

    def __init__(self, folders: Sequence[Path], name: str, shape: tuple[int, ...]) -> None:
        """`name` begins the names of the files. New rows go to the first of `folders`."""
        self.folders, self.name, self.shape = folders, name, shape

    def locate(self, keys: Sequence[bytes]) -> StoredRows:
        """Find the rows of films; one content at two places has one row."""
        shards: list[Shard] = []
        mapped: list[Activations] = []
        found: dict[bytes, tuple[int, int]] = {}
        for shard in self._shards(self.folders):
            with suppress(FileNotFoundError):  # deleted in this moment, to make room
                mapped.append(shard.rows() if shard.keys else np.empty(0, np.float16))
                for row, key in enumerate(shard.keys):
                    found[key] = len(shards), row
                shards.append(shard)
        places = np.array([found.get(key, (-1, -1)) for key in keys], np.int64).reshape(-1, 2)
        return StoredRows(shards, places[:, 0], places[:, 1], mapped)

    @property
    def own(self) -> list[Shard]:
        """The shards in the folder that is written to, the newest last."""
        return self._shards(self.folders[:1])

    def writer(self, films: int) -> Shard:
        """A shard with reserved space for `films` more: the last one, or a new one."""
        own = self.own
        if own and len(own[-1].keys) < SHARD_FILMS:
            shard = own[-1]
        else:
            number = 1 + (int(own[-1].path.stem.rpartition("_")[2]) if own else 0)
            path = self.folders[0] / f"{self.name}_{number:06d}{SUFFIX}"
            shard = Shard(path, self.shape)
        shard.reserve(films)
        return shard

    def _shards(self, folders: Iterable[Path]) -> list[Shard]:
        paths = [p for folder in folders for p in sorted(folder.glob(f"{self.name}_*{SUFFIX}"))]
        return [Shard(path, self.shape) for path in paths]
