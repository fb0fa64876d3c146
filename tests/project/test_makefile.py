"""The Makefile: what re-runs, what does not, what a failure leaves. Runs the jobs in this Python,
without containers.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import __version__
from tests.conftest import environment, film

PROJECT = Path(__file__).resolve().parents[2]
Make = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = [
    "DATASET=phantom",
    "BACKBONE=efficientnet_lite0",
    "INGEST_ARGS=--phantom_films 36",
    "SPLIT_ARGS=--val_fraction 0.2 --test_fraction 0.2",
    "TRAIN_A_ARGS=--epochs 1",
    "TRAIN_B_ARGS=--epochs 1",
]


def _checkout(folder: Path) -> Make:
    """A copy of the project, and `make` in it with the local runner and this Python."""
    for name in (
        "Makefile",
        ".env.example",
        "deploy",
        "lib",
        "jobs",
        "Dockerfile",
        ".dockerignore",
        "requirements.lock",
        "requirements-torch.txt",
    ):
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)

    def make(*words: str) -> "subprocess.CompletedProcess[str]":
        command = ["make", "RUNNER=local", "READY=", f"PYTHON={sys.executable}", *words]
        return subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )

    return make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Make]:
    """A checkout after `make all`."""
    folder = tmp_path_factory.mktemp("checkout")
    make = _checkout(folder)
    done = make("all", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, make


def _jobs(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """The jobs that a make run started, in order."""
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        line.split("-m jobs.")[1].split()[0]
        for line in done.stdout.splitlines()
        if "-m jobs." in line
    ]


def test_all_leaves_scores_and_predictions(made: tuple[Path, Make]) -> None:
    folder, _ = made
    for path in (
        "evaluation/metrics.json",
        "evaluation/phase_a/metrics.json",
        "predictions/test.csv",
        "best_efficientnet_lite0.pt",
    ):
        assert (folder / "runs" / path).exists(), path
    assert not (folder / "runs" / "nights").exists()  # test films are no ordinary batch


def test_a_change_runs_what_depends_on_it_and_nothing_else(made: tuple[Path, Make]) -> None:
    folder, make = made
    words = list(SMALL)
    assert _jobs(make("all", *words)) == []
    for changed, jobs in (
        ("EVALUATE_ARGS=--prevalences 0.2", ["evaluate"]),
        ("PREDICT_ARGS=--review_below 0.9", ["predict_batch"]),
        ("TRAIN_B_ARGS=--epochs 1 --lr 2e-4", ["train", "evaluate", "predict_batch"]),
    ):
        words.append(changed)  # of two settings of a variable make takes the later one
        assert _jobs(make("all", *words)) == jobs
        assert _jobs(make("all", *words)) == []
    (folder / "data/split.csv").touch()
    chain = ["train", "evaluate", "train", "evaluate", "predict_batch"]
    assert _jobs(make("all", *words)) == chain


def test_the_image_follows_every_file_in_it(tmp_path: Path) -> None:
    make = _checkout(tmp_path)
    (tmp_path / ".env").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (programs / "docker").chmod(0o755)

    def builds() -> bool:
        """Whether make builds the image, and with the program's version."""
        (tmp_path / "calls").write_text("")
        path = f"{programs}:{os.environ['PATH']}"
        done = make(".make/image", f"PATH={path}")
        assert done.returncode == 0, done.stderr
        calls = (tmp_path / "calls").read_text()
        assert calls in ("", f"compose build --build-arg VERSION={__version__} train\n")
        return bool(calls)

    assert builds()
    assert not builds()
    later = time.time() - 1000
    for path in tmp_path.rglob("*"):
        os.utime(path, (later - 1, later - 1))
    for name in ("lib/reports/templates/new.html", "lib/run/new.py", "jobs/new.csv", "Dockerfile"):
        path = tmp_path / name
        path.touch()
        os.utime(path, (later, later))
        assert builds(), name
        later += 2
        for made in ("image-files", "image"):
            os.utime(tmp_path / ".make" / made, (later - 1, later - 1))
    (tmp_path / "lib/run/__pycache__").mkdir()
    (tmp_path / "lib/run/__pycache__/new.pyc").touch()
    os.utime(tmp_path / "lib/run/__pycache__/new.pyc", (later, later))
    assert not builds()
    (tmp_path / "lib/run/new.py").unlink()
    assert builds()


def test_help_names_the_extra_flags_of_every_job(tmp_path: Path) -> None:
    said = _checkout(tmp_path)().stdout
    (line,) = [line for line in said.splitlines() if line.startswith("Extra flags")]
    assert all(f"{job}_ARGS" in line for job in ("INGEST", "SPLIT", "TRAIN_A", "EVALUATE"))


def test_a_film_added_at_the_source_is_taken_up(tmp_path: Path, phantom_films: Path) -> None:
    make = _checkout(tmp_path)
    shutil.copytree(phantom_films, tmp_path / "films")
    settings = [f"DATASET=folder:{tmp_path / 'films'}", "BACKBONE=efficientnet_lite0"]
    assert _jobs(make("split", *settings)) == ["ingest", "split"]
    assert _jobs(make("split", *settings)) == []
    film(tmp_path / "films/normal/new.png")
    assert _jobs(make("split", *settings)) == ["ingest", "split"]
    assert "NORMAL/new.png" in (tmp_path / "data/split.csv").read_text()


def test_dotenv_lines_may_be_quoted_and_commented(tmp_path: Path) -> None:
    make = _checkout(tmp_path)
    (tmp_path / ".env").write_text('BACKBONE="resnet18" # small\nDATASET=phantom\n')
    assert "cache/weights/resnet18.json ]" in make("-n", "train-a").stdout


