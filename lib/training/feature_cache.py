"""What the frozen layers see, computed once: (film, view) → fp16 activations in memory-mapped
files, or streamed.

Frozen layers are a pure function, so each view of a film goes through them a single time, on
threads that decode and augment beside the compiled graph. View 0 is the film as it is, view n what
epoch n sees. Two taps leave the graph in the same pass (lib/network/export.py): "cut" is what Phase
B trains on, "pooled" what Phase A trains on.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.network.export import TAPS
from lib.network.graph import Graph
from lib.run import console
from lib.storage import atomic
from lib.training.augmentation import Film, augment, read_film
from lib.training.plan import Augmentation
from lib.workers.ray import Cluster, Shipped
from lib.workers.threads import map_ordered

CHUNK = 64  # films whose activations are written, and marked as written, together
SECONDS_BETWEEN_MARKS = 10.0  # what a kill costs at most
AUTO_VIEWS = (
    4  # views that "auto" asks for at most: more did not change the scores (docs/PERFORMANCE.md)
)
RESERVE = 500_000_000  # bytes of the disk that are left free in any case
Rows = dict[str, np.ndarray]  # by tap: (films × views, *shape) float16, film by film


@dataclass(frozen=True)
class Recipe:
    """All that a cached activation depends on, apart from the film and the number of its view."""

    backbone: str
    input_side: int
    augmentation: Augmentation
    seed: int
    split_sha256: str
    weights_sha256: str  # of the frozen backbone, last block included
    precision: str
    setup: str  # libraries and kind of CPU, which decide the last bits

    @property
    def key(self) -> str:
        """Name of the folder that holds the activations."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]


