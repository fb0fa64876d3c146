"""The triage page in a browser: a reader labels films, and the labels come back."""

import csv
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from jobs import evaluate, ingest, promote, split, train
from lib.dataset import synthetic
from lib.dataset.manifest import read_manifest
from lib.network.artifact import ModelManifest
from lib.storage.atomic import sha256_of
from tests.conftest import LITE0, dirs, predict, run
from tests.reports.browser import Browser, browser, needs_chromium

pytestmark = needs_chromium
FILMS = 20
KEYS = {"NORMAL": "1", "PNEUMONIA": "2", "TUBERCULOSIS": "3"}


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films that the model has never seen; the name of each tells its class."""
    folder, source = tmp_path_factory.mktemp("inbox"), tmp_path_factory.mktemp("source")
    synthetic.write_films(source, 60, seed=9, threads=2)
    for label in KEYS:
        for path in sorted(source.rglob(f"{label.lower()}/patient*"))[:7]:
            shutil.copy(path, folder / f"{label}_{path.name}")
    for path in sorted(folder.iterdir())[FILMS:]:
        path.unlink()
    assert len(list(folder.iterdir())) == FILMS
    return folder


@pytest.fixture(scope="module")
def project(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained project folder."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(chain / "runs", root / "runs")
    shutil.copytree((chain / "data").resolve(), root / "data")
    return root


@pytest.fixture(scope="module")
def batch(project: Path, inbox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of the inbox and, beside it, its page. Five of the films are a random sample."""
    folder = tmp_path_factory.mktemp("out")
    flags = ["--report", folder / "night.html", "--sample", "5"]
    assert run(promote, "--runs_dir", project / "runs") == 0
    assert predict(project, inbox, folder / "night.csv", *flags) == 0
    return folder / "night.csv"


