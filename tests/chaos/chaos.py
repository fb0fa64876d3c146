"""make chaos: faults into every job, and what came of them. python -m tests.chaos.chaos run
--rounds 5 --seed 1

The chain runs once undisturbed. Then, round by round, each job gets faults at random moments and is
run again until it ends: kill -9, SIGTERM, SIGINT, the death of one of its processes, a full disk,
too little memory, a clock that jumps, a second copy beside it. What is left on disk must then be,
row for row and bit for bit, what the undisturbed chain left.
"""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import fire
import torch

from lib.dataset import synthetic
from lib.run import console
from lib.storage.cells import from_cell
from tests.conftest import environment

FILMS = 90
LITE0 = ["--backbone", "efficientnet_lite0"]
# Exit codes that a fault may cause; the negative ones where a signal came before the job could mind
# it.
TAKES_UP = {
    -signal.SIGKILL,
    -signal.SIGTERM,
    -signal.SIGINT,
    128 + signal.SIGTERM,
    128 + signal.SIGINT,
    1,
    75,
}
DONE = (0, 3)
KINDS = (
    "kill",
    "sigterm",
    "sigint",
    "death_of_a_process",
    "full_disk",
    "little_memory",
    "clock_jump",
    "second_copy",
)
MOST_RUNS = 12  # of one job in one round


@dataclass
class Project:
    """A data and a runs folder, and the six commands of the chain."""

    root: Path
    films: Path
    inbox: Path
    durations: dict[str, float] = field(default_factory=dict)

    def commands(self) -> dict[str, list[str]]:
        data, runs = (
            ["--data_dir", str(self.root / "data")],
            ["--runs_dir", str(self.root / "runs")],
        )
        both = [*data, *runs]
        table = str(self.root / "out" / "today.csv")
        return {
            "ingest": ["ingest", "--dataset", f"folder:{self.films}", *LITE0, *data],
            "split": ["split", "--val_fraction", "0.2", "--test_fraction", "0.2", *data],
            "train a": ["train", "--phase", "a", "--epochs", "3", "--views", "3", *LITE0, *both],
            "train b": ["train", "--phase", "b", "--epochs", "3", "--views", "3", *LITE0, *both],
            "evaluate": ["evaluate", *both],
            "predict_batch": [
                "predict_batch",
                "--input",
                str(self.inbox),
                "--output",
                table,
                *runs,
            ],
        }

    def start(self, job: str, *wrapper: str) -> "subprocess.Popen[bytes]":
        name, *argv = self.commands()[job]
        log = open(self.root / "log.txt", "ab")  # noqa: SIM115
        command = [*wrapper, sys.executable, "-m", f"jobs.{name}", *argv]
        return subprocess.Popen(
            command, env=environment(), stdout=log, stderr=log, start_new_session=True
        )

    def left(self, job: str) -> dict[str, str]:
        """Digests of what a job must leave, the same however often it was disturbed."""
        data, runs = self.root / "data", self.root / "runs"
        files = {
            "ingest": [data / "raw" / "manifest.csv", *(data / "raw").glob("*/*")],
            "split": [
                data / "split.csv",
                *(path for name in ("train", "val", "test") for path in (data / name).glob("*/*")),
            ],
            "train a": [
                runs / "phase_a" / name for name in ("history.csv", "best_efficientnet_lite0.pt")
            ],
            "train b": [
                runs / "phase_b" / name for name in ("history.csv", "best_efficientnet_lite0.pt")
            ]
            + [runs / "best_efficientnet_lite0.pt", runs / "model" / "fp32.bin"],
            "evaluate": [
                runs / "evaluation" / name
                for name in ("predictions.csv", "baselines.csv", "metrics.json")
            ],
            "predict_batch": [self.root / "out" / "today.csv"],
        }[job]
        return {path.relative_to(self.root).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    if not path.exists():
        return "missing"
    if path.suffix == ".pt":  # zip archives hold times; what counts are the tensors
        state = torch.load(path, weights_only=True)["state"]
        return hashlib.sha256(
            b"".join(tensor.numpy().tobytes() for tensor in state.values())
        ).hexdigest()
    if path.name == "history.csv":  # without the seconds that an epoch took
        rows = list(csv.DictReader(path.read_text().splitlines()))
        return hashlib.sha256(
            json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]).encode()
        ).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Faults:
    """Each method lets one run of a job go wrong and returns its exit code, or None where the
    machine cannot do it.
    """

    def __init__(self, project: Project, dice: random.Random) -> None:
        self.project, self.dice = project, dice

    def _some_time(self, job: str) -> float:
        return self.dice.uniform(0, 1.1) * self.project.durations[job]

    def _signal(self, job: str, number: int) -> int:
        process = self.project.start(job)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(self._some_time(job))
        os.kill(process.pid, number)
        return process.wait(120)

    def kill(self, job: str) -> int:
        return self._signal(job, signal.SIGKILL)

    def sigterm(self, job: str) -> int:
        return self._signal(job, signal.SIGTERM)

    def sigint(self, job: str) -> int:
        return self._signal(job, signal.SIGINT)

    def death_of_a_process(self, job: str) -> int:
        """kill -9 to one of the processes that the job has started; the job itself goes on."""
        process = self.project.start(job)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(self._some_time(job))
        others = [pid for pid in _session(process.pid) if pid != process.pid]
        if others:
            with suppress(ProcessLookupError):
                os.kill(self.dice.choice(others), signal.SIGKILL)
        return process.wait(300)

    def full_disk(self, job: str) -> int | None:
        """A ballast file leaves little room on the project's own small file system."""
        if not os.path.ismount(self.project.root):
            return None
        free = shutil.disk_usage(self.project.root).free
        ballast = self.project.root / "ballast"
        with open(ballast, "wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, max(free - self.dice.choice([0, 4096, 100_000, 1_000_000]), 1)
            )
        try:
            return self.project.start(job).wait(300)
        finally:
            ballast.unlink()

    def little_memory(self, job: str) -> int | None:
        """A control group whose limit the job may outgrow; the kernel then kills it or one of its
        processes.
        """
        group = _memory_group(self.dice.choice([60, 120, 250, 400]) * 2**20)
        if group is None:
            return None
        process = self.project.start(
            job, "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"
        )
        code = process.wait(300)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)
        return code

    def clock_jump(self, job: str) -> int | None:
        """Killed, and the next run believes that it is two days earlier."""
        if shutil.which("faketime") is None:
            return None
        self.kill(job)
        return self.project.start(job, "faketime", "-f", "-2d").wait(300)

    def second_copy(self, job: str) -> int:
        """Two at once: one of them is turned away with 75, or they follow one another."""
        first, second = self.project.start(job), self.project.start(job)
        codes = sorted((first.wait(300), second.wait(300)))
        return codes[1] if codes[0] in DONE else codes[0]


