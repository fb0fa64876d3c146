"""The operating point: predictive values, and the published minimum."""

import pytest

from lib.evaluation.operating_point import (
    check_target,
    has_both_sides,
    operating_point,
    predictive_values,
    threshold_table,
)
from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.results import Estimate, Interval
from lib.prediction.classes import ABNORMAL, WHO_TUBERCULOSIS
from tests.evaluation.conftest import screened

TB = "TUBERCULOSIS"


@pytest.fixture(scope="module")
def films() -> LabelledPredictions:
    return LabelledPredictions.of(screened([0.9] * 18 + [0.4] * 2, [0.1] * 60))


def test_a_ppv_of_1_has_an_interval_that_shows_how_little_it_is_worth(
    films: LabelledPredictions,
) -> None:
    point = operating_point(films, TB, 0.5, [0.01], 0)
    assert point.specificity.interval == pytest.approx((0.025 ** (1 / 60), 1.0))
    assert (point.cases, point.missed, point.false_alarms) == (20, 2, 0)
    values = point.predictive_values[0]
    assert values.ppv.value == 1
    assert values.ppv.interval is not None
    assert point.sensitivity.interval is not None
    lowest = predictive_values(point.sensitivity.interval[0], 0.025 ** (1 / 60), 0.01)[0]
    assert values.ppv.interval == pytest.approx((lowest, 1.0))
    assert values.ppv.interval[0] < 0.15
    assert values.npv.interval is not None
    assert values.npv.interval[0] < (values.npv.value or 0) < values.npv.interval[1] <= 1


def test_anything_abnormal_is_every_class_but_normal() -> None:
    table = screened([0.9, 0.2], [0.1, 0.6])
    table["prob_PNEUMONIA"] = [0.05, 0.7, 0.1, 0.1]
    table["prob_NORMAL"] = 1 - table["prob_TUBERCULOSIS"] - table["prob_PNEUMONIA"]
    table.loc[1, "label"] = "PNEUMONIA"
    point = operating_point(LabelledPredictions.of(table), ABNORMAL, 0.5, [0.1], 0)
    assert (point.cases, point.missed, point.false_alarms) == (2, 0, 1)
    assert (point.sensitivity.value, point.specificity.value) == (1, 0.5)
    assert point.target is None
    assert not has_both_sides(LabelledPredictions.of(table[:2]), ABNORMAL)


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "result"),
    [
        ((0.91, 0.99), (0.75, 0.95), "met"),
        ((0.70, 0.89), (0.75, 0.95), "missed"),
        ((0.91, 0.99), (0.40, 0.69), "missed"),
        ((0.85, 0.99), (0.75, 0.95), "undecided"),
        (None, (0.75, 0.95), "undecided"),
    ],
)
def test_the_minimum_is_judged_by_the_ends_of_both_intervals(
    sensitivity: Interval | None, specificity: Interval, result: str
) -> None:
    check = check_target(WHO_TUBERCULOSIS, Estimate(0.9, sensitivity), Estimate(0.8, specificity))
    assert check.result == result
    assert (check.sensitivity, check.specificity) == (0.9, 0.7)


def test_a_class_without_a_published_minimum_is_not_held_to_one(
    films: LabelledPredictions,
) -> None:
    assert operating_point(films, TB, 0.5, [], 0).target is not None
    assert operating_point(films, "NORMAL", 0.5, [], 0).target is None


def test_films_of_one_side_have_no_operating_point() -> None:
    assert not has_both_sides(LabelledPredictions.of(screened([], [0.1] * 5)), TB)
    assert not has_both_sides(LabelledPredictions.of(screened([0.9] * 5, [])), TB)
    assert has_both_sides(LabelledPredictions.of(screened([0.9], [0.1])), TB)


def test_the_threshold_table_counts_what_each_threshold_would_have_done(
    films: LabelledPredictions,
) -> None:
    rows = threshold_table(films, TB, [0.02])
    assert len(rows) == 101
    assert (rows[0]["sensitivity"], rows[0]["specificity"], rows[0]["false_alarms"]) == (1, 0, 60)
    assert (rows[50]["sensitivity"], rows[50]["missed"], rows[50]["ppv_at_0.02"]) == (0.9, 2, 1)
    assert (rows[100]["missed"], rows[100]["ppv_at_0.02"]) == (20, "")
