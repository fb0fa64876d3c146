"""The training loop: epochs that can be interrupted anywhere and end with the same weights."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lib.run import console, signals
from lib.run.errors import JobError, StoppedBySignal
from lib.training.batches import BatchSource, freeze
from lib.training.plan import Plan
from lib.training.run_folder import EpochScores

SECONDS_BETWEEN_SAVES = 60.0  # work that a kill costs at most, besides the current batch


@dataclass
class Progress:
    """Where a run stands. Saved between batches, restored by the next run with the same
    fingerprint.
    """

    epoch: int = 1
    step: int = 0  # batches of the epoch that are done
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    history: list[EpochScores] = field(default_factory=list)
    best: EpochScores | None = None

    @staticmethod
    def restored(content: dict[str, Any]) -> "Progress":
        """From the dictionary that `asdict` made."""
        history = [EpochScores(**row) for row in content["history"]]
        best = EpochScores(**content["best"]) if content["best"] else None
        return Progress(**{**content, "history": history, "best": best})

    def begin_epoch(self, epoch: int) -> None:
        """Reset the sums."""
        self.epoch, self.step, self.loss_sum, self.correct, self.seconds = epoch, 0, 0.0, 0, 0.0


class Run(Protocol):
    """Where a training keeps its state and its best epoch: a folder, or memory."""

    @property
    def title(self) -> str | None:
        """Begins the messages about epochs; None: there are none."""

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""

    @property
    def best_path(self) -> Path | None:
        """File of the best epoch; None: it is kept in memory."""

    def load_state(self) -> dict[str, Any] | None:
        """The saved state; None where the run has not begun."""

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state."""

    def write_history(self, history: Sequence[EpochScores]) -> None:
        """Keep one row per epoch."""

    def save_best(self, scores: EpochScores, state: Mapping[str, Tensor]) -> None:
        """Keep the weights of the best epoch so far."""


def class_weights(targets: Sequence[int], classes: int, power: float) -> Tensor:
    """Loss weight per class, `(films / (classes * films of the class)) ** power`: 0 ignores
    imbalance, 1 compensates it. A class without films does not count.
    """
    counts = np.maximum(np.bincount(targets, minlength=classes), 1)
    return torch.tensor((len(targets) / (classes * counts)) ** power, dtype=torch.float32)


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Trainer:
    """Runs the epochs of one plan and keeps the best one."""

    def __init__(self, plan: Plan, network: nn.Sequential, batches: BatchSource, run: Run) -> None:
        self.plan, self.network, self.batches, self.run = plan, network, batches, run
        self.trained = freeze(network, plan)[1]
        targets, classes = batches.targets, len(run.classes)
        self.train_films = len(targets)
        self.loss = nn.CrossEntropyLoss(class_weights(targets, classes, plan.class_weight_power))
        self.optimizer = torch.optim.AdamW(
            self.trained.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True
        )
        self.schedule: Any = (
            torch.optim.lr_scheduler.StepLR(self.optimizer, plan.step_size, plan.gamma)
            if plan.scheduler == "step"
            else torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, plan.epochs)
        )
        self.progress = Progress()

    def resume_or_start(self) -> list[EpochScores]:
        """Train to the last epoch, from the saved state where there is one.

        Returns one row per epoch; a resuming phase begins with epoch 0, the starting weights.

        Raises:
            JobError: the loss is not finite; the best checkpoint so far is kept.
        """
        if self._restore():
            console.say(
                f"continuing in epoch {self.progress.epoch}, batch {self.progress.step + 1}"
            )
        if self.plan.resume_from_checkpoint and not self.progress.history:
            self._close_epoch(0, float("nan"), float("nan"))
            self._save()
        while self.progress.epoch <= self.plan.epochs:
            self._run_epoch()
        return self.progress.history

    def _restore(self) -> bool:
        state = self.run.load_state()
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.progress = Progress.restored(state["progress"])
        return True

    def _save(self) -> None:
        self.run.save_state(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "progress": asdict(self.progress),
            }
        )

    def _run_epoch(self) -> None:
        progress, films = self.progress, self.train_films
        with signals.defer_signals() as raise_if_stopped:
            self._train_epoch(raise_if_stopped)
        self._close_epoch(progress.epoch, progress.loss_sum / films, progress.correct / films)
        self.schedule.step()
        progress.begin_epoch(progress.epoch + 1)
        self._save()

    def _train_epoch(self, raise_if_stopped: Callable[[], None]) -> None:
        plan, progress = self.plan, self.progress
        generator = np.random.default_rng([plan.seed, progress.epoch])
        order = generator.permutation(self.train_films).tolist()
        remaining = order[progress.step * plan.batch_size :]
        steps = -(-len(remaining) // plan.batch_size)
        batches = self.batches.train(remaining, plan.batch_size, progress.epoch)
        self.trained.train()
        saved = time.monotonic()
        began = saved - progress.seconds
        if self.run.title:
            title = f"{self.run.title}, epoch {progress.epoch} of {plan.epochs}"
            batches = console.track(batches, title, steps)
        for features, targets in batches:
            # dropout depends on the batch alone, not on what was computed before
            torch.manual_seed(_seed_of(plan.seed, progress.epoch, progress.step))
            loss, logits = self._step(features, targets)
            progress.step += 1
            progress.loss_sum += loss * len(targets)
            progress.correct += int((logits.argmax(1) == targets).sum())
            progress.seconds = time.monotonic() - began
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                self._save()
                saved = time.monotonic()
            try:
                raise_if_stopped()
            except StoppedBySignal:
                self._save()
                raise
        self._save()

    def _step(self, features: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        in_bf16 = self.batches.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):  # weights and loss stay fp32
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
        """Score the validation films, keep the weights if they are the best so far, add the row."""
        val_loss, val_accuracy = self.validate()
        if not math.isfinite(val_loss):
            raise self._diverged(f"the validation loss became {val_loss}")
        scores = EpochScores(
            epoch=epoch,
            lr=self.schedule.get_last_lr()[0] if epoch else 0.0,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=round(self.progress.seconds, 2),
        )
        is_best = scores.is_better_than(self.progress.best)
        if is_best:
            self.run.save_best(scores, self.network.state_dict())
            self.progress.best = scores
        self.progress.history.append(scores)
        self.run.write_history(self.progress.history)
        self._say(scores, is_best)

    def _say(self, scores: EpochScores, is_best: bool) -> None:
        if self.run.title is None:
            return
        trained = (
            f"train loss {scores.train_loss:.4f}, accuracy {scores.train_accuracy:.3f}"
            if scores.epoch
            else "starting weights"
        )
        console.say(
            f"{self.run.title}, epoch {scores.epoch} of {self.plan.epochs}: {trained} · "
            f"val loss {scores.val_loss:.4f}, accuracy {scores.val_accuracy:.3f}"
            f"{' (best)' if is_best else ''} · {scores.seconds:.0f} s"
        )

    def _diverged(self, reason: str) -> JobError:
        best = self.run.best_path
        kept = f"{best} is kept" if best and best.exists() else "no epoch was finished"
        return JobError(
            f"{reason} of epoch {self.progress.epoch}: the learning rate {self.plan.lr:g} is "
            f"probably too high, try --lr {self.plan.lr / 10:g}. {kept}."
        )

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Unweighted mean cross-entropy and accuracy over the validation films."""
        self.network.eval()
        loss_sum, correct, films = 0.0, 0, 0
        for features, targets in self.batches.val():
            logits = self.trained(features)
            loss_sum += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
            correct += int((logits.argmax(1) == targets).sum())
            films += len(targets)
        return loss_sum / films, correct / films
