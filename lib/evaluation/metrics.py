"""What a predictions table is worth: every score is computed from its columns, the model is not
needed.

scikit-learn is imported where it is used: the train job draws its curves without it, half a second
earlier.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.dataset.provenance import UNKNOWN
from lib.evaluation import intervals, metrics
from lib.evaluation.intervals import Answers
from lib.network.numerics import softmax
from lib.prediction.calibration import Calibration
from lib.run.errors import JobError

BINS = 15  # of confidence, as in Guo et al., 2017

FEW = 5  # films of a kind below which a source has no AUROC
PROBABILITY = "prob_"  # columns prob_<CLASS>


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Class names in the order of the probability columns."""
    return [
        column.removeprefix(PROBABILITY)
        for column in predictions.columns
        if column.startswith(PROBABILITY)
    ]


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a predictions CSV: texts as they stand, `confidence` and probabilities as floats (NaN in
    rows with an error).
    """
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    for column in table.columns:
        if column == "confidence" or column.startswith(PROBABILITY):
            table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def score(predictions: pd.DataFrame) -> dict[str, Any]:
    """Scores of the rows that have a prediction.

    Needs the columns `label`, `prediction` and `prob_<CLASS>`. A score that has no meaning is None:
    precision of a class that was never predicted, recall of one without films, F1 of one with
    neither (macro-F1 is the mean of the others), the one-vs-rest AUROC of a class that is absent,
    or alone. Rows with an error are counted as `unreadable` and left out of every score. The
    confusion matrix has true classes as rows, predicted as columns.

    Raises:
        JobError: no row has a prediction.
    """
    from sklearn.metrics import (
        accuracy_score,
        confusion_matrix,
        f1_score,
        precision_recall_fscore_support,
    )

    classes = classes_of(predictions)
    rows = predictions[predictions["prediction"].isin(classes)]
    if rows.empty:
        raise JobError(
            "no test film could be read, so there is nothing to score; predictions.csv says why for each."
        )
    truth, answer = rows["label"].to_numpy(object), rows["prediction"].to_numpy(object)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, answer, labels=classes, zero_division=np.nan
    )
    per_class = {
        name: {
            "precision": _known(precision[index]),
            "recall": _known(recall[index]),
            "f1": _known(f1[index]),
            "auroc": _auroc(truth == name, rows[PROBABILITY + name].to_numpy(float)),
            "films": int(support[index]),
        }
        for index, name in enumerate(classes)
    }
    return {
        "films": len(rows),
        "unreadable": len(predictions) - len(rows),
        "accuracy": float(accuracy_score(truth, answer)),
        "macro_f1": float(
            f1_score(truth, answer, labels=classes, average="macro", zero_division=np.nan)
        ),
        "per_class": per_class,
        "classes": classes,
        "confusion_matrix": confusion_matrix(truth, answer, labels=classes).tolist(),
    }


def answers_of(predictions: pd.DataFrame) -> Answers:
    """The rows that have a prediction, as arrays. A film without a `group` is a group of its own."""
    classes = classes_of(predictions)
    rows = predictions[predictions["prediction"].isin(classes)]
    groups = rows["group"] if "group" in rows else rows["path"]
    return Answers(
        targets=np.array([classes.index(label) for label in rows["label"]], dtype=int),
        predicted=np.array([classes.index(name) for name in rows["prediction"]], dtype=int),
        probabilities=rows[[PROBABILITY + name for name in classes]].to_numpy(float),
        groups=groups.where(groups.ne(""), rows["path"]).to_numpy(str),
        classes=classes,
    )


def calibration_scores(answers: Answers, learnt: Calibration) -> dict[str, Any]:
    """Expected calibration error, Brier score and reliability bins, before and after the
    temperature.
    """
    logits = (
        np.log(np.maximum(answers.probabilities, 1e-30)) * learnt.temperature
    )  # up to a constant that softmax ignores
    found: dict[str, Any] = {"temperature": learnt.temperature}
    for name, probabilities in (("before", softmax(logits)), ("after", answers.probabilities)):
        confidence, right = (
            probabilities.max(axis=1),
            probabilities.argmax(axis=1) == answers.targets,
        )
        found[name] = {
            "ece": metrics.expected_calibration_error(confidence, right),
            "brier": metrics.brier(probabilities, answers.targets),
            "bins": metrics.reliability(confidence, right),
        }
    return found


def conformal_scores(answers: Answers, learnt: Calibration) -> dict[str, Any]:
    """How often the conformal set holds the true class, and how often it names one class alone."""
    inside = answers.probabilities >= learnt.smallest_probability
    return {
        "stated_coverage": learnt.coverage,
        "coverage": float(inside[np.arange(len(inside)), answers.targets].mean()),
        "one_class": float((inside.sum(axis=1) == 1).mean()),
    }


def has_both_sides(answers: Answers, positive: str) -> bool:
    """Whether there are films of the class and films of others: without, there is no sensitivity,
    or no specificity.
    """
    return bool(
        0 < (answers.targets == list(answers.classes).index(positive)).sum() < len(answers.targets)
    )


def operating_point(
    answers: Answers, positive: str, threshold: float, prevalences: Sequence[float], seed: int
) -> dict[str, Any]:
    """What calling every film with `prob_<positive>` >= `threshold` positive does: rates,
    intervals, cases missed.

    Predictive values follow from Bayes' rule for each of `prevalences`. They take the specificity
    of the test films, so of their mixture of the other classes. Their intervals take both rates at
    their lower, then at their upper ends: without a single false alarm the positive predictive
    value is 1, and says little.
    """
    number = list(answers.classes).index(positive)
    is_positive, called = answers.targets == number, answers.probabilities[:, number] >= threshold
    point = {
        name: float(value[0])
        for name, value in intervals.rates_at(
            is_positive, called, np.ones((1, len(called)))
        ).items()
    }
    resampled = intervals.bootstrap(
        answers.groups, lambda weights: intervals.rates_at(is_positive, called, weights), seed
    )
    cases = {"sensitivity": is_positive, "specificity": ~is_positive}
    ranges = {
        name: intervals.share_interval(
            point[name], resampled[name], len(set(answers.groups[cases[name]]))
        )
        for name in point
    }
    return {
        "class": positive,
        "threshold": threshold,
        **point,
        "intervals": ranges,
        "missed": int((is_positive & ~called).sum()),
        "false_alarms": int((~is_positive & called).sum()),
        "cases": int(is_positive.sum()),
        "predictive_values": [
            {
                "prevalence": prevalence,
                **predictive_values(point["sensitivity"], point["specificity"], prevalence),
                "intervals": _predictive_ranges(
                    ranges["sensitivity"], ranges["specificity"], prevalence
                ),
            }
            for prevalence in prevalences
        ],
    }


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> dict[str, float | None]:
    """PPV and NPV by Bayes' rule; None where nothing is called positive, or negative."""
    hits, alarms = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    missed, rejected = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return {
        "ppv": hits / (hits + alarms) if hits + alarms > 0 else None,
        "npv": rejected / (rejected + missed) if rejected + missed > 0 else None,
    }


