"""The compiled model applied to files: decoded in processes of their own, answered in input order,
without torch.
"""

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
        """`precision` is "auto", "fp32" or "bf16"; `readers` are the processes that decode,
        `seconds` their time per film.

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
        """One `Prediction` per path, in order. Films may have any size: ingest let them in under
        its limit.
        """
        with self.readers_of(Reader(self.card.input_side, ANY_SIZE)) as readers:
            yield from self.answers(readers, paths)

    def readers_of(self, reader: FilmReader[Source]) -> Isolated[Source, Film]:
        """Processes that read with `reader`, which has the model's `side`, and outlast a call of
        `answers`.
        """
        return Isolated(reader, reader.lost, self.readers, self.seconds)

    def answers(
        self, readers: Isolated[Source, Film], sources: Iterable[Source]
    ) -> Iterator[Prediction]:
        """One `Prediction` per source, in order; files are read a few requests ahead.

        One that crashes its decoder is an error in its prediction and harms no other.
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
