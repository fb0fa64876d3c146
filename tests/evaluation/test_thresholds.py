"""The stops of the slider over the threshold."""

import pytest

from lib.evaluation.operating_point import operating_point
from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.thresholds import Stop, stops
from lib.prediction.classes import WHO_TUBERCULOSIS
from tests.evaluation.conftest import screened

TB = "TUBERCULOSIS"


@pytest.fixture(scope="module")
def films() -> LabelledPredictions:
    return LabelledPredictions.of(screened([0.9] * 18 + [0.4] * 2, [0.1] * 55 + [0.6] * 5))


@pytest.fixture(scope="module")
def curve(films: LabelledPredictions) -> tuple[Stop, ...]:
    return stops(films, TB, 0.50001, seed=0)


def test_there_is_a_stop_for_each_hundredth_and_one_for_the_stored_threshold(
    curve: tuple[Stop, ...],
) -> None:
    assert len(curve) == 101  # 0.50001 is rounded down to a hundredth
    assert [stop.threshold for stop in curve if stop.is_stored] == [0.5]
    assert curve[0].sensitivity.value == 1
    assert curve[100].sensitivity.value == 0


def test_a_stored_threshold_between_two_stops_is_one_of_its_own(
    films: LabelledPredictions,
) -> None:
    curve = stops(films, TB, 0.15678, seed=0)
    assert len(curve) == 102
    assert [stop.threshold for stop in curve if stop.is_stored] == [0.1567]
    assert [stop.threshold for stop in curve] == sorted(stop.threshold for stop in curve)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (0.000149372, 0.0001493),  # rounded down, so that it calls the film that it comes from
        (0.000312799, 0.0003127),
        (0.40001, 0.40001),  # 0.4 would call two films more
        (0.0, 0.0),
    ],
)
def test_the_stored_stop_calls_the_films_of_the_operating_point(
    stored: float, shown: float
) -> None:
    cases, others = [0.9, 0.0001, 0.0002, 0.0004, 0.4, 0.4], [0.00012, 0.00005, 0.00031, 0.6]
    rare = LabelledPredictions.of(screened(cases, others))
    (stop,) = (stop for stop in stops(rare, TB, stored, seed=0) if stop.is_stored)
    point = operating_point(rare, TB, stored, [0.02], 0)
    assert stop.threshold == shown
    assert (stop.sensitivity, stop.specificity) == (point.sensitivity, point.specificity)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.95])
def test_a_stop_has_the_rates_and_intervals_of_an_operating_point(
    films: LabelledPredictions, curve: tuple[Stop, ...], threshold: float
) -> None:
    point = operating_point(films, TB, threshold, [0.02], 0)
    stop = next(stop for stop in curve if stop.threshold == threshold)
    assert (stop.sensitivity, stop.specificity) == (point.sensitivity, point.specificity)
    assert stop.at(0.02) == point.predictive_values[0]


def test_a_stop_meets_a_target_by_both_rates(curve: tuple[Stop, ...]) -> None:
    meeting = [stop.threshold for stop in curve if stop.meets(WHO_TUBERCULOSIS)]
    assert (meeting[0], meeting[-1]) == (0.11, 0.9)
    assert not any(stop.meets(None) for stop in curve)


def test_paper_has_every_twentieth_and_the_stored_threshold(films: LabelledPredictions) -> None:
    shown = [stop.threshold for stop in stops(films, TB, 0.15678, seed=0) if stop.is_in_print]
    assert len(shown) == 22
    assert shown[3:5] == [0.15, 0.1567]
