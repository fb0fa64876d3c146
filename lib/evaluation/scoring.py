"""The scoring engine: every score for many weightings of the same films at once.

A weighting is a row of film weights: ones for the scores themselves, a bootstrap's counts for their
intervals. With weights `(R, N)` an overall score is an array `(R,)`, a score per class `(R,
classes)`; NaN where a weighting leaves it undefined.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib.evaluation.predictions import Bools, Floats, Ints, LabelledPredictions

OVERALL = ("accuracy", "macro_f1", "brier")
PER_CLASS = ("precision", "recall", "specificity", "f1", "auroc")

Arrays = dict[str, Floats]  # score → (R,) or (R, classes)


def scores(predictions: LabelledPredictions, weights: Floats) -> Arrays:
    """All scores of `OVERALL` and `PER_CLASS` for `(R, N)` weights.

    A class without films has no precision, recall, F1 and AUROC, a class that is never predicted no
    precision. Macro-F1 is the mean over the classes that have an F1.
    """
    return scorer(predictions)(weights)


def scorer(predictions: LabelledPredictions) -> Callable[[Floats], Arrays]:
    """`scores` of these predictions. The films are sorted once, not for every block of weights."""
    has_films = _classes_with_films(predictions)
    squares = squared_errors(predictions.probabilities, predictions.targets)
    rankings = [
        Ranking.of(predictions.targets == number, predictions.probabilities[:, number])
        for number in range(len(predictions.classes))
    ]

    def of(weights: Floats) -> Arrays:
        confusion = weighted_confusion(predictions, weights)
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        total = weights.sum(axis=1)
        negatives = total[:, None] - true
        f1 = _ratio(2 * hits, np.where(has_films, true + predicted, 0))
        return {
            "accuracy": hits.sum(axis=1) / total,
            "macro_f1": np.nanmean(f1, axis=1),
            "brier": weights @ squares / total,
            "precision": _ratio(hits, np.where(has_films, predicted, 0)),
            "recall": _ratio(hits, true),
            "specificity": _ratio(negatives - predicted + hits, negatives),
            "f1": f1,
            "auroc": np.stack([ranking.auroc(weights) for ranking in rankings], axis=1),
        }

    return of


def weighted_confusion(predictions: LabelledPredictions, weights: Floats) -> Floats:
    """Confusion matrices `(R, true, predicted)` for `(R, N)` weights."""
    count = len(predictions.classes)
    cells = predictions.targets * count + predictions.predicted
    confusion: Floats = (weights @ np.eye(count * count)[cells]).reshape(-1, count, count)
    return confusion


def macro_f1(predictions: LabelledPredictions, weights: Floats) -> Floats:
    """Macro-F1 `(R,)` alone, as in `scores`, for `(R, N)` weights."""
    confusion = weighted_confusion(predictions, weights)
    films = confusion.sum(axis=2) + confusion.sum(axis=1)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    f1 = _ratio(2 * hits, np.where(_classes_with_films(predictions), films, 0))
    mean: Floats = np.nanmean(f1, axis=1)
    return mean


def auroc(positive: Bools, score: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve `(R,)` for `(R, N)` weights.

    Ties count half; NaN where there are no positives or no negatives.
    """
    return Ranking.of(positive, score).auroc(weights)


@dataclass(frozen=True)
class Ranking:
    """The films of two sides in the order of a score. It does not depend on weights."""

    cases: Ints  # (P,) positions among the films
    others: Ints  # (M,) positions, by ascending score
    lower: Ints  # (P,) how many of the others score less than each case
    upper: Ints  # (P,) how many score no more

    @staticmethod
    def of(positive: Bools, score: Floats) -> "Ranking":
        """Of `(N,)` films."""
        cases, others = np.flatnonzero(positive), np.flatnonzero(~positive)
        others = others[np.argsort(score[others], kind="stable")]
        lower, upper = (
            np.searchsorted(score[others], score[cases], side) for side in ("left", "right")
        )
        return Ranking(cases, others, lower, upper)

    def auroc(self, weights: Floats) -> Floats:
        """As the function of this name."""
        cases, below = weights[:, self.cases], cumulative(weights[:, self.others])
        wins = np.einsum("rn,rn->r", cases, below[:, self.lower])
        wins += np.einsum("rn,rn->r", cases, below[:, self.upper])
        return _ratio(wins / 2, cases.sum(axis=1) * below[:, -1])


def cumulative(weights: Floats) -> Floats:
    """Weight of the first 0, 1, … N films: `(R, N + 1)`."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def rates_at(positive: Bools, called: Bools, weights: Floats) -> Arrays:
    """Sensitivity and specificity `(R,)` of calling the films `called` `(N,)` positive."""
    return {
        "sensitivity": _ratio(weights @ (positive & called), weights @ positive),
        "specificity": _ratio(weights @ (~positive & ~called), weights @ ~positive),
    }


def squared_errors(probabilities: Floats, targets: Ints) -> Floats:
    """Squared distance `(N,)` between probabilities `(N, classes)` and the truth, 0 to 2.

    Its mean is the Brier score. Source: G. Brier, Monthly Weather Review 78 (1950).
    """
    truth = np.eye(probabilities.shape[1])[targets]
    squares: Floats = ((probabilities - truth) ** 2).sum(axis=1)
    return squares


def once(films: int) -> Floats:
    """The weighting `(1, films)` that counts every film once."""
    return np.ones((1, films))


def _classes_with_films(predictions: LabelledPredictions) -> Bools:
    """Which classes `(classes,)` have a film, whatever its weight."""
    return np.bincount(predictions.targets, minlength=len(predictions.classes)) > 0


def _ratio(part: Floats, whole: Floats) -> Floats:
    undefined = np.full(np.broadcast(part, whole).shape, np.nan)
    quotient: Floats = np.divide(part, whole, out=undefined, where=whole > 0)
    return quotient
