"""What a training does: phases, defaults and everything else that decides the final weights.
Torch-free.
"""

from dataclasses import dataclass, field
from typing import Any

from lib.run.errors import UsageError

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


@dataclass(frozen=True)
class Augmentation:
    """Largest deviations. There is no left-right flip: the heart has a side, and so has situs
    inversus.
    """

    degrees: float = 7.0
    translation: float = 0.04  # share of the side
    scaling: float = 0.08
    brightness: float = 0.15
    contrast: float = 0.15


@dataclass(frozen=True)
class Plan:
    """Everything that decides the final weights, apart from the films and the weights to start
    from.
    """

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


def with_phase_defaults(phase: str, given: dict[str, Any]) -> dict[str, Any]:
    """Fill the cells that were not given (None) from the phase's column; refuse what contradicts
    itself.

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
