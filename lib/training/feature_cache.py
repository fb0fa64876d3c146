"""The outputs of the frozen layers, computed once per film and view and kept on disk.

Frozen layers are a pure function, so each view of a film passes them a single time, while threads
decode and augment the next ones. View 0 is the film itself, view n is what epoch n sees. One pass
gives two outputs (lib/network/taps.py): "cut", which Phase B trains on, and "pooled", which Phase A
trains on. An output is found by the content of its film: another split, more films or a fold of
them compute only what is new.
"""

import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
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
from lib.training.activation_store import Activations, ActivationStore, Shard, StoredRows
from lib.training.augmentation import augment
from lib.training.films import FilmReader, Part, TrainingFilm
from lib.training.machines import Machines
from lib.training.plan import Augmentation
from lib.workers.shipped import Shipped
from lib.workers.threads import map_ordered

VERSION = 5  # raised when reading, augmentation or graphs make something else of the same film
CHUNK = 64  # films that are computed and written together
LOOKAHEAD = 8  # films that are read ahead, beside one per reader
SECONDS_BETWEEN_SYNCS = 10.0  # work that a kill costs at most
View = tuple[int, Tap]  # number of a view, and an output of the backbone
ByTap = dict[Tap, Activations]  # (films × views, *shape), the views of a film together


