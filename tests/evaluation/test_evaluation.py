"""An evaluation from tables alone."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.evaluation.baselines import no_baselines
from lib.evaluation.evaluation import Options, compare, evaluate
from lib.evaluation.results import Evaluation
from lib.prediction.calibration import Calibration
from tests.evaluation.conftest import MODEL, screened

TB = "TUBERCULOSIS"
OPTIONS = Options(TB, [0.01], seed=0)
CALIBRATION = Calibration(20, 1.0, 0.9, 0.4, 0.9, {TB: 0.5}, 1.0, 0.2)


def _evaluate(table: pd.DataFrame, baselines: pd.DataFrame | None = None) -> Evaluation:
    baselines = no_baselines() if baselines is None else baselines
    return evaluate(table, baselines, MODEL, None, OPTIONS)


def test_scores_worked_out_by_hand(predictions: pd.DataFrame) -> None:
    found = _evaluate(predictions)
    assert (found.films, found.unreadable, found.groups) == (5, 1, 5)
    assert found.confusion_matrix == ((1, 1, 0), (0, 2, 0), (1, 0, 0))
    assert found.scores.accuracy.value == pytest.approx(3 / 5)
    assert found.scores.macro_f1.value == pytest.approx((0.5 + 0.8 + 0) / 3)
    first, second, third = found.scores.per_class.values()
    values = [first.precision, first.recall, first.f1, first.auroc]
    assert [score.value for score in values] == pytest.approx([0.5, 0.5, 0.5, 5 / 6])
    assert second.precision.value == pytest.approx(2 / 3)
    assert (third.f1.value, third.precision.value, third.films) == (0, None, 1)


def test_review_counts_all_films_and_scores_the_others(predictions: pd.DataFrame) -> None:
    review = _evaluate(predictions).review
    assert review.share == pytest.approx(2 / 6)
    assert review.accuracy_of_the_rest == pytest.approx(3 / 4)


def test_an_absent_class_has_no_auroc(predictions: pd.DataFrame) -> None:
    found = _evaluate(predictions[predictions["label"] != "C"])
    assert found.scores.per_class["C"].auroc.value is None


def test_random_predictions_score_like_chance() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet((1, 1, 1), 3000)
    names = np.array(["A", "B", "C"])
    table = pd.DataFrame(probabilities, columns=["prob_A", "prob_B", "prob_C"])
    table["prediction"] = names[probabilities.argmax(1)]
    table["label"] = generator.choice(names, 3000)
    table = table.assign(path=table.index.astype(str), needs_review="False", source="unknown")
    scores = _evaluate(table).scores
    assert scores.accuracy.value == pytest.approx(1 / 3, abs=0.03)
    for of_class in scores.per_class.values():
        assert of_class.auroc.value == pytest.approx(0.5, abs=0.03)


def test_no_operating_point_where_no_film_of_the_class_could_be_read() -> None:
    table = screened([0.9] * 3, [0.1] * 20)
    assert evaluate(table, no_baselines(), MODEL, CALIBRATION, OPTIONS).operating_point
    table.loc[table["label"] == TB, "prediction"] = ""
    found = evaluate(table, no_baselines(), MODEL, CALIBRATION, OPTIONS)
    assert found.operating_point is None
    assert found.conformal is not None
    assert found.conformal.coverage == 1
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["operating_point"] is None


def test_baselines_are_scored_inside_each_source_as_well() -> None:
    table = screened([0.9] * 10, [0.1] * 10).assign(source=["one", "two"] * 10)
    baselines = pd.DataFrame({"path": table["path"], "metadata": TB, "thumbnail": table["label"]})
    found = _evaluate(table, baselines)
    expected = {"metadata": 0.5, "thumbnail": 1.0}
    assert {row.source: row.baselines for row in found.sources} == dict.fromkeys(
        ("one", "two"), expected
    )
    assert found.baselines["thumbnail"].margin.value == 0
    assert found.verdict is not None
    assert found.verdict.best_baseline == "thumbnail"


def test_films_without_lungs_are_counted_among_those_that_could_be_read(
    predictions: pd.DataFrame,
) -> None:
    baselines = pd.DataFrame(
        {
            "path": predictions["path"],
            "metadata": "A",
            "without_lung_box": "A",
            "lungs_found": ["True", "False", "True", "False", "True", ""],
        }
    )
    found = _evaluate(predictions, baselines)
    assert list(found.baselines) == ["metadata", "without_lung_box"]
    assert found.baselines["metadata"].no_lungs_found is None
    assert found.baselines["without_lung_box"].no_lungs_found == 2


def test_baselines_are_matched_by_path_and_without_the_films_that_could_not_be_read() -> None:
    table = screened([0.9] * 10, [0.1] * 10)
    baselines = pd.DataFrame({"path": table["path"], "metadata": table["label"]})
    table.loc[0, "prediction"] = ""
    found = _evaluate(table, baselines.sample(frac=1, random_state=0))
    assert found.baselines["metadata"].macro_f1 == 1
    assert [row.baselines["metadata"] for row in found.sources] == [1]


def test_films_of_unknown_source_are_no_source(predictions: pd.DataFrame) -> None:
    found = _evaluate(predictions)
    assert [(row.source, sum(row.films.values())) for row in found.sources] == [
        ("one", 3),
        ("two", 1),
    ]


def test_a_comparison_counts_the_films_that_both_could_read() -> None:
    table = screened([0.9] * 10, [0.1] * 10)
    worse = table.assign(prediction=TB)
    worse.loc[0, "prediction"] = ""
    found = compare(table, worse, 0)
    assert found.films == 19
    assert found.differences.accuracy.value == pytest.approx(10 / 19)
