"""What the model computes for one film."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lib.images.reader import Film

if TYPE_CHECKING:  # the module of the lungs loads the inference engine
    from lib.network.lungs import Lungs

_NONE: NDArray[np.float32] = np.empty(0, np.float32)


@dataclass(frozen=True)
class Prediction:
    """The outputs for one film; empty for a file that could not be read.

    `film.grey` is what the network saw: the crop, where the model takes cropped films. Thumbnail
    and contrast are those of the whole film.
    """

    film: Film
    logits: NDArray[np.float32] | None = None  # (classes,)
    probabilities: NDArray[np.float64] | None = None  # (classes,), calibrated, sums to 1
    features: NDArray[np.float32] = field(default_factory=lambda: _NONE)  # (C,), channel means
    # (classes, h, w): mean of a class's map + bias = its logit
    maps: NDArray[np.float32] = field(default_factory=lambda: _NONE)
    lungs: "Lungs | None" = None  # of the whole film; None: the model takes whole films

    def without_pixels(self) -> "Prediction":
        """The same without what the network saw, to be kept for many films."""
        return replace(self, film=replace(self.film, grey=np.empty(0, np.uint8)))