@dataclass(frozen=True)
class CacheKey:
    """Everything that a cached activation depends on, apart from the film and the view."""

    backbone: str
    reader: FilmReader
    augmentation: Augmentation
    seed: int  # of the views
    weights_sha256: str  # of the backbone, last block included
    precision: Precision
    setup: str  # libraries and kind of CPU, which decide the last bits

    @property
    def folder_name(self) -> str:
        """Name of the folder that holds the activations."""
        content = json.dumps(asdict(self) | {"version": VERSION}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Wanted:
    """Activations that a training needs: some views and outputs of some films."""

    films: Sequence[TrainingFilm]
    views: Sequence[View]


@dataclass(frozen=True)
class Work:
    """A film, and those of its activations that are not stored."""

    film: TrainingFilm
    lacking: tuple[View, ...]

    @property
    def views(self) -> list[int]:
        """The views that must be computed, in order."""
        return sorted({view for view, _ in self.lacking})


class FrozenFeatures:
    """The frozen layers applied to training and validation films: read from the cache, or computed
    on demand where the cache is not filled.
    """

    def __init__(
        self,
        caches: Sequence[Path],
        key: CacheKey,
        films: Mapping[Part, Sequence[TrainingFilm]],
        write_graphs: Callable[[Path], None],
        machines: Machines,
    ) -> None:
        """`caches` are parents of all keys' folders: the first is written to, all are read.

        `write_graphs` makes missing graph files. Nothing is computed before `fill` or `batches`.
        `fill` uses the cluster of `machines`, if there is one; `batches` computes here.
        """
        self.folders = [cache / key.folder_name for cache in caches]
        self.folder, self.key, self.films = self.folders[0], key, films
        self.machines = machines
        self._write_graphs = write_graphs
        self._rows: dict[tuple[Part, View], StoredRows] = {}

    @cached_property
    def graphs(self) -> Path:
        """Folder of the graph files, beside the activations: the conversion takes seconds.

        Of two processes that make them at once, the first one's stay.
        """
        existing = [folder / "graphs" for folder in self.folders if (folder / "graphs").exists()]
        if existing:
            return existing[0]
        folder = self.folder / "graphs"
        partial = self.folder / f".graphs-{secrets.token_hex(8)}{atomic.PARTIAL}"
        atomic.make_folder(partial)
        try:
            self._write_graphs(partial)
            atomic.sync_tree(partial)
            os.rename(partial, folder)
            atomic.sync_folder(self.folder)
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
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

    def lacking_bytes(self, *wanted: Wanted) -> int:
        """Disk space of what `wanted` needs and the cache does not have."""
        return sum(
            2 * math.prod(self.shapes[tap])
            for work in self._work(wanted)
            for _, tap in work.lacking
        )

    def rows_of(self, part: Part, view: View) -> StoredRows:
        """Where the activations of a part lie."""
        if (part, view) not in self._rows:
            self._rows[part, view] = self.locate(self.films[part], view)
        return self._rows[part, view]

    def locate(self, films: Sequence[TrainingFilm], view: View) -> StoredRows:
        """Where the activations of some films lie."""
        return self._store(view).locate([film.key for film in films])

    def unused(self, *wanted: Wanted) -> list[Shard]:
        """The shards in the folder that is written to without a film of `wanted`."""
        used = {
            shard.path
            for one in wanted
            for view in one.views
            for shard in self.locate(one.films, view).used
        }
        every = (self._store((view, tap)) for view, tap in self._stored_views())
        return [shard for store in every for shard in store.own if shard.path not in used]

    def fill(self, wanted: Wanted, title: str) -> None:
        """Compute what is missing.

        Each film is decoded once for all of its views. `title` names the progress bar.
        """
        if self._work([wanted]):
            with atomic.lock(self.folder, "the feature cache of these films"):
                self._compute(self._work([wanted]), title)
            self._rows.clear()
        for view in wanted.views:
            for shard in self.locate(wanted.films, view).used:
                with suppress(OSError):  # a read-only folder
                    os.utime(shard.path)

    def _work(self, wanted: Iterable[Wanted]) -> list[Work]:
        films: dict[bytes, TrainingFilm] = {}
        lacking: dict[bytes, dict[View, None]] = {}
        for one in wanted:
            for view in one.views:
                for number in self.locate(one.films, view).missing:
                    film = one.films[number]
                    films.setdefault(film.key, film)
                    lacking.setdefault(film.key, {})[view] = None
        return [Work(film, tuple(lacking[key])) for key, film in films.items()]

    def _compute(self, work: Sequence[Work], title: str) -> None:
        lacking = Counter(view for one in work for view in one.lacking)
        shards = {view: self._store(view).writer(films) for view, films in lacking.items()}
        chunks = [work[begin : begin + CHUNK] for begin in range(0, len(work), CHUNK)]
        synced = time.monotonic()
        try:
            for chunk, rows in self._computed(chunks, title):
                _append(shards, chunk, rows)
                if time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                    _sync(shards.values())
                    synced = time.monotonic()
        finally:
            _sync(shards.values())

    def _computed(
        self, chunks: Sequence[Sequence[Work]], title: str
    ) -> Iterator[tuple[Sequence[Work], ByTap]]:
        """Each chunk with its activations: in order on this machine, in any order on a cluster."""
        cluster = self.machines.cluster
        if cluster:
            factory = WorkerFactory(cluster.ship(self.graphs), self.key, cluster.cores)
            shipped = ([_absolute(work) for work in chunk] for chunk in chunks)
            yield from console.track(
                cluster.map(factory, shipped), f"{title}, by {CHUNK} films", len(chunks)
            )
        else:
            rows = self._stream((one.film, one.views) for chunk in chunks for one in chunk)
            sizes = [sum(len(one.views) for one in chunk) for chunk in chunks]
            tracked = console.track(rows, title, sum(sizes))
            for chunk, size in zip(chunks, sizes, strict=True):
                yield chunk, _stacked(islice(tracked, size))

    def batches(
        self, part: Part, order: Sequence[int], size: int, view: int, tap: Tap
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in `order`: `(B, *shape) float32` activations and `(B,)` targets."""
        films, stored = self.films[part], self.rows_of(part, (view, tap))
        computed = (
            self._stream((films[index], [view]) for index in order) if stored.missing else None
        )
        for begin in range(0, len(order), size):
            members = list(order[begin : begin + size])
            rows = (
                stored.read(members)
                if computed is None
                else np.stack([next(computed)[TAPS.index(tap)] for _ in members])
            )
            activations = (
                torch.from_numpy(rows)
                .to(torch.float32)
                .contiguous(memory_format=torch.channels_last)
            )
            yield activations, torch.tensor([films[index].target for index in members])

    def _store(self, view: View) -> ActivationStore:
        number, tap = view
        return ActivationStore(self.folders, f"{number:03d}_{tap}", self.shapes[tap])

    def _stored_views(self) -> list[View]:
        names = {path.name.split("_")[0] for path in self.folder.glob("*.f16")}
        return [(int(name), tap) for name in sorted(names) for tap in TAPS]

    def _stream(self, films: Iterable[tuple[TrainingFilm, Sequence[int]]]) -> Iterator[Outputs]:
        return compute_views(self.graph, self.key, films, self.machines.readers)


@dataclass(frozen=True)
class WorkerFactory:
    """Makes, in a worker process of a cluster, the function that computes chunks."""

    graphs: Shipped
    key: CacheKey
    cores: int

    def __call__(self) -> Callable[[Sequence[Work]], tuple[Sequence[Work], ByTap]]:
        graph = Graph(self.graphs.unpack(), self.key.precision, self.cores)

        def compute(chunk: Sequence[Work]) -> tuple[Sequence[Work], ByTap]:
            films = ((one.film, one.views) for one in chunk)
            return chunk, _stacked(compute_views(graph, self.key, films, self.cores))

        return compute


def compute_views(
    graph: Graph,
    key: CacheKey,
    films: Iterable[tuple[TrainingFilm, Sequence[int]]],
    readers: int,
) -> Iterator[Outputs]:
    """The graph's outputs for the given views of every film, film by film."""

    def render(wanted: tuple[TrainingFilm, Sequence[int]]) -> list[Grey]:
        film, views = wanted
        grey = key.reader.read(film)
        return [
            augment(grey, key.augmentation, key.seed, view, film.number) if view else grey
            for view in views
        ]

    rendered = map_ordered(render, films, readers, lookahead=readers + LOOKAHEAD)
    for _, outputs in graph.stream((None, grey) for greys in rendered for grey in greys):
        assert outputs is not None
        yield outputs


def _absolute(work: Work) -> Work:
    return replace(work, film=replace(work.film, path=work.film.path.absolute()))


def _append(shards: Mapping[View, Shard], chunk: Sequence[Work], rows: ByTap) -> None:
    """Append to each shard those rows of a computed chunk that it lacks."""
    computed = [(one, view) for one in chunk for view in one.views]
    for (view, tap), shard in shards.items():
        chosen = [
            at
            for at, (one, own) in enumerate(computed)
            if own == view and (view, tap) in one.lacking
        ]
        if chosen:
            shard.append([computed[at][0].film.key for at in chosen], rows[tap][chosen])


def _stacked(rows: Iterable[Outputs]) -> ByTap:
    columns = zip(TAPS, zip(*rows, strict=True), strict=True)
    return {tap: np.stack(arrays).astype(np.float16) for tap, arrays in columns}


def _sync(shards: Iterable[Shard]) -> None:
    for shard in shards:
        shard.sync()
