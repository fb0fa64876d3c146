"""What the model computes for one film."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.images.reader import Film

_NONE: NDArray[np.float32] = np.empty(0, np.float32)


@dataclass(frozen=True)
class Prediction:
    """The outputs for one film; empty for a file that could not be read."""

    film: Film
    logits: NDArray[np.float32] | None = None  # (classes,)
    probabilities: NDArray[np.float64] | None = None  # (classes,), calibrated, sums to 1
    features: NDArray[np.float32] = field(default_factory=lambda: _NONE)  # (C,), channel means
    # (classes, h, w): mean of a class's map + bias = its logit
    maps: NDArray[np.float32] = field(default_factory=lambda: _NONE)
