"""The slider over the threshold in the report: its stops, its marks, and its table for paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from lib.evaluation import thresholds
from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.results import Estimate, Evaluation, PredictiveValues
from lib.evaluation.thresholds import Stop
from lib.prediction.classes import ScreeningTarget, target_of
from lib.reports.formatting import all_digits


@dataclass(frozen=True)
class Run:
    """Neighbouring stops on the slider; lengths are fractions of it."""

    first: float
    width: float


@dataclass(frozen=True)
class PaperRow:
    """A row of the table that stands in the slider's place on paper."""

    number: int  # of the stop
    threshold: str
    stop: Stop
    values: PredictiveValues
    missed: Estimate  # cases per 1,000 people


@dataclass(frozen=True)
class Slider:
    """What the template needs."""

    curve: Sequence[Stop]
    stored: float  # its place, a fraction of the slider
    stored_threshold: str
    meeting: Sequence[Run]  # stops that meet the target
    meeting_words: str
    prevalence: float  # to begin with
    table: Sequence[PaperRow]
    numbers: dict[str, Any]  # for threshold.js


def threshold_slider(predictions: pd.DataFrame, evaluation: Evaluation, seed: int) -> Slider | None:
    """The slider for the class of interest; None without an operating point or a prevalence."""
    point = evaluation.operating_point
    if point is None or not point.predictive_values:
        return None
    labelled = LabelledPredictions.of(predictions)
    curve = thresholds.stops(labelled, point.positive, point.threshold, seed)
    stored = next(number for number, stop in enumerate(curve) if stop.is_stored)
    prevalence = point.predictive_values[0].prevalence
    target = target_of(point.positive)
    return Slider(
        curve=curve,
        stored=stored / (len(curve) - 1),
        stored_threshold=all_digits(curve[stored].threshold),
        meeting=_runs([stop.meets(target) for stop in curve]),
        meeting_words=_meeting_words(curve, target) if target else "",
        prevalence=prevalence,
        table=[
            _paper_row(number, stop, prevalence)
            for number, stop in enumerate(curve)
            if stop.is_in_print
        ],
        numbers={
            "positive": point.positive,
            "stored": stored,
            "stops": [
                [stop.threshold, _numbers(stop.sensitivity), _numbers(stop.specificity)]
                for stop in curve
            ],
        },
    )


def _runs(meets: Sequence[bool]) -> list[Run]:
    """Where the stops that meet the target lie; each covers half the way to its neighbours."""
    runs, last = [], len(meets) - 1
    for is_met, group in groupby(enumerate(meets), key=lambda numbered: numbered[1]):
        numbers = [number for number, _ in group]
        if is_met:
            first, end = max(numbers[0] - 0.5, 0), min(numbers[-1] + 0.5, last)
            runs.append(Run(round(first / last, 5), round((end - first) / last, 5)))
    return runs


def _meeting_words(curve: Sequence[Stop], target: ScreeningTarget) -> str:
    minimum = (
        f"{target.name}, sensitivity {target.sensitivity:.0%} at specificity "
        f"{target.specificity:.0%}"
    )
    meeting = [stop.threshold for stop in curve if stop.meets(target)]
    if not meeting:
        return f"{minimum}: no threshold reaches it on these films"
    first, last = all_digits(meeting[0]), all_digits(meeting[-1])
    return f"{minimum}: reached from {first} to {last}, intervals aside"


def _paper_row(number: int, stop: Stop, prevalence: float) -> PaperRow:
    return PaperRow(
        number,
        all_digits(stop.threshold),
        stop,
        stop.at(prevalence),
        _missed(stop.sensitivity, prevalence),
    )


def _missed(sensitivity: Estimate, prevalence: float) -> Estimate:
    """Cases missed among 1,000 people."""
    assert sensitivity.value is not None
    ends = sensitivity.interval
    return Estimate(
        1000 * prevalence * (1 - sensitivity.value),
        (1000 * prevalence * (1 - ends[1]), 1000 * prevalence * (1 - ends[0])) if ends else None,
    )


def _numbers(estimate: Estimate) -> list[float | None]:
    low, high = estimate.interval or (None, None)
    return [None if value is None else round(value, 5) for value in (estimate.value, low, high)]
