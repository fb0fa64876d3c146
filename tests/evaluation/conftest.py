"""Labelled predictions with known properties."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.results import ScoredModel

CLASSES = ("A", "B", "C")
MODEL = ScoredModel("net@0", "a", "fp32", "0" * 64, "1" * 64)


def draw(films: int, seed: int, skill: float = 2.0, per_group: int = 1) -> LabelledPredictions:
    """Random predictions of three classes, with ties; `skill` 0 is guessing."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 3, films)
    logits = generator.normal(size=(films, 3)).round(1) + skill * np.eye(3)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    groups = np.array([f"g{number // per_group}" for number in range(films)])
    predicted = probabilities.argmax(axis=1)
    return LabelledPredictions(targets, predicted, probabilities, groups, CLASSES)


def screened(positives: Sequence[float], negatives: Sequence[float]) -> pd.DataFrame:
    """A table of films of TUBERCULOSIS and NORMAL with their probability of TUBERCULOSIS."""
    table = pd.DataFrame({"prob_TUBERCULOSIS": [*positives, *negatives]})
    table["prob_NORMAL"] = 1 - table["prob_TUBERCULOSIS"]
    table["label"] = ["TUBERCULOSIS"] * len(positives) + ["NORMAL"] * len(negatives)
    is_called = table["prob_TUBERCULOSIS"] >= 0.5
    table["prediction"] = np.where(is_called, "TUBERCULOSIS", "NORMAL")
    paths = [str(number) for number in range(len(table))]
    return table.assign(path=paths, needs_review="False", source="one")


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Five films worked out by hand, and one that could not be read."""
    return pd.DataFrame(
        {
            "path": ["1", "2", "3", "4", "5", "6"],
            "label": ["A", "A", "B", "B", "C", "C"],
            "prediction": ["A", "B", "B", "B", "A", ""],
            "prob_A": [0.8, 0.3, 0.1, 0.2, 0.5, ""],
            "prob_B": [0.1, 0.6, 0.8, 0.7, 0.3, ""],
            "prob_C": [0.1, 0.1, 0.1, 0.1, 0.2, ""],
            "needs_review": ["False", "True", "False", "False", "False", "True"],
            "source": ["one", "one", "one", "two", "unknown", "one"],
        }
    )
