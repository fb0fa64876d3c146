"""Which predictions need a review by a person, and why."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lib.images.measure import LOW_CONTRAST
from lib.prediction.calibration import Calibration, Reference
from lib.prediction.classes import ABNORMAL, has_screening_score, is_positive
from lib.prediction.prediction import Prediction
from lib.run.errors import JobError

if TYPE_CHECKING:  # these modules load the inference engine
    from lib.network.artifact import ModelManifest
    from lib.network.lungs import Lungs


UNLIKE = "unlike the training films"  # text of the reason `OUT_OF_DISTRIBUTION`


class Code(StrEnum):
    """What kind of reason a review has. The text of a reason may change, its code does not."""

    UNREADABLE = "unreadable"
    BLANK = "blank"
    LOW_CONFIDENCE = "low_confidence"
    INVERTED = "inverted"
    NO_LUNGS = "no_lungs"
    TURNED = "turned"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    NEAR_THRESHOLD = "near_threshold"
    DECODER_NOTE = "decoder_note"  # of lib.images.reader.Film.notes


@dataclass(frozen=True)
class Reason:
    """One reason why a person should look at a film."""

    code: Code
    text: str  # for the reader of a table


@dataclass(frozen=True)
class Triage:
    """The rules that choose a class from probabilities, and that ask for a review."""

    classes: tuple[str, ...]
    calibration: Calibration | None = None  # None: the model was made without validation films
    reference: Reference | None = None
    operating_point: str = ""  # class, or ABNORMAL, that is predicted from its threshold on
    threshold: float | None = None  # probability of the operating point; None: the stored one
    review_below: float = 0.0  # probability of the predicted class

    @staticmethod
    def of(
        folder: Path,
        manifest: "ModelManifest",
        operating_point: str = "",
        review_below: float = 0.0,
        threshold: float | None = None,
    ) -> "Triage":
        """The rules for a model folder.

        Raises:
            JobError: the model does not have the class of the operating point, or no threshold for
                it where none is given.
        """
        calibration = Calibration.read(manifest.calibration)
        if threshold is not None:
            _require_class(manifest.classes, operating_point)
        elif operating_point:
            _require_threshold(calibration, operating_point)
        reference = Reference.read(folder) if calibration else None
        return Triage(
            manifest.classes, calibration, reference, operating_point, threshold, review_below
        )

    def choose(self, probabilities: NDArray[np.float64]) -> int:
        """Index of the predicted class, from the probabilities `(classes,)` of one film.

        Without an operating point the most probable class; with one, the most probable of its
        classes from the threshold on, and the most probable other class below it.
        """
        threshold = self._threshold()
        if threshold is not None:
            positive = is_positive(self.operating_point, self.classes)
            is_called = probabilities[positive].sum() >= threshold
            probabilities = np.where(positive == is_called, probabilities, -1)
        return int(probabilities.argmax())

    def distance(self, prediction: Prediction) -> float | None:
        """Of the film's features to the nearest validation films; None where there are none."""
        if self.reference is None or not prediction.features.size:
            return None
        return float(self.reference.distances(prediction.features[None])[0])

    def reasons(self, prediction: Prediction) -> tuple[Reason, ...]:
        """Why a person should look at this film; empty if there is no reason."""
        if prediction.probabilities is None:
            return (Reason(Code.UNREADABLE, "unreadable"),)
        return (
            *self._of_model(prediction, prediction.probabilities),
            *self._of_caller(prediction.probabilities),
            *(Reason(Code.DECODER_NOTE, note) for note in prediction.film.notes),
        )

    def _of_model(
        self, prediction: Prediction, probabilities: NDArray[np.float64]
    ) -> Iterator[Reason]:
        """What the image and the validation films say."""
        if prediction.film.contrast < LOW_CONTRAST:
            yield Reason(Code.BLANK, "blank or nearly blank")
            return
        if prediction.lungs is not None:
            yield from _of_lungs(prediction.lungs)
        if self.calibration and self.reference:
            yield from self._of_confidence(self.calibration, probabilities)
            yield from self._of_appearance(self.calibration, self.reference, prediction)
        yield from self._of_threshold(probabilities)

    def _of_confidence(
        self, calibration: Calibration, probabilities: NDArray[np.float64]
    ) -> Iterator[Reason]:
        possible = [
            name
            for name, probability in zip(self.classes, probabilities, strict=True)
            if probability >= calibration.smallest_probability
        ]
        if len(possible) > 1:
            yield Reason(Code.LOW_CONFIDENCE, "low confidence: " + " or ".join(possible))
        elif not possible:
            yield Reason(Code.LOW_CONFIDENCE, "low confidence: no class is likely enough")

    def _of_appearance(
        self, calibration: Calibration, reference: Reference, prediction: Prediction
    ) -> Iterator[Reason]:
        likeness = float(reference.likeness(prediction.film.thumbnail[None])[0])
        if -likeness > max(calibration.smallest_likeness, 0):
            yield Reason(Code.INVERTED, "inverted")
        distance = self.distance(prediction)
        if distance is not None and distance > calibration.largest_distance:
            yield Reason(Code.OUT_OF_DISTRIBUTION, UNLIKE)

    def _threshold(self) -> float | None:
        """The probability of the operating point; None without one."""
        if self.threshold is None and self.operating_point and self.calibration:
            return self.calibration.thresholds[self.operating_point]
        return self.threshold

    def _of_threshold(self, probabilities: NDArray[np.float64]) -> Iterator[Reason]:
        threshold = self._threshold()
        if threshold is not None:
            positive = is_positive(self.operating_point, self.classes)
            probability = probabilities[positive].sum()
            if threshold / 2 <= probability < threshold:
                text = f"just below the threshold for {self.operating_point}"
                yield Reason(Code.NEAR_THRESHOLD, text)

    def _of_caller(self, probabilities: NDArray[np.float64]) -> Iterator[Reason]:
        if probabilities[self.choose(probabilities)] < self.review_below:
            yield Reason(Code.LOW_CONFIDENCE, f"low confidence: below {self.review_below:g}")


def _of_lungs(lungs: "Lungs") -> Iterator[Reason]:
    if lungs.box is None:
        yield Reason(Code.NO_LUNGS, "no lungs found")
    elif lungs.orientation.startswith("turned"):
        degrees = lungs.orientation.removeprefix("turned ")
        yield Reason(Code.TURNED, f"looks turned by {degrees} degrees")


def _require_class(classes: tuple[str, ...], positive: str) -> None:
    known = (*classes, *((ABNORMAL,) if has_screening_score(classes) else ()))
    if positive not in known:
        raise JobError(f"--threshold {positive}=…: this model knows {', '.join(known)}.")


def _require_threshold(calibration: Calibration | None, positive: str) -> None:
    known = calibration.thresholds if calibration else {}
    if positive not in known:
        what_it_has = (
            f"it has them for {', '.join(known)}"
            if known
            else "it was made without validation films"
        )
        raise JobError(
            f"--operating_point {positive}: this model has no threshold for it; {what_it_has}."
        )
