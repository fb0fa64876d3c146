"""What every threshold for the class of interest does: the stops of the slider in the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.evaluation import intervals, scoring
from lib.evaluation.operating_point import cases_and_scores, predictive_estimates
from lib.evaluation.predictions import Bools, Floats, Ints, LabelledPredictions
from lib.evaluation.results import Estimate, PredictiveValues
from lib.network.numerics import DIGITS, rounded_down
from lib.prediction.classes import ScreeningTarget

_ALL_DIGITS = 17  # of a float


@dataclass(frozen=True)
class Stop:
    """One threshold of the slider."""

    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    is_stored: bool  # the threshold of the stored operating point

    def meets(self, target: ScreeningTarget | None) -> bool:
        """Whether both rates, without their intervals, reach the target."""
        if target is None or self.sensitivity.value is None or self.specificity.value is None:
            return False
        return (
            self.sensitivity.value >= target.sensitivity
            and self.specificity.value >= target.specificity
        )

    @property
    def is_in_print(self) -> bool:
        """Whether the table on paper has it: every 0.05, and the stored one."""
        return self.is_stored or math.isclose(self.threshold * 20, round(self.threshold * 20))

    def at(self, prevalence: float) -> PredictiveValues:
        """PPV and NPV at a prevalence."""
        return predictive_estimates(self.sensitivity, self.specificity, prevalence)


def stops(
    predictions: LabelledPredictions, positive: str, stored: float, seed: int
) -> tuple[Stop, ...]:
    """Rates with 95 % intervals for the thresholds 0.00 to 1.00 and the stored one, in order.

    All thresholds are scored on the same resamples. Needs films of both sides.
    """
    is_case, scores = cases_and_scores(predictions, positive)
    rounded = _shortest(stored, scores)
    thresholds = sorted({*(percent / 100 for percent in range(101)), rounded})
    cases, others = (_Side.of(side, scores, thresholds) for side in (is_case, ~is_case))

    def rates(weights: Floats) -> scoring.Arrays:
        return {"sensitivity": cases.shares(weights)[1], "specificity": others.shares(weights)[0]}

    point = rates(scoring.once(len(predictions)))
    resampled = intervals.bootstrap(predictions.groups, rates, seed)
    patients = {
        "sensitivity": predictions.count_groups(is_case),
        "specificity": predictions.count_groups(~is_case),
    }

    def estimate(name: str, number: int) -> Estimate:
        rate = float(point[name][0, number])
        values = resampled[name][:, number]
        return Estimate(rate, intervals.share_interval(rate, values, patients[name]))

    return tuple(
        Stop(
            threshold,
            estimate("sensitivity", number),
            estimate("specificity", number),
            is_stored=threshold == rounded,
        )
        for number, threshold in enumerate(thresholds)
    )


def _shortest(stored: float, scores: Floats) -> float:
    """The threshold rounded down to the fewest digits, from `DIGITS` on, that call no other film
    of those with these scores `(N,)`.
    """
    candidates = (rounded_down(stored, digits) for digits in range(DIGITS, _ALL_DIGITS))
    same = (short for short in candidates if not ((scores >= short) & (scores < stored)).any())
    return next(same, stored)


@dataclass(frozen=True)
class _Side:
    """The films of the class, or the others, by ascending score."""

    films: Ints  # (M,) positions
    below: Ints  # (T,) how many of them score less than each threshold

    @staticmethod
    def of(side: Bools, scores: Floats, thresholds: Sequence[float]) -> "_Side":
        films = np.flatnonzero(side)
        films = films[np.argsort(scores[films], kind="stable")]
        return _Side(films, np.searchsorted(scores[films], thresholds))

    def shares(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weighted shares `(R, T)` of the films below each threshold, and of the others."""
        sums = scoring.cumulative(weights[:, self.films])
        below, total = sums[:, self.below], sums[:, -1:]
        with np.errstate(invalid="ignore"):
            return below / total, (total - below) / total
