"""What a container can do and what it leaves behind: memory, folders, credentials, one line for
cron, exit codes.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import film
from tests.docker.conftest import CALLER, PROJECT, Compose, wait_for
from tests.docker.test_services import JOBS, chain
from tests.run.test_logs import lines_of

pytestmark = pytest.mark.engine
__all__ = ["chain"]  # the fixture

HUNGRY = (
    "kept = []\nwhile len(kept) < 40: kept.append(bytearray(b'x' * 16_000_000))\n"
    "print('had', len(kept))"
)
KEY = "pl4nted-k3y-of-kaggle"


def predict_sh(compose: Compose, *words: object, **more: str) -> "subprocess.CompletedProcess[str]":
    """deploy/predict.sh in containers, on the folders of the test."""
    variables = {**compose.environment, "RUNNER": "docker", **more}
    command = [str(PROJECT / "deploy/predict.sh"), *map(str, words)]
    # UID is a read-only variable of bash: env hands it on untouched.
    return subprocess.run(
        ["env", *command],
        env=variables,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """A folder for tables that the containers may write."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    if os.getuid() == 0:
        os.chown(folder, CALLER, CALLER)
    return folder


def test_a_container_gets_no_more_memory_than_it_was_given(own: Compose) -> None:
    words = ("--entrypoint", "python", "split", "-c", HUNGRY)
    assert own.run(*words, MEMORY="2g").stdout.strip() == "had 40"
    done = own.run(*words, MEMORY="256m")
    assert done.returncode == 137
    assert "had" not in done.stdout


def test_out_of_memory_is_explained_by_the_script_for_cron(
    chain: Compose, outbox: Path, tmp_path: Path
) -> None:
    done = predict_sh(chain, film(tmp_path / "a.png"), outbox / "x.csv", MEMORY="48m")
    assert done.returncode == 137
    assert done.stderr == "error: killed (137): out of memory? raise MEMORY in .env\n"
    assert list(outbox.glob("*.csv")) == []


def test_cron_sees_one_line_and_the_code_of_the_job(
    chain: Compose, outbox: Path, tmp_path: Path
) -> None:
    film(tmp_path / "in box/a.png")
    done = predict_sh(chain, tmp_path / "in box", outbox / "x.csv", REPORT="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert {path.name for path in outbox.iterdir()} == {"x.csv", "x.html", ".x.csv.lock"}
    (tmp_path / "in box/b.png").write_text("no film")
    assert predict_sh(chain, tmp_path / "in box", outbox / "x.csv").returncode == 3
    assert lines_of(chain.folder / "runs", "predict_batch")[-1]["exit_code"] == 3


def test_a_lock_held_in_another_container_ends_with_75_and_dies_with_it(
    chain: Compose, outbox: Path, tmp_path: Path
) -> None:
    film(tmp_path / "inbox/a.png")
    hold = "import pathlib, time; from lib.storage import atomic\n"
    hold += "with atomic.lock(pathlib.Path('/output'), 'x', name='.x.csv.lock'):\n"
    hold += " pathlib.Path('/output/held').touch(); time.sleep(300)"
    name = "cxr-jobs-lock-test"
    words = (
        "run",
        "-d",
        "--name",
        name,
        "-v",
        f"{outbox}:/output",
        "--entrypoint",
        "python",
        "predict_batch",
        "-c",
        hold,
    )
    assert chain(*words).returncode == 0
    try:
        wait_for(outbox / "held")
        done = predict_sh(chain, tmp_path / "inbox", outbox / "x.csv")
        assert done.returncode == 75
        assert "another run is working on" in done.stderr
    finally:
        subprocess.run(["docker", "kill", name], capture_output=True, check=False)
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    assert predict_sh(chain, tmp_path / "inbox", outbox / "x.csv").returncode == 0


def test_every_job_logs_to_the_mounted_folder(chain: Compose) -> None:
    logged = {path.stem for path in (chain.folder / "runs/logs").glob("*.jsonl")}
    assert logged >= set(JOBS) - {"predict_batch", "promote"}


def test_a_planted_key_is_in_no_image_log_or_result(chain: Compose, tmp_path: Path) -> None:
    """A key in .env beside compose.yaml, where a person would put it; the image is built there."""
    for name in ("lib", "jobs"):
        shutil.copytree(
            PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tmp_path / "deploy").mkdir()
    for name in (
        "compose.yaml",
        "Dockerfile",
        ".dockerignore",
        "deploy/slim.sh",
        "requirements.lock",
        "requirements-torch.txt",
    ):
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / ".env").write_text(f"KAGGLE_USERNAME=somebody\nKAGGLE_KEY={KEY}\n")
    image = "cxr-jobs:planted"
    compose = Compose(
        (
            "docker",
            "compose",
            "--project-directory",
            str(tmp_path),
            "-f",
            f"{tmp_path}/compose.yaml",
        ),
        chain.folder,
    )
    try:
        built = compose("build", "train", IMAGE=image)
        assert built.returncode == 0, built.stderr
        ingest = compose.run("ingest", IMAGE=image)
        assert ingest.returncode == 1
        inside = "grep -rl pl4nted /app /tmp /etc 2>/dev/null; env"
        texts = [built.stdout, built.stderr, ingest.stdout, ingest.stderr]
        texts.append(compose.run("--entrypoint", "sh", "train", "-c", inside, IMAGE=image).stdout)
        for words in (["image", "inspect", image], ["history", "--no-trunc", image]):
            texts.append(
                subprocess.run(
                    ["docker", *words], capture_output=True, text=True, check=True
                ).stdout
            )
    finally:
        subprocess.run(["docker", "rmi", image], capture_output=True, check=False)
    written = [
        path
        for name in ("data", "runs")
        for path in (chain.folder / name).rglob("*")
        if path.is_file()
    ]
    assert any(path.name == "config.json" for path in written)
    assert any(path.name == "ingest.jsonl" for path in written)
    texts += [path.read_bytes().decode("latin-1") for path in written]
    assert not any("pl4nted" in text for text in texts)


def test_the_films_are_mounted_read_only(chain: Compose, tmp_path: Path) -> None:
    film(tmp_path / "inbox/a.png")
    (tmp_path / "inbox").chmod(0o777)
    probe = "try: open('/input/x', 'w'); print('written')\n"
    probe += "except OSError as error: print(error.strerror)"
    done = chain.run(
        "-v",
        f"{tmp_path / 'inbox'}:/input:ro",
        "--entrypoint",
        "python",
        "predict_batch",
        "-c",
        probe,
    )
    assert done.stdout.strip() == "Read-only file system"


def test_only_ingest_sees_credentials(compose: Compose) -> None:
    done = compose("--profile", "jobs", "config", "--format", "json", KAGGLE_KEY=KEY)
    services = json.loads(done.stdout)["services"]
    assert [name for name, service in services.items() if KEY in json.dumps(service)] == ["ingest"]
