"""Settings of make: which jobs a change runs, what .env keeps, what is refused.

The Makefile alone is tested: a script stands for the Python of the jobs and writes their targets.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import environment

PROJECT = Path(__file__).resolve().parents[2]
CHAIN = ["ingest", "split", "train a", "evaluate a", "train b", "evaluate", "predict_batch"]
FOLDER = "DATASET=folder:films"
Done = subprocess.CompletedProcess[str]
# Prints the job and its flags; writes what the job would write.
JOBS = """#!/bin/sh
job=${2#jobs.}; shift 2
echo "job: $job $*"
case "$job $*" in
ingest*) mkdir -p data/raw data/cache/weights; touch data/raw/manifest.csv
  touch data/cache/weights/efficientnet_b0.json
  echo '{"dataset": "'${DATASET%%:*}'", "description": "'$DATASET'"}' > data/raw/source.json ;;
split*) touch data/split.csv ;;
train*) mkdir -p runs/phase_$2; touch runs/phase_$2/summary.json ;;
*phase_a/model*) mkdir -p runs/evaluation/phase_a; touch runs/evaluation/phase_a/metrics.json ;;
evaluate*) mkdir -p runs/evaluation; touch runs/evaluation/metrics.json ;;
predict*) mkdir -p runs/predictions; touch runs/predictions/test.csv ;;
esac
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Done]:
    """`make` with the local runner in a checkout that holds a folder of films."""
    for name in ("Makefile", ".env.example", "compose.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    shutil.copytree(PROJECT / "deploy", tmp_path / "deploy")
    (tmp_path / "films").mkdir()
    (tmp_path / "python").write_text(JOBS)
    (tmp_path / "python").chmod(0o755)

    def run(*words: str, **more: str) -> Done:
        command = ["make", "RUNNER=local", "READY=", "PYTHON=./python", *words]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment(), **more},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def _calls(done: Done) -> list[str]:
    """The jobs that ran and their flags, in order."""
    assert done.returncode == 0, done.stdout + done.stderr
    return [line[5:] for line in done.stdout.splitlines() if line.startswith("job: ")]


def _jobs(done: Done) -> list[str]:
    """The jobs that ran, in order; with the phase that they are about."""
    found = []
    for call in _calls(done):
        job, *flags = call.split()
        if job == "train":
            job = f"train {flags[1]}"
        elif "phase_a/model" in call:
            job = "evaluate a"
        found.append(job)
    return found


def test_the_chain_runs_once(make: Callable[..., Done]) -> None:
    assert _jobs(make("all", FOLDER)) == CHAIN
    assert _jobs(make("all", FOLDER)) == []


# The films


@pytest.mark.parametrize("target", ["all", "ingest", "split"])
def test_the_default_set_does_not_replace_the_films_that_are_there(
    make: Callable[..., Done], tmp_path: Path, target: str
) -> None:
    _calls(make("all", FOLDER))
    shutil.copy(PROJECT / ".env.example", tmp_path / ".env")  # says kaggle, as make setup leaves it
    done = make(target)
    assert done.returncode == 2
    assert "job: " not in done.stdout
    assert "data/raw holds folder:films" in done.stderr
    assert "DATASET=folder:films" in done.stderr
    assert _jobs(make("all", FOLDER)) == []  # the refusal changed nothing


@pytest.mark.parametrize(
    ("words", "more"),
    [(["DATASET=kaggle"], {}), ([], {"DATASET": "kaggle"}), (["DATASET=phantom"], {})],
)
def test_films_are_replaced_when_asked_for(
    make: Callable[..., Done], words: list[str], more: dict[str, str]
) -> None:
    _calls(make("all", FOLDER))
    assert _jobs(make("all", *words, **more)) == CHAIN


def test_a_data_set_in_dotenv_needs_no_repetition(
    make: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"{FOLDER}\n")
    assert _jobs(make("all")) == CHAIN
    assert _jobs(make("all")) == []


def test_the_default_set_follows_itself(make: Callable[..., Done]) -> None:
    assert _jobs(make("all")) == CHAIN
    assert _jobs(make("all", "SEED=1"))[0] == "ingest"


