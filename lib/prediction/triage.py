"""Which predictions need a human look, and why."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib.images.measure import LOW_CONTRAST
from lib.prediction.calibration import Calibration, Reference
from lib.prediction.prediction import Prediction
from lib.run.errors import JobError


class Judge:
    """Says which answers need a human look, and why."""

    def __init__(self, calibration: Calibration | None, reference: Reference | None) -> None:
        self.calibration, self.reference = calibration, reference

    @staticmethod
    def of(folder: Path, content: dict[str, Any] | None) -> "Judge":
        """For a model folder and the `calibration` of its model.json."""
        calibration = Calibration.read(content)
        return Judge(calibration, Reference.read(folder) if calibration else None)

    def require_threshold(self, positive: str) -> None:
        """Refuse an operating point that this model does not have.

        Raises:
            JobError: no threshold is stored for the class.
        """
        known = self.calibration.thresholds if self.calibration else {}
        if positive not in known:
            has = (
                f"it has them for {', '.join(known)}"
                if known
                else "it was made without validation films"
            )
            raise JobError(
                f"--operating_point {positive}: this model has no threshold for it; {has}."
            )

    def choose(self, probabilities: np.ndarray, classes: Sequence[str], positive: str = "") -> int:
        """Number of the class to answer: the likeliest; or `positive` from its threshold on, else
        the likeliest other.
        """
        if positive and self.calibration:
            number = list(classes).index(positive)
            if probabilities[number] >= self.calibration.thresholds[positive]:
                return number
            probabilities = probabilities.copy()
            probabilities[number] = -1
        return int(probabilities.argmax())

    def reasons(self, answer: Prediction, classes: Sequence[str], positive: str = "") -> list[str]:
        """Why a person should look at this film; empty when nothing speaks for it.

        `positive` is the class whose stored threshold decides, if any.
        """
        if answer.probabilities is None:
            return ["unreadable"]
        if answer.film.contrast < LOW_CONTRAST:
            return ["blank or nearly blank"]
        if self.calibration is None or self.reference is None:
            return []
        found = []
        possible = [
            name
            for name, p in zip(classes, answer.probabilities, strict=True)
            if p >= self.calibration.smallest_probability
        ]
        if len(possible) > 1:
            found.append("low confidence: " + " or ".join(possible))
        elif not possible:
            found.append("low confidence: no class is likely enough")
        likeness = float(self.reference.likeness(answer.film.thumbnail[None])[0])
        strange = (
            float(self.reference.distances(answer.features[None])[0])
            > self.calibration.largest_distance
        )
        if -likeness > max(self.calibration.smallest_likeness, 0):
            found.append("inverted")
        if strange:
            found.append("unlike the training films")
        if positive and positive in self.calibration.thresholds:
            threshold = self.calibration.thresholds[positive]
            if threshold / 2 <= answer.probabilities[list(classes).index(positive)] < threshold:
                found.append(f"just below the threshold for {positive}")
        return found
