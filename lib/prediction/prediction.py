"""What the model says of one film."""

from dataclasses import dataclass, field

import numpy as np

from lib.images.reader import Film
from lib.network.graph import _NOTHING


@dataclass(frozen=True)
class Prediction:
    """What the model says of one film; nothing of a file that could not be read."""

    film: Film
    logits: np.ndarray | None = None  # (classes,)
    probabilities: np.ndarray | None = None  # (classes,) float64, calibrated, sums to 1
    features: np.ndarray = field(
        default_factory=lambda: _NOTHING
    )  # (C,) means of what the general layers see
    maps: np.ndarray = field(
        default_factory=lambda: _NOTHING
    )  # (classes, h, w): mean of a class's map + bias = its logit