class Shelf:
    """One file of `(films, *shape) float16` for one view, written by chunks, and the marks of the
    chunks that are whole.
    """

    def __init__(self, path: Path, films: int, shape: tuple[int, ...]) -> None:
        self.path, self.films, self.shape = path, films, shape
        self.row_bytes = 2 * math.prod(shape)
        self.marks = np.zeros(-(-films // CHUNK), np.uint8)
        self._marks_path = path.with_suffix(".marks")
        whole = path.exists() and path.stat().st_size == films * self.row_bytes
        if (
            whole
            and self._marks_path.exists()
            and self._marks_path.stat().st_size == len(self.marks)
        ):
            self.marks = np.fromfile(self._marks_path, np.uint8)

    @property
    def is_whole(self) -> bool:
        return bool(self.marks.all())

    def write(self, chunk: int, rows: np.ndarray) -> None:
        """Write the rows of one chunk; `keep` makes it count."""
        if not self.path.exists():
            with open(
                self.path, "wb"
            ) as file:  # all its room at once: a full disk shows here, not in the middle
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self.films * self.row_bytes)
                else:  # macOS: the size alone
                    file.truncate(self.films * self.row_bytes)
        with open(self.path, "r+b") as file:
            file.seek(chunk * CHUNK * self.row_bytes)
            file.write(rows.astype(np.float16).tobytes())
        self.marks[chunk] = 1

    def keep(self) -> None:
        """Bring what was written to the disk, then its marks."""
        if self.path.exists():
            with open(self.path, "r+b") as file:
                os.fdatasync(file.fileno())
            with atomic.whole_file(self._marks_path) as marks:
                marks.write(self.marks.tobytes())

    @cached_property
    def rows(self) -> np.ndarray:
        """The whole file, mapped: `(films, *shape) float16`."""
        return np.memmap(self.path, np.float16, "r", shape=(self.films, *self.shape))


class FrozenFeatures:
    """The frozen layers applied to the training and validation films: streamed, or from the cache
    once it is filled.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        films: Mapping[str, Sequence[Film]],
        write_graphs: Callable[[Path], None],
        cores: int,
        readers: int,
        cluster: Cluster | None = None,
    ) -> None:
        """`folder` is that of the cache's key. `write_graphs` makes the graph files when they are
        not there yet.

        `films` has the parts "train" and "val". Nothing is computed before `fill` or `batches`.
        `fill` computes on a `cluster`, if there is one; its nodes must see the films under the same
        absolute paths.
        """
        self.folder, self.recipe, self.films = folder, recipe, films
        self.cores, self.readers, self.cluster = cores, readers, cluster
        self._write_graphs = write_graphs
        self._shelves: dict[tuple[str, int, str], Shelf] = {}

    @cached_property
    def graphs(self) -> Path:
        """Folder of the graph files; converting them from PyTorch takes seconds, so they stay
        beside the activations.
        """
        folder = self.folder / "graphs"
        if not folder.exists():
            partial = folder.with_name(f".graphs{atomic.PARTIAL}")
            shutil.rmtree(partial, ignore_errors=True)
            atomic.make_folder(partial)
            self._write_graphs(partial)
            atomic.swap_folder(partial, folder)
        return folder

    @cached_property
    def graph(self) -> Graph:
        """The compiled taps."""
        return Graph(self.graphs, self.recipe.precision, self.cores)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one film's activations by tap."""
        return {
            tap: tuple(shape)
            for tap, shape in json.loads((self.graphs / "shapes.json").read_text()).items()
        }

    def bytes_of(self, part: str, *taps: str) -> int:
        """Room that one view of all films of a part takes."""
        return len(self.films[part]) * sum(2 * math.prod(self.shapes[tap]) for tap in taps)

    def shelf(self, part: str, view: int, tap: str) -> Shelf:
        """The file of one view; it may be unfinished or missing."""
        address = (part, view, tap)
        if address not in self._shelves:
            path = self.folder / f"{part}_{view:03d}_{tap}.f16"
            self._shelves[address] = Shelf(path, len(self.films[part]), self.shapes[tap])
        return self._shelves[address]

    def fill(self, part: str, wanted: Sequence[tuple[int, str]], what: str) -> None:
        """Compute what is missing of `wanted`, pairs of view and tap. Each film is decoded once for
        all its views.
        """
        missing = [
            self.shelf(part, *address)
            for address in wanted
            if not self.shelf(part, *address).is_whole
        ]
        views = sorted({view for view, tap in wanted if not self.shelf(part, view, tap).is_whole})
        if not missing:
            return
        with atomic.lock(self.folder, "the feature cache of these films"):
            self._compute(part, wanted, views, missing, what)

    def _compute(
        self,
        part: str,
        wanted: Sequence[tuple[int, str]],
        views: Sequence[int],
        missing: Sequence[Shelf],
        what: str,
    ) -> None:
        marks = np.min([shelf.marks for shelf in missing], axis=0)
        chunks = [
            Chunk(number, self._members(part, number), views)
            for number in np.flatnonzero(marks == 0).tolist()
        ]
        kept = time.monotonic()
        try:
            for chunk, rows in self._computed(part, chunks, what):
                for view, tap in wanted:
                    shelf = self.shelf(part, view, tap)
                    if view in views and not shelf.marks[chunk.number]:
                        shelf.write(chunk.number, rows[tap][views.index(view) :: len(views)])
                if time.monotonic() - kept > SECONDS_BETWEEN_MARKS:
                    _keep(missing)
                    kept = time.monotonic()
        finally:
            _keep(missing)

    def _computed(
        self, part: str, chunks: Sequence["Chunk"], what: str
    ) -> Iterator[tuple["Chunk", Rows]]:
        """Each chunk and its activations: in order here, in any order on a cluster."""
        if self.cluster:
            films = [Film(film.path.absolute(), film.target) for film in self.films[part]]
            share = Share(self.cluster.ship(self.graphs), self.recipe, self.cluster.cores)
            work = ((chunk, [films[index] for index in chunk.members]) for chunk in chunks)
            yield from console.track(
                self.cluster.map(share, work), f"{what}, by {CHUNK} films", len(chunks)
            )
        else:
            todo = [index for chunk in chunks for index in chunk.members]
            views = chunks[0].views
            answers = console.track(self._stream(part, todo, views), what, len(todo) * len(views))
            for chunk in chunks:
                yield chunk, _stacked(islice(answers, len(chunk.members) * len(views)))

    def batches(
        self, part: str, order: Sequence[int], size: int, view: int, tap: str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`(B, *shape) float32` activations and `(B,)` targets in `order`: from the cache where it
        is whole, else streamed.
        """
        shelf = self.shelf(part, view, tap)
        streamed = None if shelf.is_whole else self._stream(part, order, [view])
        for begin in range(0, len(order), size):
            members = list(order[begin : begin + size])
            rows = (
                shelf.rows[members]
                if streamed is None
                else np.stack([next(streamed)[TAPS.index(tap)] for _ in members])
            )
            activations = (
                torch.from_numpy(rows)
                .to(torch.float32)
                .contiguous(memory_format=torch.channels_last)
            )
            yield activations, torch.tensor([self.films[part][index].target for index in members])

    def _members(self, part: str, chunk: int) -> range:
        return range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.films[part])))

    def _stream(
        self, part: str, order: Iterable[int], views: Sequence[int]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        films = ((index, self.films[part][index]) for index in order)
        return _activations(self.graph, self.recipe, films, views, self.readers)


def _activations(
    graph: Graph,
    recipe: Recipe,
    films: Iterable[tuple[int, Film]],
    views: Sequence[int],
    readers: int,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Outputs of the graph for every view of every film, film by film. A film comes with its number
    in its part.
    """

    def render(numbered: tuple[int, Film]) -> list[np.ndarray]:
        index, film = numbered
        grey = read_film(film, recipe.input_side)
        return [
            augment(grey, recipe.augmentation, recipe.seed, view, index) if view else grey
            for view in views
        ]

    rendered = map_ordered(render, films, readers, lookahead=readers + max(2, 16 // len(views)))
    for _, outputs in graph.stream((None, grey) for greys in rendered for grey in greys):
        assert outputs is not None
        yield outputs


def _stacked(rows: Iterable[tuple[np.ndarray, ...]]) -> Rows:
    return {
        tap: np.stack(arrays).astype(np.float16)
        for tap, arrays in zip(TAPS, zip(*rows, strict=True), strict=True)
    }


@dataclass(frozen=True)
class Chunk:
    """Films that are computed, written and marked together."""

    number: int
    members: range  # numbers of the films in their part
    views: Sequence[int]


@dataclass(frozen=True)
class Share:
    """How a worker process of a cluster makes the function that computes chunks."""

    graphs: Shipped
    recipe: Recipe
    cores: int

    def __call__(self) -> Callable[[tuple[Chunk, Sequence[Film]]], tuple[Chunk, Rows]]:
        graph = Graph(self.graphs.unpack(), self.recipe.precision, self.cores)

        def compute(work: tuple[Chunk, Sequence[Film]]) -> tuple[Chunk, Rows]:
            chunk, films = work
            numbered = zip(chunk.members, films, strict=True)
            return chunk, _stacked(
                _activations(graph, self.recipe, numbered, chunk.views, self.cores)
            )

        return compute


def _keep(shelves: Iterable[Shelf]) -> None:
    for shelf in shelves:
        shelf.keep()


def views_that_fit(at_most: int, bytes_per_view: int, room: int, memory: int) -> int:
    """How many views to keep: within `room` on the disk, and beyond the first within half of
    `memory` (bytes).

    More than fits into memory would be read from the disk again in every epoch.
    """
    on_disk = room // bytes_per_view
    in_memory = max(1, memory // 2 // bytes_per_view)
    return max(0, min(at_most, on_disk, in_memory))


def make_room(root: Path, keep: Path, wanted_gb: float) -> int:
    """Bytes that the folder `keep` may take of the cache `root`: `wanted_gb`, or half of the disk's
    free space for 0.

    Activations of other data, weights or settings are deleted, those unused for longest first, as
    far as they are in the way. With 0, activations that lie in `keep` may stay on a disk that has
    become full since.
    """
    atomic.make_folder(keep)
    with suppress(OSError):  # a read-only folder that holds all that is wanted will do
        os.utime(keep)
    others = sorted(
        (path for path in root.iterdir() if path.is_dir() and path != keep),
        key=lambda path: path.stat().st_mtime,
    )
    sizes = {path: _size(path) for path in (*others, keep)}
    free = shutil.disk_usage(root).free
    limit = int(wanted_gb * 1e9) if wanted_gb else (free + sum(sizes.values())) // 2
    limit = min(limit, free + sum(sizes.values()) - RESERVE)
    while others and sum(sizes.values()) > limit // 2:
        oldest = others.pop(0)
        shutil.rmtree(oldest, ignore_errors=True)
        del sizes[oldest]
    kept = 0 if wanted_gb else sum(path.stat().st_size for path in keep.glob("*.f16"))
    return max(kept, limit - sum(sizes[path] for path in others))


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
