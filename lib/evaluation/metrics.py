"""Calibration of probabilities and coverage of conformal sets, measured on labelled films."""

import numpy as np

from lib.evaluation.predictions import Bools, Floats, Ints, LabelledPredictions
from lib.evaluation.results import (
    CalibrationScores,
    ConformalScores,
    Reliability,
    ReliabilityBin,
)
from lib.evaluation.scoring import squared_errors
from lib.network.numerics import softmax
from lib.prediction.calibration import Calibration

BINS = 15  # of confidence, as in Guo et al., 2017


def calibration_scores(
    predictions: LabelledPredictions, calibration: Calibration
) -> CalibrationScores:
    """Reliability before and after the calibration."""
    logits = calibration.logits(predictions.probabilities)
    return CalibrationScores(
        temperature=calibration.temperature,
        before=_reliability(softmax(logits), predictions.targets),
        after=_reliability(predictions.probabilities, predictions.targets),
    )


def conformal_scores(predictions: LabelledPredictions, calibration: Calibration) -> ConformalScores:
    """How often the conformal set holds the true class, and how often it is one class alone."""
    in_set = predictions.probabilities >= calibration.smallest_probability
    return ConformalScores(
        stated_coverage=calibration.coverage,
        coverage=float(in_set[np.arange(len(in_set)), predictions.targets].mean()),
        one_class=float((in_set.sum(axis=1) == 1).mean()),
    )


def expected_calibration_error(
    confidence: Floats, correct: Bools, bins: int = BINS, weights: Floats | None = None
) -> float:
    """Mean |accuracy - confidence| over equal-width bins, weighted by their films.

    `weights` `(N,)` say how much each film counts; None: all the same. Source: C. Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017.
    """
    weights = np.ones(len(correct)) if weights is None else weights
    gaps = np.bincount(_bin_of(confidence, bins), weights * (correct - confidence), bins)
    return float(np.abs(gaps).sum() / weights.sum())


def reliability(confidence: Floats, correct: Bools, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The bins (low, high] of confidence that have films."""
    bin_of = _bin_of(confidence, bins)
    return tuple(
        ReliabilityBin(
            films=int((bin_of == number).sum()),
            confidence=float(confidence[bin_of == number].mean()),
            accuracy=float(correct[bin_of == number].mean()),
        )
        for number in np.unique(bin_of)
    )


def brier(probabilities: Floats, targets: Ints, weights: Floats | None = None) -> float:
    """Brier score of probabilities `(N, classes)`, 0 to 2; `weights` `(N,)` as above."""
    return float(np.average(squared_errors(probabilities, targets), weights=weights))


def _bin_of(confidence: Floats, bins: int) -> Ints:
    """Number of the bin (low, high] of each confidence `(N,)`."""
    numbers: Ints = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return numbers


def _reliability(probabilities: Floats, targets: Ints) -> Reliability:
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    return Reliability(
        ece=expected_calibration_error(confidence, correct),
        brier=brier(probabilities, targets),
        bins=reliability(confidence, correct),
    )
