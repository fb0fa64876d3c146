"""The outputs of the frozen layers, computed once per film and view and kept on disk.

Frozen layers are a pure function, so each view of a film passes them a single time, while threads
decode and augment the next ones. View 0 is the film itself, view n is what epoch n sees. One pass
gives two outputs (lib/network/taps.py): "cut", which Phase B trains on, and "pooled", which Phase A
trains on.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.network.choices import TAPS, Precision, Tap
from lib.network.graph import Graph, Outputs
from lib.network.numerics import Grey
from lib.run import console
from lib.storage import atomic
from lib.training.activation_file import CHUNK, ActivationFile, Activations
from lib.training.augmentation import augment
from lib.training.films import FilmReader, LabelledFilm, Part
from lib.training.machines import Machines
from lib.training.plan import Augmentation
from lib.workers.shipped import Shipped
from lib.workers.threads import map_ordered

SECONDS_BETWEEN_SYNCS = 10.0  # work that a kill costs at most
ByTap = dict[Tap, Activations]  # (films × views, *shape), the views of a film together


@dataclass(frozen=True)
class CacheKey:
    """Everything that a cached activation depends on, apart from the film and the view."""

    backbone: str
    reader: FilmReader
    augmentation: Augmentation
    seed: int  # of the views
    split_sha256: str
    weights_sha256: str  # of the backbone, last block included
    precision: Precision
    setup: str  # libraries and kind of CPU, which decide the last bits

    @property
    def folder_name(self) -> str:
        """Name of the folder that holds the activations."""
        content = asdict(self)
        content |= content.pop("reader")
        if not self.reader.segmenter:  # the folders of earlier versions
            del content["segmenter"]
        if self.augmentation.acquisition is None:
            del content["augmentation"]["acquisition"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Chunk:
    """Films that are computed, written and marked together."""

    number: int
    members: range  # numbers of the films in their part
    views: Sequence[int]


class FrozenFeatures:
    """The frozen layers applied to training and validation films: read from the cache, or computed
    on demand where the cache is not filled.
    """

    def __init__(
        self,
        cache: Path,
        key: CacheKey,
        films: Mapping[Part, Sequence[LabelledFilm]],
        write_graphs: Callable[[Path], None],
        machines: Machines,
    ) -> None:
        """`cache` is the parent of all keys' folders; `write_graphs` makes missing graph files.

        Nothing is computed before `fill` or `batches`. `fill` uses the cluster of `machines`, if
        there is one; `batches` computes here.
        """
        self.folder, self.key, self.films = cache / key.folder_name, key, films
        self.machines = machines
        self._write_graphs = write_graphs
        self._files: dict[tuple[Part, int, Tap], ActivationFile] = {}

    @cached_property
    def graphs(self) -> Path:
        """Folder of the graph files, beside the activations: the conversion takes seconds."""
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
        """The compiled frozen layers."""
        return Graph(self.graphs, self.key.precision, self.machines.cores)

    @cached_property
    def shapes(self) -> dict[Tap, tuple[int, ...]]:
        """Shape of one film's activations by output."""
        content = json.loads((self.graphs / "shapes.json").read_text())
        return {tap: tuple(content[tap]) for tap in TAPS}

    def bytes_of(self, part: Part, *taps: Tap) -> int:
        """Disk space of one view of all films of a part."""
        return len(self.films[part]) * sum(2 * math.prod(self.shapes[tap]) for tap in taps)

    def file_of(self, part: Part, view: int, tap: Tap) -> ActivationFile:
        """The file of one view; it may be unfinished or missing."""
        address = (part, view, tap)
        if address not in self._files:
            path = self.folder / f"{part}_{view:03d}_{tap}.f16"
            self._files[address] = ActivationFile(path, len(self.films[part]), self.shapes[tap])
        return self._files[address]

    def fill(self, part: Part, wanted: Sequence[tuple[int, Tap]], title: str) -> None:
        """Compute the missing ones of `wanted`, pairs of view and output.

        Each film is decoded once for all of its views. `title` names the progress bar.
        """
        missing = [pair for pair in wanted if not self.file_of(part, *pair).is_whole]
        if missing:
            with atomic.lock(self.folder, "the feature cache of these films"):
                self._compute(part, missing, title)

    def _compute(self, part: Part, missing: Sequence[tuple[int, Tap]], title: str) -> None:
        files = {pair: self.file_of(part, *pair) for pair in missing}
        views = sorted({view for view, _ in missing})
        unmarked = np.flatnonzero(np.min([file.marks for file in files.values()], axis=0) == 0)
        chunks = [Chunk(n, self._members(part, n), views) for n in unmarked.tolist()]
        synced = time.monotonic()
        try:
            for chunk, rows in self._computed(part, chunks, title):
                for (view, tap), file in files.items():
                    if not file.marks[chunk.number]:
                        file.write(chunk.number, rows[tap][views.index(view) :: len(views)])
                if time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                    _sync(files.values())
                    synced = time.monotonic()
        finally:
            _sync(files.values())

    def _computed(
        self, part: Part, chunks: Sequence[Chunk], title: str
    ) -> Iterator[tuple[Chunk, ByTap]]:
        """Each chunk with its activations: in order on this machine, in any order on a cluster."""
        cluster = self.machines.cluster
        if cluster:
            films = [LabelledFilm(one.path.absolute(), one.target) for one in self.films[part]]
            factory = WorkerFactory(cluster.ship(self.graphs), self.key, cluster.cores)
            work = ((chunk, [films[index] for index in chunk.members]) for chunk in chunks)
            yield from console.track(
                cluster.map(factory, work), f"{title}, by {CHUNK} films", len(chunks)
            )
        else:
            members = [index for chunk in chunks for index in chunk.members]
            views = chunks[0].views
            rows = self._stream(part, members, views)
            tracked = console.track(rows, title, len(members) * len(views))
            for chunk in chunks:
                yield chunk, _stacked(islice(tracked, len(chunk.members) * len(views)))

    def batches(
        self, part: Part, order: Sequence[int], size: int, view: int, tap: Tap
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in `order`: `(B, *shape) float32` activations and `(B,)` targets."""
        file = self.file_of(part, view, tap)
        computed = None if file.is_whole else self._stream(part, order, [view])
        for begin in range(0, len(order), size):
            members = list(order[begin : begin + size])
            rows = (
                file.rows[members]
                if computed is None
                else np.stack([next(computed)[TAPS.index(tap)] for _ in members])
            )
            activations = (
                torch.from_numpy(rows)
                .to(torch.float32)
                .contiguous(memory_format=torch.channels_last)
            )
            yield activations, torch.tensor([self.films[part][index].target for index in members])

    def _members(self, part: Part, chunk: int) -> range:
        return range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.films[part])))

    def _stream(self, part: Part, order: Iterable[int], views: Sequence[int]) -> Iterator[Outputs]:
        films = ((index, self.films[part][index]) for index in order)
        return compute_views(self.graph, self.key, films, views, self.machines.readers)


@dataclass(frozen=True)
class WorkerFactory:
    """Makes, in a worker process of a cluster, the function that computes chunks."""

    graphs: Shipped
    key: CacheKey
    cores: int

    def __call__(
        self,
    ) -> Callable[[tuple[Chunk, Sequence[LabelledFilm]]], tuple[Chunk, ByTap]]:
        graph = Graph(self.graphs.unpack(), self.key.precision, self.cores)

        def compute(work: tuple[Chunk, Sequence[LabelledFilm]]) -> tuple[Chunk, ByTap]:
            chunk, films = work
            numbered = zip(chunk.members, films, strict=True)
            rows = compute_views(graph, self.key, numbered, chunk.views, self.cores)
            return chunk, _stacked(rows)

        return compute


def compute_views(
    graph: Graph,
    key: CacheKey,
    films: Iterable[tuple[int, LabelledFilm]],
    views: Sequence[int],
    readers: int,
) -> Iterator[Outputs]:
    """The graph's outputs for every view of every film, film by film.

    A film comes with its number in its part, on which its augmentation depends.
    """

    def render(numbered: tuple[int, LabelledFilm]) -> list[Grey]:
        index, film = numbered
        grey = key.reader.read(film)
        return [
            augment(grey, key.augmentation, key.seed, view, index) if view else grey
            for view in views
        ]

    rendered = map_ordered(render, films, readers, lookahead=readers + max(2, 16 // len(views)))
    for _, outputs in graph.stream((None, grey) for greys in rendered for grey in greys):
        assert outputs is not None
        yield outputs


def _stacked(rows: Iterable[Outputs]) -> ByTap:
    columns = zip(TAPS, zip(*rows, strict=True), strict=True)
    return {tap: np.stack(arrays).astype(np.float16) for tap, arrays in columns}


def _sync(files: Iterable[ActivationFile]) -> None:
    for file in files:
        file.sync()
