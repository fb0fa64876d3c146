"""Films to rows: on one machine, or shared out over the nodes of a cluster."""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lib.images.inputs import Inputs
from lib.images.reader import Reader
from lib.network.artifact import ModelManifest
from lib.network.choices import Precision
from lib.network.graph import runtime_of_this_machine
from lib.prediction.map_files import draw_map
from lib.prediction.prediction import Prediction
from lib.prediction.predictor import Predictor
from lib.prediction.request import PredictOptions, Request
from lib.prediction.rows import Row, RowSchema, row_of
from lib.prediction.seen import Seen
from lib.prediction.triage import Triage
from lib.run import console
from lib.run.errors import JobError
from lib.storage.stamp import Stamp
from lib.workers.processes import Isolated
from lib.workers.ray import Cluster, Node, chunks_of
from lib.workers.shipped import Shipped

FILMS_PER_CHUNK = 256  # films that travel to a node of a cluster together
Task = tuple[int, str, Stamp | None]  # index and name of a film, and its stamp from the listing


@dataclass(frozen=True)
class Classified:
    """One film's row, the stamp of the file it was made of, and its map if one was asked for."""

    stamp: Stamp
    row: Row
    map: bytes = b""  # PNG


class FilmClassifier(Protocol):
    """Classifies films of one input with one model."""

    manifest: ModelManifest
    schema: RowSchema  # of the rows
    options: PredictOptions  # with the precision that was chosen for "auto"

    def classify(
        self, names: Sequence[str], indices: Iterable[int]
    ) -> Iterator[tuple[int, Classified]]:
        """The films `names[index]` for each of `indices`, in any order, with their index."""

    def predict(self, sources: Iterable[Any]) -> Iterator[Prediction]:
        """One prediction per source of the input, in order, computed on this machine."""


@contextmanager
def classifier_of(request: Request, films: Inputs) -> Iterator[FilmClassifier]:
    """The classifier for a request, ready for films.

    Raises:
        JobError: no model, or one of another backbone; no threshold for the operating point; a
            cluster that does not answer or does not see the films.
    """
    classifier: AbstractContextManager[FilmClassifier]
    if request.cluster:
        classifier = ClusterClassifier(
            request.cluster, request.model, request.options, films, request.cpus, request.workers
        )
    else:
        readers = request.readers
        if films.is_listed:
            readers = max(1, min(readers, len(films.names)))
        classifier = Classifier(request.model, request.options, films, request.cores, readers)
    with classifier as ready:
        has = ready.manifest.backbone
        if request.backbone not in (None, has):
            raise JobError(
                f"{request.model} holds {has}, but --backbone is {request.backbone}. Train "
                f"{request.backbone}, or leave the flag out."
            )
        yield ready


class Classifier:
    """A `FilmClassifier` of this machine. A context manager: its decoding processes end with it."""

    def __init__(
        self, model: Path, options: PredictOptions, films: Inputs, cores: int, readers: int
    ) -> None:
        """`model` is a folder; `readers` is the number of decoding processes.

        Raises:
            JobError: as `ModelManifest.read`, or no threshold is stored for the operating point.
        """
        self._predictor = Predictor(model, options.precision, cores, readers, options.seconds)
        self.manifest = self._predictor.manifest
        self.options = replace(options, precision=self._predictor.precision)
        self.schema = RowSchema(self.manifest.classes, options.tags, has_sample=options.sample > 0)
        self._films = films
        self._triage = Triage.of(
            model,
            self.manifest,
            options.rule.positive,
            options.review_below,
            options.rule.threshold,
        )
        reader = Reader(
            self.manifest.decoded_side,
            options.max_pixels,
            tags=options.tags,
            trust_headers=options.trust_headers,
        )
        self._readers: Isolated[Any, Seen] = self._predictor.readers_of(films.reader(reader))

    def __enter__(self) -> "Classifier":
        self._readers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.__exit__()

    def predict(self, sources: Iterable[Any]) -> Iterator[Prediction]:
        """See `FilmClassifier`."""
        return self._predictor.answers(self._readers, sources)

    def classify(
        self, names: Sequence[str], indices: Iterable[int]
    ) -> Iterator[tuple[int, Classified]]:
        """See `FilmClassifier`; in the order of `indices`."""
        return self.classify_tasks((index, names[index], None) for index in indices)

    def classify_tasks(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Classified]]:
        """One row per task, in order. Tasks are taken as films can be read.

        Where the tasks end with an error, such as a listing that breaks off, the films before it
        are finished first.
        """
        read: deque[Task] = deque()
        errors: list[JobError] = []

        def sources() -> Iterator[Any]:
            try:
                for task in tasks:
                    read.append(task)
                    yield self._films.source(task[1], task[2])
            except JobError as error:
                errors.append(error)

        for prediction in self.predict(sources()):
            index, name, _ = read.popleft()
            yield index, self._classified(name, prediction)
        if errors:
            raise errors[0]

    def _classified(self, name: str, prediction: Prediction) -> Classified:
        row = row_of(name, prediction, self._triage, self.manifest.name)
        png = b""
        if self.options.maps and row.prediction:
            png = draw_map(prediction, self.manifest.classes.index(row.prediction))
        return Classified(prediction.film.stamp, row, png)


