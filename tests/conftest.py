"""Fixtures, and the marker `slow`.

Small generated films, a project folder that went through the chain once, and the real films.
"""

import functools
import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Several processes share the cores: idle threads of OpenMP must not keep them busy. Half of the CPU
# time of a training test was such waiting. Read when torch is loaded, here and in every job.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
from PIL import Image

from jobs import evaluate, ingest, predict_batch, split, train
from lib import settings
from lib.dataset import synthetic
from lib.run import execute
from tests.stored import restore_or_build

TESTS = Path(__file__).resolve().parent
REAL_FILMS = Path(__file__).resolve().parents[2] / "shared" / "xrays"
ODD_FILES = Path(__file__).resolve().parents[2] / "shared" / "odd"
LITE0 = ["--backbone", "efficientnet_lite0"]

SLOW_FIXTURES = {
    "ready",
    "made",
    "engine",
    "watch",
    "server",
    "phantom_films",
}  # and all that are built on them
SLOW_MARKERS = ("real_films", "engine", "cron", "simulation")
SLOW_FOLDERS = {"docker", "chaos", "benchmarks"}
SLOW_NAMES = {  # start a process, run a job, build or convert a network, train
    *("subprocess", "multiprocessing", "processes", "execute", "map_isolated"),
    "evaluation_set",
    *(
        "write_films",
        "train_lungs",
        "build",
        "write_taps",
        "write_model",
        "FrozenFeatures",
        "Trainer",
    ),
}
USE_THE_ENGINE = ("tests/docker/", "tests/project/test_deploy.py")
# What takes longest comes first: of two processes none is left with minutes of work at the end.
LONG = (
    *USE_THE_ENGINE,
    "tests/benchmarks/",
    "tests/jobs/test_real",
    "tests/chaos/",
    "tests/training/",
)
# Seconds for one test, including the fixtures that it is the first to ask for.
TIMEOUTS = {"docker": 1800, "chaos": 900, "benchmarks": 900}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes: a file stays in one of them, and so does all that uses the engine."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # untyped
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "engine" if file.startswith(USE_THE_ENGINE) else file

    config.option.loadscopereorder = False  # the order of the items, which LONG decides
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what runs a job, a training or a container: `make test-fast` has the others.
    Long and slow files come first.
    """
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in TIMEOUTS:
            item.add_marker(pytest.mark.timeout(TIMEOUTS[folder]))
        if isinstance(item, pytest.Function) and _is_slow(item):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_place(item.nodeid), item.path not in slow))


def _place(nodeid: str) -> int:
    return next((at for at, start in enumerate(LONG) if nodeid.startswith(start)), len(LONG))


def _is_slow(item: pytest.Function) -> bool:
    if SLOW_FOLDERS & set(item.path.relative_to(TESTS).parts):
        return True
    if SLOW_FIXTURES & set(item.fixturenames) or any(map(item.get_closest_marker, SLOW_MARKERS)):
        return True
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(one.func for some in fixtures for one in some)]
    return any(map(_names_what_is_slow, functions))


@functools.cache
def _names_what_is_slow(function: FunctionType) -> bool:
    """Whether a function of the tests, or one that it calls, names one of SLOW_NAMES."""
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType) or not function.__module__.startswith("tests."):
        return False
    todo, names = [function.__code__], set()
    while todo:
        code = todo.pop()
        names |= {*code.co_names, *code.co_freevars}
        todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    called = (function.__globals__.get(name) for name in names - {function.__name__})
    return bool(names & SLOW_NAMES) or any(
        _names_what_is_slow(one) for one in called if isinstance(one, FunctionType)
    )


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

    def build() -> None:
        assert run(ingest, "--dataset", f"folder:{phantom_films}", *LITE0, *dirs(root)[:2]) == 3
        assert run(split, *fractions, *dirs(root)[:2]) == 0

    restore_or_build("ready", root, build)
    return root


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, ready: Path) -> Path:
    """A project folder after two short phases and the evaluation. Tests must not change it."""
    root = tmp_path_factory.mktemp("chain")
    features = ready / "data" / "cache" / "features"

    def build() -> None:
        (root / "data").symlink_to(Path("..") / ready.name / "data")
        assert run(train, "--phase", "a", "--epochs", "2", *LITE0, *dirs(root)) == 0
        assert run(train, "--phase", "b", "--epochs", "2", *LITE0, *dirs(root)) == 0
        assert run(evaluate, *LITE0, *dirs(root)) == 0
        shutil.copytree(features, root / "features")

    if restore_or_build("chain", root, build):
        shutil.copytree(root / "features", features, dirs_exist_ok=True)
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
    """What to put before a command so that permissions hold for it, also for root."""
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
