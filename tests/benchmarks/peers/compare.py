"""The jobs against the peers: whole processes, the same films, cores and input size, in turn."""

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from lib.dataset.manifest import read_split
from tests.benchmarks.peers.packages import NotInstalled, folder_with, last_line
from tests.benchmarks.rows import Row, Skipped, at_least

if TYPE_CHECKING:
    from tests.benchmarks.bench import Bench


@dataclass(frozen=True)
class Peer:
    """A script below tests.benchmarks with its words, and what the jobs are to reach against it."""

    name: str
    package: str
    script: str
    words: tuple[str, ...]
    goal: float | None = None
    prepare: str = ""  # a word of the script that is run once before, not measured
    allocator: bool = False  # with the allocator's settings of the jobs
    note: str = ""


TUNED = "the plain loop, tuned"
YOLO = "another network (1.5 M parameters), random weights"
TRAINING = (
    Peer("the plain loop", "torch", "plain", ("train", "--notest"), 12),
    Peer(TUNED, "torch", "plain", ("train", "--notest", "--tuned"), 4, allocator=True),
    Peer("fastai, fine_tune", "fastai", "peers.fastai_train", ("train",), note="body trained in B"),
    Peer("ultralytics, train", "ultralytics", "peers.ultralytics_classify", ("train",), note=YOLO),
)
PREDICTION = (
    Peer("the plain loop", "torch", "plain", ("predict",), 8),
    Peer(TUNED, "torch", "plain", ("predict", "--tuned"), allocator=True),
    Peer(
        "timm, inference.py",
        "timm",
        "peers.timm_inference",
        ("predict",),
        note="random weights",
    ),
    Peer(
        "timm, inference.py --torchcompile",
        "timm",
        "peers.timm_inference",
        ("predict", "--compiled"),
        goal=1,
        prepare="predict",
        note="random weights",
    ),
    Peer(
        "ultralytics, predict",
        "ultralytics",
        "peers.ultralytics_classify",
        ("predict",),
        prepare="export",
        note=YOLO,
    ),
    Peer(
        "ultralytics, predict with its OpenVINO export",
        "ultralytics",
        "peers.ultralytics_classify",
        ("predict", "--exported"),
        goal=1,
        prepare="export",
        note=YOLO,
    ),
)


@dataclass(frozen=True)
class Cost:
    """Seconds of a process and of those that it started."""

    wall: float
    cpu: float


def training(bench: "Bench") -> Iterable[Row | Skipped]:
    """Both phases, from the split to the model."""
    epochs, part = bench.size.epochs, bench.size.training_films
    data = bench.folder_of(part) if part else bench.data
    films = sum(row.split == "train" for row in read_split(data))
    argv = ("--data", data, "--epochs_a", epochs[0], "--epochs_b", epochs[1])
    title = f"training, {films} films, {epochs[0]}+{epochs[1]} epochs"
    runs = bench.work / "runs_training"
    return _compare(bench, title, TRAINING, argv, lambda: bench.train(data, runs, epochs), 1, None)


def prediction(bench: "Bench") -> Iterable[Row | Skipped]:
    """A folder of films of 1024 pixels."""
    films = bench.size.predicted_films
    folder = bench.films_of("1024 px PNG", films)
    checkpoint = bench.runs / "best_efficientnet_lite0.pt"
    where = ("--output", bench.work / "peers.csv", "--runs_dir", bench.runs)
    return _compare(
        bench,
        f"prediction, {films} films",
        PREDICTION,
        ("--data", folder, "--checkpoint", checkpoint),
        lambda: bench.job("predict_batch", "--input", folder, *where),
        bench.size.rounds,
        films,
    )


def _compare(
    bench: "Bench",
    title: str,
    peers: Sequence[Peer],
    argv: Sequence[object],
    ours: Callable[[], object],
    rounds: int,
    films: int | None,
) -> Iterable[Row | Skipped]:
    """A row per peer: seconds, or films per second where `films` are counted."""
    costs: dict[str, list[Cost]] = {}
    commands: dict[Peer, Callable[[], object]] = {}
    skipped: list[Skipped] = []
    for peer in peers:
        if bench.size.peers and peer.name not in bench.size.peers:
            continue
        try:
            commands[peer] = _command(bench, peer, argv, films)
        except (NotInstalled, RuntimeError) as error:
            skipped.append(Skipped(f"{title}: {peer.name}", last_line(str(error))))
    for _ in range(rounds):
        costs.setdefault("", []).append(cost_of(ours))
        print(f"  {title}: the jobs: {costs[''][-1]}", flush=True)
        for peer, run in list(commands.items()):
            try:
                costs.setdefault(peer.name, []).append(cost_of(run))
                print(f"  {title}: {peer.name}: {costs[peer.name][-1]}", flush=True)
            except RuntimeError as error:
                skipped.append(Skipped(f"{title}: {peer.name}", last_line(str(error))))
                del commands[peer]
    yield from (_row(title, peer, costs[""], costs[peer.name], films) for peer in commands)
    yield from skipped


def _command(
    bench: "Bench", peer: Peer, argv: Sequence[object], films: int | None
) -> Callable[[], object]:
    """The peer, installed and prepared.

    Raises:
        NotInstalled: its package is not there.
        RuntimeError: its script failed.
    """
    folder = folder_with(peer.package, bench.work / "peers", bench.size.install_peers)

    def script(*words: str) -> None:
        done = bench.script(peer.script, *words, *argv, ours=peer.allocator, packages=folder)
        if films is not None and words[0] == "predict" and done["films"] != films:
            raise RuntimeError(f"{peer.name} answered {done['films']} of {films} films")

    if peer.prepare:
        script(peer.prepare, *peer.words[1:])
    return lambda: script(*peer.words)


def cost_of(run: Callable[[], object]) -> Cost:
    """What `run` and the processes that it waited for took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(wall, cpu)


def _row(
    title: str, peer: Peer, ours: Sequence[Cost], theirs: Sequence[Cost], films: int | None
) -> Row:
    name, goal = f"{title}: {peer.name}", peer.goal
    a, b = [cost.wall for cost in ours], [cost.wall for cost in theirs]
    if films is None:
        row = at_least(name, a, b, "s", goal, inverse=True)
    else:
        speeds = [films / wall for wall in a], [films / wall for wall in b]
        row = at_least(name, *speeds, "films/s", goal)
    cpu = [cost.cpu for cost in ours], [cost.cpu for cost in theirs]
    row.runs |= {"ours, CPU seconds": cpu[0], "theirs, CPU seconds": cpu[1]}
    notes = (
        "FASTER THAN THE JOBS" if row.ratio < 1 else "",
        f"by CPU time {median(cpu[1]) / median(cpu[0]):.3g}",
        peer.note,
    )
    row.note = "; ".join(note for note in notes if note)
    return row
