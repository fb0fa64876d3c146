"""Fixtures: small generated films, a project folder that went through the chain once, and the real
films if they are here.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import evaluate, ingest, predict_batch, split, train
from lib import settings
from lib.dataset import synthetic
from lib.run import execute

REAL_FILMS = Path(__file__).resolve().parents[2] / "shared" / "xrays"
ODD_FILES = Path(__file__).resolve().parents[2] / "shared" / "odd"
LITE0 = ["--backbone", "efficientnet_lite0"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither the caller's environment nor a .env file may change what the tests see."""
    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.env, raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


def run(job: ModuleType, *argv: object) -> int:
    """Run a job as its command line would, in this process."""
    function = getattr(job, job.__name__.rsplit(".", 1)[1])
    return execute.execute(function, [str(word) for word in argv])


def dirs(root: Path) -> list[str]:
    return ["--data_dir", str(root / "data"), "--runs_dir", str(root / "runs")]


def film(path: Path, seed: int = 0, side: int = 96, **save: Any) -> Path:
    """A small smooth random picture, unlike those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 12), dtype=np.uint8)
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path, **save)
    return path


@pytest.fixture
def make_films(tmp_path: Path) -> Callable[..., Path]:
    """Build a folder source: make_films(normal=5, tb=5)."""

    def make(root: str = "source", **classes: int) -> Path:
        for number, (name, count) in enumerate(classes.items()):
            for index in range(count):
                film(tmp_path / root / name / f"{name}_{index}.png", seed=1000 * number + index)
        return tmp_path / root

    return make


@pytest.fixture(scope="session")
def phantom_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """75 generated films with their planted defects."""
    folder = tmp_path_factory.mktemp("phantom")
    synthetic.write_films(folder, 75, seed=3, threads=2)
    return folder


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory, phantom_films: Path) -> Path:
    """A project folder after ingest and split."""
    root = tmp_path_factory.mktemp("ready")
    fractions = ["--val_fraction", "0.15", "--test_fraction", "0.15"]
    assert run(ingest, "--dataset", f"folder:{phantom_films}", *LITE0, *dirs(root)[:2]) == 3
    assert run(split, *fractions, *dirs(root)[:2]) == 0
    return root


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, ready: Path) -> Path:
    """A project folder after both phases (short ones) and the evaluation. Tests must not change it."""
    root = tmp_path_factory.mktemp("chain")
    (root / "data").symlink_to(ready / "data")
    assert run(train, "--phase", "a", "--epochs", "2", *LITE0, *dirs(root)) == 0
    assert run(train, "--phase", "b", "--epochs", "2", *LITE0, *dirs(root)) == 0
    assert run(evaluate, *LITE0, *dirs(root)) == 0
    return root


def predict(root: Path, source: Path, output: Path, *more: object) -> int:
    return run(
        predict_batch,
        "--input",
        source,
        "--output",
        output,
        *LITE0,
        "--runs_dir",
        root / "runs",
        *more,
    )


needs_real_films = pytest.mark.skipif(
    not REAL_FILMS.is_dir(), reason=f"no real films beside the project ({REAL_FILMS.parent.name}/)"
)


def without_privileges() -> list[str]:
    """What to put before a command so that permissions hold for it, also when root runs the tests."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root passes over permissions, and there is no setpriv to stop that")
    taken = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={taken}", f"--inh-caps={taken}"]


def environment(**more: str) -> dict[str, str]:
    """The environment for a job in a process of its own."""
    project = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": project, **more}
