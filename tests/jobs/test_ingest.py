"""The ingest job: every file indexed, nothing lost, interruptions and re-runs."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import ingest, split
from lib.dataset.manifest import FilmRecord, read_manifest
from lib.images.inputs import Folder
from lib.storage import atomic
from lib.storage.atomic import sha256_of
from tests.conftest import LITE0, environment, film, run, without_privileges

MakeFilms = Callable[..., Path]


def _ingest(source: Path, data: Path, *more: str) -> int:
    return run(ingest, "--dataset", f"folder:{source}", "--data_dir", data, *LITE0, *more)


def _tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def _rows(data: Path) -> dict[str, FilmRecord]:
    return {row.origin: row for row in read_manifest(data)}


def test_every_file_becomes_a_row_with_its_measurements(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    assert _ingest(source, tmp_path / "data") == 0
    rows = _rows(tmp_path / "data")
    assert len(rows) == 6
    row = rows["tb/tb_0.png"]
    assert (row.path, row.label, row.status) == ("TUBERCULOSIS/tb_0.png", "TUBERCULOSIS", "ok")
    assert (row.width, row.height, row.mode, row.bytes) == (
        96,
        96,
        "L",
        (source / "tb/tb_0.png").stat().st_size,
    )
    assert (
        row.sha256
        == sha256_of(source / "tb/tb_0.png")
        == sha256_of(tmp_path / "data/raw" / row.path)
    )
    assert (tmp_path / "data/cache/weights/efficientnet_lite0.pth").exists()


def test_unreadable_files_are_rows_and_exit_3(make_films: MakeFilms, tmp_path: Path) -> None:
    source = make_films(normal=3, tb=3)
    (source / "tb" / "broken.png").write_bytes((source / "tb/tb_0.png").read_bytes()[:300])
    (source / "tb" / "notes.txt").write_text("hello")
    assert _ingest(source, tmp_path / "data") == 3
    rows = _rows(tmp_path / "data")
    assert len(rows) == 8
    assert rows["tb/broken.png"].status == rows["tb/notes.txt"].status == "unreadable"
    assert rows["tb/broken.png"].problem
    assert "not an image" in rows["tb/notes.txt"].problem


def test_entries_that_cannot_be_copied_are_rows_with_their_reason(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    (source / "tb" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(source / "tb" / "pipe.png")
    (source / "tb" / ("n" * 250 + ".png")).write_bytes((source / "tb/tb_0.png").read_bytes())
    shutil.copy(source / "tb/tb_0.png", source / "tb/sparse.png")
    os.truncate(source / "tb" / "sparse.png", 2**42)
    (source / "tb" / "out.png").symlink_to(film(tmp_path / "elsewhere.png"))
    (source / "tb" / "in.png").symlink_to(source / "tb/tb_0.png")
    assert _ingest(source, tmp_path / "data") == 3
    rows = _rows(tmp_path / "data")
    assert len(rows) == 12
    assert "larger than 4 GB" in rows["tb/sparse.png"].problem
    assert "leads out of the source" in rows["tb/out.png"].problem
    assert not (tmp_path / "data/raw" / rows["tb/out.png"].path).exists()
    assert rows["tb/in.png"].status == "ok"
    assert "broken link" in rows["tb/dangling.png"].problem
    assert "not a regular file" in rows["tb/pipe.png"].problem
    assert rows["tb/" + "n" * 250 + ".png"].status == "ok"


def test_a_folder_that_may_be_listed_and_not_entered_costs_its_own_rows(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    film(source / "tb" / "closed" / "below" / "a.png")
    film(source / "tb" / "closed" / "b.png")
    (source / "tb" / "closed").chmod(0o444)
    job = [
        "-m",
        "jobs.ingest",
        "--dataset",
        f"folder:{source}",
        *LITE0,
        "--data_dir",
        tmp_path / "data",
    ]
    done = subprocess.run(
        [*without_privileges(), sys.executable, *job],
        env=environment(),
        capture_output=True,
        check=False,
    )
    (source / "tb" / "closed").chmod(0o755)
    assert done.returncode == 3, done.stderr
    rows = _rows(tmp_path / "data")
    assert {name for name, row in rows.items() if row.problem} == {
        "tb/closed/b.png",
        "tb/closed/below",
    }


def test_a_name_that_is_not_utf8_gets_one_that_is_and_stays(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    (source / "tb" / os.fsdecode(b"f\xfcr.png")).write_bytes((source / "tb/tb_0.png").read_bytes())
    assert _ingest(source, tmp_path / "data") == 0
    row = _rows(tmp_path / "data")["tb/f\\udcfcr.png"]
    assert (tmp_path / "data/raw" / row.path).exists()
    before = (tmp_path / "data/raw/manifest.csv").read_bytes()
    assert _ingest(source, tmp_path / "data") == 0
    assert (tmp_path / "data/raw/manifest.csv").read_bytes() == before


def test_a_second_run_copies_nothing_and_changes_nothing(
    make_films: MakeFilms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make_films(normal=3, tb=3)
    _ingest(source, tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data/raw").rglob("*")}
    monkeypatch.setattr(atomic, "copy_file", lambda *_: pytest.fail("copied"))
    assert _ingest(source, tmp_path / "data") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data/raw").rglob("*")} == before
    assert "nothing was copied" in capsys.readouterr().out


def test_a_film_that_was_lost_or_damaged_in_raw_is_brought_again(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    _ingest(source, tmp_path / "data")
    before = _tree(tmp_path / "data/raw")
    (tmp_path / "data/raw/NORMAL/normal_0.png").unlink()
    (tmp_path / "data/raw/NORMAL/normal_1.png").write_text("junk")
    assert _ingest(source, tmp_path / "data") == 0
    assert _tree(tmp_path / "data/raw") == before


def test_a_source_in_or_around_the_data_folder_is_refused(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    assert _ingest(source, source / "data") == 2
    assert _ingest(tmp_path / "source", tmp_path / "data") == 0
    assert _ingest(tmp_path / "data" / "raw", tmp_path / "data") == 2


def test_only_what_is_missing_or_changed_is_copied(
    make_films: MakeFilms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_films(normal=3, tb=3)
    _ingest(source, tmp_path / "data")
    film(source / "tb" / "new.png", seed=77)
    film(source / "tb" / "tb_1.png", seed=78)
    (source / "normal" / "normal_0.png").unlink()
    copied: list[str] = []
    real_copy = atomic.copy_file

    def copy(source: Path, target: Path) -> None:
        copied.append(source.name)
        real_copy(source, target)

    monkeypatch.setattr(atomic, "copy_file", copy)
    assert _ingest(source, tmp_path / "data") == 0
    assert sorted(copied) == ["new.png", "tb_1.png"]
    rows = _rows(tmp_path / "data")
    assert "normal/normal_0.png" not in rows
    assert not (tmp_path / "data/raw/NORMAL/normal_0.png").exists()
    assert rows["tb/tb_1.png"].sha256 == sha256_of(source / "tb/tb_1.png")


def test_equal_names_get_recorded_names_that_stay_when_films_are_added(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=2, tb=2)
    film(source / "test" / "normal" / "normal_0.png", seed=50)
    _ingest(source, tmp_path / "data")
    first = {origin: row.path for origin, row in _rows(tmp_path / "data").items()}
    assert len(set(first.values())) == 5
    assert first["normal/normal_0.png"] == "NORMAL/normal_0.png"
    assert first["test/normal/normal_0.png"].startswith("NORMAL/normal_0~")
    film(source / "a" / "normal" / "normal_0.png", seed=51)  # sorts before both
    _ingest(source, tmp_path / "data")
    second = {origin: row.path for origin, row in _rows(tmp_path / "data").items()}
    assert {origin: second[origin] for origin in first} == first
    assert len(set(second.values())) == 6
    assert sha256_of(tmp_path / "data/raw" / second["a/normal/normal_0.png"]) == sha256_of(
        source / "a/normal/normal_0.png"
    )


def test_a_source_without_a_class_leaves_everything_as_it_was(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    _ingest(source, tmp_path / "data")
    before = _tree(tmp_path / "data")
    shutil.rmtree(source / "tb")
    assert _ingest(source, tmp_path / "data") == 1
    assert _tree(tmp_path / "data") == before


def test_a_full_disk_is_refused_before_the_work(
    make_films: MakeFilms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        atomic.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0)
    )
    assert _ingest(make_films(normal=3, tb=3), tmp_path / "data") == 1
    assert "0.0 GB are free" in capsys.readouterr().err
    assert not (tmp_path / "data/raw").exists()


def test_the_source_is_only_read(make_films: MakeFilms, tmp_path: Path) -> None:
    source = make_films(normal=3, tb=3)
    before = _tree(source)
    _ingest(source, tmp_path / "data")
    assert _tree(source) == before
    assert all(path.stat().st_nlink == 1 for path in source.rglob("*.png"))


def test_a_second_copy_of_the_job_is_turned_away(make_films: MakeFilms, tmp_path: Path) -> None:
    with atomic.lock(tmp_path / "data", "the data folder"):
        assert _ingest(make_films(normal=3, tb=3), tmp_path / "data") == 75


@pytest.mark.parametrize("moment", ["copying", "measuring"])
def test_killed_and_run_again_it_ends_as_if_never_killed(
    make_films: MakeFilms, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in a process of its own, at the 40th film of either stage; the old data/raw stays
    until the new is whole.
    """
    old, new = make_films("old", normal=3, tb=3), make_films("new", normal=60, tb=60)
    assert _ingest(old, tmp_path / "killed") == 0
    before = _tree(tmp_path / "killed/raw")
    target = {"copying": "lib.storage.atomic.copy_file", "measuring": "lib.dataset.raw.record_of"}[
        moment
    ]
    module, name = target.rsplit(".", 1)
    program = (
        f"import os, signal, sys, importlib; module = importlib.import_module({module!r})\n"
        f"real, calls = module.{name}, []\n"
        "def counted(*args):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args)\n"
        f"module.{name} = counted\n"
        "from jobs import ingest; from lib.run import execute; execute.run(ingest.ingest)"
    )
    argv = ["--dataset", f"folder:{new}", "--data_dir", str(tmp_path / "killed"), *LITE0]
    killed = subprocess.run([sys.executable, "-c", program, *argv], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert _tree(tmp_path / "killed/raw") == before
    assert _ingest(new, tmp_path / "killed") == 0
    assert _ingest(old, tmp_path / "whole") == 0
    assert _ingest(new, tmp_path / "whole") == 0
    assert _tree(tmp_path / "killed/raw") == _tree(tmp_path / "whole/raw")
    assert [
        path.name for path in (tmp_path / "killed").iterdir() if path.name.endswith(".partial")
    ] == []


def test_phantom_films_come_with_their_defects_and_exit_3(tmp_path: Path) -> None:
    argv = [
        "--dataset",
        "phantom",
        "--phantom_films",
        "30",
        "--data_dir",
        tmp_path / "data",
        *LITE0,
    ]
    assert run(ingest, *argv) == 3
    rows = read_manifest(tmp_path / "data")
    assert [row.status for row in rows].count("unreadable") == 1
    assert len(rows) > 30


def test_no_kaggle_fails_soon_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    began = time.monotonic()
    assert run(ingest, "--data_dir", tmp_path / "data") == 1
    assert time.monotonic() - began < 60
    assert "make demo" in capsys.readouterr().err
    assert not (tmp_path / "data/raw").exists()
    os.environ.pop("KAGGLEHUB_CACHE", None)


def test_one_film_that_the_source_cannot_give_is_a_row(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    (source / "tb" / "broken-sector.png").symlink_to("/proc/self/mem")  # reading it gives EIO
    assert _ingest(source, tmp_path / "data", "--follow_links") == 3
    row = _rows(tmp_path / "data")["tb/broken-sector.png"]
    assert row.problem.startswith("cannot be copied: ")
    assert sum(row.status == "ok" for row in _rows(tmp_path / "data").values()) == 6


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENAMETOOLONG, errno.EINVAL, errno.EIO])
def test_errors_of_one_film_are_rows_and_errors_of_the_disk_are_not(
    make_films: MakeFilms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source = make_films(normal=3, tb=3)
    real_copy = atomic.copy_file
    raised = number

    def copy(source: Path, target: Path) -> None:
        if source.name == "tb_1.png":
            raise OSError(raised, os.strerror(raised), str(target))
        real_copy(source, target)

    monkeypatch.setattr(atomic, "copy_file", copy)
    assert _ingest(source, tmp_path / "data") == 3
    assert os.strerror(number) in _rows(tmp_path / "data")["tb/tb_1.png"].problem
    raised = errno.ENOSPC
    assert _ingest(source, tmp_path / "other") == 1
    assert not (tmp_path / "other/raw").exists()


def test_a_source_that_goes_away_stops_the_job_and_leaves_raw_as_it_was(
    make_films: MakeFilms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make_films(normal=3, tb=3)
    _ingest(source, tmp_path / "data")
    before = _tree(tmp_path / "data/raw")
    film(source / "tb" / "new.png", seed=77)
    real_copy = atomic.copy_file

    def copy(original: Path, target: Path) -> None:
        source.rename(tmp_path / "unmounted")
        source.mkdir()
        real_copy(original, target)

    monkeypatch.setattr(atomic, "copy_file", copy)
    assert _ingest(source, tmp_path / "data") == 1
    assert "went away" in capsys.readouterr().err
    assert _tree(tmp_path / "data/raw") == before


def test_times_of_a_coarse_file_system_make_nothing_new(
    make_films: MakeFilms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_films(normal=3, tb=3)
    _ingest(source, tmp_path / "data")
    for copy in (tmp_path / "data/raw").rglob("*.png"):  # FAT: even seconds; CIFS: another zone
        seconds = int(copy.stat().st_mtime) // 2 * 2 - 3600
        os.utime(copy, (seconds, seconds))
    changed = source / "tb/tb_2.png"
    size = changed.stat().st_size
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    assert changed.stat().st_size == size
    copied: list[str] = []
    real_copy = atomic.copy_file

    def copy_file(original: Path, target: Path) -> None:
        copied.append(original.name)
        real_copy(original, target)

    monkeypatch.setattr(atomic, "copy_file", copy_file)
    _ingest(source, tmp_path / "data")
    assert copied == ["tb_2.png"]


def test_a_name_that_is_too_long_for_raw_is_shortened(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source = make_films(normal=3, tb=3)
    name = os.fsdecode(b"\xfc" * 200 + b".png")  # each byte becomes an escape of six
    (source / "tb" / name).write_bytes((source / "tb/tb_0.png").read_bytes())
    assert _ingest(source, tmp_path / "data") == 0
    (row,) = [row for row in read_manifest(tmp_path / "data") if "~" in row.path]
    assert len(Path(row.path).name.encode()) <= 255
    assert (tmp_path / "data/raw" / row.path).exists()


CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "build.py"


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    if not CASES.exists():
        pytest.skip("no shared cases beside the project")
    subprocess.run([sys.executable, str(CASES), str(tmp_path / "cases")], check=True)
    return tmp_path / "cases" / "trees"


def test_case_of_masks(trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ingest(trees / "masks", tmp_path / "data") == 0
    rows = read_manifest(tmp_path / "data")
    assert len(rows) == 9
    assert not any("masks" in row.origin for row in rows)
    assert "9 segmentation masks are left out" in capsys.readouterr().out


def test_case_of_subtypes(trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ingest(trees / "subtypes", tmp_path / "merged") == 0
    assert {row.label for row in read_manifest(tmp_path / "merged")} == {"NORMAL", "PNEUMONIA"}
    out = " ".join(capsys.readouterr().out.split())
    assert "PNEUMONIA takes the folders Bacterial Pneumonia, Viral Pneumonia" in out
    names = "Viral Pneumonia,Bacterial Pneumonia,Normal"
    assert _ingest(trees / "subtypes", tmp_path / "data", "--classes", names) == 0
    assert len({row.label for row in read_manifest(tmp_path / "data")}) == 3
    assert "takes the folders" not in capsys.readouterr().out


def test_case_of_nas(trees: Path) -> None:
    place = Folder.of(trees / "nas" / "in", [])
    assert list(place.names) == ["a.jpg"]
    assert place.passed_over == 3


def test_case_of_links(trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("normal", "tuberculosis"):
        (linked / name).symlink_to(trees / "links" / "real" / name)
    assert _ingest(linked, tmp_path / "data") == 1
    assert "--follow_links" in capsys.readouterr().err
    assert _ingest(linked, tmp_path / "data", "--follow_links") == 0
    assert {row.label for row in read_manifest(tmp_path / "data")} == {"NORMAL", "TUBERCULOSIS"}


def test_ingest_and_split_take_runs_dir_for_their_log(
    make_films: MakeFilms, tmp_path: Path
) -> None:
    source, runs = make_films(normal=9, tb=9), tmp_path / "elsewhere"
    assert _ingest(source, tmp_path / "data", "--runs_dir", str(runs)) == 0
    assert run(split, "--data_dir", tmp_path / "data", "--runs_dir", runs) == 0
    assert {path.name for path in (runs / "logs").iterdir()} >= {"ingest.jsonl", "split.jsonl"}