def test_setup_writes_dotenv_for_the_local_runner_too(
    make: Callable[..., Done], tmp_path: Path
) -> None:
    assert make("setup").returncode == 0
    assert f"UID={os.getuid()}" in (tmp_path / ".env").read_text()


# Flags of the jobs


def test_flags_in_dotenv_stay(make: Callable[..., Done], tmp_path: Path) -> None:
    flags = '"--epochs 12 --lr 3e-4" # longer'
    (tmp_path / ".env").write_text(f"{FOLDER}\nTRAIN_B_ARGS={flags}\n")
    trained = "train --phase b --epochs 12 --lr 3e-4"
    assert trained in _calls(make("train-b"))
    assert trained not in _calls(make("all"))
    assert "train --phase b --epochs 3" in _calls(make("train-b", "TRAIN_B_ARGS=--epochs 3"))
    assert _jobs(make("train-b")) == ["train b"]  # as .env says, again


def test_every_job_of_the_chain_takes_flags_from_dotenv(
    make: Callable[..., Done], tmp_path: Path
) -> None:
    names = ("INGEST", "SPLIT", "TRAIN_A", "EVALUATE_A", "TRAIN_B", "EVALUATE", "PREDICT")
    lines = (PROJECT / ".env.example").read_text()
    for name in names:
        assert f"\n{name}_ARGS=\n" in lines
        lines = lines.replace(f"\n{name}_ARGS=\n", f"\n{name}_ARGS=--of {name}\n")
    (tmp_path / ".env").write_text(lines)
    assert [call.split()[-1] for call in _calls(make("all"))] == list(names)


# How films are read


def test_films_are_brought_again_when_they_are_read_otherwise(make: Callable[..., Done]) -> None:
    words = [FOLDER]
    _calls(make("all", *words))
    for changed in ("MAX_MEGAPIXELS=50", "FILE_TIMEOUT=60", "FOLLOW_LINKS=True", "TRUST_HEADERS=1"):
        words.append(changed)
        assert _jobs(make("all", *words)) == CHAIN
    assert _jobs(make("all", *words)) == []


def test_the_defaults_in_dotenv_change_nothing(make: Callable[..., Done], tmp_path: Path) -> None:
    _calls(make("all", FOLDER))
    shutil.copy(PROJECT / ".env.example", tmp_path / ".env")
    assert _jobs(make("all", FOLDER)) == []


# Evaluations


def test_flags_of_the_evaluation_are_for_the_last_model_alone(make: Callable[..., Done]) -> None:
    compare = "--compare runs/evaluation/phase_a"
    phase_a, last = _calls(make("evaluate", FOLDER, f"EVALUATE_ARGS={compare}"))[-3::2]
    assert compare not in phase_a
    assert last.endswith(compare)
    assert _jobs(make("evaluate", FOLDER)) == ["evaluate"]


def test_phase_a_has_flags_of_its_own(make: Callable[..., Done]) -> None:
    flags = "EVALUATE_A_ARGS=--positive TUBERCULOSIS"
    phase_a, last = _calls(make("evaluate", FOLDER, flags))[-3::2]
    assert phase_a.endswith("--positive TUBERCULOSIS")
    assert "--positive" not in last


# Containers


@pytest.mark.parametrize("target", ["external", "labels"])
def test_compose_takes_what_make_hands_on(
    make: Callable[..., Done], tmp_path: Path, target: str
) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], check=False).returncode:
        pytest.skip("needs docker compose")
    (tmp_path / "labels.csv").touch()
    (tmp_path / "bin").mkdir()
    checks = tmp_path / "bin/docker"  # instead of a run
    checks.write_text(f"#!/bin/sh\nexec {docker} compose --profile '*' config -q\n")
    checks.chmod(0o755)
    words = [f"PATH={checks.parent}:{os.environ['PATH']}", "RUNNER=docker"]
    done = make(target, *words, "FILMS=folder:films", "LABELS=labels.csv")
    assert done.returncode == 0, done.stderr


def test_clean_deletes_the_report_of_the_model_and_keeps_what_was_promoted(
    make: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "runs/models").mkdir(parents=True)
    (tmp_path / "runs/report.html").touch()
    assert make("clean").returncode == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["models"]
