"""Staged transfer learning: Phase A trains the head on a frozen backbone, Phase B fine-tunes the
last block.
"""

import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lib import settings
from lib.dataset.manifest import SplitRecord, read_split, read_split_digest
from lib.images.files import find_files
from lib.network.backbones import BACKBONES, build
from lib.network.weights import weights_file
from lib.run import console, execute, signals
from lib.run.errors import DONE, JobError, UsageError
from lib.run.flags import Flag
from lib.storage import atomic
from lib.training.plan import Plan, with_phase_defaults
from lib.workers.cores import usable_cores, usable_memory
from lib.workers.ray import check_address

if TYPE_CHECKING:
    from torch import nn

    from lib.network.checkpoints import Checkpoint
    from lib.training.augmentation import Film
    from lib.training.batches import Source
    from lib.training.feature_cache import FrozenFeatures
    from lib.training.loop import Trainer
    from lib.training.plan import Plan
    from lib.workers.ray import Cluster

BY_PHASE = "none takes the phase's own"


def train(
    *,
    phase: Annotated[
        Literal["a", "b"],
        Flag("a: head on a frozen backbone; b: last block and head, from Phase A's best"),
    ],
    backbone: Annotated[str, settings.BACKBONE] = settings.BACKBONE.default,
    epochs: Annotated[
        int | None, Flag(f"passes over the training films; {BY_PHASE}: a 5, b 8", at_least=1)
    ] = None,
    lr: Annotated[
        float | None, Flag(f"learning rate of AdamW; {BY_PHASE}: a 3e-4, b 1e-4", above=0, below=1)
    ] = None,
    scheduler: Annotated[
        Literal["step", "cosine"] | None,
        Flag(f"how the learning rate falls, per epoch; {BY_PHASE}: a step, b cosine"),
    ] = None,
    freeze_backbone: Annotated[
        bool | None, Flag(f"keep the backbone as it came; {BY_PHASE}: True in both")
    ] = None,
    fine_tune_last_block: Annotated[
        bool | None, Flag(f"but train its last block; {BY_PHASE}: a False, b True")
    ] = None,
    resume_from_checkpoint: Annotated[
        bool | None,
        Flag(f"start from --checkpoint_path, not from ImageNet; {BY_PHASE}: a False, b True"),
    ] = None,
    checkpoint_path: Annotated[
        Path | None,
        Flag("checkpoint to start from; none: RUNS_DIR/best_<backbone>.pt", placeholder="FILE"),
    ] = None,
    batch_size: Annotated[
        int, Flag("films per step; 32 fits any laptop and suits both learning rates", at_least=2)
    ] = 32,
    weight_decay: Annotated[
        float, Flag("AdamW's pull towards zero; small, since little is trained", at_least=0)
    ] = 1e-4,
    step_size: Annotated[int, Flag("epochs between two steps of --scheduler step", at_least=1)] = 3,
    gamma: Annotated[float, Flag("factor of each step of --scheduler step", above=0)] = 0.3,
    class_weight_power: Annotated[
        float,
        Flag("0 ignores class imbalance in the loss, 1 undoes it, 0.5 is between", at_least=0),
    ] = 0.5,
    cache: Annotated[
        Literal["on", "off"],
        Flag(
            "on: frozen layers see each view once, in DATA_DIR/cache; off: in every epoch, by PyTorch"
        ),
    ] = "on",
    views: Annotated[
        int | None,
        Flag(
            "augmented views per film, used in turn; as many as epochs: a fresh one for each",
            at_least=1,
            placeholder="auto|N",
        ),
    ] = None,
    cache_gb: Annotated[float, settings.CACHE_GB] = settings.CACHE_GB.default,
    cluster: Annotated[str, settings.CLUSTER] = settings.CLUSTER.default,
    precision: Annotated[str, settings.PRECISION] = settings.PRECISION.default,
    restart: Annotated[
        bool, Flag("do not take up an interrupted or finished run with the same settings")
    ] = False,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Train one phase on data/train, keep the best epoch on data/val; write runs/phase_<a|b>/,
    runs/best_<backbone>.pt and runs/model/, the compiled model that evaluate and predict_batch use.

    Films are made grey, shrunk to the backbone's input and normalised with its statistics; training
    views are rotated, shifted, scaled and exposed a little differently, never mirrored. Frozen
    layers are frozen whole, BatchNorm statistics included. Phase B counts Phase A's score as epoch
    0, so it is never worse on validation.

    What is frozen is a pure function, so every view of a film goes through it once and its
    activations are kept in data/cache/features, for both phases. Views are fewer than epochs when
    --views says so, or when disk or memory ask for it; where not even one fits, the frozen layers
    run in every epoch. --nofreeze_backbone trains without a cache. --cluster fills the cache on the
    nodes of a Ray cluster, which see DATA_DIR under the same path; the epochs run here.

    The run can be stopped anywhere (Ctrl-C, SIGTERM, kill -9): the same command goes on where it
    stood and ends with bit-identical weights. State is saved after every epoch, every minute and on
    a signal. Changed settings start a new run; the folder of a finished one becomes
    runs/phase_<a|b>.previous.

    Refused before any work: --nofreeze_backbone together with --fine_tune_last_block,
    --checkpoint_path without resuming, a checkpoint of another backbone, other classes or another
    split, a class without training or validation films.

    Examples:
        python -m jobs.train --phase a
        python -m jobs.train --phase b --epochs 12 --lr 5e-5
        python -m jobs.train --phase a --backbone resnet18 --scheduler cosine --epochs 8
    """
    signals.import_torch()
    from lib.network import checkpoints
    from lib.training import batches, feature_cache, loop

    cells = with_phase_defaults(
        phase,
        {
            "epochs": epochs,
            "lr": lr,
            "scheduler": scheduler,
            "freeze_backbone": freeze_backbone,
            "fine_tune_last_block": fine_tune_last_block,
            "resume_from_checkpoint": resume_from_checkpoint,
        },
    )
    if checkpoint_path is not None and not cells["resume_from_checkpoint"]:
        raise UsageError(
            "--checkpoint_path is only read with --resume_from_checkpoint True (the default of Phase B)."
        )
    cached = cache == "on" and cells["freeze_backbone"]
    check_address(cluster)
    if cluster and not cached:
        raise UsageError(
            "--cluster fills the cache of what frozen layers compute: it goes with --cache on and --freeze_backbone."
        )
    plan = Plan(
        phase=phase,
        backbone=backbone,
        batch_size=batch_size,
        weight_decay=weight_decay,
        step_size=step_size,
        gamma=gamma,
        class_weight_power=class_weight_power,
        seed=seed,
        views=(views or 0) if cached else 0,
        precision="",
        **cells,
    )
    cores = usable_cores(cpus)
    with atomic.lock(runs_dir, "the runs folder"), ExitStack() as held:
        data_digest = read_split_digest(
            data_dir
        )  # before the rows: the check at the end then sees any change since
        classes, films = _films(read_split(data_dir), data_dir)
        if cached:
            machines = _machines(held, cluster, cpus or 1, data_dir)
            plan = replace(plan, precision=machines.precision(precision))
        folder = runs_dir / f"phase_{phase}"
        start = _starting_checkpoint(plan, checkpoint_path, runs_dir, classes, data_digest)
        parent = (
            start.digest
            if start
            else atomic.sha256_of(weights_file(BACKBONES[backbone], data_dir / "cache"))
        )
        identity = {
            "classes": list(classes),
            "data": data_digest,
            "parent": parent,
            "torch": version("torch"),
        }
        if cached and views is None:
            plan = _with_views_of_earlier_run(plan, folder, identity)
        published = runs_dir / f"best_{backbone}.pt"
        if not restart and _is_finished(folder, _fingerprint(plan, identity)):
            _publish_again(folder, published)
            console.say(
                f"{folder} holds this very run, finished; nothing to do (--restart trains anew)."
            )
            return DONE
        atomic.sweep(runs_dir)
        network = _network(plan, start, len(classes), data_dir, cores)
        source: Source
        if cached:
            frozen = _frozen_features(
                plan, network, films, data_dir, data_digest, machines, cores, workers or cores
            )
            room = feature_cache.make_room(frozen.folder.parent, frozen.folder, cache_gb)
            plan = replace(plan, views=_fill(frozen, plan, room))
            source = batches.CachedBatches(frozen, _tap(plan), plan.views)
        else:
            trunk = batches.freeze(network, plan)[0]
            row = BACKBONES[backbone]
            source = batches.LiveBatches(
                films, row, trunk, plan.augmentation, seed, workers or cores
            )
        fingerprint = _fingerprint(plan, identity)
        _prepare_folder(folder, fingerprint, restart, start)
        template = checkpoints.Checkpoint(
            backbone, classes, phase, 0, 0.0, 0.0, {}, data_digest, parent
        )
        trainer = loop.Trainer(
            plan, network, template, [film.target for film in films["train"]], source, folder
        )
        _write_config(folder, plan, classes, fingerprint, data_digest, parent, cores)
        if trainer.restore(fingerprint):
            console.say(
                f"going on in epoch {trainer.progress.epoch}, batch {trainer.progress.step + 1}"
            )
        progress = trainer.run(fingerprint)
        if read_split_digest(data_dir) != data_digest:
            raise JobError(
                "split.csv changed during the training; nothing was published. Run the train job again."
            )
        taps = (
            (source.features.graphs, source.tap)
            if isinstance(source, batches.CachedBatches)
            else None
        )
        _publish(trainer, progress.history, fingerprint, published, films["val"], cores, taps)
    return DONE


@dataclass(frozen=True)
class _Machines:
    """Where frozen layers are computed: here, or on a cluster of machines of one kind."""

    setup: str
    has_bf16: bool
    cluster: "Cluster | None" = None

    def precision(self, wanted: str) -> str:
        return wanted if wanted != "auto" else "bf16" if self.has_bf16 else "fp32"


def _machines(held: ExitStack, address: str, cores: int, data_dir: Path) -> _Machines:
    from lib.network.graph import native_precision, runtime_fingerprint, runtime_of_this_machine
    from lib.workers.ray import Cluster

    has_bf16 = native_precision() == "bf16"
    if not address:
        return _Machines(runtime_fingerprint(), has_bf16)
    cluster = held.enter_context(Cluster(address, cores))
    nodes = cluster.nodes(runtime_of_this_machine, [data_dir.absolute()])
    setups = {node.setup for node in nodes}
    if len(setups) > 1:
        raise JobError(
            f"the nodes compute differently ({'; '.join(sorted(setups))}): activations that are kept must be alike. Give the "
            "cluster one kind of machine."
        )
    return _Machines(setups.pop(), has_bf16 and all(node.has_bf16 for node in nodes), cluster)


def _tap(plan: "Plan") -> str:
    return "cut" if plan.fine_tune_last_block else "pooled"


def _films(
    rows: Sequence[SplitRecord], data_dir: Path
) -> tuple[tuple[str, ...], dict[str, "list[Film]"]]:
    """Classes in alphabetical order (as ImageFolder numbers them) and the films of train and val."""
    from lib.training.augmentation import Film

    classes = tuple(sorted({row.label for row in rows if row.split}))
    films: dict[str, list[Film]] = {}
    for name in ("train", "val"):
        members = [row for row in rows if row.split == name]
        missing = [label for label in classes if not any(row.label == label for row in members)]
        if missing:
            raise JobError(
                f"{data_dir / name} has no film of {', '.join(missing)}. Run the split job again."
            )
        on_disk = {path.relative_to(data_dir).as_posix() for path in find_files(data_dir / name)[0]}
        strangers = on_disk ^ {row.file for row in members}
        if strangers:
            raise JobError(
                f"{data_dir / name} and split.csv disagree about {len(strangers)} films, the first is "
                f"{min(strangers)}. Add or remove films at the source, then run the ingest and split jobs again."
            )
        films[name] = [Film(data_dir / row.file, classes.index(row.label)) for row in members]
    return classes, films


def _starting_checkpoint(
    plan: "Plan", given: Path | None, runs_dir: Path, classes: Sequence[str], data_digest: str
) -> "Checkpoint | None":
    """What the run starts from; None is ImageNet.

    runs/best_<backbone>.pt becomes this phase's own result once it is finished. A second run of the
    phase starts where the first one did: each phase keeps what it started from as start.pt.
    """
    from lib.network import checkpoints

    if not plan.resume_from_checkpoint:
        return None
    path = given or runs_dir / f"best_{plan.backbone}.pt"
    start = checkpoints.load(path)
    for folder in (runs_dir / f"phase_{plan.phase}", runs_dir / f"phase_{plan.phase}.previous"):
        own, kept = folder / f"best_{plan.backbone}.pt", folder / "start.pt"
        if (
            start.phase == plan.phase
            and kept.exists()
            and own.exists()
            and checkpoints.load(own).digest == start.digest
        ):
            path, start = kept, checkpoints.load(kept)
            break
    checkpoints.require_fit(path, start, plan.backbone, classes)
    if start.data_digest != data_digest:
        raise JobError(
            f"{path} was trained on another split than {plan.phase.upper()} would be: its training films may be among the "
            "validation and test films now. Run Phase A on this split first, or restore the split."
        )
    console.say(
        f"starting from {path}: Phase {start.phase.upper()}, validation accuracy {start.val_accuracy:.3f}"
    )
    return start


def _fingerprint(plan: "Plan", identity: dict[str, Any]) -> str:
    """Two runs with the same fingerprint end with the same weights."""
    deciding = {**asdict(plan), **identity}
    if plan.scheduler != "step":
        del deciding["step_size"], deciding["gamma"]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _with_views_of_earlier_run(plan: "Plan", folder: Path, identity: dict[str, Any]) -> "Plan":
    """The number of views that the run to go on with had chosen: the disk may be fuller now."""
    config = folder / "config.json"
    if config.exists():
        earlier = json.loads(config.read_text())
        same = replace(plan, views=earlier["plan"].get("views", 0))
        if _fingerprint(same, identity) == earlier["fingerprint"]:
            return same
    return plan


def _is_finished(folder: Path, fingerprint: str) -> bool:
    summary = folder / "summary.json"
    return summary.exists() and bool(json.loads(summary.read_text())["fingerprint"] == fingerprint)


def _prepare_folder(
    folder: Path, fingerprint: str, restart: bool, start: "Checkpoint | None"
) -> None:
    """Keep an interrupted run with the same fingerprint; move a finished one aside, one generation
    back.
    """
    from lib.network import checkpoints

    config = folder / "config.json"
    same = config.exists() and json.loads(config.read_text())["fingerprint"] == fingerprint
    finished = (folder / "summary.json").exists()
    if finished:
        previous = folder.with_name(folder.name + ".previous")
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    elif folder.exists() and (restart or not same):
        shutil.rmtree(folder)
    atomic.make_folder(folder)
    atomic.sweep(folder)
    if start:
        checkpoints.save(folder / "start.pt", start)


def _network(
    plan: "Plan", start: "Checkpoint | None", classes: int, data_dir: Path, cores: int
) -> "nn.Sequential":
    import torch

    torch.set_num_threads(cores)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a tenth of a step, and nothing reads such memory
    torch.manual_seed(plan.seed)
    row = BACKBONES[plan.backbone]
    network = build(row, classes, None if start else weights_file(row, data_dir / "cache"))
    if start:
        network.load_state_dict(start.state)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _frozen_features(
    plan: "Plan",
    network: "nn.Sequential",
    films: dict[str, "list[Film]"],
    data_dir: Path,
    data_digest: str,
    machines: _Machines,
    cores: int,
    readers: int,
) -> "FrozenFeatures":
    from lib.network import checkpoints, export
    from lib.training.augmentation import read_film
    from lib.training.feature_cache import FrozenFeatures, Recipe

    row = BACKBONES[plan.backbone]
    backbone_state = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("head.")
    }
    recipe = Recipe(
        backbone=row.name,
        input_side=row.input_side,
        augmentation=plan.augmentation,
        seed=plan.seed,
        split_sha256=data_digest,
        weights_sha256=checkpoints.digest_of_weights(backbone_state),
        precision=plan.precision,
        setup=f"{machines.setup} pillow {version('pillow')}",
    )

    def write_graphs(folder: Path) -> None:
        calibration = [
            read_film(film, row.input_side)
            for film in export.sample(films["val"], export.CALIBRATION_FILMS)
        ]
        export.write_taps(folder, network, row, calibration)

    folder = data_dir / "cache" / "features" / recipe.key
    return FrozenFeatures(folder, recipe, films, write_graphs, cores, readers, machines.cluster)


def _fill(frozen: "FrozenFeatures", plan: "Plan", room: int) -> int:
    """Choose the number of views, compute what the cache lacks of them, and return it. 0: not even
    one fits.

    Phase A's pass through the graph gives Phase B's activations as well: as many as have room are
    kept beside its own.
    """
    from lib.network.export import TAPS
    from lib.training.feature_cache import AUTO_VIEWS, views_that_fit

    tap, memory = _tap(plan), usable_memory()
    room -= frozen.bytes_of("val", *TAPS)
    per_view = frozen.bytes_of("train", tap)
    fitting = views_that_fit(min(plan.epochs, AUTO_VIEWS), per_view, room, memory)
    views = plan.views or fitting
    if views and views * per_view > room:
        raise JobError(
            f"{views} views per film need {views * per_view / 1e6:.0f} MB in {frozen.folder.parent}, "
            f"{max(room, 0) / 1e6:.0f} MB may be used. Free some space, or give fewer --views, a larger --cache_gb or "
            "--cache off. An interrupted run that had chosen this number is given up with --restart."
        )
    if not views:
        console.say(
            f"no view of the films fits into the cache ({per_view / 1e9:.1f} GB needed, {max(room, 0) / 1e9:.1f} GB allowed): "
            "the frozen layers run in every epoch"
        )
        return 0
    beside = (
        views_that_fit(views, frozen.bytes_of("train", "cut"), room - views * per_view, memory)
        if tap == "pooled"
        else 0
    )
    chosen = (
        ""
        if plan.views
        else f", chosen for {plan.epochs} epochs, {room / 1e9:.1f} GB of disk, {memory / 1e9:.1f} GB of memory"
    )
    console.say(f"{views} views per film{chosen}")
    frozen.fill("val", [(0, name) for name in TAPS], "validation films through the frozen layers")
    wanted = [(view, tap) for view in range(1, views + 1)] + [
        (view, "cut") for view in range(1, beside + 1)
    ]
    frozen.fill("train", wanted, f"{views} views of the training films through the frozen layers")
    return views


def _write_config(
    folder: Path,
    plan: "Plan",
    classes: Sequence[str],
    fingerprint: str,
    data_digest: str,
    parent: str,
    cores: int,
) -> None:
    packages = ("torch", "torchvision", "timm", "openvino", "numpy", "pillow")
    content: dict[str, Any] = {
        "fingerprint": fingerprint,
        "plan": asdict(plan),
        "classes": list(classes),
        "split_sha256": data_digest,
        "starting_weights_sha256": parent,
        "argv": sys.argv,
        "cores": cores,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }
    atomic.write_json(folder / "config.json", content)


def _publish(
    trainer: "Trainer",
    history: list[dict[str, Any]],
    fingerprint: str,
    published: Path,
    val: Sequence["Film"],
    cores: int,
    taps: tuple[Path, str] | None,
) -> None:
    """Write curves, checkpoint and compiled model; summary.json comes last and marks the run as
    finished.
    """
    import numpy as np

    from lib.images.reader import thumbnail_of
    from lib.network import checkpoints, export
    from lib.prediction import calibration
    from lib.reports import figures
    from lib.training.augmentation import read_film

    folder = trainer.folder
    figures.curves(history, trainer.plan.phase, folder / "curves.png")
    best = checkpoints.load(trainer.best_path)
    trainer.network.load_state_dict(best.state)
    chosen = export.sample(val, export.AGREEMENT_FILMS)
    films = [read_film(film, best.row.input_side) for film in chosen]
    targets = np.array([film.target for film in chosen])

    def calibrate(model: Path, logits: np.ndarray, features: np.ndarray) -> dict[str, Any]:
        thumbnails = np.stack([thumbnail_of(film) for film in films])
        learnt, reference = calibration.calibrate(
            logits, targets, features, thumbnails, best.classes
        )
        reference.write(model)
        return asdict(learnt)

    card = export.write_model(
        folder / "model", best, trainer.network, films, cores, taps, calibrate
    )
    atomic.copy_file(trainer.best_path, published)
    atomic.copy_folder(folder / "model", published.with_name("model"))
    atomic.write_json(
        folder / "summary.json",
        {
            "fingerprint": fingerprint,
            "checkpoint": published.name,
            "weights_sha256": best.digest,
            "best_epoch": best.epoch,
            "val_accuracy": best.val_accuracy,
            "val_loss": best.val_loss,
        },
    )
    if card.bf16:
        console.say(
            f"{published.with_name('model')}: in bfloat16 {card.bf16.same_prediction:.1%} of {card.bf16.films} validation "
            f"films get the same answer as in fp32, probabilities shift by {card.bf16.mean_shift:.4f} on average"
        )
    console.say(
        f"{published}: epoch {best.epoch}, validation accuracy {best.val_accuracy:.3f}, weights sha256 {best.digest[:16]}…"
    )


def _publish_again(folder: Path, published: Path) -> None:
    """Make runs/best_<backbone>.pt and runs/model this run's again, unless they are that already or
    Phase B was built on it.
    """
    from lib.network import checkpoints

    own, model = folder / published.name, published.with_name("model")
    if published.exists() and model.exists():
        mine, theirs = checkpoints.load(own), checkpoints.load(published)
        if theirs.digest == mine.digest or (
            mine.phase == "a" and theirs.parent_digest == mine.digest
        ):
            return
    atomic.copy_file(own, published)
    atomic.copy_folder(folder / "model", model)


if __name__ == "__main__":
    execute.run(train)