def _session(leader: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(stat.parent.name))
    return found


def _memory_group(limit: int) -> Path | None:
    name = f"cxr-chaos-{os.getpid()}-{time.monotonic_ns()}"
    for parent, file in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        with suppress(OSError):
            group = parent / name
            group.mkdir()
            if (group / file).exists():
                (group / file).write_text(str(limit))
                return group
            group.rmdir()
    return None


def run(
    rounds: int = 3, seed: int = 0, folder: str = "", faults: int = 3, copies: int = 10
) -> None:
    """Run `rounds` rounds with `faults` faults into each job; exit 1 when anything that was left
    differs from what the undisturbed chain left. The inbox has `copies` of every film.
    """
    parent = Path(folder or tempfile.mkdtemp(prefix="cxr-chaos-"))
    calm = Project(parent / "calm", parent / "films", parent / "inbox")
    _make_films(calm, seed, copies)
    wanted = _undisturbed(calm)
    console.say(
        "undisturbed: "
        + ", ".join(f"{job} {seconds:.1f} s" for job, seconds in calm.durations.items())
    )
    found = Findings()
    for number in range(rounds):
        _round(
            number,
            Project(parent / f"round{number}", calm.films, calm.inbox, calm.durations),
            wanted,
            seed,
            found,
            faults,
        )
        expected, seen = (
            _rows(folder / "out" / "today.csv") for folder in (calm.root, parent / f"round{number}")
        )
        found.expected, found.rows = (
            found.expected + len(expected),
            found.rows + len(set(expected) & set(seen)),
        )
        console.say(
            f"round {number}: {found.injected.total()} faults so far, "
            f"{len(found.differences)} differences"
        )
    console.table("faults injected", ("fault", "times"), sorted(found.injected.items()))
    console.say(
        "exit codes of disturbed runs: "
        + ", ".join(f"{code}: {n}" for code, n in sorted(found.codes.items()))
    )
    console.say(
        f"rows expected {found.expected}, found {found.rows}, lost {found.expected - found.rows}"
    )
    for difference in found.differences:
        console.fail(difference)
    for number in range(rounds):
        if os.path.ismount(parent / f"round{number}") and not found.differences:
            subprocess.run(["umount", "-l", parent / f"round{number}"], check=True)
    console.say(
        f"logs: {parent}" if found.differences else "everything is as the undisturbed chain left it"
    )
    sys.exit(1 if found.differences else 0)


@dataclass
class Findings:
    """What the rounds brought."""

    injected: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    expected: int = 0  # rows of all tables
    rows: int = 0


