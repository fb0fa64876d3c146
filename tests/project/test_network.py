"""Nothing phones home: each connection that a job attempts is recorded, by strace where it can be
had and by Python.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment

# Python runs a sitecustomize.py that it finds on its path before anything else; an audit hook
# cannot be removed again.
HOOK = """
import os, sys
def hook(event, args):
    is_address = len(args) > 1 and not isinstance(args[1], (str, bytes))  # no socket file
    by_address = event in ("socket.connect", "socket.sendto") and is_address
    if by_address or event == "socket.getaddrinfo":
        with open(os.environ["CXR_CONNECTIONS"], "a") as file:
            file.write(f"{event} {args[:2]}\\n")
sys.addaudithook(hook)
"""


def _strace() -> list[str]:
    """The words that put a command under strace, or none where there is no strace or it may not
    trace.
    """
    works = (
        shutil.which("strace")
        and subprocess.run(["strace", "-f", "true"], capture_output=True, check=False).returncode
        == 0
    )
    return (
        ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
        if works
        else []
    )


STANDSTILL = 200  # seconds; a job on these films takes ten, below strace twenty


class Watch:
    """Runs Python programs and remembers whom they tried to reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "hook").mkdir()
        (folder / "hook/sitecustomize.py").write_text(HOOK)
        self.tracer = _strace()

    def __call__(self, *words: object) -> list[str]:
        """Run `python WORDS`; return the attempts to reach anything but a socket file."""
        attempts, trace = self.folder / "attempts", self.folder / "trace"
        for file in (attempts, trace):
            file.unlink(missing_ok=True)
        base = environment(
            CXR_CONNECTIONS=str(attempts), http_proxy="", https_proxy="", PYTHONFAULTHANDLER="1"
        )
        base["PYTHONPATH"] = f"{self.folder / 'hook'}{os.pathsep}{base['PYTHONPATH']}"
        tracer = [*self.tracer, "-o", str(trace)] if self.tracer else []
        command = [sys.executable, *map(str, words)]
        assert self._run([*tracer, *command], base), f"standstill:\n{self.output}"
        seen = attempts.read_text().splitlines() if attempts.exists() else []
        traced = trace.read_text().splitlines() if trace.exists() else []
        return seen + [line for line in traced if re.search(r"sa_family=AF_(?!UNIX)", line)]

    def _run(self, command: list[str], base: dict[str, str]) -> bool:
        """Whether the command ended by itself; else its output has the stacks of its threads."""
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=base,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            is_over = True
            try:
                self.output, _ = process.communicate(timeout=STANDSTILL)
            except subprocess.TimeoutExpired:
                is_over = False
                os.killpg(process.pid, signal.SIGABRT)
                self.output, _ = process.communicate()
            self.code = process.returncode
        return is_over


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    return Watch(tmp_path_factory.mktemp("watched"))


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.getaddrinfo('localhost', 9)",
        "socket.socket().connect_ex(('127.0.0.1', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    ],
)
def test_the_watch_sees_an_attempt(watch: Watch, attempt: str) -> None:
    assert watch("-c", f"import socket; {attempt}")


def test_a_connection_past_python_is_seen_by_strace(watch: Watch) -> None:
    if not watch.tracer:
        pytest.skip(
            "strace is missing or may not trace: only what Python itself connects is watched"
        )
    code = (
        "import ctypes, struct, socket; libc = ctypes.CDLL(None); "
        "address = struct.pack('=HH4s8x', 2, 9, socket.inet_aton('127.0.0.1')); "
        "libc.connect(libc.socket(2, 1, 0), address, 16)"
    )
    assert any("127.0.0.1" in line for line in watch("-c", code))


def test_no_job_after_ingest_tries_to_reach_anyone(watch: Watch, phantom_films: Path) -> None:
    lite0 = ("--backbone", "efficientnet_lite0")
    jobs: list[tuple[int, tuple[object, ...]]] = [
        (3, ("ingest", "--dataset", f"folder:{phantom_films}", *lite0)),
        (0, ("split", "--val_fraction", 0.15, "--test_fraction", 0.15)),
        (0, ("train", "--phase", "a", "--epochs", 1, *lite0)),
        (0, ("train", "--phase", "b", "--epochs", 1, *lite0)),
        (0, ("evaluate", *lite0)),
        (
            0,
            (
                "predict_batch",
                "--input",
                "data/test",
                "--output",
                "x.csv",
                "--report",
                "x.html",
                "--explain",
                "maps",
            ),
        ),
    ]
    for code, (job, *flags) in jobs:
        attempts = watch("-m", f"jobs.{job}", *flags)
        assert watch.code == code, f"{job}: {watch.output}"
        assert attempts == [], job


def test_libraries_are_told_not_to_report(watch: Watch) -> None:
    watch(
        "-c",
        "import lib, os; names = 'DO_NOT_TRACK', 'HF_HUB_DISABLE_TELEMETRY', 'HF_HUB_OFFLINE'; "
        "print(*(os.environ[name] for name in names))",
    )
    assert watch.output.split() == ["1", "1", "1"]
