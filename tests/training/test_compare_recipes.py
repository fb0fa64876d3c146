"""Tests of the tool that compares recipes on unseen collections."""

from pathlib import Path

import numpy as np
import pytest

from tools import compare_recipes

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def test_scores_are_of_the_disease_against_normal_films() -> None:
    target = np.array([0, 0, 0, 0, 2, 2, 2, 2])
    separated = np.array([[0.9, 0.05, 0.05]] * 4 + [[0.1, 0.2, 0.7]] * 4)
    perfect = {"TUBERCULOSIS": 1.0, "abnormal": 1.0, "specificity": 1.0}
    assert compare_recipes.scores(target, separated) == perfect
    reversed_ = compare_recipes.scores(target, separated[::-1])
    assert (reversed_["TUBERCULOSIS"], reversed_["specificity"]) == (0.0, 0.0)


@pytest.mark.skipif(not SHARED.exists(), reason="no folder of real films beside the project")
def test_no_collection_or_patient_is_learnt_and_tested() -> None:
    collection = compare_recipes.Collection(SHARED)
    folds = collection.folds()
    assert len(folds) == 6
    for learnt, tested in folds.values():
        assert not (learnt & tested).any()
        assert not np.intersect1d(collection.patient[learnt], collection.patient[tested]).size
        assert len(set(collection.target[tested])) == 2  # normal films and one disease
        rows = compare_recipes.rows_of(collection, learnt, seed=1)
        parts = [set(collection.patient[rows[part]]) for part in ("train", "val")]
        assert parts[0].isdisjoint(parts[1])
        assert sum(map(len, rows.values())) == learnt.sum()