def _make_films(project: Project, seed: int, copies: int) -> None:
    synthetic.write_films(project.films, FILMS, seed=seed, threads=2)
    project.inbox.mkdir()
    pictures = sorted(path for path in project.films.rglob("*") if path.is_file())
    for copy in range(copies):
        for number, path in enumerate(pictures):
            shutil.copy(path, project.inbox / f"{copy}-{number:03}{path.suffix}")


def _undisturbed(project: Project) -> dict[str, dict[str, str]]:
    project.root.mkdir()
    for job in project.commands():
        began = time.monotonic()
        code = project.start(job).wait(600)
        if code not in DONE:
            sys.exit(f"undisturbed, {job} ended with {code}: see {project.root / 'log.txt'}")
        project.durations[job] = time.monotonic() - began
    return {job: project.left(job) for job in project.commands()}


def _round(
    number: int,
    project: Project,
    wanted: dict[str, dict[str, str]],
    seed: int,
    found: Findings,
    faults_per_job: int,
) -> None:
    dice = random.Random(f"{seed} {number}")
    project.root.mkdir()
    if os.getuid() == 0:  # a small file system of its own, to fill it up
        command = ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(project.root)]
        subprocess.run(command, check=False, capture_output=True)
    faults = Faults(project, dice)
    for job in project.commands():
        for kind in dice.sample(KINDS, faults_per_job):
            inject: Callable[[str], int | None] = getattr(faults, kind)
            code = inject(job)
            if code is None:
                found.injected[f"{kind} (not possible here)"] += 1
                continue
            found.injected[kind] += 1
            found.codes[code] += 1
            if code not in (*DONE, *TAKES_UP):
                found.differences.append(f"round {number}, {job}, {kind}: ended with {code}")
        for _ in range(MOST_RUNS):
            if (code := project.start(job).wait(600)) in DONE:
                break
        else:
            found.differences.append(f"round {number}, {job}: does not end any more, exit {code}")
        left = project.left(job)
        changed = [
            path for path in {*wanted[job], *left} if wanted[job].get(path) != left.get(path)
        ]
        found.differences += [f"round {number}, {job}: {path} differs" for path in changed]
    for path in (*project.root.rglob(".*.partial"), *project.root.rglob(".*.journal")):
        found.differences.append(f"round {number}: {path} is left over")
    log = (project.root / "log.txt").read_text(errors="replace")
    if any(
        "resource_tracker" not in trace[:200] for trace in log.split("Traceback")[1:]
    ):  # Python's own, when killed
        found.differences.append(f"round {number}: a traceback in the log")


def long(films: int = 100_000, seconds: float = 8.0, seed: int = 0, folder: str = "") -> None:
    """Classify `films` files once undisturbed, once killed about every `seconds`; exit 1 unless
    both tables are equal.
    """
    parent = Path(folder or tempfile.mkdtemp(prefix="cxr-long-"))
    project = Project(parent, parent / "films", parent / "inbox")
    synthetic.write_films(project.films, FILMS, seed=seed, threads=2)
    for job in list(project.commands())[:4]:
        if project.start(job).wait(600) not in DONE:
            sys.exit(f"{job} failed: see {parent / 'log.txt'}")
    pictures = sorted(path for path in project.films.rglob("*") if path.is_file())
    project.inbox.mkdir()
    for number in range(films):
        os.link(
            pictures[number % len(pictures)],
            project.inbox / f"{number:06}{pictures[number % len(pictures)].suffix}",
        )
    dice, kills, table = random.Random(seed), 0, parent / "out" / "today.csv"
    began = time.monotonic()
    while True:
        process = project.start("predict_batch")
        with suppress(subprocess.TimeoutExpired):
            if process.wait(dice.uniform(0.2, 2) * seconds) in DONE:
                break
            sys.exit(f"ended with {process.returncode}: see {parent / 'log.txt'}")
        process.kill()
        process.wait()
        kills += 1
    disturbed = time.monotonic() - began
    table.rename(parent / "disturbed.csv")
    began = time.monotonic()
    project.start("predict_batch").wait()
    calm = time.monotonic() - began
    rows = _rows(parent / "disturbed.csv")
    is_equal = table.read_bytes() == (parent / "disturbed.csv").read_bytes()
    console.say(f"{films} files, {kills} kills, {disturbed:.0f} s; undisturbed {calm:.0f} s")
    console.say(
        f"rows expected {films}, found {len(rows)}, "
        f"tables {'equal' if is_equal else 'differ'}: {parent}"
    )
    sys.exit(0 if is_equal and len(rows) == films else 1)


def _rows(table: Path) -> Sequence[str]:
    if not table.exists():
        return []
    with open(table, encoding="utf-8", newline="") as file:
        return [from_cell(row["path"]) for row in csv.DictReader(file)]


if __name__ == "__main__":
    fire.Fire({"run": run, "long": long})
