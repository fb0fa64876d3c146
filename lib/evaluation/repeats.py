"""Repeated splits: how much scores change with the seed of the split and of the training.

An interval from one split holds the chance in the choice of its test films. It does not hold that
another split would have other training films, and another seed another head. Source of the idea:
X. Bouthillier et al., "Accounting for variance in machine learning benchmarks", MLSys 3 (2021).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib.evaluation import scoring
from lib.evaluation.predictions import PROBABILITY, Floats, LabelledPredictions
from lib.evaluation.results import Repeats, Spread


def rows_of(
    seed: int,
    names: Sequence[str],
    labels: Sequence[str],
    probabilities: Floats,
    classes: Sequence[str],
) -> pd.DataFrame:
    """The rows of repeats.csv of one seed; `probabilities` are `(films, classes)`."""
    best = probabilities.argmax(axis=1)
    columns = {
        f"{PROBABILITY}{name}": probabilities[:, number] for number, name in enumerate(classes)
    }
    predicted = [classes[number] for number in best]
    films = {"seed": seed, "path": names, "label": labels, "prediction": predicted}
    return pd.DataFrame({**films, **columns})


def score_repeats(table: pd.DataFrame, training_films: int) -> Repeats:
    """Mean and spread of the scores over the seeds in repeats.csv."""
    scores, classes = [], []
    for _, rows in table.groupby("seed", sort=True):
        labelled = LabelledPredictions.of(rows)
        classes = list(labelled.classes)
        scores.append(scoring.scores(labelled, scoring.once(len(labelled))))
    areas = np.stack([one["auroc"][0] for one in scores])
    return Repeats(
        seeds=tuple(int(seed) for seed in sorted(set(table["seed"]))),
        training_films=training_films,
        test_films=len(table) // len(scores),
        accuracy=_spread([one["accuracy"][0] for one in scores]),
        macro_f1=_spread([one["macro_f1"][0] for one in scores]),
        auroc={name: _spread(areas[:, number]) for number, name in enumerate(classes)},
    )


def _spread(values: Sequence[float] | Floats) -> Spread:
    array = np.asarray(values, float)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(float(array.mean()), deviation, float(array.min()), float(array.max()))
