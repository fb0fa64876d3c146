"""predictions.csv as a table, and as the arrays that scores are computed from; tables as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.run.errors import JobError
from lib.storage.atomic import write_csv

PROBABILITY = "prob_"  # columns prob_<CLASS>

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions with the true classes, one entry per film."""

    targets: Ints  # (N,) class numbers
    predicted: Ints  # (N,) class numbers
    probabilities: Floats  # (N, classes)
    groups: NDArray[np.str_]  # (N,) names
    classes: Sequence[str]

    @staticmethod
    def of(table: pd.DataFrame) -> "LabelledPredictions":
        """The rows that have a prediction. A film without a `group` is a group of its own.

        Raises:
            JobError: no row has a prediction.
        """
        classes = classes_of(table)
        rows = table[table["prediction"].isin(classes)]
        if rows.empty:
            raise JobError(
                "no film could be read, so there is nothing to score. "
                "The error column of predictions.csv says why for each film."
            )
        groups = rows["group"] if "group" in rows else rows["path"]
        return LabelledPredictions(
            targets=_numbers(rows["label"], classes),
            predicted=_numbers(rows["prediction"], classes),
            probabilities=rows[[PROBABILITY + name for name in classes]].to_numpy(float),
            groups=groups.where(groups.ne(""), rows["path"]).to_numpy(str),
            classes=classes,
        )

    def __len__(self) -> int:
        return len(self.targets)

    def count_groups(self, among: Bools | None = None) -> int:
        """Groups (patients) of all films, or of the films `among` `(N,)`."""
        return len(set(self.groups if among is None else self.groups[among]))

    def count_classes(self) -> int:
        """Classes that have a film."""
        return len(np.unique(self.targets))

    def with_predicted(self, predicted: Ints) -> "LabelledPredictions":
        """The same films with other predictions `(N,)`, each certain."""
        certain = np.eye(len(self.classes))[predicted]
        return LabelledPredictions(self.targets, predicted, certain, self.groups, self.classes)

    def number_of(self, name: str) -> int:
        """Number of a class."""
        return list(self.classes).index(name)


@dataclass(frozen=True)
class ClassProbabilities:
    """What a baseline answers: a probability of each class that it has learned, per film."""

    classes: tuple[str, ...]
    rows: Floats  # (N, classes)

    @property
    def names(self) -> list[str]:
        """The most probable class of each film."""
        return [self.classes[best] for best in self.rows.argmax(axis=1)]

    def of(self, classes: Sequence[str]) -> Floats:
        """`(N, len(classes))`: 0 for a class that was not learned."""
        columns = [
            self.rows[:, self.classes.index(name)]
            if name in self.classes
            else np.zeros(len(self.rows))
            for name in classes
        ]
        return np.stack(columns, axis=1)


def classes_of(table: pd.DataFrame) -> list[str]:
    """Class names in the order of the probability columns."""
    names = [str(column) for column in table.columns]
    return [name.removeprefix(PROBABILITY) for name in names if name.startswith(PROBABILITY)]


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a predictions CSV as text, but `confidence` and probabilities as floats.

    Rows with an error have NaN there.
    """
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    for column in table.columns:
        if column == "confidence" or column.startswith(PROBABILITY):
            table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV with the columns of the table, whole or not at all."""
    columns = [str(name) for name in table.columns]
    rows = table.itertuples(index=False, name=None)
    write_csv(path, columns, (dict(zip(columns, row, strict=True)) for row in rows))


def read_earlier(
    folder: Path, films: Sequence[str], labels: Sequence[str], classes: Sequence[str]
) -> pd.DataFrame:
    """Read the predictions of an earlier evaluation of the same films.

    Raises:
        JobError: there is none, or it has other films, labels or classes.
    """
    file = folder / "predictions.csv"
    if not file.exists():
        raise JobError(
            f"--compare {folder}: there is no {file}. Give the folder of an earlier evaluation."
        )
    earlier = read_predictions(file)
    if earlier["path"].tolist() != list(films):
        raise JobError(
            f"--compare {folder} scored other films: evaluate both models on the same films."
        )
    if earlier["label"].tolist() != list(labels):
        raise JobError(
            f"--compare {folder} scored these films with other labels: evaluate both models with "
            "the same labels."
        )
    if classes_of(earlier) != list(classes):
        raise JobError(
            f"--compare {folder} has other classes: {', '.join(classes_of(earlier))}, "
            f"but this model has {', '.join(classes)}."
        )
    return earlier


def _numbers(names: "pd.Series[str]", classes: Sequence[str]) -> Ints:
    number_of = {name: number for number, name in enumerate(classes)}
    return np.array([number_of[name] for name in names], dtype=np.int64)
