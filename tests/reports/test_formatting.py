"""Numbers as text."""

import pytest

from lib.evaluation.results import Estimate, Spread
from lib.reports.formatting import percent, score, threshold, with_range, with_spread


@pytest.mark.parametrize(
    ("estimate", "form", "text"),
    [
        (Estimate(0.5, (0.25, 0.75)), ".3f", "0.500 (0.250 to 0.750)"),
        (Estimate(0.5, None), ".3f", "0.500"),
        (Estimate(0.03, (-0.01, 0.07)), "+.2f", "+0.03 (-0.01 to +0.07)"),
        (Estimate(0.5, (0.25, 1.0)), ".1%", "50.0% (25.0% to 100.0%)"),
        (Estimate(None, None), ".3f", "–"),
    ],
)
def test_an_estimate_is_shown_with_its_interval(estimate: Estimate, form: str, text: str) -> None:
    assert with_range(estimate, form) == text


def test_a_spread_is_shown_as_mean_and_deviation() -> None:
    assert with_spread(Spread(0.9126, 0.012, 0.9, 0.92)) == "0.913 ± 0.012"
    assert with_spread(Spread(0.9126, None, 0.9126, 0.9126)) == "0.913"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (0.91278, "0.9127"), (0.0000149372, "0.00001493"), (1.0, "1"), (0.0, "0")],
)
def test_a_threshold_keeps_its_digits_and_never_rises(value: float, text: str) -> None:
    assert threshold(value) == text


def test_a_score_that_is_not_defined_is_a_dash() -> None:
    assert (score(None), percent(None)) == ("–", "–")
    assert (score(0.9126), percent(0.9126), percent(0.9126, 0)) == ("0.913", "91.3%", "91%")
