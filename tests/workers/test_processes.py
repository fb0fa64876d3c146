"""Worker processes: a crash, a hang or a gluttonous file costs one result, and no process is left
behind.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lib.workers.processes import MEMORY, Isolated, map_isolated
from tests.conftest import environment


def _work(item: int, bad: Callable[[int], int], when: int) -> int:
    return bad(item) if item == when else 2 * item


def _crash(_: int) -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def _killed(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _hang(_: int) -> int:
    time.sleep(60)
    return 0


def _gobble(_: int) -> int:
    try:
        return len(bytearray(2 * MEMORY))
    except MemoryError:
        return -1


def _lost(item: int, reason: str) -> str:
    return f"{item}: {reason}"


@pytest.mark.parametrize(
    ("bad", "seconds", "result"),
    [
        (_crash, 10, "7: reading it crashed the decoder (SIGSEGV)"),
        (_killed, 10, "7: reading it was killed, most likely because memory ran out"),
        (_hang, 1, "7: reading it took longer than 1 s"),
        (_gobble, 10, -1),
    ],
)
def test_what_goes_wrong_costs_one_result(
    bad: Callable[[int], int], seconds: float, result: object
) -> None:
    answers = list(map_isolated(partial(_work, bad=bad, when=7), _lost, range(20), 2, seconds))
    assert answers == [result if item == 7 else 2 * item for item in range(20)]


def test_every_item_may_crash() -> None:
    answers = list(map_isolated(_crash, _lost, range(6), 2, 10))
    assert len(answers) == 6
    assert all("SIGSEGV" in str(answer) for answer in answers)


def test_an_exception_of_the_function_is_raised_in_its_place() -> None:
    answers = map_isolated(partial(divmod, 1), _lost, [1, 2, 0], 1, 10)
    assert [next(answers), next(answers)] == [(1, 0), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(answers)


def _make_ready() -> None:
    os.environ["READY"] = "1"


def _fail_to_make_ready() -> None:
    raise OSError("cannot")


def _is_ready(_: int) -> bool:
    return "READY" in os.environ


@pytest.mark.parametrize(("prepare", "ready"), [(_make_ready, True), (_fail_to_make_ready, False)])
def test_a_process_is_prepared_before_its_first_item(
    prepare: Callable[[], None], ready: bool
) -> None:
    with Isolated(_is_ready, _lost, 2, 10, prepare) as isolated:
        assert list(isolated.map(range(6))) == [ready] * 6
        assert list(isolated.map(range(6))) == [ready] * 6


def _pid(_: int) -> int:
    return os.getpid()


def test_idle_workers_that_are_killed_are_replaced() -> None:
    answers = map_isolated(_pid, _lost, range(40), 2, 10, lookahead=2)
    found = []
    for number, pid in enumerate(answers):
        found.append(pid)
        if number in (5, 15):
            time.sleep(0.1)
            assert isinstance(pid, int)
            os.kill(pid, signal.SIGKILL)
    assert len(found) == 40
    assert all(isinstance(pid, int) for pid in found)


def test_workers_die_with_a_job_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, tests.workers.test_processes as t\n"
        "for pid in t.map_isolated(t._pid, t._lost, range(10**9), 2, 10): print(pid, flush=True)"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert job.stdout
    workers = {int(job.stdout.readline()) for _ in range(50)}
    job.kill()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    job.wait()


_JOB = '''
from lib.run import execute
from lib.workers.processes import map_isolated

print("imported", __name__)


def job() -> int:
    """Double."""
    return 0 if list(map_isolated(abs, None, [-1, -2], 2, 10)) == [1, 2] else 1


if __name__ == "__main__":
    execute.run(job)
'''


def test_workers_do_not_import_the_module_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "job_module.py").write_text(_JOB)
    command = [sys.executable, "-m", "job_module", "--quiet"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["imported __main__"]
