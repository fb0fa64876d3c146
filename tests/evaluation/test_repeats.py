"""Repeated splits: the spread of scores over seeds."""

import numpy as np
import pandas as pd
import pytest

from lib.evaluation.repeats import rows_of, score_repeats

CLASSES = ["N", "P"]


def _seed(seed: int, right: int) -> pd.DataFrame:
    """Ten films of each class, `right` of the N among them predicted as N."""
    probability = np.array([0.9] * right + [0.1] * (20 - right))
    rows = np.stack([probability, 1 - probability], axis=1)
    names = [str(number) for number in range(20)]
    return rows_of(seed, names, ["N"] * 10 + ["P"] * 10, rows, CLASSES)


def test_mean_and_deviation_are_over_the_seeds() -> None:
    spread = score_repeats(pd.concat([_seed(4, 10), _seed(5, 8)]), training_films=80)
    assert spread.seeds == (4, 5)
    assert (spread.training_films, spread.test_films) == (80, 20)
    assert spread.accuracy.mean == pytest.approx(0.95)
    assert spread.accuracy.deviation == pytest.approx(0.1 / np.sqrt(2))
    assert (spread.accuracy.lowest, spread.accuracy.highest) == (0.9, 1.0)
    assert spread.auroc["P"].highest == 1


def test_one_seed_has_no_deviation() -> None:
    assert score_repeats(_seed(0, 7), training_films=80).macro_f1.deviation is None
