"""Real films beside the project: the planted filing errors are all found, and the chain learns
something.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import evaluate, ingest, split, train
from lib.dataset.manifest import read_manifest, read_split
from lib.network.artifact import LARGEST_SHIFT
from tests.conftest import LITE0, ODD_FILES, REAL_FILMS, dirs, needs_real_films, predict, run

pytestmark = [pytest.mark.real_films, needs_real_films]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    assert run(ingest, "--dataset", f"folder:{REAL_FILMS}", *LITE0, *dirs(folder)[:2]) == 0
    assert run(split, *dirs(folder)[:2]) == 0
    return folder


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    return pd.read_csv(REAL_FILMS / "index.csv", keep_default_na=False).set_index("path")


def test_every_file_is_in_the_manifest_with_its_digest(root: Path, truth: pd.DataFrame) -> None:
    rows = {row.origin: row for row in read_manifest(root / "data")}
    assert set(rows) == set(truth.index)
    assert all(rows[origin].sha256 == truth.loc[origin, "sha256"] for origin in rows)
    assert all(row.status == "ok" for row in rows.values())


def test_the_contradictions_are_exactly_the_planted_ones(root: Path, truth: pd.DataFrame) -> None:
    origin = {row.path: row.origin for row in read_manifest(root / "data")}
    excluded = {
        origin[row.path]
        for row in read_split(root / "data")
        if row.excluded_because.startswith("contradiction")
    }
    assert excluded == set(truth.index[truth["contradicts"].astype(str) == "True"])


def test_no_patient_is_on_two_sides(root: Path, truth: pd.DataFrame) -> None:
    origin = {row.path: row.origin for row in read_manifest(root / "data")}
    sides: dict[str, set[str]] = {}
    for row in read_split(root / "data"):
        patient = truth.loc[origin[row.path], "patient"]
        if row.split and patient:
            sides.setdefault(str(patient), set()).add(row.split)
    assert len(sides) > 500
    assert all(len(found) == 1 for found in sides.values())


def test_both_phases_learn_and_every_odd_file_gets_its_row(root: Path, tmp_path: Path) -> None:
    a = root / "runs" / "phase_a" / "best_efficientnet_lite0.pt"
    alone = ["--nobaselines", *LITE0, *dirs(root)]  # scores of the model, half of the time
    assert run(train, "--phase", "a", *LITE0, *dirs(root)) == 0
    assert run(evaluate, "--checkpoint_path", a, "--output", root / "a", *alone) == 0
    assert run(train, "--phase", "b", *LITE0, *dirs(root)) == 0
    assert run(evaluate, *alone) == 0
    after_a, after_b = (
        json.loads((folder / "metrics.json").read_text())["scores"]["macro_f1"]["value"]
        for folder in (root / "a", root / "runs" / "evaluation")
    )
    assert after_b > after_a
    assert after_b > 0.85
    assert predict(root, ODD_FILES, tmp_path / "odd.csv") == 0
    odd = pd.read_csv(tmp_path / "odd.csv", index_col="path")
    assert len(odd) == len(list(ODD_FILES.iterdir()))
    assert "inverted" in odd["reasons"]["Fake_MONOHR1.dcm"]


def test_bfloat16_answers_like_fp32_on_every_film(root: Path, tmp_path: Path) -> None:
    """After the two phases above, on validation and test films. A CPU without bfloat16 instructions
    emulates them, slowly and alike.
    """
    answers = {}
    for precision in ("fp32", "bf16"):
        tables = []
        for part in ("val", "test"):
            output = tmp_path / f"{precision}_{part}.csv"
            assert predict(root, root / "data" / part, output, "--precision", precision) == 0
            tables.append(pd.read_csv(output))
        answers[precision] = pd.concat(tables)
    columns = [name for name in map(str, answers["fp32"]) if name.startswith("prob_")]
    exact, rounded = (answers[precision][columns].to_numpy() for precision in answers)
    second, best = np.sort(exact, axis=1)[:, -2:].T
    same = exact.argmax(axis=1) == rounded.argmax(axis=1)
    assert same[best - second > 0.02].all()  # the others are as good as undecided
    assert same.mean() >= 0.95
    assert np.abs(exact - rounded).mean() <= LARGEST_SHIFT
