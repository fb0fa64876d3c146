"""make bench: the jobs against what one would write instead, on this machine, in this run.

Every row is a ratio of two things measured in turn (A B A B …), medians. Prints one table, writes
bench.json, bench.md and bench.png. `--films` is a folder of class folders; without it the real
films beside the project, else generated ones.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import fire

from lib.workers.cores import usable_cores, usable_memory
from tests.benchmarks import made_up, million
from tests.benchmarks.peers import compare
from tests.benchmarks.rows import Row, Skipped, at_least, at_most, draw, markdown, show
from tests.benchmarks.work import ALLOCATOR, Bench, Size

FULL = Size(None, (5, 8), 1, 320, 3, 7, (1000, 50_000), 400, 1_000_000, install_peers=True)
QUICK = Size(200, (1, 1), 1, 96, 1, 3, (200, 2000), 50, 10_000, ("1024 px PNG",), "a")
TINY = Size(  # in the tests
    *(24, (1, 1), 1, 8, 1, 1, (8, 16), 6, 1000, ("1024 px PNG",), "a"), peers=False
)


def cold(bench: Bench) -> Iterable[Row]:
    """One film from a cold process against the import of what others start from."""
    film = next((bench.data / "test").rglob("*.*"))
    bare = "import torch, torchvision"
    if subprocess.run([sys.executable, "-c", bare], capture_output=True).returncode:
        # The bare import fails beside a CPU build of torch: see the module.
        bare = "from lib.network.torchvision import torchvision"
    ours, theirs = [], []
    for _ in range(bench.size.cold_starts):
        ours.append(
            bench.job(
                "predict_batch",
                "--input",
                film,
                "--output",
                bench.work / "one.csv",
                "--runs_dir",
                bench.runs,
            )
        )
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", bare], check=True, env=bench.environment, cwd=bench.work
        )
        theirs.append(time.perf_counter() - began)
    yield at_least(
        "one film, cold, against importing torch and torchvision",
        ours,
        theirs,
        "s",
        1,
        inverse=True,
    )


def memory(bench: Bench) -> Iterable[Row]:
    """Peak memory of predict_batch with fifty times the files."""
    peaks = []
    few, many = bench.size.memory_films
    for count in (few, many):
        folder = bench.films_of("224 px JPEG", count)
        argv = ["--input", folder, "--output", bench.work / "many.csv", "--runs_dir", bench.runs]
        command = [sys.executable, "-m", "jobs.predict_batch", *(str(word) for word in argv)]
        process = subprocess.Popen(
            command,
            env={**bench.environment, **ALLOCATOR},
            cwd=bench.work,
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"predict_batch ended with {os.waitstatus_to_exitcode(status)}")
        peaks.append(usage.ru_maxrss / 1024)
    yield at_most(f"peak memory, {many:,} files against {few:,}", peaks[1], peaks[0], "MB", 1.1)


def growth(bench: Bench) -> Iterable[Row]:
    """Cost of doubling: (t(4N) − t(2N)) / 2 against t(2N) − t(N), without the start-up."""
    size, rounds = bench.size.growth_films, bench.size.rounds
    predict = [
        lambda n=n: bench.script(
            "ours",
            "predict",
            "--data",
            bench.films_of("224 px JPEG", n),
            "--model",
            bench.runs / "model",
            ours=True,
        )["seconds"]
        for n in (4 * size, 8 * size, 16 * size)
    ]
    yield _growth_row("prediction", 4 * size, predict, rounds)
    folders = [bench.folder_of(n) for n in (size, 2 * size, 4 * size)]
    trainings = [
        lambda data=data: bench.train(
            data, bench.work / "runs_growth", (2, 2), phases=bench.size.growth_phases
        )
        for data in folders
    ]
    yield _growth_row("training", size, trainings, rounds)


def scale(bench: Bench) -> Iterable[Row]:
    """Tables of made-up films: split, and the scores of 10,000 test films."""
    films = bench.size.made_up_films
    with TemporaryDirectory(dir=bench.work) as folder:
        made_up.write_raw(Path(folder), films)
        cost = million.measure("split", films, Path(folder))
    name = f"split of {films:,} made-up films"
    yield at_most(f"{name}, CPU time against three minutes", cost.cpu, 180, "s", 1)
    yield at_most(f"{name}, memory against 4 GB", cost.memory, 4096, "MB", 1)
    films = min(films, 10_000)
    cost = million.measure("scores", films, bench.work)
    name = f"scores of {films:,} made-up predictions against 20 s"
    yield at_most(name, cost.cpu, 20, "s", 1)


def _growth_row(what: str, size: int, runs: Sequence[Callable[[], float]], rounds: int) -> Row:
    times = [[run() for run in runs] for _ in range(rounds)]
    small, middle, large = (median(column) for column in zip(*times, strict=True))
    row = at_most(
        f"growth of {what}, {size} → {2 * size} → {4 * size} films",
        (large - middle) / 2,
        middle - small,
        "s",
        1.1,
    )
    row.runs = {"seconds": [small, middle, large]}
    return row


PARTS: dict[str, Callable[[Bench], Iterable[Row | Skipped]]] = {
    "prediction": compare.prediction,
    "cold": cold,
    "memory": memory,
    "growth": growth,
    "scale": scale,
    "training": compare.training,
}


def bench(out: str = "runs", films: str = "", quick: bool = False, only: str = "") -> None:
    """Measure everything, or the comma-separated parts `only` of `PARTS`."""
    parts = tuple(only.split(",") if isinstance(only, str) else only) if only else tuple(PARTS)
    measure(Path(out).resolve(), Path(films) if films else None, QUICK if quick else FULL, parts)


def measure(
    target: Path, films: Path | None, size: Size, parts: Sequence[str] = tuple(PARTS)
) -> list[Row | Skipped]:
    """Measure `parts` in `target`/bench; write bench.json, bench.md and bench.png."""
    work = target / "bench"
    bench = Bench(work, films, size)
    print(f"films: {bench.films or 'generated'}; work folder: {work}", flush=True)
    bench.prepare()
    results: list[Row | Skipped] = []
    for part in (part for part in PARTS if part in parts):
        began = time.perf_counter()
        for row in PARTS[part](bench):
            results.append(row)
            print("  " + ", ".join(cell for cell in row.cells if cell), flush=True)
        print(f"  {part} took {time.perf_counter() - began:.0f} s", flush=True)
    shutil.rmtree(work / "runs_training", ignore_errors=True)
    show(results, None if size == FULL else "too few films and epochs for the goals")
    rows = [row for row in results if isinstance(row, Row)]
    skipped = [row for row in results if isinstance(row, Skipped)]
    content = {"rows": [asdict(row) for row in rows], "skipped": [asdict(row) for row in skipped]}
    (target / "bench.json").write_text(json.dumps({**_machine(size), **content}, indent=2) + "\n")
    (target / "bench.md").write_text(markdown(results))
    draw(rows, target / "bench.png")
    print(f"written: {target}/bench.json, bench.md, bench.png")
    return results


def _machine(size: Size) -> dict[str, Any]:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    packages = ("torch", "torchvision", "timm", "openvino", "pillow", "kornia-rs")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "quick": size != FULL,
        "cpu": model,
        "cores": usable_cores(),
        "memory_gb": round(usable_memory() / 1e9, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


if __name__ == "__main__":
    fire.Fire(bench)
