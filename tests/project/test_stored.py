"""The store of built folders: whole or absent, copies that tests may change, old ones deleted."""

import os
from pathlib import Path

import pytest

from tests import stored


def _fill(folder: Path, text: str = "built") -> None:
    (folder / "a").write_text(text)
    (folder / "b").hardlink_to(folder / "a")
    (folder / "link").symlink_to("../elsewhere")


def _restore(store: Path, folder: Path) -> bool:
    folder.mkdir()
    return stored.restore_or_build("x", folder, lambda: _fill(folder), store=store)


def test_the_second_run_gets_a_copy_with_its_links(tmp_path: Path) -> None:
    assert not _restore(tmp_path / "store", tmp_path / "1")
    (tmp_path / "1/a").write_text("changed by a test")
    assert _restore(tmp_path / "store", tmp_path / "2")
    assert (tmp_path / "2/a").read_text() == "built"
    assert (tmp_path / "2/a").samefile(tmp_path / "2/b")
    assert (tmp_path / "2/link").readlink() == Path("../elsewhere")


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    (tmp_path / "1").mkdir()
    with pytest.raises(RuntimeError, match="no"):
        stored.restore_or_build("x", tmp_path / "1", fail, store=tmp_path / "store")
    assert not list(tmp_path.glob("store/*"))


def test_old_folders_and_halves_of_killed_runs_are_deleted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for number, name in enumerate(["x-1", "x-2", "x-3", "x-4.k.partial", "y-1"]):
        (store / name).mkdir(parents=True)
        os.utime(store / name, (number, number))
    (store / "x-5.k.partial").mkdir()  # a run that is at work
    assert not _restore(store, tmp_path / "1")
    left = {path.name for path in store.iterdir()}
    assert left == {"x-3", "x-5.k.partial", "y-1", f"x-{stored.digest()}"}


def test_the_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib/__pycache__").mkdir(parents=True)
    monkeypatch.setattr(stored, "PROJECT", tmp_path)
    monkeypatch.setattr(stored, "SOURCES", ("lib",))
    before = stored.digest()
    (tmp_path / "lib/__pycache__/a.pyc").touch()
    assert stored.digest() == before
    (tmp_path / "lib/a.html").touch()
    assert stored.digest() != before
