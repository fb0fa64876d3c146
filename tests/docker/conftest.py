"""pytest-docker builds the image once; each test runs the real services of compose.yaml on folders
of its own.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
# Someone who is certainly not root: the containers must work as any caller and leave files of
# theirs.
CALLER = os.getuid() or 12345
IMAGE = os.environ.get("IMAGE", "cxr-jobs:local")


def _engine_answers() -> bool:
    try:
        return (
            subprocess.run(
                ["docker", "info"], capture_output=True, timeout=20, check=False
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="session")
def engine() -> None:
    if not _engine_answers():
        if os.environ.get("CXR_REQUIRE_ENGINE"):
            pytest.fail("CXR_REQUIRE_ENGINE is set and no container engine answers")
        pytest.skip("no container engine answers (docker info)")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(PROJECT / "compose.yaml")


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["build train"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["--profile jobs down --volumes"]


@dataclass(frozen=True)
class Compose:
    """`docker compose` on this project's file, as the caller and on the folders of one test."""

    command: tuple[str, ...]
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KAGGLE", "DATA", "RUNS"))
        }
        return {
            **kept,
            "UID": str(CALLER),
            "GID": str(CALLER),
            "DATA_DIR": str(self.folder / "data"),
            "RUNS_DIR": str(self.folder / "runs"),
            "BACKBONE": "efficientnet_lite0",
            "DATASET": "kaggle",
            "INGEST_NETWORK": "none",
            "CPUS": "0",
        }

    def __call__(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        variables = {**self.environment, **environment}
        return subprocess.run(
            [*self.command, *words],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def run(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`docker compose run --rm WORDS`."""
        return self("run", "--rm", *words, **environment)


@pytest.fixture(scope="session")
def compose(
    engine: None,
    docker_services: object,
    docker_compose_file: str,
    docker_compose_project_name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Compose]:  # fmt: skip
    folder = tmp_path_factory.mktemp("containers")
    for name in ("data", "runs", "inbox"):
        (folder / name).mkdir()
        if os.getuid() == 0:
            os.chown(folder / name, CALLER, CALLER)
    return Compose(
        ("docker", "compose", "-f", docker_compose_file, "-p", docker_compose_project_name), folder
    )


@pytest.fixture
def own(compose: Compose, tmp_path: Path) -> Compose:
    """Compose on empty folders."""
    for name in ("data", "runs"):
        (tmp_path / name).mkdir()
        if os.getuid() == 0:
            os.chown(tmp_path / name, CALLER, CALLER)
    return Compose(compose.command, tmp_path)


def wait_for(path: Path, seconds: float = 120) -> None:
    """Wait until a file exists."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
