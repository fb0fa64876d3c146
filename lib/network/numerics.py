"""Array types of the network's inputs and outputs, and numerical functions of logits."""

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # one film, (side, side), 0 black to 255 white
Floats = NDArray[np.float32]  # logits, features, class maps
Probabilities = NDArray[np.float64]


def softmax(logits: Floats | Probabilities) -> Probabilities:
    """Probabilities over the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Probabilities = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
