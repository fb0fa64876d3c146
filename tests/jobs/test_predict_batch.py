"""The predict_batch job: one row per file, in order, whatever the file is."""

import csv
import json
import math
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from jobs import predict_batch
from lib.dataset.manifest import read_split
from lib.prediction import nights
from lib.storage import atomic
from lib.storage.cells import from_cell
from tests.conftest import film, predict, run

COLUMNS = [
    "path",
    "prediction",
    "confidence",
    "prob_NORMAL",
    "prob_PNEUMONIA",
    "prob_TUBERCULOSIS",
    "needs_review",
    "reasons",
    "outside_lungs",
    "distance",
    "width",
    "height",
    "maker",
    "view",
    "error",
    "model",
]


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{**row, "path": from_cell(row["path"])} for row in csv.DictReader(file)]


def _page(path: Path) -> str:
    """Without the identity of the batch, which comes from the name of its table."""
    return re.sub(r'"batch": "[0-9a-f]{64}"', "", path.read_text())


@pytest.fixture
def inbox(tmp_path: Path, phantom_films: Path) -> Path:
    """Two good films in different folders and formats, a broken one, a text, a blank one, an odd
    name.
    """
    folder = tmp_path / "inbox"
    (folder / "b").mkdir(parents=True)
    films = sorted(phantom_films.rglob("patient*.png"))
    (folder / "b" / "two.PNG").write_bytes(films[0].read_bytes())
    film(folder / "a one.jpg", side=300)
    (folder / "broken.png").write_bytes(films[1].read_bytes()[:5000])
    (folder / "notes.txt").write_text("hello")
    film(folder / 'odd,"name\n.png', side=64)
    from PIL import Image

    Image.new("L", (200, 200), 30).save(folder / "blank.png")
    (folder / ".DS_Store").touch()
    return folder


def test_every_file_is_one_row_in_the_order_of_paths(
    chain: Path, inbox: Path, tmp_path: Path
) -> None:
    assert predict(chain, inbox, tmp_path / "out" / "x.csv") == 3
    rows = _rows(tmp_path / "out" / "x.csv")
    assert [row["path"] for row in rows] == [
        "a one.jpg",
        "b/two.PNG",
        "blank.png",
        "broken.png",
        "notes.txt",
        'odd,"name\n.png',
    ]
    assert list(rows[0]) == COLUMNS
    answered = {row["path"] for row in rows if row["prediction"]}
    assert answered == {"a one.jpg", "b/two.PNG", "blank.png", 'odd,"name\n.png'}
    for row in rows:
        assert bool(row["prediction"]) != bool(row["error"])
        assert row["model"].startswith("efficientnet_lite0@")
        if row["error"]:
            assert (row["needs_review"], row["reasons"], row["confidence"]) == (
                "True",
                "unreadable",
                "",
            )
        else:
            assert sum(
                float(row[f"prob_{name}"]) for name in ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
            ) == pytest.approx(1, abs=1e-5)
            assert float(row[f"prob_{row['prediction']}"]) == float(row["confidence"])
    assert "blank" in rows[2]["reasons"]


def test_only_good_films_exit_0(chain: Path, tmp_path: Path) -> None:
    film(tmp_path / "in" / "a.png")
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv") == 0


def test_a_single_file_is_an_input(chain: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "in" / "a.png")
    assert predict(chain, path, tmp_path / "x.csv") == 0
    assert [row["path"] for row in _rows(tmp_path / "x.csv")] == ["a.png"]


def test_the_review_threshold_decides_who_is_looked_at(chain: Path, tmp_path: Path) -> None:
    film(tmp_path / "in" / "a.png")
    predict(chain, tmp_path / "in", tmp_path / "x.csv", "--review_below", "0.0")
    predict(chain, tmp_path / "in", tmp_path / "y.csv", "--review_below", "0.999999")
    (unasked,), (asked,) = _rows(tmp_path / "x.csv"), _rows(tmp_path / "y.csv")
    assert "below 0.999999" not in unasked["reasons"]
    assert (asked["needs_review"], "below 0.999999" in asked["reasons"]) == ("True", True)


