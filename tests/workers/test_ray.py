"""What the jobs do with a cluster apart from Ray; tests/docker/test_cluster.py has a real one."""

import itertools
import re
from pathlib import Path

import pytest

from jobs import train
from lib.run.errors import JobError
from lib.workers.ray import _ray_errors, chunks_of
from lib.workers.shipped import Shipped, digest_of, files_of
from tests.conftest import film, predict, run


@pytest.mark.parametrize(("count", "workers"), [(0, 3), (1, 3), (10, 3), (1000, 3), (100_000, 8)])
def test_chunks_cover_everything_once_and_keep_every_worker_busy(count: int, workers: int) -> None:
    chunks = chunks_of(count, workers, 256)
    assert list(itertools.chain.from_iterable(chunks)) == list(range(count))
    assert all(len(chunk) <= 256 for chunk in chunks)
    assert len(chunks) >= min(count, 8 * workers)


def test_a_shipped_folder_is_whole_on_every_node_and_mended_when_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("ray")
    monkeypatch.setattr(library, "get", lambda files: files)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = {"model.json": b"{}", "fp32.bin": b"weights"}
    shipped = Shipped(digest_of(files), files)
    folder = shipped.unpack()
    assert files_of(folder) == files
    assert shipped.unpack() == folder
    (folder / "fp32.bin").write_bytes(b"tampered")
    assert files_of(shipped.unpack()) == files
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("long story\nlast line"), "last line"),
        (ConnectionError(), "ConnectionError"),
        (TimeoutError("no answer"), "no answer"),
    ],
)
def test_a_lost_cluster_is_named_with_the_last_line_of_the_reason(
    error: Exception, reason: str
) -> None:
    pytest.importorskip("ray")
    lost = f"the cluster at ray://head:10001 failed or was lost: {reason}. Finished work is kept"
    with pytest.raises(JobError, match=re.escape(lost)), _ray_errors("ray://head:10001"):
        raise error


@pytest.mark.parametrize("address", ["localhost:6379", "http://head:10001", "none"])
def test_another_kind_of_address_is_wrong_usage(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    film(tmp_path / "in/a.png")
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv", "--cluster", address) == 2
    assert "give auto on a machine of the cluster, or ray://HEAD:10001" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_a_training_without_cache_has_nothing_for_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            train,
            "--phase",
            "a",
            "--cache",
            "off",
            "--cluster",
            "auto",
            "--runs_dir",
            tmp_path / "runs",
        )
        == 2
    )
    assert "it goes with --cache on" in capsys.readouterr().err
