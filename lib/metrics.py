"""What a predictions table is worth: every score is computed from its columns, the model is not needed.

scikit-learn is imported where it is used: the train job draws its curves without it, half a second earlier.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PROBABILITY = "prob_"  # columns prob_<CLASS>


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Class names in the order of the probability columns."""
    return [column.removeprefix(PROBABILITY) for column in predictions.columns if column.startswith(PROBABILITY)]


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a predictions CSV: texts as they stand, `confidence` and probabilities as floats (NaN in rows with an error)."""
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    for column in table.columns:
        if column == "confidence" or column.startswith(PROBABILITY):
            table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def score(predictions: pd.DataFrame) -> dict[str, Any]:
    """Scores of the rows that have a prediction.

    Needs the columns `label`, `prediction` and `prob_<CLASS>`. Precision of a class that was never predicted is 0, as
    is its F1; the one-vs-rest AUROC of a class that is absent, or alone, is None. Rows with an error are counted as
    `unreadable` and left out of every score. The confusion matrix has true classes as rows, predicted as columns.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

    classes = classes_of(predictions)
    rows = predictions[predictions["prediction"].isin(classes)]
    truth, answer = rows["label"].to_numpy(object), rows["prediction"].to_numpy(object)
    precision, recall, f1, support = precision_recall_fscore_support(truth, answer, labels=classes, zero_division=0)
    per_class = {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "auroc": _auroc(truth == name, rows[PROBABILITY + name].to_numpy(float)),
            "films": int(support[index]),
        }
        for index, name in enumerate(classes)
    }
    return {
        "films": len(rows),
        "unreadable": len(predictions) - len(rows),
        "accuracy": float(accuracy_score(truth, answer)),
        "macro_f1": float(f1_score(truth, answer, labels=classes, average="macro", zero_division=0)),
        "per_class": per_class,
        "classes": classes,
        "confusion_matrix": confusion_matrix(truth, answer, labels=classes).tolist(),
    }


def _auroc(is_class: np.ndarray, probability: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    if is_class.all() or not is_class.any():
        return None
    return float(roc_auc_score(is_class, probability))


def table_rows(scores: dict[str, Any]) -> list[Sequence[str]]:
    """The per-class scores as cells for a printed table."""
    return [
        (name, *(_cell(values[key]) for key in ("precision", "recall", "f1", "auroc")), str(values["films"]))
        for name, values in scores["per_class"].items()
    ]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
