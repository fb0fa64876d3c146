"""The log of a job: what it holds, what it must not hold, and that it never stops a job."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import pytest

from jobs import ingest
from lib import __version__
from lib.run import console, execute, logs
from lib.run.errors import JobError, LockedError
from lib.run.flags import Flag
from tests.conftest import environment, film, predict, run

PROJECT = Path(__file__).resolve().parents[2]


def lines_of(runs: Path, job: str = "job") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs / "logs" / f"{job}.jsonl").read_text().splitlines()]


def job(
    *,
    input: Annotated[Path, Flag("a file")] = Path(),
    fail_with: Annotated[str, Flag("an error")] = "",
) -> int:
    """Say three lines, or fail.

    Examples:
        python -m jobs.job
    """
    console.say("first")
    console.warn("take care")
    if fail_with == "locked":
        raise LockedError("busy")
    if fail_with == "bug":
        raise ValueError("bug")
    if fail_with == "file":
        input.read_bytes()
    if fail_with:
        raise JobError(fail_with)
    console.say("done with it")
    return 0


def test_a_run_is_logged_from_start_to_end_in_utc(tmp_path: Path) -> None:
    assert execute.execute(job, ["--input", "/srv/inbox"]) == 0
    entries = lines_of(Path("runs"))
    assert [entry["event"] for entry in entries] == ["start", "note", "warning", "note", "end"]
    start, end = entries[0], entries[-1]
    assert start["settings"] == {"input": "/srv/inbox"}
    assert start["version"] == __version__
    assert start["pid"] == os.getpid()
    assert (end["exit_code"], end["summary"]) == (0, "done with it")
    assert end["seconds"] >= 0
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) for entry in entries
    )
    assert len({entry["run"] for entry in entries}) == 1


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "lib.__version__"}


@pytest.mark.parametrize(("fail_with", "code"), [("no weights", 1), ("bug", 1), ("locked", 75)])
def test_a_failure_is_logged_with_its_message_and_the_exit_code(
    fail_with: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute.execute(job, ["--fail_with", fail_with]) == code
    *_, failure, end = lines_of(Path("runs"))
    assert failure["event"] == "failure"
    assert failure["message"]
    assert end["exit_code"] == code
    assert ("Traceback" in failure.get("traceback", "")) == (code == 1)
    assert "Traceback" not in capsys.readouterr().err


def test_a_mistyped_flag_is_logged_where_there_are_runs_and_makes_no_folder() -> None:
    assert execute.execute(job, ["--inptu", "x"]) == 2
    assert list(Path().iterdir()) == []
    Path("elsewhere").mkdir()
    assert execute.execute(job, ["--inptu", "x", "--runs_dir=elsewhere"]) == 2
    failure, end = lines_of(Path("elsewhere"))
    assert "Did you mean '--input'" in failure["message"]
    assert end["exit_code"] == 2


def test_a_combination_that_the_job_refuses_makes_no_folder_either(tmp_path: Path) -> None:
    assert predict(tmp_path, tmp_path, tmp_path / "x.txt") == 2
    assert list(tmp_path.iterdir()) == []


def test_jobs_without_a_runs_flag_log_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "results"))
    assert run(ingest, "--dataset", "folder:/nowhere", "--data_dir", tmp_path / "data") == 1
    assert lines_of(tmp_path / "results", "ingest")[-1]["exit_code"] == 1


NAME = "MÜLLER, Hans 1951.png"


@pytest.mark.parametrize(
    "message",
    [
        f"data/raw/NORMAL/{NAME}: is no picture",
        f"the first is train/NORMAL/{NAME}.",
        f"[Errno 2] No such file or directory: '/srv/in box/{NAME}'",
        "Müller.dcm and C:Müller.JPG differ",
    ],
)
def test_names_of_films_stay_out(message: str) -> None:
    assert execute.execute(job, ["--fail_with", message]) == 1
    text = Path("runs/logs/job.jsonl").read_text()
    assert "ller" not in text.lower()
    assert "Hans" not in text
    assert "<film>" in text


def test_a_film_given_as_a_flag_stays_out_even_without_an_ending(tmp_path: Path) -> None:
    (tmp_path / "Hans").write_text("DICM")
    assert (
        execute.execute(
            job,
            ["--input", str(tmp_path / "Hans"), "--fail_with", f"cannot read {tmp_path / 'Hans'}"],
        )
        == 1
    )
    (tmp_path / "Hans").chmod(0)
    assert (
        execute.execute(job, ["--input", str(tmp_path / "Hans/Erika"), "--fail_with", "file"]) == 1
    )
    text = Path("runs/logs/job.jsonl").read_text()
    assert "NotADirectoryError" in text
    assert "/Hans'" not in text


def test_names_of_unreadable_films_are_on_screen_and_in_the_manifest_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film(tmp_path / "films/NORMAL/good.png")
    (tmp_path / "films/NORMAL/Hans Müller.xyz").write_text("no film")
    (tmp_path / "films/TB").mkdir()
    (tmp_path / "films/TB/Erika.png").write_text("no film")
    (tmp_path / "films/Otto.png").write_text("no film")
    run(
        ingest,
        "--dataset",
        f"folder:{tmp_path / 'films'}",
        "--backbone",
        "efficientnet_lite0",
        "--data_dir",
        tmp_path / "data",
    )
    captured = capsys.readouterr()
    assert "Erika" in captured.err
    text = Path("runs/logs/ingest.jsonl").read_text()
    assert "films cannot be read" in text
    assert not [name for name in ("Hans", "Erika", "Otto") if name in text]


@pytest.mark.parametrize(
    "name",
    [
        "KAGGLE_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "RAY_AUTH_TOKEN",
    ],
)
def test_credentials_stay_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "s3cr3t/k3y+")
    said = "403 for key s3cr3t/k3y+ by http://me:pa55@proxy:3128, s3://AKIA:pa/ss6@films/in"
    assert execute.execute(job, ["--fail_with", said]) == 1
    text = Path("runs/logs/job.jsonl").read_text()
    for secret in ("s3cr3t", "pa55", "pa/ss6", "AKIA"):
        assert secret not in text
    assert "proxy:3128" in text
    assert "@films/in" in text


def test_a_folder_that_cannot_be_written_costs_one_warning_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("runs").mkdir()
    Path("runs/logs").write_text("in the way")
    assert execute.execute(job, []) == 0
    captured = capsys.readouterr()
    assert captured.err.count("no log is written") == 1
    assert "done with it" in captured.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_costs_one_warning_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/logs").mkdir(parents=True)
    Path("runs/logs/job.jsonl").symlink_to("/dev/full")
    assert execute.execute(job, []) == 0
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_line_torn_by_a_full_disk_does_not_spoil_the_next_one() -> None:
    Path("runs/logs").mkdir(parents=True)
    Path("runs/logs/job.jsonl").write_text('{"time": "2026-')
    assert execute.execute(job, []) == 0
    torn, *whole = Path("runs/logs/job.jsonl").read_text().splitlines()
    assert torn == '{"time": "2026-'
    assert json.loads(whole[0])["event"] == "start"


def _write_many(runs: Path, number: int) -> None:
    log = logs.JobLog("job", runs, print)
    for index in range(400):
        log.write("note", message=f"{number} {index} " + "x" * 80)


def test_two_processes_write_while_the_log_rotates_and_no_line_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LARGEST", 60_000)
    processes = [
        multiprocessing.get_context("fork").Process(target=_write_many, args=(tmp_path, number))
        for number in (1, 2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    files = sorted((tmp_path / "logs").glob("job.jsonl*"))
    assert 3 <= len(files) <= logs.KEPT + 1
    told = [
        json.loads(line)["message"].split()[:2]
        for file in files
        for line in file.read_text().splitlines()
    ]
    assert sorted(told) == sorted(
        [str(number), str(index)] for number in (1, 2) for index in range(400)
    )


def test_only_so_many_old_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LARGEST", 300)
    log = logs.JobLog("job", tmp_path, print)
    for index in range(60):
        log.write("note", message=f"line {index}")
    files = {path.name for path in (tmp_path / "logs").iterdir()}
    assert files == {
        ".lock",
        "job.jsonl",
        *(f"job.jsonl.{number}" for number in range(1, logs.KEPT + 1)),
    }
    assert "line 59" in (tmp_path / "logs/job.jsonl").read_text()


def test_quiet_prints_the_summary_alone_and_logs_the_rest(chain: Path, tmp_path: Path) -> None:
    film(tmp_path / "inbox/a.png")
    (tmp_path / "inbox/.hidden").touch()
    command = [
        sys.executable,
        "-m",
        "jobs.predict_batch",
        "--input",
        "inbox",
        "--output",
        "x.csv",
        "--runs_dir",
        chain / "runs",
    ]
    done = subprocess.run(
        [*map(str, command), "--quiet"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("x.csv: 1 rows (")
    entries = lines_of(chain / "runs", "predict_batch")
    assert entries[-1]["summary"] == line
    assert any("hidden or operating-system files" in entry.get("message", "") for entry in entries)


def test_quiet_does_not_hide_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute.execute(job, ["--quiet", "--fail_with", "no weights"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["warning: take care", "error: no weights"]


def test_a_read_only_runs_folder_does_not_stop_a_prediction(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, lines: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(logs, "_append", refuse)
    assert predict(chain, film(tmp_path / "a.png"), tmp_path / "x.csv") == 0
    assert capsys.readouterr().err.count("Read-only file system") == 1


SPEAKING = """
from lib.run import console
console.say('a')
console.table('t', ['x'], [[1]])
console.warn('b')
[*console.track([1], 'x', 1)]
"""


@pytest.mark.parametrize(
    "redirected", [">/dev/full", ">&-", "2>/dev/full", "2>&-", "| true", "2>&1 | true"]
)
def test_nobody_who_listens_costs_the_lines_alone(redirected: str) -> None:
    """A full disk under cron's log, a closed stream, a pipe to nowhere."""
    command = f'sleep 0.2; {{ "$0" -c "$1 $1"; echo "code $?" >&3; }} {redirected}'
    words = ["bash", "-c", f"exec 3>&1; {command}", sys.executable, SPEAKING]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert "code 0" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
