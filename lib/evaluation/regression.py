"""Logistic regression on the features of a network: the head of the control and of the probe."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.evaluation.predictions import ClassProbabilities

STEPS = 1000  # of the optimiser, at most
# Inverse strength of the penalty: the best of 0.003 to 3 in a cross-validation of training films
# without lungs. A weaker penalty would flatter the model that the control stands beside.
INVERSE_PENALTY = 0.03


def fit_predict_regression(
    train: NDArray[np.floating],
    names: Sequence[str] | NDArray[np.str_],
    test: NDArray[np.floating],
    seed: int,
    balanced: bool = True,
) -> ClassProbabilities:
    """Probabilities for `test` `(M, F)`, from a regression fitted on `train` `(N, F)`.

    Features are standardised; `balanced` gives every class the same weight. Where all films of
    `train` have one name, every film of `test` gets it.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Numbers: class names that are digits would be taken for values.
    classes, numbers = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    if len(classes) == 1:
        return ClassProbabilities((str(classes[0]),), np.ones((len(test), 1)))
    weight = "balanced" if balanced else None
    regression = LogisticRegression(
        C=INVERSE_PENALTY, max_iter=STEPS, class_weight=weight, random_state=seed
    )
    model = make_pipeline(StandardScaler(), regression)
    model.fit(train, numbers)
    return ClassProbabilities(tuple(map(str, classes)), model.predict_proba(test))
