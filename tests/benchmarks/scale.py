"""python -m tests.benchmarks.scale: what a run over very many films asks of the job and of the head
node.

Two things do not spread over nodes: the job, which holds the names and writes the rows, and the
head, whose pipeline hands out chunks. Both are run here at growing sizes with workers that do
nothing; a line through the smaller sizes foretells the largest, which is measured as well, and then
the run that was asked for: 10 million films on 50 nodes of 16 cores.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fire
import numpy as np
from rich.console import Console
from rich.table import Table

from lib.prediction.classify import FILMS_PER_CHUNK
from lib.prediction.rows import Row, RowSchema
from lib.storage.journal import Journal
from lib.storage.stamp import Stamp
from lib.storage.tables import table_of
from lib.workers.ray import Cluster

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = RowSchema(("NORMAL", "PNEUMONIA", "TUBERCULOSIS"))
Measured = dict[str, float]


def name_of(number: int) -> str:
    """A name as archives have them: 47 characters."""
    return f"archive/{number // 1000:06}/1.2.826.0.1.{number:012}.dcm"


def row_named(name: str) -> Row:
    """A row of the usual length."""
    shares = (0.987654, 0.006173, 0.006173)
    return Row(name, "m@0123456789ab", "NORMAL", shares[0], shares, False, (), 0.123)


def journal(films: int) -> Measured:
    """The job's part in this process: names, a journal row per film, the table."""
    names = [name_of(number) for number in range(films)]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Journal(table_of(Path(folder) / "x.csv", SCHEMA.columns), names, {}) as table:
            table.open(True, lambda *_: True)
            for number, name in enumerate(names):
                table.add(number, Stamp(1, 1), SCHEMA.record(row_named(name)))
            added = time.perf_counter()
            table.publish()
        ended = time.perf_counter()
        size = (Path(folder) / "x.csv").stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"memory": memory, "seconds": added - began, "publish": ended - added, "disk": 2 * size}


class Nothing:
    """A worker that answers as many films as it is given, at once."""

    def __call__(
        self,
    ) -> Callable[[Sequence[tuple[int, str, None]]], list[tuple[int, Row]]]:
        row = row_named(name_of(0))
        return lambda films: [(number, row) for number, _, _ in films]


def pipeline(films: int) -> Measured:
    """The head's part: chunks of film names through Ray Data and back. Memory is that of the actor
    that runs it.
    """
    with Cluster("auto") as cluster:
        pieces = (
            range(begin, min(begin + FILMS_PER_CHUNK, films))
            for begin in range(0, films, FILMS_PER_CHUNK)
        )
        chunks = ([(number, name_of(number), None) for number in piece] for piece in pieces)
        memory, first, done = 0, 0.0, 0
        for answers in cluster.map(Nothing(), chunks):
            first = first or time.perf_counter()
            done += len(answers)
            memory = (
                max(memory, _memory_of("ray::_Pipeline"))
                if done % (64 * FILMS_PER_CHUNK) == 0
                else memory
            )
        assert done == films
        return {"memory": memory, "seconds": time.perf_counter() - first}


def _memory_of(title: str) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_text().startswith(title):
                return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return 0


def _measure(part: str, sizes: Sequence[int]) -> dict[int, Measured]:
    """Each size in a process of its own."""
    found = {}
    for films in sizes:
        command = [sys.executable, "-m", "tests.benchmarks.scale", part, str(films)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found[films] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(
    films: int = 10_000_000,
    nodes: int = 50,
    cores: int = 16,
    rate: float = 120.0,
    largest: int = 2_000_000,
) -> None:
    """Measure up to `largest`, foretell `films` on `nodes` of `cores`, each of which answers `rate`
    films per second.

    Needs a Ray cluster on this machine for the head's part: ray start --head.
    """
    sizes = [largest // 8, largest // 4, largest // 2, largest]
    grid = Table(
        title="per part: measured, and foretold from the three smaller sizes", title_justify="left"
    )
    for column in (
        "part",
        "quantity",
        *(f"{size:,} films" for size in sizes),
        "foretold",
        "off by",
        f"{films:,} films",
    ):
        grid.add_column(column, justify="right")
    foretold = {}
    for part, quantities in (
        ("journal", ("memory", "seconds", "publish", "disk")),
        ("pipeline", ("memory", "seconds")),
    ):
        found = _measure(part, sizes)
        for quantity in quantities:
            values = [found[size][quantity] for size in sizes]
            slope, base = np.polyfit(sizes[:3], values[:3], 1)
            guess, foretold[part, quantity] = base + slope * largest, base + slope * films
            off = f"{values[-1] / guess - 1:+.0%}"
            grid.add_row(
                part,
                quantity,
                *(_shown(quantity, value) for value in (*values, guess)),
                off,
                _shown(quantity, foretold[part, quantity]),
            )
    Console(width=170).print(grid)
    need = nodes * cores * rate
    print(
        f"{nodes} nodes of {cores} cores classify {need:,.0f} films/s, "
        f"{need / FILMS_PER_CHUNK:.0f} chunks/s"
    )
    print(f"{films:,} films take {films / need / 60:.1f} minutes if nothing else is the limit")
    for part, limit in (
        ("journal", films / foretold["journal", "seconds"]),
        ("pipeline", films / foretold["pipeline", "seconds"]),
    ):
        word = (
            "keeps up"
            if limit > need
            else f"is the limit, from {limit / rate / cores:.0f} such nodes on"
        )
        print(f"the {part} takes {limit:,.0f} films/s on this machine: it {word}")


def _shown(quantity: str, value: float) -> str:
    return f"{value / 1e6:,.0f} MB" if quantity in ("memory", "disk") else f"{value:,.1f} s"


if __name__ == "__main__":
    fire.Fire(
        {
            "report": report,
            "journal": lambda films: json.dumps(journal(films)),
            "pipeline": lambda films: json.dumps(pipeline(films)),
        }
    )
