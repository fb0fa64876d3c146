"""make bench: the jobs against what one would write instead, on this machine, in this run.

Every row is a ratio of two things measured in turn (A B A B …), medians. Prints one table, writes
bench.json and bench.png. `--films` is a folder of class folders; without it the real films beside
the project, else generated ones.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import fire
from PIL import Image
from rich.console import Console
from rich.table import Table

from lib.dataset.manifest import FilmRecord, SplitRecord, read_manifest, read_split, write_rows
from lib.storage.atomic import link_or_copy
from lib.workers.cores import usable_cores, usable_memory
from tests.benchmarks import made_up, million
from tests.benchmarks.peers import compare
from tests.benchmarks.rows import Row, Skipped, at_least, at_most

PROJECT = Path(__file__).resolve().parents[2]
REAL_FILMS = PROJECT.parent / "shared" / "xrays"
LITE0 = ["--backbone", "efficientnet_lite0"]
# glibc's settings of the image and the Makefile: the jobs run with them, what one would write
# instead does not.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


@dataclass(frozen=True)
class Size:
    """How much is measured. Only `FULL` has enough films and epochs for the goals of training."""

    training_films: int | None  # None: all of them
    epochs: tuple[int, int]
    seeds: int
    predicted_films: int
    rounds: int
    cold_starts: int
    memory_films: tuple[int, int]
    growth_films: int
    made_up_films: int
    kinds: tuple[str, ...] = ("large JPEG", "1024 px PNG", "256 px PNG")  # of predicted films
    growth_phases: str = "ab"
    peers: tuple[str, ...] = ()  # their names; empty: all
    install_peers: bool = True


FULL = Size(None, (5, 8), 3, 480, 3, 7, (1000, 50_000), 400, 1_000_000)
QUICK = Size(400, (1, 1), 1, 160, 1, 3, (200, 4000), 100, 10_000)
TINY = Size(  # in the tests
    *(24, (1, 1), 1, 8, 1, 1, (8, 16), 6, 1000, ("1024 px PNG",), "a"),
    peers=(compare.TUNED, "fastai, fine_tune"),
    install_peers=False,
)


class Bench:
    """A work folder with films, split and model, and the commands that are compared in it."""

    def __init__(self, work: Path, films: Path | None, size: Size) -> None:
        self.work, self.size = work, size
        self.films = films or (REAL_FILMS if REAL_FILMS.is_dir() else None)
        self.data, self.runs = work / "data", work / "runs"
        self.environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        for name in (
            *ALLOCATOR,
            "DATA_DIR",
            "RUNS_DIR",
            "BACKBONE",
            "CPUS",
            "WORKERS",
            "PRECISION",
            "CACHE_GB",
            "SEED",
        ):
            self.environment.pop(name, None)

    def job(self, name: str, *argv: object, check: bool = True) -> float:
        """Run a job as make does; wall seconds of the whole process."""
        command = [sys.executable, "-m", f"jobs.{name}", *(str(word) for word in argv)]
        began = time.perf_counter()
        done = subprocess.run(
            command,
            env={**self.environment, **ALLOCATOR},
            cwd=self.work,
            capture_output=True,
            text=True,
        )
        if check and done.returncode not in (0, 3):
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return time.perf_counter() - began

    def script(
        self, module: str, *argv: object, ours: bool = False, packages: Path | None = None
    ) -> dict[str, Any]:
        """Run a benchmark script, which may import `packages`, and return what it measured."""
        out = self.work / "out.json"
        command = [
            sys.executable,
            "-m",
            f"tests.benchmarks.{module}",
            *(str(word) for word in argv),
            "--out",
            str(out),
        ]
        environment = {**self.environment, **(ALLOCATOR if ours else {})}
        if packages:
            environment["PYTHONPATH"] += f"{os.pathsep}{packages}"
        done = subprocess.run(
            command, env=environment, cwd=self.work, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        result: dict[str, Any] = json.loads(out.read_text())
        return result

    def prepare(self) -> None:
        """Films, split, and a model to ask; kept for the next benchmark."""
        self.work.mkdir(parents=True, exist_ok=True)
        source = f"folder:{self.films.resolve()}" if self.films else "phantom"
        if not (self.data / "split.csv").exists():
            self.job("ingest", "--dataset", source, *LITE0, "--data_dir", self.data)
            self.job("split", "--data_dir", self.data)
        if not (self.runs / "model" / "model.json").exists():
            self.train(self.data, self.runs, self.size.epochs)

    def train(
        self, data: Path, runs: Path, epochs: tuple[int, int], *more: object, phases: str = "ab"
    ) -> float:
        """The phases from split.csv to runs/model with an empty cache; seconds."""
        shutil.rmtree(data / "cache" / "features", ignore_errors=True)
        shutil.rmtree(runs, ignore_errors=True)
        folders = ["--data_dir", data, "--runs_dir", runs]
        return sum(
            self.job("train", "--phase", phase, "--epochs", count, *LITE0, *folders, *more)
            for phase, count in zip(phases, epochs, strict=False)
        )

    def macro_f1(self, data: Path, runs: Path) -> float:
        """Of the model that a training left."""
        self.job("evaluate", "--data_dir", data, "--runs_dir", runs, "--nobaselines")
        metrics = json.loads((runs / "evaluation" / "metrics.json").read_text())
        score: float = metrics["scores"]["macro_f1"]["value"]
        return score

    def training(self) -> Iterable[Row]:
        """Both phases against the plain loop."""
        epochs, part = self.size.epochs, self.size.training_films
        data = self.folder_of(part) if part else self.data
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        scores: dict[str, list[float]] = {"ours": [], "plain": []}
        for seed in range(self.size.seeds):
            ours = self.train(data, self.work / "runs_training", epochs, "--seed", seed)
            seconds["ours"].append(ours)
            scores["ours"].append(self.macro_f1(data, self.work / "runs_training"))
            argv = (
                "--data",
                data,
                "--seed",
                seed,
                "--epochs_a",
                epochs[0],
                "--epochs_b",
                epochs[1],
            )
            plain = self.script("plain", "train", *argv)
            seconds["plain"].append(plain["seconds"])
            scores["plain"].append(plain["macro_f1"])
            print(f"  seed {seed}: {seconds}, macro-F1 {scores}", flush=True)
        films = sum(row.split == "train" for row in read_split(data))
        name = (
            f"training A+B, {films} films, {epochs[0]}+{epochs[1]} epochs, against the plain loop"
        )
        yield at_least(name, seconds["ours"], seconds["plain"], "s", 12, inverse=True)
        ours_score, plain_score = (sum(values) / len(values) for values in scores.values())
        gap = abs(ours_score - plain_score)
        yield Row(
            "… mean test macro-F1, difference",
            ours_score,
            plain_score,
            "F1",
            gap,
            "≤ 0.01",
            gap <= 0.01,
            scores,
        )

    def prediction(self) -> Iterable[Row]:
        """Films per second by format: against a plain loop, timm's script, decoding plus model."""
        count = self.size.predicted_films
        checkpoint = self.runs / "best_efficientnet_lite0.pt"
        goals = {"large JPEG": 12, "1024 px PNG": 8, "256 px PNG": 14}
        for kind, goal in ((kind, goals[kind]) for kind in self.size.kinds):
            folder = self.films_of(kind, count)
            speeds: dict[str, list[float]] = {}
            for _ in range(self.size.rounds):
                for name in ("predict", "plain", "decode", "timm", "model"):
                    if name in ("plain", "timm"):
                        argv = (
                            "predict",
                            "--data",
                            folder,
                            "--checkpoint",
                            checkpoint,
                            "--way",
                            name,
                        )
                        result = self.script("plain", *argv)
                    else:
                        result = self.script(
                            "ours",
                            name,
                            "--data",
                            folder,
                            "--model",
                            self.runs / "model",
                            ours=True,
                        )
                    speeds.setdefault(name, []).append(result["films"] / result["seconds"])
            yield at_least(
                f"prediction, {kind}, against the plain loop",
                speeds["predict"],
                speeds["plain"],
                "films/s",
                goal,
            )
            yield at_least(
                f"prediction, {kind}, against timm's way",
                speeds["predict"],
                speeds["timm"],
                "films/s",
                goal,
            )
            ceiling = [
                1 / (1 / a + 1 / b) for a, b in zip(speeds["decode"], speeds["model"], strict=True)
            ]
            yield at_least(
                f"prediction, {kind}, against its ceiling",
                speeds["predict"],
                ceiling,
                "films/s",
                0.9,
            )

    def cold(self) -> Iterable[Row]:
        """One film from a cold process against the import of what others start from."""
        film = next((self.data / "test").rglob("*.*"))
        bare = "import torch, torchvision"
        if subprocess.run([sys.executable, "-c", bare], capture_output=True).returncode:
            # The bare import fails beside a CPU build of torch: see the module.
            bare = "from lib.network.torchvision import torchvision"
        ours, theirs = [], []
        for _ in range(self.size.cold_starts):
            ours.append(
                self.job(
                    "predict_batch",
                    "--input",
                    film,
                    "--output",
                    self.work / "one.csv",
                    "--runs_dir",
                    self.runs,
                )
            )
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", bare], check=True, env=self.environment, cwd=self.work
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

    def memory(self) -> Iterable[Row]:
        """Peak memory of predict_batch with fifty times the files."""
        peaks = []
        few, many = self.size.memory_films
        for count in (few, many):
            folder = self.films_of("224 px JPEG", count)
            argv = ["--input", folder, "--output", self.work / "many.csv", "--runs_dir", self.runs]
            command = [sys.executable, "-m", "jobs.predict_batch", *(str(word) for word in argv)]
            process = subprocess.Popen(
                command,
                env={**self.environment, **ALLOCATOR},
                cwd=self.work,
                stdout=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise RuntimeError(f"predict_batch ended with {os.waitstatus_to_exitcode(status)}")
            peaks.append(usage.ru_maxrss / 1024)
        yield at_most(f"peak memory, {many:,} files against {few:,}", peaks[1], peaks[0], "MB", 1.1)

    def growth(self) -> Iterable[Row]:
        """Cost of doubling: (t(4N) − t(2N)) / 2 against t(2N) − t(N), without the start-up."""
        size, rounds = self.size.growth_films, self.size.rounds
        predict = [
            lambda n=n: self.script(
                "ours",
                "predict",
                "--data",
                self.films_of("224 px JPEG", n),
                "--model",
                self.runs / "model",
                ours=True,
            )["seconds"]
            for n in (4 * size, 8 * size, 16 * size)
        ]
        yield _growth_row("prediction", 4 * size, predict, rounds)
        folders = [self.folder_of(n) for n in (size, 2 * size, 4 * size)]
        trainings = [
            lambda data=data: self.train(
                data, self.work / "runs_growth", (2, 2), phases=self.size.growth_phases
            )
            for data in folders
        ]
        yield _growth_row("training", size, trainings, rounds)

    def scale(self) -> Iterable[Row]:
        """Tables of made-up films: split, and the scores of 10,000 test films."""
        films = self.size.made_up_films
        with TemporaryDirectory(dir=self.work) as folder:
            made_up.write_raw(Path(folder), films)
            cost = million.measure("split", films, Path(folder))
        name = f"split of {films:,} made-up films"
        yield at_most(f"{name}, CPU time against three minutes", cost.cpu, 180, "s", 1)
        yield at_most(f"{name}, memory against 4 GB", cost.memory, 4096, "MB", 1)
        films = min(films, 10_000)
        cost = million.measure("scores", films, self.work)
        name = f"scores of {films:,} made-up predictions against 20 s"
        yield at_most(name, cost.cpu, 20, "s", 1)

    def peers(self) -> Iterable[Row | Skipped]:
        """Whole processes against the programs of others."""
        yield from compare.prediction(self)
        yield from compare.training(self)

    def films_of(self, kind: str, count: int) -> Path:
        """A folder of `count` hard links to films of one kind, made where the source has none.

        Symbolic links would do for a benchmark, but predict_batch refuses those that lead out of
        its input.
        """
        side, suffix, mode = {
            "large JPEG": (1000, "JPEG", "L"),
            "1024 px PNG": (1024, "PNG", "L"),
            "256 px PNG": (256, "PNG", "RGB"),
            "224 px JPEG": (224, "JPEG", "RGB"),
        }[kind]
        folder = self.work / "films" / f"{kind} {count}".replace(" ", "_")
        if folder.exists():
            return folder
        found = []
        for row in read_split(self.data):
            path = self.data / "raw" / row.path
            with Image.open(path) as image:
                fits = max(image.size) >= side if kind == "large JPEG" else max(image.size) == side
                if image.format == suffix and fits:
                    found.append(path.resolve())
        if len(found) < 8:
            found = [
                _made(path, folder.parent / "made", kind, max(side, 224), suffix, mode)
                for path in self._some(24)
            ]
        folder.mkdir(parents=True)
        for number in range(count):
            source = found[number % len(found)]
            link_or_copy(source, folder / f"{number:06d}{source.suffix}")
        return folder

    def _some(self, count: int) -> list[Path]:
        return [self.data / "raw" / row.path for row in read_split(self.data) if row.split][:count]

    def folder_of(self, films: int) -> Path:
        """A data folder with about `films` training films, repeated where the source has fewer."""
        data = self.work / f"data_{films}"
        if (data / "split.csv").exists():
            return data
        rows = [row for row in read_split(self.data) if row.split]
        train = [row for row in rows if row.split == "train"]
        train = train[:: max(1, len(train) // films)] if films < len(train) else train
        chosen = [(row, "") for row in rows if row.split != "train"]
        chosen += [
            (train[number % len(train)], f"{number // len(train)}_") for number in range(films)
        ]
        measured = {record.path: record for record in read_manifest(self.data)}
        records, manifest = [], []
        for row, prefix in chosen:
            path = f"{row.label}/{prefix}{Path(row.path).name}"
            manifest.append(replace(measured[row.path], path=path))
            target = data / row.split / path
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy((self.data / row.file).resolve(), target)
            records.append(
                SplitRecord(path, row.label, row.split, prefix + row.group, "", row.sha256)
            )
        shutil.copytree(self.data / "cache" / "weights", data / "cache" / "weights")
        write_rows(data / "raw" / "manifest.csv", manifest, FilmRecord)
        write_rows(data / "split.csv", records, SplitRecord)
        return data


def _made(path: Path, folder: Path, kind: str, side: int, suffix: str, mode: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{path.stem}_{kind.replace(' ', '_')}.{suffix.lower()}"
    width = 2000 if kind == "large JPEG" else side
    with Image.open(path) as image:
        image.convert(mode).resize((width, width)).save(made, suffix)
    return made


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


PARTS = ("prediction", "cold", "memory", "growth", "scale", "peers", "training")


def bench(out: str = "runs", films: str = "", quick: bool = False, only: str = "") -> None:
    """Measure everything, or the comma-separated parts `only` of `PARTS`."""
    parts = tuple(only.split(",") if isinstance(only, str) else only) if only else PARTS
    measure(Path(out).resolve(), Path(films) if films else None, QUICK if quick else FULL, parts)


def measure(
    target: Path, films: Path | None, size: Size, parts: Sequence[str] = PARTS
) -> list[Row | Skipped]:
    """Measure `parts` in `target`/bench; write bench.json and bench.png."""
    work = target / "bench"
    bench = Bench(work, films, size)
    print(f"films: {bench.films or 'generated'}; work folder: {work}", flush=True)
    bench.prepare()
    results: list[Row | Skipped] = []
    for part in (part for part in PARTS if part in parts):
        for row in getattr(bench, part)():
            results.append(row)
            if isinstance(row, Skipped):
                print(f"  {row.name}: skipped: {row.why}", flush=True)
                continue
            values = f"{row.ours:.4g} and {row.theirs:.4g} {row.unit}, ratio {row.ratio:.3g}"
            print(f"  {row.name}: {values}", flush=True)
    shutil.rmtree(work / "runs_training", ignore_errors=True)
    _show(results, size)
    rows = [row for row in results if isinstance(row, Row)]
    skipped = [row for row in results if isinstance(row, Skipped)]
    content = {"rows": [asdict(row) for row in rows], "skipped": [asdict(row) for row in skipped]}
    (target / "bench.json").write_text(json.dumps({**_machine(size), **content}, indent=2) + "\n")
    _draw(rows, target / "bench.png")
    print(f"written: {target / 'bench.json'}, {target / 'bench.png'}")
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


def _show(rows: Sequence[Row | Skipped], size: Size) -> None:
    table = Table(
        title=None if size == FULL else "too few films and epochs for the goals of training",
        title_justify="left",
    )
    for column in ("", "jobs", "other", "unit", "ratio", "goal", ""):
        table.add_column(column, justify="left" if not column else "right", overflow="fold")
    for row in rows:
        if isinstance(row, Skipped):
            table.add_row(row.name, "", "", "", "", "", f"skipped: {row.why}")
            continue
        cells = (
            row.name,
            f"{row.ours:.4g}",
            f"{row.theirs:.4g}",
            row.unit,
            f"{row.ratio:.3g}",
            row.goal,
        )
        table.add_row(*cells, row.verdict)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _draw(rows: Sequence[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.goal.startswith("≥")]
    if not shown:
        return
    figure = Figure(figsize=(10, 0.45 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown), 0, -1)
    axes.barh(
        places,
        [row.ratio for row in shown],
        color=["#2b6cb0" if row.met else "#c05621" for row in shown],
    )
    for place, row in zip(places, shown, strict=True):
        goal = float(row.goal[2:])
        axes.plot([goal, goal], [place - 0.4, place + 0.4], color="#1a202c")
        axes.text(row.ratio * 1.03, place, f"{row.ratio:.3g} ×", va="center")
    axes.set_yticks(list(places), [row.name for row in shown])
    axes.set_xscale("log")
    axes.set_xlim(0.5, 2 * max(row.ratio for row in shown))
    axes.set_xlabel("times as fast (log scale); black: goal")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    fire.Fire(bench)