@pytest.mark.parametrize("name", ["RUNS_DIR", "DATA_DIR"])
def test_clean_refuses_an_empty_folder_name(tmp_path: Path, name: str) -> None:
    done = _checkout(tmp_path)("-n", "clean", f"{name}=")
    assert done.returncode != 0
    assert "must not be empty" in done.stderr


def test_predict_writes_where_it_is_told(made: tuple[Path, Make], tmp_path: Path) -> None:
    folder, make = made
    output = tmp_path / "new folder" / "today.csv"
    done = make(
        "predict",
        "BACKBONE=efficientnet_lite0",
        f"INPUT={folder / 'data/test/NORMAL'}",
        f"OUTPUT={output}",
    )
    assert done.returncode == 0, done.stderr
    assert len(output.read_text().splitlines()) == 1 + len(
        list((folder / "data/test/NORMAL").iterdir())
    )


def test_predict_says_one_line_and_nothing_else(made: tuple[Path, Make], tmp_path: Path) -> None:
    folder, make = made
    done = make(
        "-s",
        "predict",
        f"INPUT={folder / 'data/test/NORMAL'}",
        f"OUTPUT={tmp_path / 'x.csv'}",
        "REPORT=1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert " rows (" in line
    assert (tmp_path / "x.html").exists()


def test_every_job_of_the_chain_leaves_its_log_beside_the_results(made: tuple[Path, Make]) -> None:
    folder, _ = made
    logged = {path.stem for path in (folder / "runs/logs").glob("*.jsonl")}
    assert logged == {"ingest", "split", "train", "evaluate", "predict_batch"}


def test_a_job_that_is_killed_is_told_about_memory(tmp_path: Path) -> None:
    make = _checkout(tmp_path)
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    done = make("split", "DATASET=phantom", f"PYTHON={killed}")
    assert done.returncode == 2
    assert "killed (137): out of memory? raise MEMORY in .env" in done.stderr


def test_predict_without_its_arguments_explains_itself(made: tuple[Path, Make]) -> None:
    _, make = made
    assert "INPUT=" in make("predict").stdout


def test_external_scores_a_labelled_folder(made: tuple[Path, Make], tmp_path: Path) -> None:
    folder, make = made
    for number, name in enumerate(("normal/a.png", "tb/b.png", "tb/c.png")):
        film(tmp_path / "other site" / name, seed=number)
    done = make("external", f"FILMS={tmp_path / 'other site'}", "EXTERNAL_ARGS=--nobaselines")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "runs/external/other site/report.html").exists()


def test_external_mounts_films_and_labels_read_only(tmp_path: Path) -> None:
    make = _checkout(tmp_path)
    films, labels = tmp_path / "other site", tmp_path / "my labels.csv"
    films.mkdir()
    labels.touch()
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    words = [f"PATH={docker.parent}:{os.environ['PATH']}", "RUNNER=docker"]
    done = make("-s", "external", *words, "FILMS=folder:other site", "LABELS=my labels.csv")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [said[at + 1] for at, word in enumerate(said) if word == "-v"] == [
        f"{films}:/input/other site:ro",
        f"{labels}:/labels/my labels.csv:ro",
    ]
    assert said[said.index("--films") + 1] == "/input/other site"
    assert said[said.index("--labels") + 1] == "/labels/my labels.csv"
    missing = make("external", *words, "FILMS=nowhere")
    assert (missing.returncode, "there is no folder" in missing.stderr) == (2, True)
    assert not (tmp_path / "nowhere").exists()
    assert "usage: make external" in make("external").stdout


@pytest.mark.parametrize(
    ("target", "variable", "flag", "inside"),
    [
        ("labels", "FILMS", "--dataset", "folder:/input"),
        ("score", "TABLE", "--predictions", "/tables/my inbox"),
    ],
)
def test_labels_come_back_through_read_only_mounts(
    tmp_path: Path, target: str, variable: str, flag: str, inside: str
) -> None:
    make = _checkout(tmp_path)
    (tmp_path / "my inbox").mkdir()
    (tmp_path / "my labels.csv").touch()
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    words = [f"PATH={docker.parent}:{os.environ['PATH']}", "RUNNER=docker"]
    done = make("-s", target, *words, f"{variable}=my inbox", "LABELS=my labels.csv")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[said.index(flag) + 1] == inside
    assert [said[at + 1] for at, word in enumerate(said) if word == "-v"] == [
        f"{tmp_path / 'my inbox'}:{inside.removeprefix('folder:')}:ro",
        f"{tmp_path / 'my labels.csv'}:/labels/my labels.csv:ro",
    ]
    assert f"usage: make {target}" in make(target).stdout


def test_a_failed_job_stops_the_chain_and_leaves_no_target(tmp_path: Path) -> None:
    done = _checkout(tmp_path)("all", "DATASET=folder:/nowhere", "BACKBONE=efficientnet_lite0")
    assert done.returncode != 0
    assert "there is no folder /nowhere" in done.stderr
    assert not (tmp_path / "data/raw/manifest.csv").exists()
    assert "jobs.split" not in done.stdout


def test_help_is_the_default_and_lists_every_target(tmp_path: Path) -> None:
    done = _checkout(tmp_path)()
    assert done.returncode == 0
    targets = [
        "setup",
        "image",
        "demo",
        "all",
        "ingest",
        "split",
        "train-a",
        "train-b",
        "evaluate",
        "external",
        "labels",
        "score",
        "promote",
        "rollback",
        "predict",
        "doctor",
        "audit",
        "test",
        "lint",
        "clean",
    ]
    assert all(f"make {target}" in done.stdout for target in targets)
