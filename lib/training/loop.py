"""The epochs: a plan per phase, frozen layers, and a loop that can be killed anywhere and ends with the same weights."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lib.network import checkpoints
from lib.network.backbones import Backbone, to_input
from lib.run import console, flags
from lib.run.errors import JobError, StoppedBySignal, UsageError
from lib.storage.atomic import write_csv
from lib.training.augmentation import Augmentation, Film, augment, read_film
from lib.workers.threads import map_ordered

SECONDS_BETWEEN_SAVES = 60.0  # what a kill costs at most, apart from the batch under way


@dataclass(frozen=True)
class Plan:
    """Everything that decides the final weights, apart from the films and the weights to start from."""

    phase: str
    backbone: str
    epochs: int
    lr: float
    scheduler: str
    freeze_backbone: bool
    fine_tune_last_block: bool
    resume_from_checkpoint: bool
    batch_size: int
    weight_decay: float
    step_size: int
    gamma: float
    class_weight_power: float
    seed: int
    views: int  # augmented views per film that are kept and used in turn; 0: a fresh one per epoch, nothing is kept
    precision: str  # "fp32" or "bf16"; without cache always fp32
    augmentation: Augmentation = field(default_factory=Augmentation)


PHASES: dict[str, dict[str, Any]] = {
    "a": {
        "epochs": 5,
        "lr": 3e-4,
        "scheduler": "step",
        "freeze_backbone": True,
        "fine_tune_last_block": False,
        "resume_from_checkpoint": False,
    },
    "b": {
        "epochs": 8,
        "lr": 1e-4,
        "scheduler": "cosine",
        "freeze_backbone": True,
        "fine_tune_last_block": True,
        "resume_from_checkpoint": True,
    },
}


def with_phase_defaults(phase: str, given: dict[str, Any]) -> dict[str, Any]:
    """Fill the cells that were not given (None) from the phase's column; refuse what contradicts itself.

    Raises:
        UsageError: the whole backbone is to be trained and its last block is named as well.
    """
    if given["freeze_backbone"] is False and given["fine_tune_last_block"]:
        raise UsageError(
            "--nofreeze_backbone already trains the whole network; --fine_tune_last_block unfreezes one block of a "
            "frozen one. Give one of the two."
        )
    chosen = {
        name: PHASES[phase][name] if value is None else value for name, value in given.items()
    }
    if not chosen["freeze_backbone"]:
        chosen["fine_tune_last_block"] = False
    return chosen


@dataclass
class Progress:
    """Where a run stands: saved between batches, restored by the next run with the same fingerprint."""

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None  # history row of the best epoch


def freeze(network: nn.Sequential, plan: Plan) -> tuple[nn.Module, nn.Module]:
    """Split a network into (frozen, trained) by the plan. Frozen means whole: parameters and BatchNorm statistics."""
    names = ["trunk", "last_block", "head"]
    first_trained = 2 if plan.freeze_backbone else 0
    if plan.freeze_backbone and plan.fine_tune_last_block:
        first_trained = 1
    parts = [network.get_submodule(name) for name in names]
    frozen, trained = nn.Sequential(*parts[:first_trained]), nn.Sequential(*parts[first_trained:])
    frozen.requires_grad_(False)
    frozen.eval()
    trained.requires_grad_(True)
    return frozen, trained


def class_weights(targets: Sequence[int], classes: int, power: float) -> Tensor:
    """Loss weight per class, `(films / (classes * films of the class)) ** power`: 0 ignores imbalance, 1 undoes it."""
    counts = np.bincount(targets, minlength=classes)
    return torch.tensor((len(targets) / (classes * counts)) ** power, dtype=torch.float32)


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Source(Protocol):
    """Where the batches come from: what the trained layers are given, `(B, C, h, w) float32`, and `(B,)` targets."""

    def train(self, order: Sequence[int], size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training films in `order`, as `epoch` sees them."""

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All validation films as they are."""


@dataclass(frozen=True)
class Straight:
    """The plain way: every film is read, augmented and sent through the frozen layers in every epoch, by PyTorch."""

    films: Mapping[str, Sequence[Film]]  # parts "train" and "val"
    backbone: Backbone
    frozen: nn.Module
    augmentation: Augmentation
    seed: int
    readers: int

    def train(self, order: Sequence[int], size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        return self._batches("train", order, size, epoch)

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        return self._batches("val", range(len(self.films["val"])), 64, None)

    def _batches(
        self, part: str, order: Sequence[int], size: int, epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        def view(index: int) -> np.ndarray:
            grey = read_film(self.films[part][index], self.backbone.input_side)
            return (
                grey if epoch is None else augment(grey, self.augmentation, self.seed, epoch, index)
            )

        greys = map_ordered(view, order, self.readers, lookahead=2 * size)
        for begin in range(0, len(order), size):
            members = order[begin : begin + size]
            images = to_input([next(greys) for _ in members], self.backbone)
            with torch.no_grad():
                features = self.frozen(images)
            yield features, torch.tensor([self.films[part][index].target for index in members])


class Trainer:
    """Runs the epochs of one plan in one folder."""

    def __init__(
        self,
        plan: Plan,
        network: nn.Sequential,
        template: checkpoints.Checkpoint,
        targets: Sequence[int],
        source: Source,
        folder: Path,
    ) -> None:
        """`template` is the checkpoint written for the best epoch, with epoch, scores and weights still to be filled.

        `targets` are the classes of the training films, in the order that `source` counts them.
        """
        self.plan, self.network, self.template = plan, network, template
        self.source, self.folder, self.train_films = source, folder, len(targets)
        self.trained = freeze(network, plan)[1]
        self.loss = nn.CrossEntropyLoss(
            class_weights(targets, len(template.classes), plan.class_weight_power)
        )
        self.optimizer = torch.optim.AdamW(
            self.trained.parameters(), lr=plan.lr, weight_decay=plan.weight_decay
        )
        self.schedule: Any = (
            torch.optim.lr_scheduler.StepLR(self.optimizer, plan.step_size, plan.gamma)
            if plan.scheduler == "step"
            else torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, plan.epochs)
        )
        self.progress = Progress()

    @property
    def best_path(self) -> Path:
        return self.folder / f"best_{self.plan.backbone}.pt"

    @property
    def last_path(self) -> Path:
        return self.folder / "last.pt"

    def restore(self, fingerprint: str) -> bool:
        """Take up the run that left `last.pt`, if it was one with the same fingerprint."""
        if not self.last_path.exists():
            return False
        state = checkpoints.load_state(self.last_path)
        if state["fingerprint"] != fingerprint:
            return False
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.progress = Progress(**state["progress"])
        return True

    def save(self, fingerprint: str) -> None:
        """Write everything the next run needs to go on from here."""
        checkpoints.save_state(
            self.last_path,
            {
                "fingerprint": fingerprint,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "progress": asdict(self.progress),
            },
        )

    def run(self, fingerprint: str) -> Progress:
        """Train to the last epoch; `history` and `best_*.pt` are complete when this returns.

        Raises:
            JobError: the loss is not a number any more; the best checkpoint so far is kept.
        """
        progress = self.progress
        if self.plan.resume_from_checkpoint and not progress.history:
            self._close_epoch(0, float("nan"), float("nan"))
            self.save(fingerprint)
        while progress.epoch <= self.plan.epochs:
            with flags.stops_held_back() as raise_if_stopped:
                self._train_epoch(fingerprint, raise_if_stopped)
            films = self.train_films
            self._close_epoch(progress.epoch, progress.loss_sum / films, progress.correct / films)
            self.schedule.step()
            progress.epoch += 1
            progress.step, progress.loss_sum, progress.correct, progress.seconds = 0, 0.0, 0, 0.0
            self.save(fingerprint)
        return progress

    def _train_epoch(self, fingerprint: str, raise_if_stopped: Callable[[], None]) -> None:
        plan, progress = self.plan, self.progress
        order = (
            np.random.default_rng([plan.seed, progress.epoch])
            .permutation(self.train_films)
            .tolist()
        )
        starts = range(0, len(order), plan.batch_size)[progress.step :]
        batches = self.source.train(
            order[progress.step * plan.batch_size :], plan.batch_size, progress.epoch
        )
        self.trained.train()
        saved = time.monotonic()
        began = time.monotonic() - progress.seconds
        what = f"phase {plan.phase}, epoch {progress.epoch} of {plan.epochs}"
        for features, targets in console.track(batches, what, len(starts)):
            torch.manual_seed(
                _seed_of(plan.seed, progress.epoch, progress.step)
            )  # dropout, whatever came before
            loss, logits = self._step(features, targets)
            progress.step += 1
            progress.loss_sum += loss * len(targets)
            progress.correct += int((logits.argmax(1) == targets).sum())
            progress.seconds = time.monotonic() - began
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                self.save(fingerprint)
                saved = time.monotonic()
            try:
                raise_if_stopped()
            except StoppedBySignal:
                self.save(fingerprint)
                raise
        self.save(fingerprint)

    def _step(self, features: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=self.plan.precision == "bf16"
        ):  # weights and loss stay fp32
            logits = self.trained(features).float()
        loss = self.loss(logits, targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value} in batch {self.progress.step + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return value, logits

    def _close_epoch(self, epoch: int, train_loss: float, train_accuracy: float) -> None:
        """Score the validation films, add the history row, keep the weights when they are the best so far."""
        val_loss, val_accuracy = self.validate()
        if not math.isfinite(val_loss):
            raise self._diverged(f"the validation loss became {val_loss}")
        row = {
            "epoch": epoch,
            "lr": self.schedule.get_last_lr()[0] if epoch else 0.0,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "seconds": round(self.progress.seconds, 2),
        }
        so_far = self.progress.best
        is_best = so_far is None or (val_accuracy, -val_loss) > (
            so_far["val_accuracy"],
            -so_far["val_loss"],
        )
        if is_best:
            state = {
                name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()
            }
            best = replace(
                self.template,
                epoch=epoch,
                val_accuracy=val_accuracy,
                val_loss=val_loss,
                state=state,
            )
            checkpoints.save(self.best_path, best)
            self.progress.best = row
        self.progress.history.append(row)
        write_csv(self.folder / "history.csv", list(row), self.progress.history)
        trained = (
            "as it came"
            if epoch == 0
            else f"train loss {train_loss:.4f}, accuracy {train_accuracy:.3f}"
        )
        console.say(
            f"phase {self.plan.phase}, epoch {epoch} of {self.plan.epochs}: {trained} · val loss {val_loss:.4f}, "
            f"accuracy {val_accuracy:.3f}{' (best)' if is_best else ''} · {self.progress.seconds:.0f} s"
        )

    def _diverged(self, what: str) -> JobError:
        kept = f"{self.best_path} is kept" if self.best_path.exists() else "no epoch was finished"
        return JobError(
            f"{what} of epoch {self.progress.epoch}: a learning rate of {self.plan.lr:g} is probably too high, "
            f"try --lr {self.plan.lr / 10:g}. {kept}."
        )

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Unweighted mean cross-entropy and accuracy over the validation films, without augmentation."""
        self.network.eval()
        loss_sum, correct, films = 0.0, 0, 0
        for features, targets in self.source.val():
            logits = self.trained(features)
            loss_sum += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
            correct += int((logits.argmax(1) == targets).sum())
            films += len(targets)
        return loss_sum / films, correct / films
