"""The folder of a training run, runs/phase_<a|b>: which run it holds, and the files in it."""

import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from lib.network import checkpoints
from lib.network.artifact import ModelManifest
from lib.network.checkpoints import Checkpoint
from lib.network.choices import Precision
from lib.run import console
from lib.run.errors import JobError
from lib.storage import atomic
from lib.training import feature_cache
from lib.training.films import FilmReader, SplitFilms
from lib.training.plan import Plan
from lib.training.starting_weights import START_FILE, StartingWeights

PACKAGES = ("torch", "torchvision", "timm", "openvino", "numpy", "pillow")


@dataclass(frozen=True)
class EpochScores:
    """One row of history.csv. Epoch 0 are the starting weights of a resuming phase."""

    epoch: int
    lr: float
    train_loss: float  # weighted by class; NaN in epoch 0
    train_accuracy: float
    val_loss: float  # unweighted mean cross-entropy
    val_accuracy: float
    seconds: float

    def is_better_than(self, other: "EpochScores | None") -> bool:
        """By validation accuracy, then by validation loss."""
        mine = (self.val_accuracy, -self.val_loss)
        return other is None or mine > (other.val_accuracy, -other.val_loss)


@dataclass(frozen=True)
class RunIdentity:
    """What decides the final weights, apart from the number of views."""

    plan: Plan
    precision: Precision
    classes: tuple[str, ...]
    split_sha256: str
    start_sha256: str  # of the starting weights
    segmenter: str = ""  # digest of the lung segmenter that films are cropped with; "": whole films

    @staticmethod
    def of(
        plan: Plan, precision: Precision, split: SplitFilms, start: StartingWeights
    ) -> "RunIdentity":
        """The identity of a run of `plan` on `split` from `start`."""
        segmenter = FilmReader.of(plan).segmenter
        return RunIdentity(plan, precision, split.classes, split.digest, start.digest, segmenter)

    def fingerprint(self, views: int) -> str:
        """Two runs with the same fingerprint end with the same weights."""
        deciding = self.plan.resolved(views, self.precision) | {
            "classes": list(self.classes),
            "data": self.split_sha256,
            "parent": self.start_sha256,
            "torch": version("torch"),
            "views_version": feature_cache.VERSION,
        }
        if not self.plan.cached:  # PyTorch's losses differ from those of a cache in fp32, by 1e-3
            deciding["precision"] = ""
        if self.segmenter:
            deciding["segmenter"] = self.segmenter
        if self.plan.scheduler != "step":
            del deciding["step_size"], deciding["gamma"]
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


