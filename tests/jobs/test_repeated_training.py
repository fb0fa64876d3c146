"""evaluate --leave_source_out and --repeats: the training of a model, again on other films."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from jobs import evaluate
from lib.dataset.manifest import FilmRecord, read_manifest, read_split, write_rows
from lib.evaluation import leave_source_out
from lib.evaluation.schema import metrics_schema
from tests.conftest import LITE0, dirs, run


@pytest.fixture
def two_sources(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The chain, with its patients shared out over two sources; a few films are enough."""
    monkeypatch.setattr(leave_source_out, "FEWEST_FILMS", 3)
    shutil.copytree((chain / "data").resolve(), tmp_path / "data")
    shutil.copytree(chain / "runs", tmp_path / "runs")
    data = tmp_path / "data"
    groups = {row.path: row.group for row in read_split(data)}
    numbers = {group: number for number, group in enumerate(sorted(set(groups.values())))}
    records = [
        replace(record, source=f"hospital{numbers[groups[record.path]] % 2}")
        for record in read_manifest(data)
    ]
    write_rows(data / "raw" / "manifest.csv", records, FilmRecord)
    return tmp_path


def test_each_source_is_left_out_and_splits_are_repeated(
    two_sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = two_sources
    flags = ["--leave_source_out", "--repeats", "2", *LITE0, *dirs(root)]
    assert run(evaluate, *flags) == 0
    folder = root / "runs" / "evaluation"
    metrics: Any = json.loads((folder / "metrics.json").read_text())
    jsonschema.validate(metrics, metrics_schema())
    folds = metrics["leave_source_out"]["sources"]
    assert [fold["source"] for fold in folds] == ["hospital0", "hospital1"]
    assert {fold["phase"] for fold in folds} <= {"a", "b"}
    table = pd.read_csv(folder / "leave_source_out.csv")
    assert len(table) == sum(sum(fold["films"].values()) for fold in folds)
    assert table["path"].is_unique
    assert folds[0]["baselines"].keys() == metrics["baselines"].keys()
    with open(folder / "repeats.csv", newline="") as file:
        assert {row["seed"] for row in csv.DictReader(file)} == {"0", "1"}
    assert metrics["repeats"]["seeds"] == [0, 1]
    area = f"{folds[0]['auroc']['NORMAL']['value']:.3f}"
    card = (root / "runs" / "model" / "MODEL_CARD.md").read_text()
    report = (root / "runs" / "report.html").read_text()
    for text in (report, card, capsys.readouterr().out):
        assert area in text
    assert metrics["verdict"]["words"].startswith("Trained without hospital")
    assert 'id="left_out"' in report
    assert "Other splits of the same films" in report


def test_where_no_source_qualifies_the_job_says_so_and_ends_well(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--leave_source_out", "--nobaselines", "--output", tmp_path, *LITE0, *dirs(chain)]
    assert run(evaluate, *flags) == 0
    assert "no source was left out: no source holds" in capsys.readouterr().out
    found = json.loads((tmp_path / "metrics.json").read_text())["leave_source_out"]
    assert found["sources"] == []
    assert found["none_because"]


def test_films_from_elsewhere_have_no_training_to_repeat(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for flags in (["--leave_source_out"], ["--repeats", "2"]):
        assert run(evaluate, "--films", tmp_path / "films", *flags, *dirs(tmp_path)) == 2
