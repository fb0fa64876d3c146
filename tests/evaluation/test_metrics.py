"""Calibration error, Brier score and reliability bins, worked out by hand."""

import numpy as np
import pytest

from lib.evaluation import metrics
from lib.evaluation.results import ReliabilityBin


def test_brier_score_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6]])
    expected = (0.04 + 0.04 + 0.36 + 0.36) / 2
    assert metrics.brier(probabilities, np.array([0, 0])) == pytest.approx(expected)


def test_reliability_bins_and_calibration_error_by_hand() -> None:
    confidence, correct = np.array([0.81, 0.83, 0.99]), np.array([True, False, True])
    first, second = metrics.reliability(confidence, correct, bins=10)
    assert (first.films, first.accuracy) == (2, 0.5)
    assert first.confidence == pytest.approx(0.82)
    assert second == ReliabilityBin(films=1, confidence=0.99, accuracy=1.0)
    error = metrics.expected_calibration_error(confidence, correct, bins=10)
    assert error == pytest.approx((2 * 0.32 + 0.01) / 3)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    bins = metrics.reliability(np.array([0.5, 0.51, 1.0]), np.array([True] * 3), bins=2)
    assert [row.films for row in bins] == [1, 2]