class RunFolder:
    """One run's files. The caller holds the lock of `runs_dir`.

    A finished run is moved aside to phase_<a|b>.previous by the next one; an interrupted one is
    continued if its fingerprint is the same, else deleted.
    """

    def __init__(self, runs_dir: Path, identity: RunIdentity) -> None:
        plan = identity.plan
        self.identity, self.plan, self.runs_dir = identity, plan, runs_dir
        self.folder = runs_dir / f"phase_{plan.phase}"
        self.best_path = self.folder / f"best_{plan.backbone}.pt"
        self.published_checkpoint = runs_dir / self.best_path.name
        self.published_model = runs_dir / "model"
        self._state_path = self.folder / "last.pt"
        self.title, self.classes = f"phase {plan.phase}", identity.classes
        self.fingerprint = ""  # set by `begin`

    def views(self, restart: bool = False) -> int | None:
        """The number of views that is known before the cache is filled.

        It is what --views asks for, or what the run in this folder had chosen: the disk may have
        less room now. None: not known yet. `restart` gives up the run in this folder.
        """
        if self.plan.views is not None or not self.plan.cached:
            return self.plan.views or 0
        config = None if restart else self._read("config.json")
        if config:
            views = int(config["plan"].get("views", 0))
            if self.identity.fingerprint(views) == config["fingerprint"]:
                return views
        return None

    def is_finished(self) -> bool:
        """Whether this folder holds this very run, to its end."""
        summary = self._read("summary.json")
        fingerprint = self.identity.fingerprint(self.views() or 0)
        return bool(summary and summary["fingerprint"] == fingerprint)

    def publish_again(self) -> None:
        """Copy the finished run's results to `runs_dir`, unless they are there or Phase B was
        trained from them.
        """
        said = f"{self.folder} holds this run, finished"
        if self._is_published():
            console.say(f"{said}; nothing to do (--restart trains anew).")
            return
        console.say(f"{said}; its results are copied to {self.runs_dir} (--restart trains anew).")
        self.copy_results()

    def _is_published(self) -> bool:
        """Whether `runs_dir` holds the results of this run, or of a Phase B that began with them:
        a checkpoint, and the model of the same weights.
        """
        own = checkpoints.load(self.best_path)
        try:
            published = checkpoints.load(self.published_checkpoint)
            model = ModelManifest.read(self.published_model)
        except JobError:  # missing or damaged
            return False
        is_ours = published.digest == own.digest or (
            own.phase == "a" and published.parent_digest == own.digest
        )
        return is_ours and model.weights_sha256 == published.digest

    def copy_results(self) -> None:
        """Copy the best checkpoint and the model folder to `runs_dir`."""
        atomic.copy_file(self.best_path, self.published_checkpoint)
        atomic.copy_folder(self.folder / "model", self.published_model)

    def begin(self, views: int, start: StartingWeights, restart: bool, cores: int) -> None:
        """Prepare the folder for a run with `views` and write config.json."""
        self.fingerprint = self.identity.fingerprint(views)
        config = self._read("config.json")
        same = bool(config and config["fingerprint"] == self.fingerprint)
        atomic.sweep(self.runs_dir)
        if (self.folder / "summary.json").exists():
            previous = self.folder.with_name(self.folder.name + ".previous")
            shutil.rmtree(previous, ignore_errors=True)
            self.folder.rename(previous)
        elif self.folder.exists() and (restart or not same):
            shutil.rmtree(self.folder)
        atomic.make_folder(self.folder)
        atomic.sweep(self.folder)
        if start.checkpoint:
            checkpoints.save(self.folder / START_FILE, start.checkpoint)
        self._write_config(views, cores)

    def _write_config(self, views: int, cores: int) -> None:
        versions = {name: version(name) for name in PACKAGES}
        content = {
            "fingerprint": self.fingerprint,
            "plan": self.plan.resolved(views, self.identity.precision),
            "classes": list(self.identity.classes),
            "split_sha256": self.identity.split_sha256,
            "starting_weights_sha256": self.identity.start_sha256,
            "views_version": feature_cache.VERSION,
            "argv": sys.argv,
            "cores": cores,
            "versions": {"python": platform.python_version(), **versions},
        }
        atomic.write_json(self.folder / "config.json", content)

    def load_state(self) -> dict[str, Any] | None:
        """The saved state of this run; None where it has not begun."""
        path = self._state_path
        state = checkpoints.load_state(path) if path.exists() else None
        return state if state and state["fingerprint"] == self.fingerprint else None

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; the next run with the same fingerprint continues from it."""
        checkpoints.save_state(self._state_path, {"fingerprint": self.fingerprint, **state})

    def write_history(self, history: Sequence[EpochScores]) -> None:
        """Write history.csv."""
        rows = [asdict(scores) for scores in history]
        atomic.write_csv(self.folder / "history.csv", list(rows[0]), rows)

    def save_best(self, scores: EpochScores, state: Mapping[str, Tensor]) -> None:
        """Write the checkpoint of the best epoch so far."""
        best = Checkpoint(
            backbone=self.plan.backbone,
            classes=self.identity.classes,
            phase=self.plan.phase,
            epoch=scores.epoch,
            val_accuracy=scores.val_accuracy,
            val_loss=scores.val_loss,
            state={name: tensor.detach().clone() for name, tensor in state.items()},
            data_digest=self.identity.split_sha256,
            parent_digest=self.identity.start_sha256,
            segmenter=self.identity.segmenter,
            even_exposure=self.plan.even_exposure,
            film_side=self.plan.film_side,
        )
        checkpoints.save(self.best_path, best)

    def finish(self, best: Checkpoint) -> None:
        """Write summary.json, which marks the run as finished, and delete the saved state."""
        content = {
            "fingerprint": self.fingerprint,
            "checkpoint": self.best_path.name,
            "weights_sha256": best.digest,
            "best_epoch": best.epoch,
            "val_accuracy": best.val_accuracy,
            "val_loss": best.val_loss,
        }
        atomic.write_json(self.folder / "summary.json", content)
        self._state_path.unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        content: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return content
