"""The settings of a small plan, for tests that need one."""

from typing import Any

SETTINGS: dict[str, Any] = {
    "backbone": "resnet18",
    "batch_size": 4,
    "weight_decay": 1e-4,
    "step_size": 3,
    "gamma": 0.3,
    "class_weight_power": 0.5,
    "seed": 0,
}
