"""The scoring engine agrees with scikit-learn, also for weighted films."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from lib.evaluation import scoring
from lib.evaluation.predictions import LabelledPredictions
from tests.evaluation.conftest import CLASSES, draw

EXACT = 1e-12


def _weightings(films: int, seed: int) -> list[np.ndarray]:
    """Every film once, then three random weightings as a bootstrap draws them."""
    drawn = np.random.default_rng(seed).integers(0, 4, (3, films)).astype(float)
    return [np.ones(films), *drawn]


@pytest.mark.parametrize("seed", range(5))
def test_overall_scores_are_those_of_scikit_learn(seed: int) -> None:
    films = draw(300, seed)
    weightings = _weightings(300, seed)
    found = scoring.scores(films, np.stack(weightings))
    names = (films.targets, films.predicted)
    for row, weight in enumerate(weightings):
        expected = {
            "accuracy": sk.accuracy_score(*names, sample_weight=weight),
            "macro_f1": sk.f1_score(*names, average="macro", sample_weight=weight),
            "brier": sk.brier_score_loss(
                films.targets, films.probabilities, sample_weight=weight, scale_by_half=False
            ),
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_scores_per_class_are_those_of_scikit_learn(seed: int) -> None:
    films = draw(300, seed)
    weightings = _weightings(300, seed)
    found = scoring.scores(films, np.stack(weightings))
    for row, weight in enumerate(weightings):
        options: dict[str, Any] = {"sample_weight": weight}
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            films.targets, films.predicted, **options
        )
        for number in range(len(CLASSES)):
            positive, score = films.targets == number, films.probabilities[:, number]
            expected = {
                "precision": precision[number],
                "recall": recall[number],
                "f1": f1[number],
                "specificity": sk.recall_score(~positive, films.predicted != number, **options),
                "auroc": sk.roc_auc_score(positive, score, **options),
            }
            for name, value in expected.items():
                assert found[name][row, number] == pytest.approx(value, abs=EXACT)


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    films = draw(300, 0)
    found = scoring.weighted_confusion(films, scoring.once(300))[0]
    assert np.array_equal(found, sk.confusion_matrix(films.targets, films.predicted))


def test_macro_f1_is_the_mean_over_classes_that_a_resample_has() -> None:
    films = draw(40, 5)
    drawn = np.random.default_rng(0).integers(0, 3, (20, 40)).astype(float)
    weights = drawn * (films.targets != 2) * (films.predicted != 2)
    alone = scoring.macro_f1(films, weights)
    assert alone == pytest.approx(scoring.scores(films, weights)["macro_f1"], abs=EXACT)
    expected = [
        sk.f1_score(
            films.targets, films.predicted, labels=[0, 1], average="macro", sample_weight=row
        )
        for row in weights
    ]
    assert alone == pytest.approx(expected, abs=EXACT)


def test_a_score_that_is_not_defined_is_nan() -> None:
    targets, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    certain = np.eye(3)[predicted]
    films = LabelledPredictions(targets, predicted, certain, targets.astype(str), CLASSES)
    found = scoring.scores(films, scoring.once(3))
    for name in ("precision", "recall", "f1", "auroc"):
        assert np.isnan(found[name]).tolist() == [[False, False, True]]
    assert found["macro_f1"][0] == pytest.approx(2 / 3, abs=EXACT)