class ClusterClassifier:
    """A `FilmClassifier` on a Ray cluster, with a `Classifier` in every worker process.

    A context manager: it connects when the block begins.
    """

    def __init__(
        self,
        address: str,
        model: Path,
        options: PredictOptions,
        films: Inputs,
        cores: int,
        readers: int,
    ) -> None:
        """`cores` and `readers` are those of one worker process; 0 means one.

        Raises:
            JobError: as `ModelManifest.read`, or no threshold is stored for the operating point.
        """
        self.manifest = ModelManifest.read(model)
        Triage.of(  # refuses an unknown operating point
            model, self.manifest, options.rule.positive, threshold=options.rule.threshold
        )
        self.schema = RowSchema(self.manifest.classes, options.tags, has_sample=options.sample > 0)
        self.options = options
        self._address, self._model, self._films = address, model, films
        self._cores = cores or 1
        self._readers = readers or self._cores
        self._connection = ExitStack()

    def __enter__(self) -> "ClusterClassifier":
        """Connect, and ask every node for its runtime.

        Raises:
            JobError: as `Cluster`, or a node does not see the films. The connection is closed.
        """
        with ExitStack() as opening:
            self._cluster = opening.enter_context(Cluster(self._address, self._cores))
            self._nodes = self._cluster.nodes(runtime_of_this_machine, self._films.mounts)
            self.options = replace(self.options, precision=self._precision(self._nodes))
            self._connection = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _precision(self, nodes: Sequence[Node]) -> Precision:
        """The precision of the whole run: "auto" is bf16 if the model and every node allow it."""
        if len({node.setup for node in nodes}) > 1:
            console.warn(
                "the nodes have different processors or libraries: the last digits of their "
                "probabilities may differ."
            )
        if self.options.precision != "auto":
            return self.options.precision
        is_bf16 = self.manifest.bf16_agrees and all(node.has_bf16 for node in nodes)
        return "bf16" if is_bf16 else "fp32"

    def predict(self, sources: Iterable[Any]) -> Iterator[Prediction]:
        """See `FilmClassifier`; for the few films of a page."""
        with Classifier(
            self._model, self.options, self._films, self._cores, self._readers
        ) as local:
            yield from local.predict(sources)

    def classify(
        self, names: Sequence[str], indices: Iterable[int]
    ) -> Iterator[tuple[int, Classified]]:
        """See `FilmClassifier`; in the order in which the nodes finish."""
        indices = array("q", indices)
        if not indices:
            return
        model = self._cluster.ship(self._model)
        self.manifest.require_in(self._model)
        factory = WorkerFactory(
            model,
            self.options,
            self._films.without_names(),
            self._cores,
            self._readers,
        )
        pieces = chunks_of(len(indices), self._cluster.workers(self._nodes), FILMS_PER_CHUNK)
        chunks = (
            [self._task(index, names[index]) for index in indices[piece.start : piece.stop]]
            for piece in pieces
        )
        for classified in self._cluster.map(factory, chunks):
            yield from classified

    def _task(self, index: int, name: str) -> Task:
        return index, name, self._films.listed(name)


@dataclass(frozen=True)
class WorkerFactory:
    """Makes, in a worker process of a cluster, the function that classifies a chunk of films."""

    model: Shipped
    options: PredictOptions
    films: Inputs
    cores: int
    readers: int

    def __call__(self) -> Callable[[Sequence[Task]], list[tuple[int, Classified]]]:
        """The function. It decodes and predicts with the processes and cores of this worker."""
        self.films.prepare()
        classifier = Classifier(
            self.model.unpack(), self.options, self.films, self.cores, self.readers
        )
        return lambda tasks: list(classifier.classify_tasks(tasks))
