"""A batch of films to rows of its table: what one machine does with them, and each node of a
cluster with its share.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib.images.inputs import Place
from lib.images.reader import Film, Reader
from lib.network.artifact import ModelManifest
from lib.network.graph import runtime_of_this_machine
from lib.prediction.maps import overlay
from lib.prediction.prediction import Prediction
from lib.prediction.predictor import Predictor
from lib.prediction.rows import Row, RowSchema, row_of
from lib.prediction.triage import Triage
from lib.run import console
from lib.storage.stamp import Stamp
from lib.workers.processes import Isolated
from lib.workers.ray import Cluster, Shipped, chunks_of

FILMS_PER_CHUNK = 256  # that travel to a node of a cluster together
Task = tuple[int, str, Stamp | None]  # a film's number, its name, and what the listing told of it


@dataclass(frozen=True)
class Settings:
    """What decides a row besides the film and the model."""

    precision: str
    operating_point: str = ""  # class that is called from its stored threshold on
    review_below: float = 0.0
    maps: bool = False  # draw where each answer comes from
    tags: tuple[str, ...] = ()  # DICOM keywords that become columns
    max_pixels: int = 2**40
    seconds: float = 20.0  # to read one film


@dataclass(frozen=True)
class Answer:
    """One film's row, the state its file was in, and its map as PNG where one was asked for."""

    stamp: Stamp
    row: Row
    map: bytes = b""


class Classifier:
    """A model folder, ready to answer films of a place. A context manager: its reading processes
    end with the block.
    """

    def __init__(
        self, model: Path, settings: Settings, place: Place, cores: int, readers: int
    ) -> None:
        """`readers` are the processes that decode. A precision of "auto" is settled here.

        Raises:
            JobError: as `ModelManifest.read`, or no threshold is stored for the operating point.
        """
        self.predictor = Predictor(model, settings.precision, cores, readers, settings.seconds)
        self.card = self.predictor.card
        self.settings = replace(settings, precision=self.predictor.precision)
        self._place = place
        self.triage = Triage.of(model, self.card, settings.operating_point, settings.review_below)
        self.schema = RowSchema(self.card.classes, settings.tags)
        reader = Reader(self.card.input_side, settings.max_pixels, tags=settings.tags)
        self._readers: Isolated[Any, Film] = self.predictor.readers_of(place.reader(reader))

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.__exit__()

    def predict(self, sources: Iterable[Any]) -> Iterator[Prediction]:
        """One prediction per source of the place, in order."""
        return self.predictor.answers(self._readers, sources)

    def answers(self, names: Sequence[str], numbers: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """The films `names[number]` for each of `numbers`, in this order."""
        sources = (self._place.source(names[number]) for number in numbers)
        for number, prediction in zip(numbers, self.predict(sources), strict=True):
            yield number, self.answer(names[number], prediction)

    def answer(self, name: str, prediction: Prediction) -> Answer:
        """The row of the film `name`, and its map where `settings.maps` asks for it."""
        row = row_of(name, prediction, self.triage, self.card.name)
        picture = b""
        if self.settings.maps and row.prediction:
            picture = draw_map(prediction, self.card.classes.index(row.prediction))
        return Answer(prediction.film.stamp, row, picture)


class ClusterClassifier:
    """The same on a Ray cluster: every worker process is a `Classifier` of its share. A context
    manager.
    """

    def __init__(
        self, address: str, model: Path, settings: Settings, place: Place, cores: int, readers: int
    ) -> None:
        """`cores` and `readers` are those of one worker process; 0: one.

        Raises:
            JobError: as `Cluster` and `Classifier`; nodes that do not see the films.
        """
        self.card = ModelManifest.read(model)
        Triage.of(model, self.card, settings.operating_point)
        self.schema = RowSchema(self.card.classes, settings.tags)
        self._model, self._place = model, place
        self._cluster = Cluster(address, cores or 1)
        self._readers = readers or self._cluster.cores
        self._nodes = self._cluster.nodes(runtime_of_this_machine, place.mounts)
        self.settings = replace(settings, precision=self._precision(settings.precision))

    def __enter__(self) -> "ClusterClassifier":
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.__exit__()

    def _precision(self, wanted: str) -> str:
        """ "auto" is bfloat16 where the model bears it and every node has it: one run has one
        precision.
        """
        if len({node.setup for node in self._nodes}) > 1:
            console.warn(
                "the nodes have different processors or libraries: the last digits of their answers may differ."
            )
        if wanted != "auto":
            return wanted
        return (
            "bf16"
            if self.card.bf16_agrees and all(node.has_bf16 for node in self._nodes)
            else "fp32"
        )

    def predict(self, sources: Iterable[Any]) -> Iterator[Prediction]:
        """As `Classifier.predict`, on this machine: for the few films of a page."""
        with Classifier(
            self._model, self.settings, self._place, self._cluster.cores, self._readers
        ) as here:
            yield from here.predict(sources)

    def answers(self, names: Sequence[str], numbers: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """The films `names[number]` for each of `numbers`, in the order in which they are answered."""
        if not numbers:
            return
        shipped = self._cluster.ship(self._model)
        share = Share(
            shipped, self.settings, self._place.anywhere(), self._cluster.cores, self._readers
        )
        pieces = chunks_of(len(numbers), self._cluster.workers(self._nodes), FILMS_PER_CHUNK)
        chunks = (
            [self._task(number, names[number]) for number in numbers[piece.start : piece.stop]]
            for piece in pieces
        )
        for answers in self._cluster.map(share, chunks):
            yield from answers

    def _task(self, number: int, name: str) -> Task:
        return number, name, self._place.listed(name)


@dataclass(frozen=True)
class Share:
    """How a worker process of a cluster makes the function that answers its chunks."""

    model: Shipped
    settings: Settings
    place: Place
    cores: int
    readers: int

    def __call__(self) -> Callable[[Sequence[Task]], list[tuple[int, Answer]]]:
        self.place.prepare()
        classifier = Classifier(
            self.model.unpack(), self.settings, self.place, self.cores, self.readers
        )

        def answer(tasks: Sequence[Task]) -> list[tuple[int, Answer]]:
            predictions = classifier.predict(
                self.place.source(name, listed) for _, name, listed in tasks
            )
            return [
                (number, classifier.answer(name, one))
                for (number, name, _), one in zip(tasks, predictions, strict=True)
            ]

        return answer


def draw_map(prediction: Prediction, number: int) -> bytes:
    """PNG: the film as the model sees it, and beside it the same film with the evidence for class
    `number`.
    """
    grey = prediction.film.grey
    over = overlay(grey, prediction.maps, number)
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([np.stack([grey] * 3, axis=2), np.asarray(over)])).save(buffer, "PNG")
    return buffer.getvalue()
