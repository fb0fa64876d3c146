"""The compiled model applied to files, without torch: decoding processes feed the graph."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from lib.images.decode import ANY_SIZE
from lib.images.files import FILE_SECONDS
from lib.images.reader import Film, FilmReader, Reader
from lib.network.artifact import ModelManifest
from lib.network.choices import PrecisionChoice
from lib.network.crop import LungCropper, decoded_side
from lib.network.graph import FILMS_PER_REQUEST, Graph, Source
from lib.network.lungs import Lungs
from lib.network.numerics import softmax
from lib.prediction.calibration import Calibration
from lib.prediction.prediction import Prediction
from lib.workers.processes import Isolated, start_server
from lib.workers.threads import map_ordered


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
        start_server()  # unless it runs already: it takes 0.2 s beside the compilation
        self.folder = folder
        self.manifest = ModelManifest.read(folder)
        self.precision = self.manifest.precision(precision)
        calibration = Calibration.read(self.manifest.calibration)
        self._probabilities = calibration.probabilities if calibration else softmax
        self._cropper = self._cropper_of(cores)
        self.graph = Graph(folder, self.precision, cores)
        self.cores, self.readers, self.seconds = cores, readers, seconds

    def _cropper_of(self, cores: int) -> LungCropper | None:
        if self.manifest.crop == "none":
            return None
        return LungCropper(cores, self.folder, even_exposure=self.manifest.even_exposure)

    @property
    def decoded_side(self) -> int:
        """Pixels that readers decode a film to; cropping comes behind it."""
        return decoded_side(self.manifest.input_side, self.manifest.crop)

    def predict(self, paths: Iterable[Path]) -> Iterator[Prediction]:
        """One `Prediction` per path, in order. Any size is decoded: ingest has checked it."""
        least = self.manifest.input_side
        reader = Reader(self.decoded_side, ANY_SIZE, trust_headers=True, least_side=least)
        with self.readers_of(reader) as readers:
            yield from self.answers(readers, paths)

    def readers_of(self, reader: FilmReader[Source]) -> Isolated[Source, Film]:
        """Decoding processes that several calls of `answers` can use.

        `reader` gives films of `decoded_side`.
        """
        return Isolated(reader, reader.lost, self.readers, self.seconds)

    def answers(
        self, readers: Isolated[Source, Film], sources: Iterable[Source]
    ) -> Iterator[Prediction]:
        """One `Prediction` per source, in order; films are read a few requests ahead.

        A film that crashes its decoder has an error in its prediction; no other film is affected.
        """
        films = readers.map(sources, self.readers + 2 * FILMS_PER_REQUEST)
        for (film, lungs), outputs in self.graph.stream(
            ((film, lungs), None if film.error else film.grey) for film, lungs in self._seen(films)
        ):
            if outputs is None:
                yield Prediction(film)
            else:
                logits, features, maps = outputs
                probabilities = self._probabilities(logits)
                yield Prediction(film, logits, probabilities, features, maps, lungs)

    def _seen(self, films: Iterable[Film]) -> Iterator[tuple[Film, Lungs | None]]:
        """Films as the network sees them, in order, with the lungs if the model takes crops."""
        if self._cropper is None:
            return ((film, None) for film in films)
        ahead = 2 * self.cores + FILMS_PER_REQUEST
        return map_ordered(self._cropped, films, self.cores, ahead)

    def _cropped(self, film: Film) -> tuple[Film, Lungs | None]:
        if film.error:
            return film, None
        assert self._cropper
        view = self._cropper.view(film.grey, self.manifest.input_side)
        return replace(film, grey=view.grey), view.lungs