def test_the_stored_operating_point_calls_its_class_from_its_threshold_on(
    chain: Path, tmp_path: Path
) -> None:
    films = (chain / "data").resolve() / "test"
    assert predict(chain, films, tmp_path / "x.csv", "--operating_point", "TUBERCULOSIS") == 0
    stored = json.loads((chain / "runs/model/model.json").read_text())["calibration"]["thresholds"][
        "TUBERCULOSIS"
    ]
    for row in _rows(tmp_path / "x.csv"):
        called = float(row["prob_TUBERCULOSIS"]) >= round(stored, 6)
        assert (row["prediction"] == "TUBERCULOSIS") == called


def test_a_given_threshold_takes_the_place_of_the_stored_one(chain: Path, tmp_path: Path) -> None:
    films = (chain / "data").resolve() / "test"
    assert predict(chain, films, tmp_path / "x.csv", "--threshold", "TUBERCULOSIS=0.25") == 0
    for row in _rows(tmp_path / "x.csv"):
        called = float(row["prob_TUBERCULOSIS"]) >= 0.25
        assert (row["prediction"] == "TUBERCULOSIS") == called


def test_a_batch_is_compared_and_kept_for_the_next_one(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = (chain / "data").resolve() / "train"
    flags = ["--model", chain / "runs/model", "--runs_dir", tmp_path / "runs"]
    table = tmp_path / "x.csv"
    assert run(predict_batch, "--input", films, "--output", table, *flags) == 0
    said = "".join(capsys.readouterr())
    assert "compared with the validation films of its model" in said
    (night,) = nights.read_nights(tmp_path / "runs")
    rows = _rows(table)
    assert night.films == len(rows)
    assert night.distance == tuple(round(float(row["distance"]), 4) for row in rows)
    assert "x.csv" in (tmp_path / "runs" / "drift.html").read_text()


def test_the_screening_threshold_calls_whatever_is_not_normal(chain: Path, tmp_path: Path) -> None:
    films = (chain / "data").resolve() / "test"
    assert predict(chain, films, tmp_path / "x.csv", "--operating_point", "abnormal") == 0
    model = json.loads((chain / "runs/model/model.json").read_text())
    stored = model["calibration"]["thresholds"]["abnormal"]
    for row in _rows(tmp_path / "x.csv"):
        called = 1 - float(row["prob_NORMAL"]) >= stored - 2e-6
        assert (row["prediction"] != "NORMAL") == called


def test_an_unknown_operating_point_is_refused_by_name(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film(tmp_path / "in" / "a.png")
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv", "--operating_point", "CANCER") == 1
    assert "no threshold for it; it has them for NORMAL" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_every_readable_film_gets_a_picture_of_where_its_answer_comes_from(
    chain: Path, tmp_path: Path
) -> None:
    film(tmp_path / "in" / "deep" / "a.png")
    (tmp_path / "in" / "broken.png").write_text("no film")
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv", "--explain", tmp_path / "maps") == 3
    assert [
        path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").rglob("*.*")
    ] == ["deep/a.png.png"]
    with Image.open(tmp_path / "maps" / "deep" / "a.png.png") as image:
        assert (image.size, image.mode) == ((448, 224), "RGB")


def test_the_answers_are_those_of_the_evaluation(chain: Path, tmp_path: Path) -> None:
    predict(chain, (chain / "data").resolve() / "test", tmp_path / "x.csv")
    evaluated = {
        row["path"]: row["confidence"]
        for row in _rows(chain / "runs" / "evaluation" / "predictions.csv")
    }
    predicted = {row["path"]: row["confidence"] for row in _rows(tmp_path / "x.csv")}
    assert (
        set(evaluated)
        == set(predicted)
        == {
            row.file.removeprefix("test/")
            for row in read_split(chain / "data")
            if row.split == "test"
        }
    )
    assert all(
        float(evaluated[path]) == pytest.approx(float(predicted[path]), abs=1e-4)
        for path in evaluated
    )


def test_a_name_that_is_not_utf8_costs_nothing(chain: Path, tmp_path: Path) -> None:
    good = film(tmp_path / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"\xff\xfe.png")).write_bytes(good.read_bytes())
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv") == 0
    assert len(_rows(tmp_path / "x.csv")) == 1


def test_parquet_and_csv_hold_the_same_rows_and_make_the_same_page(
    chain: Path, inbox: Path, tmp_path: Path
) -> None:
    for name, more in (("x.csv", ()), ("x.parquet", ()), ("parts.parquet", ("--rows_per_file", 2))):
        assert (
            predict(chain, inbox, tmp_path / name, *more, "--report", tmp_path / f"{name}.html")
            == 3
        )
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    for name in ("x.parquet", "parts.parquet"):
        found = pd.read_parquet(tmp_path / name)
        assert list(found.columns) == COLUMNS
        for row, known in zip(found.to_dict("records"), wanted, strict=True):
            for column, value in row.items():
                if isinstance(value, float) and column not in ("prediction", "error"):
                    assert (
                        known[column] == "" if math.isnan(value) else float(known[column]) == value
                    )
                else:
                    assert known[column] == ("" if pd.isna(value) else str(value))
        assert _page(tmp_path / f"{name}.html") == _page(tmp_path / "x.csv.html")
    assert sorted(path.name for path in (tmp_path / "parts.parquet").iterdir()) == [
        f"part-0000{n}.parquet" for n in range(3)
    ]


@pytest.mark.parametrize("more", [(), ("--rows_per_file", 2)])
def test_new_films_are_added_to_a_parquet_table(
    chain: Path, tmp_path: Path, more: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--incremental", tmp_path / "seen.sqlite", "--report", tmp_path / "x.html", *more)
    for names, said in ((["b", "e", "=c"], "3 rows"), (["a", "d"], "5 rows"), ([], "5 rows")):
        for name in names:
            film(tmp_path / "in" / f"{name}.png", seed=ord(name[-1]))
        assert predict(chain, tmp_path / "in", tmp_path / "x.parquet", *given) == 0
        assert said in capsys.readouterr().out
    found = pd.read_parquet(tmp_path / "x.parquet")
    assert [from_cell(cell) for cell in found["path"]] == [
        "=c.png",
        "a.png",
        "b.png",
        "d.png",
        "e.png",
    ]
    assert predict(chain, tmp_path / "in", tmp_path / "whole.parquet", *more) == 0
    pd.testing.assert_frame_equal(found, pd.read_parquet(tmp_path / "whole.parquet"))
    assert "5 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "more"),
    [
        ("x.txt", ()),
        ("folder.csv", ()),
        ("folder.parquet", ()),
        ("folder.parquet", ("--rows_per_file", 5)),
        ("x.csv", ("--rows_per_file", 5)),
        ("x.parquet", ("--rows_per_file", -1)),
        ("x.parquet", ("--incremental", "x.parquet/seen.sqlite")),
        ("x.parquet", ("--explain", "x.parquet")),
    ],
)
def test_a_wrong_output_is_refused_before_the_work(
    chain: Path,
    tmp_path: Path,
    output: str,
    more: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("folder.csv", "folder.parquet"):
        film(tmp_path / name / "a.png")
    film(tmp_path / "in" / "a.png")
    before = sorted(tmp_path.rglob("*"))
    assert predict(chain, tmp_path / "in", tmp_path / output, *more) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_gives_a_table_without_rows(chain: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv") == 0
    assert (tmp_path / "x.csv").read_text().strip() == ",".join(COLUMNS)


def test_an_earlier_table_in_the_input_folder_is_no_film(chain: Path, tmp_path: Path) -> None:
    film(tmp_path / "a.png")
    for _ in range(2):
        assert predict(chain, tmp_path, tmp_path / "x.csv") == 0
    assert len(_rows(tmp_path / "x.csv")) == 1


def test_a_missing_input_is_an_error(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(chain, tmp_path / "nowhere", tmp_path / "x.csv") == 1
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_a_second_run_to_the_same_table_is_turned_away(chain: Path, tmp_path: Path) -> None:
    film(tmp_path / "in" / "a.png")
    with atomic.lock_of(tmp_path / "x.csv"), atomic.lock_of(tmp_path / "x.parquet"):
        assert predict(chain, tmp_path / "in", tmp_path / "x.csv") == 75
        assert predict(chain, tmp_path / "in", tmp_path / "x.parquet", "--rows_per_file", 5) == 75
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv") == 0


def test_without_a_model_the_job_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film(tmp_path / "in" / "a.png")
    assert predict(tmp_path, tmp_path / "in", tmp_path / "x.csv") == 1
    assert "make all" in capsys.readouterr().err
