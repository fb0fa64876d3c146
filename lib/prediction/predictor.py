"""The compiled model applied to files, without torch: decoding processes feed the graph."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lib.images.decode import ANY_SIZE
from lib.images.files import FILE_SECONDS
from lib.images.reader import Film, FilmReader, Reader
from lib.network.artifact import ModelManifest
from lib.network.choices import PrecisionChoice
from lib.network.graph import FILMS_PER_REQUEST, Graph, Source
from lib.network.numerics import softmax
from lib.prediction.prediction import Prediction
from lib.workers.processes import Isolated, start_server


class Predictor:
    """A model folder, compiled and ready for files."""

    def __init__(
        self,
        folder: Path,
        precision: PrecisionChoice,
        cores: int,
        readers: int,
        seconds: float = FILE_SECONDS,
    ) -> None:
        """`precision` is "auto", "fp32" or "bf16"; `readers` is the number of decoding processes,
        `seconds` the time that one film may take them.

        Raises:
            JobError: as `ModelManifest.read`.
        """
        start_server()  # takes 0.2 s beside the compilation
        self.card = ModelManifest.read(folder)
        self.precision = self.card.precision(precision)
        self.temperature = self.card.calibration["temperature"] if self.card.calibration else 1.0
        self.graph = Graph(folder, self.precision, cores)
        self.readers, self.seconds = readers, seconds

    def predict(self, paths: Iterable[Path]) -> Iterator[Prediction]:
        """One `Prediction` per path, in order. Any size is decoded: ingest has checked it."""
        with self.readers_of(Reader(self.card.input_side, ANY_SIZE, trust_headers=True)) as readers:
            yield from self.answers(readers, paths)

    def readers_of(self, reader: FilmReader[Source]) -> Isolated[Source, Film]:
        """Decoding processes that several calls of `answers` can use.

        `reader` gives films with the side that the model takes.
        """
        return Isolated(reader, reader.lost, self.readers, self.seconds)

    def answers(
        self, readers: Isolated[Source, Film], sources: Iterable[Source]
    ) -> Iterator[Prediction]:
        """One `Prediction` per source, in order; films are read a few requests ahead.

        A film that crashes its decoder has an error in its prediction; no other film is affected.
        """
        films = readers.map(sources, self.readers + 2 * FILMS_PER_REQUEST)
        for film, outputs in self.graph.stream(
            (film, None if film.error else film.grey) for film in films
        ):
            if outputs is None:
                yield Prediction(film)
            else:
                logits, features, maps = outputs
                yield Prediction(film, logits, softmax(logits / self.temperature), features, maps)
