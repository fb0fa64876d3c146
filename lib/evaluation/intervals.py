"""95 % intervals of scores, from a bootstrap that draws whole groups (patients).

Films of one patient are not independent, so groups are drawn with replacement, not films. Source:
C. Field, A. Welsh, "Bootstrapping clustered data", JRSS B 69 (2007).
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit

from lib.evaluation import scoring
from lib.evaluation.predictions import Floats, LabelledPredictions
from lib.evaluation.results import ClassScores, Estimate, Interval, Scores
from lib.evaluation.scoring import Arrays

RESAMPLES = 2000
LEVEL = 0.95
FEW_GROUPS = 5  # patients below which a bootstrap has no interval
MOSTLY_DEFINED = 0.9  # share of resamples that must define a score for it to have an interval
_WEIGHTS_AT_A_TIME = 1_000_000  # weights of films held in memory together: 8 MB
_FEWEST_AT_A_TIME = 8  # resamples
_DRAWS_KEPT = 32_000_000  # counts of groups, two bytes each, that are kept for the next score


def estimate_scores(predictions: LabelledPredictions, seed: int) -> Scores:
    """Every score with its interval; no interval where there are too few patients for one."""
    score = scoring.scorer(predictions)
    point = score(scoring.once(len(predictions)))
    resampled = bootstrap(predictions.groups, score, seed)
    patients = predictions.count_groups()
    accuracy = float(point["accuracy"][0])
    macro_f1 = rate_interval(resampled["macro_f1"], patients)
    if macro_f1 and accuracy == 1:
        macro_f1 = _perfect_macro_f1_interval(predictions)
    return Scores(
        accuracy=Estimate(accuracy, share_interval(accuracy, resampled["accuracy"], patients)),
        macro_f1=Estimate(float(point["macro_f1"][0]), macro_f1),
        brier=Estimate(float(point["brier"][0]), rate_interval(resampled["brier"], patients)),
        per_class={
            name: _class_scores(predictions, number, point, resampled)
            for number, name in enumerate(predictions.classes)
        },
    )


def compare_scores(first: LabelledPredictions, second: LabelledPredictions, seed: int) -> Scores:
    """Paired differences on the same films: `second` minus `first`."""

    earlier, later = scoring.scorer(first), scoring.scorer(second)

    def difference(weights: Floats) -> Arrays:
        before, after = earlier(weights), later(weights)
        return {name: after[name] - before[name] for name in before}

    point = difference(scoring.once(len(first)))
    resampled = bootstrap(first.groups, difference, seed)

    def overall(name: str) -> Estimate:
        return Estimate(known(point[name][0]), interval(resampled[name]))

    def of_class(name: str, number: int) -> Estimate:
        return Estimate(known(point[name][0, number]), interval(resampled[name][:, number]))

    return Scores(
        **{name: overall(name) for name in scoring.OVERALL},
        per_class={
            name: ClassScores(
                films=int((first.targets == number).sum()),
                **{score: of_class(score, number) for score in scoring.PER_CLASS},
            )
            for number, name in enumerate(first.classes)
        },
    )


def bootstrap(
    groups: NDArray[Any], score: Callable[[Floats], Arrays], seed: int, resamples: int = RESAMPLES
) -> Arrays:
    """`score` of every resample; its argument is `(R, N)`: how often each film was drawn."""
    names, member = np.unique(groups, return_inverse=True)
    parts = [score(weights) for weights in _weightings(len(names), member, seed, resamples)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _weightings(
    groups: int, member: NDArray[np.int64], seed: int, resamples: int
) -> Iterator[Floats]:
    """The resamples in blocks `(R, N)`; `member` `(N,)` is the group of each film.

    The blocks are as small as the films are many, so that memory does not grow with them.
    """
    size = max(_FEWEST_AT_A_TIME, min(resamples, _WEIGHTS_AT_A_TIME // len(member)))
    blocks = _multinomial(groups, seed, resamples, size)
    if groups * resamples <= _DRAWS_KEPT:
        draws = _draws(groups, seed, resamples)
        blocks = (draws[begin : begin + size] for begin in range(0, resamples, size))
    for block in blocks:
        yield np.take(block.astype(np.float64), member, axis=1)


@lru_cache(maxsize=1)
def _draws(groups: int, seed: int, resamples: int) -> NDArray[Any]:
    """How often each group is drawn, `(resamples, groups) uint16`.

    An evaluation scores the same films many times, and drawing takes longer than most scores.
    """
    blocks = _multinomial(groups, seed, resamples, size=100)
    return np.concatenate([block.astype(np.uint16) for block in blocks])


def _multinomial(groups: int, seed: int, resamples: int, size: int) -> Iterator[NDArray[Any]]:
    """The same counts in blocks of `size` resamples; the size does not change them."""
    generator = np.random.default_rng(seed)
    for begin in range(0, resamples, size):
        count = min(size, resamples - begin)
        yield generator.multinomial(groups, np.full(groups, 1 / groups), count)


def interval(values: Floats, level: float = LEVEL) -> Interval | None:
    """Percentile interval of resampled values; None where too many of them are undefined."""
    defined = values[np.isfinite(values)]
    if len(defined) < MOSTLY_DEFINED * len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def rate_interval(values: Floats, groups: int, level: float = LEVEL) -> Interval | None:
    """Percentile interval of a rate, with an exact bound where it is 0 or 1 in every resample.

    The bound is one-sided, for `groups` independent cases, because a bootstrap cannot show errors
    that the sample does not hold. Other rates of fewer than `FEW_GROUPS` groups have no interval.
    Source: C. Clopper, E. Pearson, Biometrika 26 (1934).
    """
    percentiles = interval(values, level)
    if percentiles is None or groups == 0:
        return None
    tail = (1 - level) / 2
    if percentiles[0] == percentiles[1] == 1:
        return float(betaincinv(groups, 1, tail)), 1.0
    if percentiles[0] == percentiles[1] == 0:
        return 0.0, float(betaincinv(1, groups, 1 - tail))
    return percentiles if groups >= FEW_GROUPS and percentiles[0] < percentiles[1] else None


def share_interval(
    share: float, values: Floats, groups: int, level: float = LEVEL
) -> Interval | None:
    """Jeffreys' interval of a share of films, such as sensitivity.

    The number of films is the one whose standard error equals the bootstrap's. Percentiles would
    be too narrow: of a share of 0.9 in three dozen films they cover the true value in 88 % of
    studies.

    Sources: L. Brown, T. Cai, A. DasGupta, "Interval Estimation for a Binomial Proportion",
    Statistical Science 16 (2001); E. Korn, B. Graubard, "Confidence intervals for proportions with
    small expected number of positive counts estimated from survey data", Survey Methodology 24
    (1998), for the number of films.
    """
    error = _standard_error(values)
    if not 0 < share < 1 or groups < FEW_GROUPS or error == 0:
        return rate_interval(values, groups, level)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    correction = (ndtri(tails[1]) / stdtrit(groups - 1, tails[1])) ** 2
    films = share * (1 - share) / error**2 * correction
    low, high = betaincinv(films * share + 0.5, films * (1 - share) + 0.5, tails)
    return float(low), float(high)


def area_interval(
    area: float, values: Floats, groups: int, level: float = LEVEL
) -> Interval | None:
    """Interval of an area under the ROC curve, symmetric on the logit scale.

    It takes the bootstrap's standard error and Student's t for `groups`, the patients of the
    smaller side. A percentile interval is too narrow for a dozen positives.

    Source: G. Qin, L. Hotilovac, "Comparison of non-parametric confidence intervals for the area
    under the ROC curve", Statistical Methods in Medical Research 17 (2008).
    """
    error = _standard_error(values)
    if not 0 < area < 1 or groups < FEW_GROUPS or error == 0:
        return rate_interval(values, groups, level)
    reach = float(stdtrit(groups - 1, (1 + level) / 2)) * error / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-reach, reach]))
    return float(low), float(high)


def known(value: float) -> float | None:
    """A score as a result holds it: None instead of NaN."""
    return float(value) if np.isfinite(value) else None


def _class_scores(
    predictions: LabelledPredictions, number: int, point: Arrays, resampled: Arrays
) -> ClassScores:
    is_class, is_predicted = predictions.targets == number, predictions.predicted == number
    patients = {
        "precision": predictions.count_groups(is_predicted),
        "recall": predictions.count_groups(is_class),
        "specificity": predictions.count_groups(~is_class),
    }
    value = {name: float(point[name][0, number]) for name in scoring.PER_CLASS}
    values = {name: resampled[name][:, number] for name in scoring.PER_CLASS}
    ranges = {
        name: share_interval(value[name], values[name], count) for name, count in patients.items()
    }
    ranges["f1"] = rate_interval(values["f1"], patients["recall"])
    smaller_side = min(patients["recall"], patients["specificity"])
    ranges["auroc"] = area_interval(value["auroc"], values["auroc"], smaller_side)
    return ClassScores(
        films=int(is_class.sum()),
        **{name: Estimate(known(value[name]), ranges[name]) for name in scoring.PER_CLASS},
    )


def _perfect_macro_f1_interval(predictions: LabelledPredictions) -> Interval:
    """The mean over classes of the exact bounds of a recall without an error."""
    patients = [
        predictions.count_groups(predictions.targets == number)
        for number in np.unique(predictions.targets)
    ]
    return float(np.mean([betaincinv(count, 1, (1 - LEVEL) / 2) for count in patients])), 1.0


def _standard_error(values: Floats) -> float:
    """Of resampled values; 0 where too many of them are undefined."""
    mostly = np.isfinite(values).mean() >= MOSTLY_DEFINED
    return float(np.nanstd(values)) if mostly else 0.0
