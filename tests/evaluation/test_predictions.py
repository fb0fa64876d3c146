"""predictions.csv as arrays."""

from pathlib import Path

import pandas as pd
import pytest

from lib.evaluation.predictions import LabelledPredictions, classes_of, read_predictions
from lib.run.errors import JobError


def test_class_names_that_are_digits_stay_names(tmp_path: Path) -> None:
    table = "path,label,prediction,confidence,prob_0,prob_1\na,0,0,0.9,0.9,0.1\nb,1,1,0.8,0.2,0.8\n"
    (tmp_path / "p.csv").write_text(table)
    films = LabelledPredictions.of(read_predictions(tmp_path / "p.csv"))
    assert films.classes == ["0", "1"]
    assert films.targets.tolist() == films.predicted.tolist() == [0, 1]


def test_rows_with_an_error_are_left_out(predictions: pd.DataFrame) -> None:
    films = LabelledPredictions.of(predictions)
    assert classes_of(predictions) == ["A", "B", "C"]
    assert films.targets.tolist() == [0, 0, 1, 1, 2]
    assert films.probabilities.shape == (5, 3)


def test_a_film_without_a_group_is_a_group_of_its_own(predictions: pd.DataFrame) -> None:
    groups = ["p", "p", "", "", "q", "q"]
    films = LabelledPredictions.of(predictions.assign(group=groups))
    assert films.groups.tolist() == ["p", "p", "3", "4", "q"]
    assert films.count_groups() == 4
    assert films.count_groups(films.targets == 0) == 1


def test_a_table_without_any_prediction_cannot_be_scored(predictions: pd.DataFrame) -> None:
    with pytest.raises(JobError, match="nothing to score"):
        LabelledPredictions.of(predictions.assign(prediction=""))
