"""The strict command line: what is taken, what is refused before any work, what is printed, and the
exit codes.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest

from jobs import evaluate, ingest, predict_batch, split, train
from lib.run import execute, flags, signals
from lib.run.errors import JobError, LockedError, StoppedBySignal
from lib.run.flags import Flag, Setting
from tests.conftest import environment, run

SIZE = Setting("how large", env="CXR_TEST_SIZE", default=1, at_least=1)


class Spy:
    """A job that records the values it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

        def job(
            *,
            phase: Annotated[Literal["a", "b"], Flag("which")],
            name: Annotated[str, Flag("a text")] = "x",
            rate: Annotated[float, Flag("a number", above=0)] = 0.5,
            epochs: Annotated[int | None, Flag("a count", at_least=1)] = None,
            freeze: Annotated[bool, Flag("a switch")] = False,
            classes: Annotated[tuple[str, ...], Flag("names")] = (),
            folder: Annotated[Path, Flag("a folder")] = Path("data"),
            size: Annotated[int, SIZE] = SIZE.default,
        ) -> int:
            """Do something.

            Examples:
                python -m jobs.job --phase a
            """
            self.calls.append(dict(locals()))
            return 0

        self.job = job

    def __call__(self, *argv: str) -> int:
        return execute.execute(self.job, argv)

    @property
    def values(self) -> dict[str, object]:
        (call,) = self.calls
        return call


@pytest.fixture
def job() -> Spy:
    return Spy()


def test_values_are_read_by_annotation_not_guessed(job: Spy) -> None:
    assert (
        job(
            "--phase",
            "a",
            "--name",
            "007",
            "--rate=1e-4",
            "--classes",
            "A,B",
            "--folder",
            "x/y",
            "--epochs",
            "3",
        )
        == 0
    )
    assert job.values["name"] == "007"
    assert job.values["rate"] == 1e-4
    assert job.values["classes"] == ("A", "B")
    assert job.values["folder"] == Path("x/y")
    assert job.values["epochs"] == 3


@pytest.mark.parametrize("text", ["a,b", "[1]", "-", "--x", "{'a': 1}", "1e3", "None of these"])
def test_a_text_arrives_as_it_was_typed(job: Spy, text: str) -> None:
    assert job("--phase", "a", f"--name={text}") == 0
    assert job.values["name"] == text


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--freeze"], True),
        (["--nofreeze"], False),
        (["--freeze", "true"], True),
        (["--freeze=False"], False),
    ],
)
def test_switches(job: Spy, argv: list[str], value: bool) -> None:
    assert job("--phase", "a", *argv) == 0
    assert job.values["freeze"] is value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--phase", "a", "--epoch", "3"], "Did you mean '--epochs'?"),
        (["--phase", "c"], "one of a, b"),
        ([], "--phase a|b is required"),
        (["--phase", "a", "--epochs", "0"], "at least 1"),
        (["--phase", "a", "--epochs", "1.5"], "whole number"),
        (["--phase", "a", "--rate", "nan"], "a number"),
        (["--phase", "a", "--rate", "0"], "more than 0"),
        (["--phase", "a", "--freeze", "maybe"], "True or False"),
        (["--phase", "a", "--phase", "b"], "twice"),
        (["--phase"], "needs a value"),
        (["--phase", "a", "--folder", ""], "--folder is empty"),
        (["--phase", "a", "stray"], "unexpected argument 'stray'"),
        (["--phase", "a", "--", "--trace"], "unexpected argument '--'"),
    ],
)
def test_wrong_usage_is_refused_before_any_work(
    job: Spy, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert job(*argv) == 2
    assert job.calls == []
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_flag_wins_over_the_environment_and_that_over_dotenv(
    job: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text("CXR_TEST_SIZE=3\n")
    assert job("--phase", "a") == 0
    monkeypatch.setenv("CXR_TEST_SIZE", "4")
    assert job("--phase", "a") == 0
    assert job("--phase", "a", "--size", "5") == 0
    assert [call["size"] for call in job.calls] == [3, 4, 5]


def test_a_wrong_value_in_the_environment_names_the_variable(
    job: Spy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXR_TEST_SIZE", "many")
    assert job("--phase", "a") == 2
    assert "CXR_TEST_SIZE in the environment" in capsys.readouterr().err


def test_what_differs_from_its_default_is_printed_once(
    job: Spy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("--phase", "a", "--rate", "0.5", "--name", "y") == 0
    out = capsys.readouterr().out
    assert out.count("name = y") == 1
    assert "rate" not in out


@pytest.mark.parametrize("module", [ingest, split, train, evaluate, predict_batch])
def test_help_shows_purpose_flags_defaults_and_examples(
    module: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(module, "--help") == 0  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m jobs.")
    assert "[default: " in out
    assert "environment: " in out
    assert "examples:\n  python -m jobs." in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError("no"), 1),
        (LockedError("busy"), 75),
        (ValueError("bug"), 1),
        (StoppedBySignal(15), 143),
    ],
)
def test_each_ending_has_its_exit_code_and_one_message(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def job() -> int:
        """Fail."""
        raise error

    assert execute.execute(job, []) == code
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> int:
        """Fail."""
        raise JobError("no")

    assert execute.execute(job, ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_kwargs_are_a_programming_error() -> None:
    def job(**settings: int) -> int:
        return 0

    with pytest.raises(TypeError, match="keyword-only"):
        flags.parameters_of(job)


def test_a_typo_answers_without_importing_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from jobs import train; from lib.run import execute\n"
        "code = execute.execute(train.train, ['--phase', 'b', '--epoch', '3'])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Did you mean '--epochs'?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_was_held_back_is_raised_at_the_end_of_the_block_at_the_latest() -> None:
    before = signal.getsignal(signal.SIGTERM)
    finished = []
    with pytest.raises(StoppedBySignal) as stop, signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        finished.append(True)
    assert finished == [True]
    assert stop.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_job_with_their_code(tmp_path: Path, number: int, code: int) -> None:
    program = (
        "import time, pathlib; from lib.run import execute\n"
        "def job() -> int:\n"
        "    '''Wait.'''\n"
        "    pathlib.Path('started').touch(); time.sleep(60); return 0\n"
        "execute.run(job)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert "stopped by signal" in error
    assert "Traceback" not in error


def test_a_signal_does_not_interrupt_the_import_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def import_module(name: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ended.append(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(StoppedBySignal):
        signals.import_torch()
    assert ended == ["torch"]


def test_ctrl_c_while_a_job_is_still_importing_ends_it_without_a_traceback() -> None:
    slow = (
        "import sys, time; sys.argv = ['-m']; import jobs; print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", slow],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (-signal.SIGINT, "")
