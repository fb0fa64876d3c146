"""Whole or absent: files, folders, locks."""

import csv
import errno
import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from lib.run.errors import JobError, LockedError
from lib.storage import atomic


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic.write_text(target, "old")
    with pytest.raises(RuntimeError), atomic.whole_file(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_csv_survives_commas_quotes_newlines_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    names = ['a,b"c\nd', os.fsdecode(b"\xff.png")]
    atomic.write_csv(tmp_path / "x.csv", ["path"], [{"path": name} for name in names])
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [names[0], "\\udcff.png"]


def test_a_copy_keeps_the_modification_time(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"x" * 1000)
    os.utime(source, ns=(1, 1_600_000_000_123_456_789))
    atomic.copy_file(source, tmp_path / "b")
    assert (tmp_path / "b").stat().st_mtime_ns == source.stat().st_mtime_ns
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


def test_where_no_link_can_be_made_a_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("x")
    atomic.link_or_copy(tmp_path / "a", tmp_path / "b" / "a")
    assert (tmp_path / "b" / "a").read_text() == "x"
    assert (tmp_path / "a").stat().st_nlink == 1


def test_a_swap_killed_between_its_renames_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final, new = tmp_path / "raw", tmp_path / "new"
    final.mkdir()
    (final / "old").touch()
    new.mkdir()
    real_rename = os.rename

    def killed(source: Path, target: Path) -> None:
        if Path(source) == new:
            raise KeyboardInterrupt
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        atomic.swap_folder(new, final)
    assert not final.exists()
    monkeypatch.undo()
    atomic.recover_folder(final)
    assert (final / "old").exists()


def test_too_little_room_is_refused_with_figures(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"needs 1000000\d*\.\d GB"):
        atomic.require_room(tmp_path, 10**18 // 1000 * 1000, "copying")


def _hold(folder: Path, ready: object, leave: object) -> None:
    with atomic.lock(folder, "it"):
        ready.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]


def test_a_lock_is_refused_while_held_and_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, leave))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(LockedError, match="another run"), atomic.lock(tmp_path, "it"):
        pass
    holder.kill()
    holder.join(30)
    with atomic.lock(tmp_path, "it"):
        pass


def test_a_share_without_locks_gets_a_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic.lock(tmp_path, "the data folder"):
        assert (tmp_path / ".lock.soft").exists()
        with (
            pytest.raises(LockedError, match=r"delete .*\.lock\.soft"),
            atomic.lock(tmp_path, "the data folder"),
        ):
            pass
    with atomic.lock(tmp_path, "the data folder"):  # free again
        pass
