"""predict_batch never loses a row: killed, stopped, out of disk space or beside broken files, the
rerun completes the table.
"""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.images.reader import Film, Reader
from lib.prediction import classify
from lib.storage.cells import from_cell
from tests.conftest import dirs, environment, film, predict, without_privileges


def _paths(table: Path) -> list[str]:
    with open(table, encoding="utf-8", newline="") as file:
        return [from_cell(row["path"]) for row in csv.DictReader(file)]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """300 films, one of them broken."""
    one = film(tmp_path / "one.png", side=64)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(300):
        shutil.copy(one, folder / f"{number:03}.png")
    (folder / "007.png").write_text("broken")
    return folder


def _start(chain: Path, inbox: Path, table: Path, *more: str) -> "subprocess.Popen[bytes]":
    argv = ["--input", str(inbox), "--output", str(table), *dirs(chain)[2:], *more]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.predict_batch", *argv],
        env=environment(),
        stderr=subprocess.PIPE,
    )


def _wait_for_rows(journal: Path, rows: int) -> None:
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") <= rows:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _bytes(table: Path) -> list[bytes]:
    return [path.read_bytes() for path in (sorted(table.iterdir()) if table.is_dir() else [table])]


@pytest.mark.parametrize(
    ("number", "code", "name", "more"),
    [
        (signal.SIGKILL, -9, "x.csv", ()),
        (signal.SIGTERM, 143, "x.csv", ()),
        (signal.SIGINT, 130, "x.csv", ()),
        (signal.SIGKILL, -9, "x.parquet", ()),
        (signal.SIGKILL, -9, "x.parquet", ("--rows_per_file", "128")),
    ],
)
def test_stopped_at_any_moment_the_rerun_gives_the_same_bytes(
    chain: Path,
    inbox: Path,
    tmp_path: Path,
    number: int,
    code: int,
    name: str,
    more: tuple[str, ...],
) -> None:
    table, journal, whole = (
        tmp_path / name,
        tmp_path / f".{name}.journal",
        tmp_path / f"whole-{name}",
    )
    assert predict(chain, inbox, whole, *more) == 3
    for rows in (0, 10):
        job = _start(chain, inbox, table, *more)
        _wait_for_rows(journal, rows)
        job.send_signal(number)
        job.communicate(timeout=60)
        assert job.returncode in (code, 3)
        if job.returncode == code:
            assert not table.exists()
    assert predict(chain, inbox, table, *more) == 3
    assert _bytes(table) == _bytes(whole)
    assert not journal.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)]
    if (
        os.getuid() != 0
        or subprocess.run(command, check=False, capture_output=True).returncode != 0
    ):
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_nothing_but_a_rerun(
    chain: Path, inbox: Path, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(chain, inbox, tmp_path / "whole.csv") == 3
    for _ in range(2):
        assert predict(chain, inbox, small_disk / "x.csv") == 1
        assert "disk is full" in capsys.readouterr().err
        assert not (small_disk / "x.csv").exists()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert predict(chain, inbox, small_disk / "x.csv") == 3
    assert "an interrupted run left" in capsys.readouterr().out
    assert (small_disk / "x.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_other_settings_do_not_mix_with_half_a_table(
    chain: Path, inbox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = _start(chain, inbox, tmp_path / "x.csv")
    _wait_for_rows(tmp_path / ".x.csv.journal", 0)
    job.kill()
    job.communicate()
    assert predict(chain, inbox, tmp_path / "x.csv", "--review_below", "0.9") == 1
    assert "other settings (review_below)" in capsys.readouterr().err
    assert predict(chain, inbox, tmp_path / "x.csv", "--review_below", "0.9", "--noresume") == 3


def test_only_what_is_new_is_classified(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ("--incremental", tmp_path / "seen.sqlite")
    film(tmp_path / "in" / "a.png", side=64)
    film(tmp_path / "in" / "b.png", side=65)
    assert predict(chain, tmp_path / "in", tmp_path / "1.csv", *state) == 0
    assert predict(chain, tmp_path / "in", tmp_path / "2.csv", *state) == 0
    assert "2 films were seen before" in capsys.readouterr().out
    film(tmp_path / "in" / "c.png", side=66)
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / "d.png")
    assert predict(chain, tmp_path / "in", tmp_path / "3.csv", *state) == 0
    assert [_paths(tmp_path / f"{number}.csv") for number in (1, 2, 3)] == [
        ["a.png", "b.png"],
        [],
        ["c.png"],
    ]
    film(tmp_path / "in" / "aa.png", side=67)
    assert predict(chain, tmp_path / "in", tmp_path / "1.csv", *state) == 0
    assert _paths(tmp_path / "1.csv") == ["a.png", "aa.png", "b.png"]


def test_hostile_names_and_links_are_rows(chain: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "in"
    one = film(tmp_path / "one.png", side=64)
    names = [
        b"=1+1.png",
        b"+x.png",
        b"-x.png",
        b"@x.png",
        b"'x.png",
        b"a\nb.png",
        b'q"uo,te.png',
        b"\xff\xfe.png",
        b"a\\nb.png",
    ]
    inbox.mkdir()
    for name in names:
        shutil.copy(one, inbox / os.fsdecode(name))
    (inbox / "out.png").symlink_to(one)
    (inbox / "in.png").symlink_to(inbox / "+x.png")
    (inbox / "loop").symlink_to(inbox)
    (inbox / "self.png").symlink_to(inbox / "self.png")
    os.mkfifo(inbox / "pipe.png")
    assert (
        predict(
            chain,
            inbox,
            tmp_path / "x.csv",
            "--report",
            tmp_path / "x.html",
            "--explain",
            tmp_path / "maps",
        )
        == 3
    )
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        rows = {os.fsencode(from_cell(row["path"])): row for row in csv.DictReader(file)}
    assert set(rows) == {*names, b"out.png", b"in.png", b"loop", b"self.png", b"pipe.png"}
    assert (tmp_path / "x.csv").read_bytes().count(b"\n") == len(rows) + 1
    assert {name for name, row in rows.items() if row["prediction"]} == {*names, b"in.png"}
    assert "leads out of the input folder" in rows[b"out.png"]["error"]
    for row in rows.values():
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())


class Treacherous(Reader):
    """A reader that dies of crash.png."""

    def __call__(self, path: Path) -> Film:
        if path.name == "crash.png":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__call__(path)


def test_a_film_that_crashes_its_decoder_is_one_row(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "crash.png", "z.png"):
        film(tmp_path / "in" / name, side=64)
    monkeypatch.setattr(classify, "Reader", Treacherous)
    assert predict(chain, tmp_path / "in", tmp_path / "x.csv") == 3
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["prediction"]) for row in rows] == [True, False, True]
    assert rows[1]["error"] == "reading it crashed the decoder (SIGSEGV)"


