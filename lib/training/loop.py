"""The epochs: a plan per phase, frozen layers, and a loop that can be killed anywhere and ends with
the same weights.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.network import checkpoints
from lib.run import console, signals
from lib.run.errors import JobError, StoppedBySignal
from lib.storage.atomic import write_csv
from lib.training.batches import Source, freeze
from lib.training.plan import Plan

SECONDS_BETWEEN_SAVES = 60.0  # what a kill costs at most, apart from the batch under way


@dataclass
class Progress:
    """Where a run stands: saved between batches, restored by the next run with the same
    fingerprint.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None  # history row of the best epoch


def class_weights(targets: Sequence[int], classes: int, power: float) -> Tensor:
    """Loss weight per class, `(films / (classes * films of the class)) ** power`: 0 ignores
    imbalance, 1 undoes it.
    """
    counts = np.bincount(targets, minlength=classes)
    return torch.tensor((len(targets) / (classes * counts)) ** power, dtype=torch.float32)


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


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
        """`template` is the checkpoint written for the best epoch, with epoch, scores and weights
        still to be filled.

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
            with signals.defer_signals() as raise_if_stopped:
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
        """Score the validation films, add the history row, keep the weights when they are the best
        so far.
        """
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
        """Unweighted mean cross-entropy and accuracy over the validation films, without
        augmentation.
        """
        self.network.eval()
        loss_sum, correct, films = 0.0, 0, 0
        for features, targets in self.source.val():
            logits = self.trained(features)
            loss_sum += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
            correct += int((logits.argmax(1) == targets).sum())
            films += len(targets)
        return loss_sum / films, correct / films