def _predictive_ranges(
    sensitivity: tuple[float, float] | None,
    specificity: tuple[float, float] | None,
    prevalence: float,
) -> dict[str, tuple[float | None, float | None] | None]:
    """Both values grow with both rates; None where a rate has no interval."""
    if sensitivity is None or specificity is None:
        return {"ppv": None, "npv": None}
    low, high = (
        predictive_values(*ends, prevalence) for ends in zip(sensitivity, specificity, strict=True)
    )
    return {name: (low[name], high[name]) for name in low}


def threshold_table(
    answers: Answers, positive: str, prevalences: Sequence[float]
) -> list[dict[str, Any]]:
    """Rates for thresholds 0.00 to 1.00: what another choice of operating point would have done on
    these films.
    """
    number = list(answers.classes).index(positive)
    is_positive = answers.targets == number
    rows = []
    for percent in range(101):
        called = answers.probabilities[:, number] >= percent / 100
        rates = {
            key: float(v[0])
            for key, v in intervals.rates_at(is_positive, called, np.ones((1, len(called)))).items()
        }
        row: dict[str, Any] = {
            "threshold": percent / 100,
            **{key: round(value, 6) for key, value in rates.items()},
        }
        row |= {
            "missed": int((is_positive & ~called).sum()),
            "false_alarms": int((~is_positive & called).sum()),
        }
        for prevalence in prevalences:
            for name, value in predictive_values(
                rates["sensitivity"], rates["specificity"], prevalence
            ).items():
                row[f"{name}_at_{prevalence:g}"] = "" if value is None else round(value, 6)
        rows.append(row)
    return rows


def per_source(predictions: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Scores inside each `source` alone, but not of films whose source nothing tells: they are no
    place of their own.

    Where one source holds two classes, its AUROC owes nothing to the source; it may still owe much
    to file sizes and aspect ratios, which differ between classes inside some sources as well.
    """
    found = []
    known = predictions["prediction"].ne("") & predictions["source"].ne(UNKNOWN)
    for source, rows in predictions[known].groupby("source", sort=True):
        answers = answers_of(rows)
        point = intervals.scores(answers, np.ones((1, len(answers.targets))))
        ranges = intervals.all_intervals(answers, seed)
        areas = {}
        for number, name in enumerate(answers.classes):
            positives = int((answers.targets == number).sum())
            if min(positives, len(answers.targets) - positives) >= FEW:
                areas[name] = {
                    "auroc": float(point[f"auroc.{name}"][0]),
                    "interval": ranges[f"auroc.{name}"],
                }
        found.append(
            {
                "source": source,
                "films": {
                    name: int((answers.targets == number).sum())
                    for number, name in enumerate(answers.classes)
                },
                "accuracy": float(point["accuracy"][0]),
                "accuracy_interval": ranges["accuracy"],
                "auroc": areas,
                "baselines": {},
            }
        )
    return found


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _auroc(is_class: np.ndarray, probability: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    if is_class.all() or not is_class.any():
        return None
    return float(roc_auc_score(is_class, probability))


def table_rows(scores: dict[str, Any]) -> list[Sequence[str]]:
    """The per-class scores as cells for a printed table."""
    return [
        (
            name,
            *(_cell(values[key]) for key in ("precision", "recall", "f1", "auroc")),
            str(values["films"]),
        )
        for name, values in scores["per_class"].items()
    ]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> float:
    """Mean |accuracy - confidence| over equal-width bins, weighted by their films (Guo et al.,
    2017).
    """
    return float(
        sum(
            len_ * abs(right - sure) for len_, sure, right in reliability(confidence, correct, bins)
        )
        / len(correct)
    )


def reliability(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> list[tuple[int, float, float]]:
    """Per bin that has films: how many, their mean confidence, their accuracy. Bins are (low,
    high].
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        (
            int((place == number).sum()),
            float(confidence[place == number].mean()),
            float(correct[place == number].mean()),
        )
        for number in range(bins)
        if (place == number).any()
    ]


def brier(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over films of the squared distance between probabilities `(N, classes)` and the truth, 0
    to 2 (Brier, 1950).
    """
    truth = np.eye(probabilities.shape[1])[targets]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())
