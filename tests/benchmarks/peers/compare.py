"""The jobs against the peers: the same films, cores, input size and batch size, in turn.

Prediction is timed from the first batch to the last answer, without imports, export or compilation.
Of the jobs' training everything counts, from the start of the program to the model; of a peer's
only its epochs with their validation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from lib.dataset.manifest import read_split
from tests.benchmarks.peers.packages import NotInstalled, folder_with, last_line
from tests.benchmarks.rows import Row, Skipped, at_least
from tests.benchmarks.work import Bench


@dataclass(frozen=True)
class Peer:
    """A script below tests.benchmarks, and what the jobs are to reach against it."""

    name: str
    script: str
    words: tuple[str, ...] = ()
    package: str = "torch"
    goal: float | None = None
    allocator: bool = False  # with the allocator's settings of the jobs
    every: int = 1  # trains on each n-th film


FASTAI, ULTRALYTICS = "peers.fastai_learner", "peers.ultralytics_classify"
TIMM = "peers.timm_inference"
PLAIN = Peer("the plain loop", "plain", goal=12)
TUNED = Peer("the plain loop, tuned", "plain", ("--tuned",), goal=4, allocator=True)
TRAINING = (
    PLAIN,
    TUNED,
    Peer("fastai, fine_tune", FASTAI, package="fastai", every=4),
    Peer("ultralytics, 1.5 M parameters", ULTRALYTICS, package="ultralytics", every=4),
)
OF_ALL_KINDS = {"large JPEG": 12, "1024 px PNG": 8, "256 px PNG": 14}  # goals against PLAIN
OF_ONE_KIND = "1024 px PNG"
PREDICTION = (
    Peer(TUNED.name, "plain", ("--tuned",), allocator=True),
    Peer("timm, inference.py", TIMM, package="timm"),
    Peer("timm, compiled", TIMM, ("--compiled",), package="timm", goal=1),
    Peer("fastai, get_preds", FASTAI, package="fastai"),
    Peer("ultralytics, 1.5 M parameters", ULTRALYTICS, package="ultralytics"),
    Peer("ultralytics, OpenVINO export", ULTRALYTICS, ("--exported",), "ultralytics", goal=1),
)


class Field:
    """The peers that run here. One that cannot be installed, or fails, is left out from then on."""

    def __init__(self, bench: Bench, title: str, peers: Iterable[Peer]) -> None:
        self.bench, self.title = bench, title
        self.skipped: list[Skipped] = []
        self.folders: dict[Peer, Path | None] = {}
        for peer in peers:
            try:
                self.folders[peer] = folder_with(
                    peer.package, bench.work / "peers", bench.size.install_peers
                )
            except NotInstalled as error:
                self._skip(peer, str(error))

    def _skip(self, peer: Peer, why: str) -> None:
        self.skipped.append(Skipped(f"{self.title}: {peer.name}", last_line(why)))

    @property
    def peers(self) -> list[Peer]:
        return list(self.folders)

    def run(self, peer: Peer, task: str, *argv: object) -> dict[str, Any] | None:
        """What the script measured; None if it failed."""
        try:
            words, folder = (task, *argv, *peer.words), self.folders[peer]
            return self.bench.script(peer.script, *words, ours=peer.allocator, packages=folder)
        except RuntimeError as error:
            self._skip(peer, str(error))
            del self.folders[peer]
            return None


def prediction(bench: Bench) -> Iterable[Row | Skipped]:
    """Films per second by format; for one format also against the peers."""
    for kind in bench.size.kinds:
        folder = bench.films_of(kind, bench.size.predicted_films)
        with_peers = bench.size.peers and kind == OF_ONE_KIND
        title = f"prediction, {kind}"
        field = Field(bench, title, (PLAIN, *(PREDICTION if with_peers else ())))
        speeds: dict[str, list[float]] = {}
        for _ in range(bench.size.rounds):
            for piece in ("predict", "decode", "model"):
                model = ("--model", bench.runs / "model")
                done = bench.script("ours", piece, "--data", folder, *model, ours=True)
                speeds.setdefault(piece, []).append(done["films"] / done["seconds"])
            for peer in field.peers:
                checkpoint = ("--checkpoint", bench.runs / "best_efficientnet_lite0.pt")
                more = checkpoint if peer.script == "plain" else ()
                if answered := field.run(peer, "predict", "--data", folder, *more):
                    speed = answered["films"] / answered["seconds"]
                    speeds.setdefault(peer.name, []).append(speed)
        ours = speeds["predict"]
        for peer in field.peers:
            goal = OF_ALL_KINDS[kind] if peer == PLAIN else peer.goal
            name = f"{title}: {peer.name}"
            yield at_least(name, ours, speeds[peer.name], "films/s", goal)
        pieces = zip(speeds["decode"], speeds["model"], strict=True)
        ceiling = [1 / (1 / decode + 1 / model) for decode, model in pieces]
        yield at_least(f"{title}: its ceiling", ours, ceiling, "films/s", 0.9)
        yield from field.skipped


def training(bench: Bench) -> Iterable[Row | Skipped]:
    """Both phases, in training films times epochs per second, and the scores of one recipe.

    The tuned loop trains for as many epochs as the jobs. The others train for one epoch of each
    phase, which stand for the rest.
    """
    epochs, seeds = bench.size.epochs, range(bench.size.seeds)
    data, films = _films_of_training(bench, 1)
    runs = bench.work / "runs_training"
    speeds: dict[str, list[float]] = {"": []}
    scores: dict[str, list[float]] = {"": [], TUNED.name: []}
    title = f"training, {epochs[0]}+{epochs[1]} epochs of {films} films"
    field = Field(bench, title, TRAINING if bench.size.peers else (PLAIN, TUNED))
    for seed in seeds:
        speeds[""].append(films * sum(epochs) / bench.train(data, runs, epochs, "--seed", seed))
        scores[""].append(bench.macro_f1(data, runs))
        for peer in (TUNED,) if seed else field.peers:
            where, count = _films_of_training(bench, peer.every)
            argv: list[object] = ["--data", where]
            if peer == TUNED:
                argv += ["--seed", seed, "--epochs_a", epochs[0], "--epochs_b", epochs[1]]
            if not (done := field.run(peer, "train", *argv)):
                continue
            seconds = epochs[0] * done["a"] + epochs[1] * done["b"]
            speeds.setdefault(peer.name, []).append(count * sum(epochs) / seconds)
            if peer == TUNED:
                scores[peer.name].append(done["macro_f1"])
    for peer in field.peers:
        name = f"{title}: {peer.name}"
        yield at_least(name, speeds[""], speeds[peer.name], "films/s", peer.goal)
    if scores[TUNED.name]:
        yield _score_row(scores[""], scores[TUNED.name])
    yield from field.skipped


def _score_row(ours: Sequence[float], theirs: Sequence[float]) -> Row:
    lead = mean(ours) - mean(theirs)
    name = f"… test macro-F1, mean of {len(ours)}, lead over {TUNED.name}"
    runs = {"ours": list(ours), "theirs": list(theirs)}
    return Row(name, mean(ours), mean(theirs), "F1", lead, "≥ -0.01", lead >= -0.01, runs)


def _films_of_training(bench: Bench, every: int) -> tuple[Path, int]:
    """A data folder with each `every`-th film of every split, and its number of training films."""
    rows = read_split(bench.data)
    films = bench.size.training_films or sum(row.split == "train" for row in rows)
    whole = every == 1 and not bench.size.training_films
    count = films // every
    data = bench.data if whole else bench.folder_of(count, every_split=True)
    return data, sum(row.split == "train" for row in read_split(data))
