"""A table of predictions with labels: which films are scored, and when the scores generalise."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lib.dataset.label_table import LabelTable
from lib.evaluation import evaluation as engine
from lib.evaluation.baselines import no_baselines
from lib.evaluation.evaluation import Options
from lib.evaluation.labelled_batch import (
    LabelledPredictionTable,
    join_labels,
    read_table,
    with_labelled_batch,
)
from lib.evaluation.results import Estimate, Evaluation, ScoredModel
from lib.prediction.rows import Row, RowSchema
from lib.run.errors import JobError, UsageError
from lib.storage import tables

CLASSES = ("NORMAL", "TUBERCULOSIS")


def write_table(path: Path, films: int = 40, models: int = 1, sampled: bool = True) -> Path:
    """Every second film is `sampled`, every fourth asks for a review; the last cannot be read."""
    schema = RowSchema(CLASSES, has_sample=sampled)
    rows = []
    for n in range(films):
        p = n / films
        is_readable = n < films - 1
        rows.append(
            Row(
                f"{n:02}.png",
                f"m@{n % models}",
                CLASSES[p > 0.5] if is_readable else "",
                max(p, 1 - p) if is_readable else None,
                (1 - p, p) if is_readable else (),
                needs_review=n % 4 == 0 or not is_readable,
                is_sampled=n % 2 == 0,
            )
        )
    tables.table_of(path, schema.columns).write(map(schema.record, rows))
    return path


def labelled(
    tmp_path: Path, *films: int, label: str = "", table: str = "x.csv", models: int = 1
) -> LabelledPredictionTable:
    """The films with these numbers are labelled, alternating between the classes or all `label`."""
    rows = [f"{n:02}.png,{label or CLASSES[n // 2 % 2]}" for n in films]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows, ""]))
    found = read_table(write_table(tmp_path / table, models=models))
    return join_labels(found, table, LabelTable.read(tmp_path / "labels.csv"), None)


def evaluated(joined: LabelledPredictionTable) -> Evaluation:
    model = ScoredModel(joined.model, "", "", "", "")
    options = Options("TUBERCULOSIS", (0.1,), 0)
    found = engine.evaluate(joined.predictions, no_baselines(), model, None, options)
    return with_labelled_batch(found, joined.batch)


def test_labels_of_all_readable_films_generalise(tmp_path: Path) -> None:
    joined = labelled(tmp_path, *range(40))
    assert (joined.batch.chosen, joined.batch.generalises) == ("all", True)
    assert (joined.batch.readable, joined.batch.answered) == (39, 39)
    assert evaluated(joined).scores.accuracy.interval is not None


def test_a_whole_random_sample_is_scored_without_the_films_beside_it(tmp_path: Path) -> None:
    joined = labelled(tmp_path, *range(0, 40, 2), 1, 3)
    assert (joined.batch.chosen, joined.batch.generalises) == ("random sample", True)
    assert joined.batch.answered == 22
    assert [int(path[:2]) for path in joined.predictions["path"]] == list(range(0, 40, 2))


def test_a_part_of_a_random_sample_is_no_random_sample(tmp_path: Path) -> None:
    joined = labelled(tmp_path, *range(0, 38, 2))
    assert (joined.batch.chosen, joined.batch.generalises) == ("some", False)


def test_labels_of_films_that_ask_for_a_review_do_not_generalise(tmp_path: Path) -> None:
    joined = labelled(tmp_path, *range(0, 40, 4))
    assert (joined.batch.chosen, joined.batch.generalises) == ("review only", False)
    assert "nothing about the other films" in joined.batch.words
    found = evaluated(joined)
    estimates = [found.scores.accuracy, found.scores.per_class["NORMAL"].auroc]
    assert all(isinstance(one, Estimate) and one.interval is None for one in estimates)
    assert found.scores.accuracy.value is not None
    assert found.operating_point is None


def test_scores_of_films_that_the_model_has_learnt_do_not_generalise(tmp_path: Path) -> None:
    joined = labelled(tmp_path, *range(40))
    rows = [f"{n:02}.png,{CLASSES[n % 2]},{n:064x}" for n in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,sha256", *rows, ""]))
    labels = LabelTable.read(tmp_path / "labels.csv")
    joined = join_labels(read_table(tmp_path / "x.csv"), "x.csv", labels, None)
    assert joined.batch_beside({"f" * 64}).generalises
    batch = joined.batch_beside({f"{3:064x}", f"{5:064x}", f"{39:064x}"})
    assert (batch.learnt, batch.generalises) == (2, False)  # the last film cannot be read
    assert "which flatters it" in batch.words


@pytest.mark.parametrize("spelling", ["{}", "./{}", "/data/local-files/?d=inbox/{}"])
def test_a_film_is_known_as_learnt_however_its_path_is_spelt(tmp_path: Path, spelling: str) -> None:
    table = read_table(write_table(tmp_path / "x.csv"))
    tasks = [
        {
            "data": {"image": spelling.format(f"{n:02}.png"), "sha256": f"{n:064x}"},
            "annotations": [
                {"result": [{"type": "choices", "value": {"choices": [CLASSES[n % 2]]}}]}
            ],
        }
        for n in range(40)
    ]
    (tmp_path / "labels.json").write_text(json.dumps(tasks))
    joined = join_labels(table, "x.csv", LabelTable.read(tmp_path / "labels.json"), None)
    batch = joined.batch_beside({f"{3:064x}"})
    assert (batch.learnt, batch.generalises) == (1, False)


def test_answers_that_are_no_class_count_but_are_not_scored(tmp_path: Path) -> None:
    labelled(tmp_path, *range(40))
    text = (tmp_path / "labels.csv").read_text()
    for number, answer in ((1, "NOT_A_CHEST_FILM"), (2, "CANNOT_TELL"), (3, "COVID")):
        lines = text.splitlines()
        lines[1 + number] = f"{number:02}.png,{answer}"
        text = "\n".join([*lines, "gone.png,NORMAL", ""])
    (tmp_path / "labels.csv").write_text(text)
    joined = join_labels(
        read_table(tmp_path / "x.csv"), "x.csv", LabelTable.read(tmp_path / "labels.csv"), None
    )
    batch = joined.batch
    assert (batch.not_a_chest_film, batch.cannot_tell, batch.unknown_class) == (1, 1, 1)
    assert (batch.chosen, batch.not_in_table, len(joined.predictions)) == ("all", 3, 36)


def test_a_film_with_two_labels_and_labels_of_other_films_are_refused(tmp_path: Path) -> None:
    labelled(tmp_path, 1)
    table = read_table(tmp_path / "x.csv")
    (tmp_path / "labels.csv").write_text("path,label\n01.png,NORMAL\n01.png,TB\n")
    with pytest.raises(JobError, match=r"line 3 gives 01\.png the label TUBERCULOSIS, line 2"):
        join_labels(table, "x.csv", LabelTable.read(tmp_path / "labels.csv"), None)
    (tmp_path / "labels.csv").write_text("path,label\nother.png,NORMAL\n")
    with pytest.raises(JobError, match=r"no film of x\.csv has a label"):
        join_labels(table, "x.csv", LabelTable.read(tmp_path / "labels.csv"), None)


def test_a_table_of_two_models_is_scored_one_by_one(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"2 models: m@0, m@1. .*--model"):
        labelled(tmp_path, *range(40), models=2)
    table, labels = read_table(tmp_path / "x.csv"), LabelTable.read(tmp_path / "labels.csv")
    assert len(join_labels(table, "x.csv", labels, "m@1").predictions) == 19
    with pytest.raises(JobError, match="no row of the model m@9"):
        join_labels(table, "x.csv", labels, "m@9")


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    first = labelled(tmp_path, *range(40)).predictions
    second = labelled(tmp_path, *range(40), table="x.parquet").predictions
    pd.testing.assert_frame_equal(first, second, atol=1e-6, check_dtype=False)


def test_what_is_no_table_of_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\na,b\n")
    with pytest.raises(JobError, match="no table of predict_batch: it has no column prediction"):
        read_table(tmp_path / "x.csv")
    with pytest.raises(JobError, match="there is no such table"):
        read_table(tmp_path / "y.csv")
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        read_table(tmp_path / "y.txt")