def test_a_film_that_grows_while_it_is_read_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.png", side=64)

    def slowly(path: Path, side: int, *settings: Any) -> object:
        with open(path, "ab") as file:
            file.write(b"more")
        return decode_film(path, side, *settings)

    from lib.images import reader
    from lib.images.decode import decode_film

    monkeypatch.setattr(reader, "decode_film", slowly)
    assert "changed while it was read" in Reader(32, 10**6)(path).error


def test_an_output_folder_that_vanishes_is_said(chain: Path, inbox: Path, tmp_path: Path) -> None:
    job = _start(chain, inbox, tmp_path / "out" / "x.csv")
    _wait_for_rows(tmp_path / "out" / ".x.csv.journal", 0)
    shutil.rmtree(tmp_path / "out")
    _, said = job.communicate(timeout=60)
    assert job.returncode in (1, 3)
    assert b"Traceback" not in said
    assert predict(chain, inbox, tmp_path / "out" / "x.csv") == 3
    assert len(_paths(tmp_path / "out" / "x.csv")) == 300


def test_folders_without_permission_cost_their_own_rows(chain: Path, tmp_path: Path) -> None:
    """A folder that may be listed and not entered, and one that may be neither; the inbox itself is
    no row.
    """
    inbox = tmp_path / "in"
    for name in ("a.png", "listed/b.png", "listed/below/c.png", "closed/d.png"):
        film(inbox / name, side=64)
    argv: list[str | Path] = [
        "-m",
        "jobs.predict_batch",
        "--input",
        inbox,
        "--output",
        tmp_path / "x.csv",
        *dirs(chain)[2:],
    ]
    command: list[str | Path] = [*without_privileges(), sys.executable, *argv]
    (inbox / "listed").chmod(0o444)
    (inbox / "closed").chmod(0)
    done = subprocess.run(command, env=environment(), capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        errors = {row["path"]: row["error"] for row in csv.DictReader(file)}
    assert sorted(errors) == ["a.png", "closed", "listed/b.png", "listed/below"]
    assert [name for name, error in errors.items() if not error] == ["a.png"]
    before = (tmp_path / "x.csv").read_bytes()
    inbox.chmod(0)
    done = subprocess.run(command, env=environment(), capture_output=True, check=False)
    for folder in (inbox, inbox / "listed", inbox / "closed"):
        folder.chmod(0o755)
    assert (done.returncode, b"cannot be listed" in done.stderr) == (1, True)
    assert (tmp_path / "x.csv").read_bytes() == before


def test_closed_streams_cost_nothing(chain: Path, tmp_path: Path) -> None:
    film(tmp_path / "in" / "a.png", side=64)
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "jobs.predict_batch",
        "--input",
        tmp_path / "in",
        "--output",
        tmp_path / "x.csv",
    ]
    command: list[str | Path] = ["bash", "-c", '"$@" >&- 2>&-', "bash", *words, *dirs(chain)[2:]]
    assert subprocess.run(command, env=environment(), check=False).returncode == 0
    assert _paths(tmp_path / "x.csv") == ["a.png"]
