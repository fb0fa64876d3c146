"""The compiled model applied to files, without torch: decoding processes feed the graph."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from lib.images.decode import ANY_SIZE
from lib.images.files import FILE_SECONDS
from lib.images.reader import Reader, SourceReader
from lib.network.artifact import ModelManifest
from lib.network.choices import PrecisionChoice
from lib.network.graph import FILMS_PER_REQUEST, Graph
from lib.network.numerics import softmax
from lib.prediction.calibration import Calibration
from lib.prediction.prediction import Prediction
from lib.prediction.seen import CropSettings, SeeingReader, Seen
from lib.workers.processes import Isolated, start_server

Source = TypeVar("Source")  # what a reader takes: a path, or an object in a bucket


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
        """`readers` is the number of decoding processes, `seconds` the time that one film may take
        them.

        Raises:
            JobError: as `ModelManifest.read`, or as `ModelManifest.precision` for `precision`.
        """
        start_server("lib.prediction.preload")  # unless it runs already; beside the compilation
        self.folder = folder
        self.manifest = ModelManifest.read(folder)
        self.precision = self.manifest.precision(precision)
        calibration = Calibration.read(self.manifest.calibration)
        self._probabilities = calibration.probabilities if calibration else softmax
        self.crop = self._crop_of(folder)
        self.cores, self.readers, self.seconds = cores, readers, seconds

    @cached_property
    def graph(self) -> Graph:
        """Compiled at its first use, so that reading processes start meanwhile.

        Raises:
            JobError: the folder holds another model than the one that `manifest` describes.
        """
        try:
            return Graph(self.folder, self.precision, self.cores)
        finally:  # also where its files have gone
            self.manifest.require_in(self.folder)

    def _crop_of(self, folder: Path) -> CropSettings | None:
        if self.manifest.crop == "none":
            return None
        return CropSettings(
            folder.absolute(), self.manifest.input_side, self.manifest.even_exposure
        )

    def predict(self, paths: Iterable[Path]) -> Iterator[Prediction]:
        """One `Prediction` per path, in order."""
        with self.readers_of_files() as readers:
            yield from self.answers(readers, paths)

    def readers_of_files(self) -> Isolated[Path, Seen]:
        """`readers_of` files of any size: ingest has checked it."""
        return self.readers_of(Reader(self.manifest.decoded_side, ANY_SIZE, trust_headers=True))

    def readers_of(self, reader: SourceReader[Source]) -> Isolated[Source, Seen]:
        """Decoding processes that several calls of `answers` can use.

        `reader` gives films of `decoded_side` of the manifest.
        """
        seeing = SeeingReader(reader, self.crop)
        return Isolated(seeing, seeing.lost, self.readers, self.seconds, seeing.prepare)

    def answers(
        self, readers: Isolated[Source, Seen], sources: Iterable[Source]
    ) -> Iterator[Prediction]:
        """One `Prediction` per source, in order; films are read a few requests ahead.

        A film that crashes its decoder has an error in its prediction; no other film is affected.
        """
        films = readers.map(sources, self.readers + 2 * FILMS_PER_REQUEST)
        for seen, outputs in self.graph.stream(
            (seen, None if seen.film.error else seen.film.grey) for seen in films
        ):
            if outputs is None:
                yield Prediction(seen.film)
            else:
                logits, features, maps = outputs
                probabilities = self._probabilities(logits)
                yield Prediction(seen.film, logits, probabilities, features, maps, seen.lungs)
