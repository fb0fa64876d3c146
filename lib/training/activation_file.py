"""One file of cached activations: all films of a part, one view, one output of the backbone."""

import math
import os
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.storage import atomic

CHUNK = 64  # films whose activations are written and marked together
Activations = NDArray[np.float16]


class ActivationFile:
    """`(films, *shape) float16`, written by chunks, with a mark for each finished chunk.

    The marks lie beside it in a file of their own. A file without valid marks counts as empty.
    """

    def __init__(self, path: Path, films: int, shape: tuple[int, ...]) -> None:
        self.path, self.films, self.shape = path, films, shape
        self.row_bytes = 2 * math.prod(shape)
        self.marks = np.zeros(-(-films // CHUNK), np.uint8)
        self._marks_path = path.with_suffix(".marks")
        if _has_size(path, films * self.row_bytes) and _has_size(self._marks_path, len(self.marks)):
            self.marks = np.fromfile(self._marks_path, np.uint8)

    @property
    def is_whole(self) -> bool:
        """Whether every chunk is written."""
        return bool(self.marks.all())

    def write(self, chunk: int, rows: Activations) -> None:
        """Write the rows of one chunk. `sync` makes them durable."""
        if not self.path.exists():
            with open(self.path, "wb") as file:  # allocated whole: a full disk is noticed here
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self.films * self.row_bytes)
                else:  # macOS: the size alone
                    file.truncate(self.films * self.row_bytes)
        with open(self.path, "r+b") as file:
            file.seek(chunk * CHUNK * self.row_bytes)
            file.write(rows.astype(np.float16).tobytes())
        self.marks[chunk] = 1

    def sync(self) -> None:
        """Flush the rows to the disk, then write their marks."""
        if self.path.exists():
            with open(self.path, "r+b") as file:
                os.fsync(file.fileno())
            with atomic.whole_file(self._marks_path) as marks:
                marks.write(self.marks.tobytes())

    @cached_property
    def rows(self) -> Activations:
        """The whole file, memory-mapped: `(films, *shape) float16`."""
        return np.memmap(self.path, np.float16, "r", shape=(self.films, *self.shape))


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