@pytest.fixture
def page(batch: Path, tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as opened:
        opened.window(1400, 900)
        opened.open(batch.with_suffix(".html"))
        yield opened
        assert opened.complaints == []


def label_all(page: Browser) -> None:
    """Give every film of the list the class in its name, from the first one on."""
    page.evaluate("by('start').click()")
    for _ in range(FILMS):
        name = page.evaluate("list[at].path")
        page.press(KEYS[name.split("_")[0]])


def saved(page: Browser, folder: Path) -> Path:
    """labels.csv, as the browser downloads it."""
    page.evaluate("by('save').click()")
    deadline = time.monotonic() + 30
    while not (folder / "labels.csv").exists():
        assert time.monotonic() < deadline
        page.evaluate("new Promise(done => setTimeout(done, 50))")
    return folder / "labels.csv"


def answering(project: Path, inbox: Path, folder: Path) -> str:
    """The model that a new table names."""
    assert predict(project, inbox, folder / "x.csv") == 0
    (name,) = set(pd.read_csv(folder / "x.csv")["model"])
    return str(name)


def test_a_viewer_has_zoom_window_level_and_inversion(page: Browser) -> None:
    page.evaluate("by('start').click()")
    assert page.evaluate("viewer.open && stage.querySelector('img').naturalWidth > 300")
    page.mouse("mousePressed", 500, 300, button="left", buttons=1, clickCount=1)
    page.mouse("mouseMoved", 600, 360, button="left", buttons=1)
    page.mouse("mouseReleased", 600, 360, button="left", clickCount=1)
    assert page.evaluate("view.window > 1 && view.level > 0.5")
    assert page.evaluate("stage.querySelector('img').style.filter") == 'url("#tone")'
    page.press("r")
    assert page.evaluate("stage.querySelector('img').style.filter") == ""
    page.press("i")
    slope = "+document.querySelector('#tone feFuncR').getAttribute('slope')"
    assert page.evaluate(slope) == -1
    page.mouse("mouseWheel", 500, 300, deltaX=0, deltaY=-400)
    page.press("+")
    assert page.evaluate("view.zoom") > 2.5
    page.press("ArrowRight")
    assert page.evaluate("[at, view.zoom, view.isInverted]") == [1, 1, True]
    hidden = page.evaluate("by('model').textContent")
    page.press("m")
    assert "hidden" in hidden
    assert "%" in page.evaluate("by('model').textContent")


def test_undo_takes_back_one_answer_after_the_other(page: Browser) -> None:
    page.evaluate("by('start').click()")
    for key in "1243":
        page.press(key)
    first, second = page.evaluate("list.slice(0, 2).map(film => film.path)")
    page.press("u")
    page.press("u")
    page.press("u")
    assert page.evaluate("[...labels.values()].map(entry => entry.label)") == ["NORMAL"]
    assert page.evaluate("list[at].path") == second
    page.press("ArrowLeft")
    page.press("5")
    page.press("u")
    assert page.evaluate("labels.get(list[0].id).label") == "NORMAL"
    assert page.evaluate("list[at].path") == first


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("is_dark", [False, True])
def test_it_fits_a_phone_and_a_desk(page: Browser, width: int, is_dark: bool) -> None:
    page.window(width, 800, is_dark=is_dark)
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    page.evaluate("by('start').click()")
    assert page.evaluate("stage.getBoundingClientRect().height") > 250
    for part in ("answers", "tools", "close"):
        box = page.evaluate(f"by('{part}').getBoundingClientRect().toJSON()")
        assert box["right"] <= width
        assert box["bottom"] <= 800


def test_labels_come_back(
    project: Path, inbox: Path, batch: Path, page: Browser, tmp_path: Path
) -> None:
    """Label, reload, save, evaluate, ingest, train again, compare, promote, roll back."""
    runs, table = project / "runs", pd.read_csv(batch, keep_default_na=False)
    old = ModelManifest.read(runs / "model").name
    assert set(table["model"]) == {old}
    assert table["sampled"].sum() == 5

    page.evaluate("by('reader').value = '=Dr, X'; by('reader').dispatchEvent(new Event('input'))")
    label_all(page)
    page.reload()
    assert page.evaluate("labels.size") == FILMS
    assert f"{FILMS} of {FILMS} shown" in page.evaluate("by('done').textContent")
    labels = saved(page, tmp_path)
    rows = list(csv.DictReader(labels.read_text().splitlines()))
    assert {row["path"] for row in rows} == {path.name for path in inbox.iterdir()}
    for row in rows:
        assert row["label"] == row["path"].split("_")[0]
        assert row["sha256"] == sha256_of(inbox / row["path"])
        assert (row["reader"], row["model"]) == ("'=Dr, X", old)

    scores = ["--predictions", batch, "--labels", labels, *dirs(project)]
    assert run(evaluate, *scores, "--output", tmp_path / "old") == 0
    found = json.loads((tmp_path / "old" / "metrics.json").read_text())
    assert (found["films"], found["labelled"]["chosen"]) == (FILMS, "all")
    assert found["operating_point"]["positive"] == "TUBERCULOSIS"

    before = len(read_manifest(project / "data"))
    joins = ["--dataset", f"folder:{inbox}", "--labels", labels, *dirs(project)]
    assert run(ingest, *joins) in (0, 3)  # the raw data has an unreadable film
    records = read_manifest(project / "data")
    joined = [record for record in records if record.is_from_reader]
    assert (len(joined), len(records)) == (FILMS, before + FILMS)
    fractions = ["--val_fraction", "0.15", "--test_fraction", "0.15"]
    assert run(split, *fractions, "--seed", "1", *dirs(project)) == 0
    assert run(train, "--phase", "a", "--epochs", "1", *LITE0, *dirs(project)) == 0

    new = ModelManifest.read(runs / "model").name
    again = ["--model", runs / "model"]
    assert predict(project, inbox, tmp_path / "new.csv", *again) == 0
    compared = ["--predictions", tmp_path / "new.csv", "--labels", labels, *dirs(project)]
    flags = ["--compare", tmp_path / "old", "--output", tmp_path / "new"]
    assert run(evaluate, *compared, *flags) == 0
    found = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert found["comparison"]["films"] == FILMS
    assert found["labelled"]["learnt"] > FILMS / 2  # the new model was trained on them

    assert answering(project, inbox, tmp_path) == old
    assert run(promote, "--runs_dir", runs) == 0
    assert answering(project, inbox, tmp_path) == new
    assert run(promote, "--rollback", "--runs_dir", runs) == 0
    assert answering(project, inbox, tmp_path) == old
    assert ModelManifest.read(runs / "models" / new).name == new
