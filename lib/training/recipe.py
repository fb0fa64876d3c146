"""The recipe of a trained model: the recorded plans of the runs that led to it."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lib.network.choices import Phase
from lib.run.errors import JobError
from lib.training import feature_cache
from lib.training.plan import Acquisition, Augmentation, Plan


class NotRepeatableError(JobError):
    """The training of a model cannot be repeated on other films; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """How a model was trained from ImageNet weights."""

    head: Plan  # of Phase A
    last_block: Plan | None  # of Phase B; None: the model is of Phase A
    start_sha256: str  # of the weights that Phase A started from

    def with_seed(self, seed: int) -> "Recipe":
        """The same recipe with another initial head, another order of films, other dropout."""
        last_block = self.last_block and replace(self.last_block, seed=seed)
        return replace(self, head=replace(self.head, seed=seed), last_block=last_block)


def recipe_of(runs_dir: Path, weights_sha256: str) -> Recipe:
    """The recipe of the model with these weights, from the phases in `runs_dir`.

    Raises:
        NotRepeatableError: they hold another model, or the whole network was trained.
    """
    if _ended_with(runs_dir, "a") == weights_sha256:
        last_block, config = None, _config(runs_dir, "a")
    elif _ended_with(runs_dir, "b") == weights_sha256:
        second, config = _config(runs_dir, "b"), _config(runs_dir, "a")
        if second.get("starting_weights_sha256") != _ended_with(runs_dir, "a"):
            raise NotRepeatableError(
                f"{runs_dir / 'phase_a'} does not hold the Phase A that this model began with"
            )
        last_block = _plan(second)
    else:
        raise NotRepeatableError(f"{runs_dir} does not hold the training of this model")
    recipe = Recipe(_plan(config), last_block, config["starting_weights_sha256"])
    if recipe.head.tap != "pooled" or not recipe.head.freeze_backbone:
        raise NotRepeatableError("Phase A trained more than the head of this model")
    if recipe.head.resume_from_checkpoint:
        raise NotRepeatableError("Phase A of this model began with a checkpoint")
    if last_block and not last_block.freeze_backbone:
        raise NotRepeatableError("Phase B trained the whole network of this model")
    return recipe


def _ended_with(runs_dir: Path, phase: Phase) -> str | None:
    """Digest of the weights that a phase ended with; None where it has not ended."""
    summary = runs_dir / f"phase_{phase}" / "summary.json"
    if not summary.exists():
        return None
    digest: str = json.loads(summary.read_text())["weights_sha256"]
    return digest


def _config(runs_dir: Path, phase: Phase) -> dict[str, Any]:
    path = runs_dir / f"phase_{phase}" / "config.json"
    if not path.exists():
        raise NotRepeatableError(f"there is no {path}")
    content: dict[str, Any] = json.loads(path.read_text())
    if content.get("views_version") != feature_cache.VERSION:
        raise NotRepeatableError(
            "another version of the program trained this model, on other views or with another "
            "last block"
        )
    return content


def _plan(config: dict[str, Any]) -> Plan:
    """The plan in a config.json, as `Plan.resolved` wrote it."""
    settings = config["plan"]
    unknown = sorted(set(settings) - {field.name for field in fields(Plan)})
    if unknown:
        raise NotRepeatableError(
            f"another version of the program trained this model, with {', '.join(unknown)}"
        )
    varied = settings["augmentation"].get("acquisition")
    if varied:
        varied = Acquisition(**{**varied, "jpeg": tuple(varied["jpeg"])})
    augmentation = Augmentation(**{**settings["augmentation"], "acquisition": varied})
    views = settings["views"] or None  # 0: none fitted, or there was no cache
    return Plan(**{**settings, "augmentation": augmentation, "views": views})
