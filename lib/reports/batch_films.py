"""The films of a triage page: digests of their bytes, whole films, and what the network saw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lib.images.inputs import Inputs
from lib.images.reader import Film, Reader
from lib.prediction.classify import FilmClassifier
from lib.prediction.prediction import Prediction
from lib.prediction.request import Request
from lib.run import console
from lib.workers.processes import map_isolated
from lib.workers.threads import map_ordered


@dataclass(frozen=True)
class BatchFilms:
    """Films of one run by their names below its input; all results are in the order of `names`."""

    request: Request
    inputs: Inputs
    classifier: FilmClassifier

    def digests(self, names: Sequence[str]) -> Iterator[str]:
        """SHA-256 of each film's bytes; empty if they cannot be read."""
        digests = map_ordered(self.inputs.sha256, names, self.request.readers)
        return console.track(digests, "digests", len(names))

    def whole(self, names: Sequence[str], side: int) -> Iterator[Film]:
        """The films as squares of `side` pixels, not cropped; `Film.aspect` is that of the file."""
        options = self.request.options
        reader = self.inputs.reader(
            Reader(side, options.max_pixels, trust_headers=options.trust_headers)
        )
        sources = map(self.inputs.source, names)
        films = map_isolated(
            reader, reader.lost, sources, self.request.readers, self.request.options.seconds
        )
        return console.track(films, "whole films", len(names))

    def predict(self, names: Sequence[str]) -> Iterator[Prediction]:
        """Predictions with what the network saw and the evidence, computed once more."""
        predictions = self.classifier.predict(map(self.inputs.source, names))
        return console.track(predictions, "pictures", len(names))
