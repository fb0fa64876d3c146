"""What a threshold for the class of interest does: rates, predictive values, cases missed."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lib.evaluation import intervals, scoring
from lib.evaluation.predictions import Bools, Floats, LabelledPredictions
from lib.evaluation.results import (
    Estimate,
    Interval,
    OperatingPoint,
    PredictiveValues,
    TargetCheck,
)
from lib.prediction.classes import ScreeningTarget, is_positive, target_of


def has_both_sides(predictions: LabelledPredictions, positive: str) -> bool:
    """Whether there are films of the class and films of others.

    Without both there is no sensitivity, or no specificity.
    """
    cases = is_positive(positive, predictions.classes)[predictions.targets]
    return bool(cases.any() and not cases.all())


def cases_and_scores(predictions: LabelledPredictions, positive: str) -> tuple[Bools, Floats]:
    """Which films `(N,)` are of the class, or abnormal, and the probability `(N,)` of that."""
    positives = is_positive(positive, predictions.classes)
    scores: Floats = predictions.probabilities[:, positives].sum(axis=1)
    return positives[predictions.targets], scores


def operating_point(
    predictions: LabelledPredictions,
    positive: str,
    threshold: float,
    prevalences: Sequence[float],
    seed: int,
) -> OperatingPoint:
    """What calling every film with a score >= `threshold` positive does.

    The score is `prob_<positive>`; for `ABNORMAL` it is 1 - P(NORMAL).
    The specificity, and with it the predictive values, depends on the mixture of the other classes
    in the test films. Needs `has_both_sides`.
    """
    is_case, is_called = _called(predictions, positive, threshold)
    sensitivity, specificity = rates_of(predictions, is_case, is_called, seed)
    target = target_of(positive)
    return OperatingPoint(
        positive=positive,
        threshold=threshold,
        sensitivity=sensitivity,
        specificity=specificity,
        cases=int(is_case.sum()),
        missed=int((is_case & ~is_called).sum()),
        false_alarms=int((~is_case & is_called).sum()),
        predictive_values=tuple(
            predictive_estimates(sensitivity, specificity, prevalence) for prevalence in prevalences
        ),
        target=check_target(target, sensitivity, specificity) if target else None,
    )


def rates_of(
    predictions: LabelledPredictions, is_case: Bools, is_called: Bools, seed: int
) -> tuple[Estimate, Estimate]:
    """Sensitivity and specificity of calling the films `is_called` `(N,)` positive."""
    rates = partial(scoring.rates_at, is_case, is_called)
    point = rates(scoring.once(len(predictions)))
    resampled = intervals.bootstrap(predictions.groups, rates, seed)

    def estimate(name: str, cases: Bools) -> Estimate:
        rate, patients = float(point[name][0]), predictions.count_groups(cases)
        return Estimate(rate, intervals.share_interval(rate, resampled[name], patients))

    return estimate("sensitivity", is_case), estimate("specificity", ~is_case)


def check_target(
    target: ScreeningTarget, sensitivity: Estimate, specificity: Estimate
) -> TargetCheck:
    """Compare both intervals with a published minimum.

    "met" when both lie above it, "missed" when one lies below it, else "undecided".
    """
    minimum = (target.sensitivity, target.specificity)
    ranges = (sensitivity.interval, specificity.interval)
    pairs = [(ends, least) for ends, least in zip(ranges, minimum, strict=True) if ends]
    result: Any = "undecided"
    if len(pairs) == len(ranges):
        if any(high < least for (_, high), least in pairs):
            result = "missed"
        elif all(low >= least for (low, _), least in pairs):
            result = "met"
    return TargetCheck(target.name, *minimum, result)


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float | None, float | None]:
    """PPV and NPV by Bayes' rule; None where nothing is called positive, or negative."""
    hits, alarms = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    missed, rejected = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return (
        hits / (hits + alarms) if hits + alarms > 0 else None,
        rejected / (rejected + missed) if rejected + missed > 0 else None,
    )


def threshold_table(
    predictions: LabelledPredictions, positive: str, prevalences: Sequence[float]
) -> list[dict[str, Any]]:
    """Rows of thresholds.csv: rates and predictive values for thresholds 0.00 to 1.00."""
    return [
        _threshold_row(predictions, positive, percent / 100, prevalences) for percent in range(101)
    ]


def _threshold_row(
    predictions: LabelledPredictions, positive: str, threshold: float, prevalences: Sequence[float]
) -> dict[str, Any]:
    is_case, is_called = _called(predictions, positive, threshold)
    arrays = scoring.rates_at(is_case, is_called, scoring.once(len(predictions)))
    rates = {name: float(values[0]) for name, values in arrays.items()}
    row: dict[str, Any] = {
        "threshold": threshold,
        **{name: round(value, 6) for name, value in rates.items()},
        "missed": int((is_case & ~is_called).sum()),
        "false_alarms": int((~is_case & is_called).sum()),
    }
    for prevalence in prevalences:
        values = predictive_values(rates["sensitivity"], rates["specificity"], prevalence)
        for name, value in zip(("ppv", "npv"), values, strict=True):
            row[f"{name}_at_{prevalence:g}"] = "" if value is None else round(value, 6)
    return row


def _called(
    predictions: LabelledPredictions, positive: str, threshold: float
) -> tuple[Bools, Bools]:
    """Which films `(N,)` are cases, and which are called positive."""
    cases, scores = cases_and_scores(predictions, positive)
    return cases, scores >= threshold


def predictive_estimates(
    sensitivity: Estimate, specificity: Estimate, prevalence: float
) -> PredictiveValues:
    """With intervals from both rates at their lower, then at their upper ends.

    Both values grow with both rates. Without a single false alarm the PPV is 1, whatever the number
    of films; its interval shows what that is worth.
    """
    assert sensitivity.value is not None and specificity.value is not None  # noqa: PT018
    values = predictive_values(sensitivity.value, specificity.value, prevalence)
    ranges: list[Interval | None] = [None, None]
    if sensitivity.interval and specificity.interval:
        low, high = (
            predictive_values(*ends, prevalence)
            for ends in zip(sensitivity.interval, specificity.interval, strict=True)
        )
        ranges = [
            (lower, upper) if lower is not None and upper is not None else None
            for lower, upper in zip(low, high, strict=True)
        ]
    ppv, npv = map(Estimate, values, ranges)
    return PredictiveValues(prevalence, ppv, npv)
