"""The weights that a run starts from: a checkpoint, or the backbone's ImageNet weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lib.network import checkpoints
from lib.network.backbones import BACKBONES, build
from lib.network.checkpoints import Checkpoint
from lib.network.weights import weights_file
from lib.run import console
from lib.run.errors import JobError
from lib.storage.atomic import sha256_of
from lib.training.films import FilmReader, SplitFilms
from lib.training.plan import Plan

START_FILE = "start.pt"  # in a phase's folder: a copy of the checkpoint that it started from


@dataclass(frozen=True)
class StartingWeights:
    """Exactly one of the two is set."""

    checkpoint: Checkpoint | None = None
    imagenet: Path | None = None  # state dict of the original architecture

    @property
    def digest(self) -> str:
        """SHA-256 of the checkpoint's weights or of the file."""
        if self.checkpoint:
            return self.checkpoint.digest
        assert self.imagenet
        return sha256_of(self.imagenet)

    def build_network(self, plan: Plan, classes: int, cores: int) -> nn.Sequential:
        """The plan's network with these weights; a new head where they are ImageNet's.

        Switches PyTorch to `cores` threads and to deterministic algorithms.
        """
        torch.set_num_threads(cores)
        torch.use_deterministic_algorithms(True)
        # saves a tenth of a step; nothing reads uninitialised memory here
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.manual_seed(plan.seed)
        network = build(BACKBONES[plan.backbone], classes, self.imagenet)
        if self.checkpoint:
            network.load_state_dict(self.checkpoint.state)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def starting_weights(
    plan: Plan, runs_dir: Path, checkpoint_path: Path | None, split: SplitFilms
) -> StartingWeights:
    """The weights that `plan` starts from; `checkpoint_path` None is runs/best_<backbone>.pt.

    Raises:
        JobError: no checkpoint, or one of another backbone, other classes, another split or another
            crop or exposure; no ImageNet weights.
    """
    if not plan.resume_from_checkpoint:
        return StartingWeights(imagenet=weights_file(BACKBONES[plan.backbone], split.cache_dir))
    path = checkpoint_path or runs_dir / f"best_{plan.backbone}.pt"
    path, start = _before_own_result(plan, runs_dir, path, checkpoints.load(path))
    checkpoints.require_fit(path, start, plan.backbone, split.classes)
    if start.data_digest != split.digest:
        raise JobError(
            f"{path} was trained on another split than Phase {plan.phase.upper()} would be: its "
            "training films may be among the validation and test films now. Run Phase A on this "
            "split first, or restore the split."
        )
    _require_same_crop(path, start, plan)
    _require_same_exposure(path, start, plan)
    _require_same_film_side(path, start, plan)
    console.say(
        f"starting from {path}: Phase {start.phase.upper()}, "
        f"validation accuracy {start.val_accuracy:.3f}"
    )
    return StartingWeights(checkpoint=start)


def _require_same_crop(path: Path, start: Checkpoint, plan: Plan) -> None:
    segmenter = FilmReader.of(plan).segmenter
    if start.segmenter == segmenter:
        return
    if start.segmenter and segmenter:
        raise JobError(
            f"{path} was trained on films cropped with another lung segmenter than that of this "
            "program. Run Phase A again."
        )
    trained = "lungs" if start.segmenter else "none"
    raise JobError(
        f"{path} was trained with --crop {trained}, this run has --crop {plan.crop}. Give --crop "
        f"{trained} (or CROP={trained} in the environment or .env), or run Phase A with --crop "
        f"{plan.crop}."
    )


def _require_same_exposure(path: Path, start: Checkpoint, plan: Plan) -> None:
    if start.even_exposure == plan.even_exposure:
        return
    trained = "--even_exposure" if start.even_exposure else "--noeven_exposure"
    raise JobError(
        f"{path} was trained with {trained}, and this run would see other grey levels. Give "
        f"{trained}, or run Phase A again."
    )


def _require_same_film_side(path: Path, start: Checkpoint, plan: Plan) -> None:
    if not plan.film_side or start.film_side == plan.film_side:
        return
    how = f"Give --film_side {start.film_side}, or run" if start.film_side else "Run"
    trained = start.film_side or "twice the network's"
    raise JobError(
        f"{path} was trained on films of {trained} pixels per side, and this run would see films "
        f"of {plan.film_side}. {how} Phase A again."
    )


def _before_own_result(
    plan: Plan, runs_dir: Path, path: Path, start: Checkpoint
) -> tuple[Path, Checkpoint]:
    """The checkpoint that an earlier run of this phase started from, if `start` is its result.

    A finished phase replaces runs/best_<backbone>.pt. A second run of the same phase starts where
    the first one did, not from the first one's result.
    """
    for name in (f"phase_{plan.phase}", f"phase_{plan.phase}.previous"):
        own, kept = runs_dir / name / f"best_{plan.backbone}.pt", runs_dir / name / START_FILE
        if (
            start.phase == plan.phase
            and kept.exists()
            and own.exists()
            and checkpoints.load(own).digest == start.digest
        ):
            return kept, checkpoints.load(kept)
    return path, start
