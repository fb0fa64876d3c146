"""python -m tests.benchmarks.cluster: films per second through Ray against one machine, in
containers of one core each.

Rates are those between the first and the last rows in the journal: starting containers is not part
of them. Each round measures one core without Ray, one worker, two workers, in turn; the table has
the medians. `make image` comes first.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fire

from lib.dataset import synthetic
from tests.benchmarks.rows import Row, at_least
from tests.benchmarks.work import REAL_FILMS
from tests.docker.conftest import PROJECT


class Containers:
    """The services of compose.yaml on folders of this benchmark."""

    def __init__(self, work: Path, model: Path) -> None:
        self.work = work
        for name in ("data", "runs"):
            (work / name).mkdir()
        shutil.copytree(model, work / "runs/model")
        owner = os.getuid() or 1000
        for path in (work, *work.rglob("*")):
            os.chown(path, owner, owner)
        self.environment = {
            **os.environ,
            "UID": str(owner),
            "GID": str(owner),
            "CPUS": "1",
            "WORKER_CPUS": "1",
        }
        self.environment |= {
            "DATA_DIR": str(work / "data"),
            "RUNS_DIR": str(work / "runs"),
            "CLUSTER_FILMS": str(work / "films"),
        }

    def compose(self, *words: str) -> None:
        command = ["docker", "compose", "-p", "cxr-bench", "--profile", "cluster", *words]
        done = subprocess.run(
            command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")

    def rate(self, workers: int) -> float:
        """Films per second with so many workers; 0: without Ray."""
        if workers:
            self.compose(
                "up", "--detach", "--wait", "--scale", f"worker={workers}", "head", "worker"
            )
            time.sleep(10)  # for what nodes do after they have joined
        service = (
            ["cluster_predict"]
            if workers
            else ["-v", f"{self.work}/films:/films:ro", "predict_batch"]
        )
        command = [
            "docker",
            "compose",
            "-p",
            "cxr-bench",
            "run",
            "--rm",
            *service,
            "--input",
            "/films",
            "--output",
            "runs/x.csv",
        ]
        journal = self.work / "runs/.x.csv.journal"
        seen: list[tuple[float, int]] = []
        with subprocess.Popen(
            command,
            cwd=PROJECT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as job:
            while job.poll() is None:
                rows = journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0
                if rows > (seen[-1][1] if seen else 0):
                    seen.append((time.perf_counter(), rows))
                time.sleep(0.02)
            if job.returncode not in (0, 3):
                raise SystemExit(job.communicate()[1].decode())
        (first, rows), (last, all_rows) = seen[0], seen[-1]
        return (all_rows - rows) / (last - first)


def compare(model: Path, copies: int = 4, rounds: int = 3, films: Path | None = None) -> None:
    """`model` is the folder of a compiled model; every film of `films` (the real or generated ones)
    counts `copies` times.
    """
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        work = Path(folder)
        _gather(films or (REAL_FILMS if REAL_FILMS.is_dir() else None), work / "films", copies)
        containers = Containers(work, Path(model))
        rates: dict[int, list[float]] = {0: [], 1: [], 2: []}
        try:
            for number in range(rounds):
                for workers, found in rates.items():
                    found.append(containers.rate(workers))
                    print(
                        f"round {number + 1}: {workers or 'no'} worker(s), {found[-1]:.1f} films/s",
                        file=sys.stderr,
                    )
        finally:
            containers.compose("down", "--timeout", "1")
    rows = [
        at_least(
            "one worker through Ray, against one core without", rates[1], rates[0], "films/s", 0.8
        ),
        at_least("two workers of one core, against one", rates[2], rates[1], "films/s", 1.7),
    ]
    for row in rows:
        _print(row)


def _gather(source: Path | None, target: Path, copies: int) -> None:
    if source is None:
        synthetic.write_films(target, 1000, seed=0, threads=2)
        originals = [path for path in target.rglob("*.*") if path.is_file()]
    else:
        target.mkdir()
        paths = [
            path
            for path in sorted(source.rglob("*.*"))
            if path.suffix.lower() in (".png", ".jpg", ".jpeg")
        ]
        originals = [
            Path(shutil.copyfile(path, target / f"{number:05}{path.suffix}"))
            for number, path in enumerate(paths)
        ]
    for path in originals:
        for copy in range(1, copies):
            path.with_name(f"{path.stem}_{copy}{path.suffix}").hardlink_to(path)


def _print(row: Row) -> None:
    runs = ", ".join(
        f"{name} {'/'.join(f'{value:.0f}' for value in values)}"
        for name, values in row.runs.items()
    )
    print(f"{row.name}: {row.ours:.1f} against {row.theirs:.1f} {row.unit} ({runs})")
    print(f"    ratio {row.ratio:.2f}, goal {row.goal}: {'met' if row.met else 'not met'}")


if __name__ == "__main__":
    fire.Fire(compare)
