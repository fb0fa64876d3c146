"""python -m tests.benchmarks.million: time and memory of what grows with the number of films.

Films are made up (tests/benchmarks/made_up.py): rows of tables, and empty files for the links of
split. Decoding and the model, whose time per film does not change with their number, are left out.
Each part runs in a process of its own; its CPU time and the peak of its memory are printed.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fire

from lib.dataset.duplicates import near_duplicates
from lib.evaluation.evaluation import Options, evaluate
from lib.evaluation.results import ScoredModel
from lib.images.inputs import Folder
from lib.prediction.processed import Processed
from lib.prediction.rows import Row, RowSchema
from lib.storage.journal import Journal
from lib.storage.stamp import Stamp
from lib.storage.tables import table_of
from tests.benchmarks import made_up

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = RowSchema(made_up.CLASSES)
PREVALENCES = (0.005, 0.02, 0.1, 0.3)


@dataclass(frozen=True)
class Cost:
    """What a part took."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    memory: float  # MB, peak of the process


def split(work: Path, films: int) -> None:
    """The split job on a manifest of made-up films."""
    from jobs.split import split as job

    job(data_dir=work)


def listing(work: Path, films: int) -> None:
    """The names of a folder, as predict_batch lists them before the first film."""
    assert len(Folder.of(work / "raw", ()).names) == films + 1  # the manifest is a file too


def table(work: Path, films: int, suffix: str) -> None:
    """A journal with a row per film, the table that is written from it, and its rows read again."""
    names = [f"{number // 1000:06}/{number:012}.dcm" for number in range(films)]
    shares = (0.987654, 0.006173, 0.006173)
    with Journal(table_of(work / f"x.{suffix}", SCHEMA.columns), names, {}) as journal:
        journal.open(True, lambda *_: True)
        for number, name in enumerate(names):
            row = Row(name, "m@0123456789ab", "NORMAL", shares[0], shares, False, (), 0.123)
            journal.add(number, Stamp(1, 1), SCHEMA.record(row))
        journal.publish()
        journal.remove()
    assert sum(1 for _ in table_of(work / f"x.{suffix}", SCHEMA.columns).records()) == films


def csv(work: Path, films: int) -> None:
    """`table` as CSV."""
    table(work, films, "csv")


def parquet(work: Path, films: int) -> None:
    """`table` as Parquet."""
    table(work, films, "parquet")


def incremental(work: Path, films: int) -> None:
    """The contents of a folder recorded, and the folder compared with them in a second run."""
    folder = Folder.of(work / "raw", ())
    for expected in (True, False):
        database = Processed(work / "seen.sqlite")
        assert bool(database.new(folder, 2)) == expected
        database.record(folder)


def scores(work: Path, films: int) -> None:
    """Every score with its interval, from predictions.csv and baselines.csv."""
    rows = made_up.predictions(films)
    model = ScoredModel("net@0", "b", "fp32", "0" * 64, "1" * 64)
    options = Options("TUBERCULOSIS", PREVALENCES, seed=0)
    assert evaluate(rows, made_up.baselines(rows), model, None, options).films > films * 0.99


PARTS: dict[str, Callable[[Path, int], None]] = {
    part.__name__: part for part in (split, listing, csv, parquet, incremental, scores)
}
NEED_RAW = ("split", "listing", "incremental")


def measure(part: str, films: int, work: Path) -> Cost:
    """Run one part in a process of its own; the made-up films are drawn before."""
    command = [sys.executable, "-m", "tests.benchmarks.million", "run", part, str(films), str(work)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{part} of {films} films ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - began, cpu, float(output.split()[-1]))


def run(part: str, films: int, work: str) -> None:
    """One part in this process; prints the peak of its memory in MB.

    The peak that the kernel tells the parent counts the parent's own memory before the program
    begins.
    """
    PARTS[part](Path(work), films)
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def equal_to_all_pairs(films: int) -> bool:
    """Whether the near-duplicates among made-up films are those that comparing all pairs finds."""
    import numpy as np

    hashes = made_up.dhashes(films)
    words = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(films, -1)
    found = []
    for begin in range(0, films, 200):
        block = words[begin : begin + 200, None] ^ words[None, begin:]
        first, second = np.nonzero(np.bitwise_count(block).sum(axis=2) <= 10)
        pairs = np.stack([first, second], axis=1)[first < second]
        found.append(pairs + begin)
    return bool(np.array_equal(np.concatenate(found), near_duplicates(hashes)))


def report(films: int = 10_000, parts: str = "", work: str = "") -> None:
    """Print the cost of the comma-separated `parts` of `PARTS`, in a temporary folder in `work`."""
    chosen = tuple(parts.split(",") if isinstance(parts, str) else parts) if parts else tuple(PARTS)
    with tempfile.TemporaryDirectory(dir=work or None) as folder:
        data = Path(folder)
        if set(chosen) & set(NEED_RAW):
            made_up.write_raw(data, films)
        for part in chosen:
            cost = measure(part, films, data)
            print(
                f"{part:<12} {films:>10,} films {cost.cpu:8.1f} s CPU {cost.wall:8.1f} s "
                f"{cost.memory:6.0f} MB",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    fire.Fire({"report": report, "run": run, "equal": equal_to_all_pairs})
