"""The ingest container in a hospital's network: Kaggle through a proxy with a password and a
certificate authority of its own; folders named without ./ .
"""

import io
import os
import zipfile
from pathlib import Path

import pytest

from tests.conftest import film
from tests.dataset.kaggle_server import kaggle
from tests.docker.conftest import CALLER, Compose

pytestmark = pytest.mark.engine


def test_kaggle_is_reached_through_a_proxy_with_its_own_authority(
    own: Compose, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as together:
        for number, name in enumerate(("normal", "pneumonia", "tuberculosis")):
            path = film(tmp_path / "set" / f"{name}.png", seed=number)
            together.write(path, f"train/{name}/{path.name}")
    with kaggle(tmp_path / "certificates", packed.getvalue()) as server:
        server.password = "doctor:p4ssw0rd"
        network = {**server.environment(), "INGEST_NETWORK": "host"}
        refused = own.run("ingest", **network)
        assert refused.returncode == 1
        assert "set CA_BUNDLE in .env" in refused.stderr
        server.authority.chmod(0o644)
        done = own.run("ingest", **network, CA_BUNDLE=str(server.authority))
    assert done.returncode == 0, done.stderr
    assert len(list((own.folder / "data/raw").rglob("*.png"))) == 3
    logged = (own.folder / "runs/logs/ingest.jsonl").read_text()
    for text in (refused.stderr, done.stdout, done.stderr, logged):
        assert "p4ssw0rd" not in text


def test_a_folder_without_a_leading_dot_is_no_volume(own: Compose, tmp_path: Path) -> None:
    command = (*own.command, "--project-directory", str(tmp_path))
    (tmp_path / "data/demo").mkdir()
    if os.getuid() == 0:
        os.chown(tmp_path / "data/demo", CALLER, CALLER)
    done = Compose(command, tmp_path).run(
        "--entrypoint", "touch", "split", "data/here", DATA_DIR="data/demo", RUNS_DIR="runs"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/demo/here").exists()
