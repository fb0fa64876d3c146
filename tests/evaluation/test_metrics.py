"""Scores from a table alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import evaluation, metrics
from lib.prediction.calibration import Calibration


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Five films worked out by hand, and one that could not be read."""
    return pd.DataFrame(
        {
            "label": ["A", "A", "B", "B", "C", "C"],
            "prediction": ["A", "B", "B", "B", "A", ""],
            "prob_A": [0.8, 0.3, 0.1, 0.2, 0.5, ""],
            "prob_B": [0.1, 0.6, 0.8, 0.7, 0.3, ""],
            "prob_C": [0.1, 0.1, 0.1, 0.1, 0.2, ""],
        }
    )


def test_scores_worked_out_by_hand(predictions: pd.DataFrame) -> None:
    scores = metrics.score(predictions)
    assert scores["films"] == 5
    assert scores["unreadable"] == 1
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["per_class"]["A"] == pytest.approx(
        {"precision": 0.5, "recall": 0.5, "f1": 0.5, "auroc": 5 / 6, "films": 2}
    )
    assert scores["per_class"]["B"]["precision"] == pytest.approx(2 / 3)
    assert scores["per_class"]["C"]["f1"] == 0
    assert scores["macro_f1"] == pytest.approx((0.5 + 0.8 + 0) / 3)
    assert scores["confusion_matrix"] == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_an_absent_class_has_no_auroc(predictions: pd.DataFrame) -> None:
    assert (
        metrics.score(predictions[predictions["label"] != "C"])["per_class"]["C"]["auroc"] is None
    )


def test_numeric_class_names_stay_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "path,label,prediction,confidence,prob_0,prob_1\na,0,0,0.9,0.9,0.1\nb,1,1,0.8,0.2,0.8\n"
    )
    assert metrics.score(metrics.read_predictions(tmp_path / "p.csv"))["accuracy"] == 1


def test_random_answers_score_like_chance() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1, 1, 1), 3000)
    names = np.array(["A", "B", "C"])
    table = pd.DataFrame(probabilities, columns=["prob_A", "prob_B", "prob_C"])
    table["prediction"] = names[probabilities.argmax(1)]
    table["label"] = rng.choice(names, 3000)
    scores = metrics.score(table)
    assert scores["accuracy"] == pytest.approx(1 / 3, abs=0.03)
    assert all(
        values["auroc"] == pytest.approx(0.5, abs=0.03) for values in scores["per_class"].values()
    )


def _screened(positives: list[float], negatives: list[float]) -> pd.DataFrame:
    table = pd.DataFrame({"prob_TB": positives + negatives})
    table["prob_NORMAL"] = 1 - table["prob_TB"]
    table["label"] = ["TB"] * len(positives) + ["NORMAL"] * len(negatives)
    table["prediction"] = np.where(table["prob_TB"] >= 0.5, "TB", "NORMAL")
    return table.assign(
        path=[str(number) for number in range(len(table))], needs_review="False", source="one"
    )


def test_predictive_values_say_how_little_no_false_alarm_is_worth() -> None:
    answers = metrics.answers_of(_screened([0.9] * 18 + [0.4] * 2, [0.1] * 60))
    point = metrics.operating_point(answers, "TB", 0.5, [0.01], 0)
    assert point["intervals"]["specificity"] == pytest.approx((0.025 ** (1 / 60), 1.0))
    values = point["predictive_values"][0]
    assert values["ppv"] == 1
    low, high = values["intervals"]["ppv"]
    assert low == pytest.approx(
        metrics.predictive_values(point["intervals"]["sensitivity"][0], 0.025 ** (1 / 60), 0.01)[
            "ppv"
        ]
    )
    assert low < 0.15
    assert high == 1
    assert values["intervals"]["npv"][0] < values["npv"] < values["intervals"]["npv"][1] <= 1


def test_no_operating_point_where_no_film_of_the_class_could_be_read() -> None:
    table = _screened([0.9] * 3, [0.1] * 20)
    table.loc[table["label"] == "TB", "prediction"] = ""
    learnt = Calibration(20, 1.0, 0.9, 0.4, 0.9, {"TB": 0.5}, 1.0, 0.2)
    found = evaluation.assess(table, [], learnt, "TB", [0.01], 0)
    assert found["operating_point"] == {}
    assert json.loads(json.dumps(found, allow_nan=False))["conformal"]["coverage"] == 1


def test_baselines_are_scored_inside_each_source_as_well() -> None:
    table = _screened([0.9] * 10, [0.1] * 10).assign(source=["one", "two"] * 10)
    rivals = [
        {"path": path, "metadata": "TB", "thumbnail": label}
        for path, label in zip(table.path, table.label, strict=True)
    ]
    found = evaluation.assess(table, rivals, None, "TB", [0.01], 0)
    assert {row["source"]: row["baselines"] for row in found["sources"]} == {
        source: {"metadata": 0.5, "thumbnail": 1.0} for source in ("one", "two")
    }
