"""A table of predictions with labels, compared with an earlier evaluation of the same films."""

from dataclasses import replace
from pathlib import Path

import pytest

from lib.evaluation.labelled_table import LabelledEvaluation, evaluate_table
from lib.evaluation.results import Estimate
from lib.run.errors import JobError
from lib.storage import atomic
from tests.evaluation.test_labelled_batch import CLASSES, write_table
from tests.evaluation.test_request import USUAL


def score(root: Path, table: Path, labelled: range, compare: Path | None) -> LabelledEvaluation:
    rows = [f"{n:02}.png,{CLASSES[n // 2 % 2]}" for n in labelled]
    labels = root / "labels.csv"
    labels.write_text("\n".join(["path,label", *rows, ""]))
    request = replace(USUAL, predictions=table, labels=labels, compare=compare, runs_dir=root)
    return evaluate_table(request)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The evaluation of a random sample: every second film of 40."""
    table = write_table(tmp_path / "old.csv")
    scored = score(tmp_path, table, range(0, 40, 2), None)
    assert scored.evaluation.labelled
    assert scored.evaluation.labelled.chosen == "random sample"
    folder = tmp_path / "labelled" / "old"
    folder.mkdir(parents=True)
    scored.predictions.to_csv(folder / "predictions.csv", index=False)
    atomic.write_json(folder / "metrics.json", scored.evaluation.to_json())
    return folder


@pytest.mark.parametrize("labelled", [range(0, 40, 2), range(40)])
def test_the_films_of_the_earlier_evaluation_are_scored_again(
    tmp_path: Path, earlier: Path, labelled: range
) -> None:
    table = write_table(tmp_path / "new.csv", sampled=False)
    found = score(tmp_path, table, labelled, earlier).evaluation
    assert found.films == 20
    assert found.labelled
    assert (found.labelled.chosen, found.labelled.generalises) == ("random sample", True)
    assert found.labelled.not_in_table == 0
    assert found.comparison
    difference = found.comparison.differences.accuracy
    assert isinstance(difference, Estimate)
    assert difference.interval is not None


def test_a_sample_of_another_table_is_none_of_this_one(tmp_path: Path, earlier: Path) -> None:
    table = write_table(tmp_path / "new.csv", films=50, sampled=False)
    found = score(tmp_path, table, range(0, 40, 2), earlier).evaluation
    assert found.labelled
    assert (found.labelled.chosen, found.labelled.generalises) == ("some", False)
    assert found.comparison


def test_a_comparison_with_films_that_have_no_label_now_is_refused(
    tmp_path: Path, earlier: Path
) -> None:
    table = write_table(tmp_path / "new.csv", sampled=False)
    with pytest.raises(JobError, match="scored other films"):
        score(tmp_path, table, range(0, 20, 2), earlier)
