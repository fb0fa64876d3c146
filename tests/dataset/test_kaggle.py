"""Kaggle's own client against a server that answers as Kaggle does, through a proxy with a
certificate authority of its own.
"""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lib.dataset.kaggle import download
from lib.dataset.manifest import read_manifest
from lib.network.backbones import BACKBONES
from lib.network.weights import bring_weights
from lib.run.connection import trusted_authorities
from lib.run.errors import JobError
from tests.conftest import environment, film
from tests.dataset.kaggle_server import Kaggle, kaggle

HANDLE = "muhammadrehan00/chest-xray-dataset"
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A set of nine films as Kaggle packs it, and noise: kagglehub writes pieces of 1 MB."""
    folder, packed = tmp_path_factory.mktemp("set"), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as together:
        for number, name in enumerate(("normal", "pneumonia", "tuberculosis")):
            for index in range(3):
                path = film(folder / f"{name}_{index}.png", seed=10 * number + index)
                together.write(path, f"chest_xray/train/{name}/{path.name}")
        together.writestr("noise.bin", np.random.default_rng(0).bytes(3_000_000))
    return packed.getvalue()


@pytest.fixture
def server(tmp_path: Path, archive: bytes) -> Iterator[Kaggle]:
    with kaggle(tmp_path / "certificates", archive) as running:
        yield running


def ingest(server: Kaggle, folder: Path, **more: str) -> Done:
    """The ingest job as a person in that network runs it."""
    settings = {**server.environment(), "CA_BUNDLE": str(server.authority), "HOME": str(folder)}
    command = [sys.executable, "-m", "jobs.ingest", "--backbone", "efficientnet_lite0"]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**{**settings, **more}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def films(folder: Path) -> int:
    return len(read_manifest(folder / "data"))


def test_a_set_arrives_through_a_proxy_with_its_own_authority(
    server: Kaggle, tmp_path: Path
) -> None:
    done = ingest(server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert films(tmp_path) == 9
    assert server.requests == [
        "POST GetDataset",
        "POST DownloadDataset",
        "GET /kaggle-data-sets/archive.zip",
    ]
    assert server.authorizations == ["", ""]
    assert (tmp_path / f"data/cache/kagglehub/datasets/{HANDLE}/3.complete").exists()


def test_a_proxy_with_a_password_and_a_token_are_used_and_never_written(
    server: Kaggle, tmp_path: Path
) -> None:
    server.password = "doctor:p4ssw0rd"
    done = ingest(server, tmp_path, KAGGLE_API_TOKEN="t0k3n-t0k3n")
    assert done.returncode == 0, done.stderr
    assert set(server.authorizations) == {"Bearer t0k3n-t0k3n"}
    written = [path.read_bytes() for path in tmp_path.rglob("*.json*") if path.is_file()]
    for text in (done.stdout.encode(), done.stderr.encode(), *written):
        assert b"p4ssw0rd" not in text
        assert b"t0k3n" not in text


@pytest.fixture
def fetch(server: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Download in this process, in the environment of that network."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CA_BUNDLE", str(server.authority))
    monkeypatch.setenv("KAGGLEHUB_CACHE", "")  # download sets it; monkeypatch takes it back

    def run() -> Path:
        with trusted_authorities():
            return download(HANDLE, tmp_path / "cache")

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.png"))


def test_a_download_that_is_cut_goes_on_where_it_stopped(
    server: Kaggle, fetch: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server.cuts = [2_500_000]
    assert len(names(fetch())) == 9
    assert "the connection broke off after 2.1 MB" in capsys.readouterr().err
    assert server.requests[-1].endswith(f"bytes={2 * 2**20}-")


def test_a_download_that_brings_nothing_more_fails_and_the_next_run_goes_on(
    server: Kaggle, fetch: Callable[[], Path]
) -> None:
    server.cuts = [1_200_000, 0]
    with pytest.raises(JobError, match="what arrived is kept"):
        fetch()
    assert len(names(fetch())) == 9
    assert server.requests[-1].endswith(f"bytes={2**20}-")


def test_one_wrong_checksum_is_downloaded_again(
    server: Kaggle, fetch: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server.damaged = 1
    assert len(names(fetch())) == 9
    assert "wrong checksum" in capsys.readouterr().err


def test_two_wrong_checksums_are_a_failure_that_keeps_nothing_damaged(
    server: Kaggle, fetch: Callable[[], Path], tmp_path: Path
) -> None:
    server.damaged = 2
    with pytest.raises(JobError, match="arrived damaged twice"):
        fetch()
    assert not list((tmp_path / "cache").rglob("*.archive"))


def test_what_is_no_archive_is_deleted(
    server: Kaggle, fetch: Callable[[], Path], tmp_path: Path
) -> None:
    server.archive = b"<html>Blocked by your administrator</html>"
    with pytest.raises(JobError, match="cannot be unpacked"):
        fetch()
    assert not list((tmp_path / "cache").rglob("*.archive"))


@pytest.mark.parametrize("method", ["GetDataset", "DownloadDataset"])
@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "make a new token"),
        (403, "terms to accept"),
        (404, "check owner, name and version in --dataset"),
        (429, "in 30 s"),
        (503, "run the same command later"),
    ],
)
def test_each_refusal_says_what_to_do(
    server: Kaggle, fetch: Callable[[], Path], method: str, status: int, sentence: str
) -> None:
    server.statuses[method] = status
    with pytest.raises(JobError) as refusal:
        fetch()
    first, *ways = str(refusal.value).splitlines()
    assert first.startswith(f"cannot download {HANDLE}. Kaggle")
    assert sentence in first
    assert any("make demo" in way for way in ways)


def test_a_refusal_with_a_cached_version_is_a_warning(
    server: Kaggle, fetch: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first = fetch()
    server.statuses["GetDataset"] = 429
    assert fetch().samefile(first)
    assert "Using the cached copy" in capsys.readouterr().err


def test_without_ca_bundle_one_sentence_names_it(
    fetch: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CA_BUNDLE")
    with pytest.raises(JobError, match="set CA_BUNDLE in"):
        fetch()


def test_weights_come_the_same_way_and_say_the_same(
    server: Kaggle, fetch: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resnet = BACKBONES["resnet18"]
    with pytest.raises(JobError, match="hash"), trusted_authorities():
        bring_weights(resnet, tmp_path / "cache", None)
    assert any(request.startswith("GET /models/resnet18") for request in server.requests)
    monkeypatch.delenv("CA_BUNDLE")
    with pytest.raises(JobError, match="set CA_BUNDLE in"), trusted_authorities():
        bring_weights(resnet, tmp_path / "cache", None)


def test_a_proxy_that_wants_a_password_is_named(server: Kaggle, fetch: Callable[[], Path]) -> None:
    server.password = "doctor:p4ssw0rd"  # the environment has none
    with pytest.raises(JobError, match="http://USER:PASSWORD@HOST:PORT"):
        fetch()


@pytest.mark.parametrize("content", [None, "no certificate", ""])
def test_a_ca_bundle_that_is_none_is_refused(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("CA_BUNDLE", str(file))
    with pytest.raises(JobError, match="CA_BUNDLE"), trusted_authorities():
        pass
