"""The folder that the benchmark works in: films, a split, a model, and the commands on them."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from lib.dataset.manifest import FilmRecord, SplitRecord, read_manifest, read_split, write_rows
from lib.storage.atomic import link_or_copy

PROJECT = Path(__file__).resolve().parents[2]
REAL_FILMS = PROJECT.parent / "shared" / "xrays"
LITE0 = ["--backbone", "efficientnet_lite0"]
# glibc's settings of the image and the Makefile: the jobs run with them, what one would write
# instead does not.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

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
    peers: bool = True  # compare with the programs of others too
    install_peers: bool = False


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

    def folder_of(self, films: int, every_split: bool = False) -> Path:
        """A data folder with about `films` training films, repeated where the source has fewer.

        `every_split`: with the same share of the validation and test films, not all of them.
        """
        data = self.work / f"data_{films}{'_every_split' if every_split else ''}"
        if (data / "split.csv").exists():
            return data
        rows = [row for row in read_split(self.data) if row.split]
        train = [row for row in rows if row.split == "train"]
        step = max(1, len(train) // films)
        train = train[::step]
        chosen = [
            (row, "")
            for split in ("val", "test")
            for row in [row for row in rows if row.split == split][:: step if every_split else 1]
        ]
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
