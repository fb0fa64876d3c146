"""Array types of the network's inputs and outputs, and numerical functions of its answers."""

from decimal import ROUND_DOWN, Context

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # one film, (side, side), 0 black to 255 white
Floats = NDArray[np.float32]  # logits, features, class maps
Probabilities = NDArray[np.float64]

DIGITS = 4  # significant ones of a threshold; small ones are usual where cases are rare


def softmax(logits: Floats | Probabilities) -> Probabilities:
    """Probabilities over the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Probabilities = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def rounded_down(threshold: float, digits: int = DIGITS) -> float:
    """A threshold with so many significant digits: it still calls the film that it comes from."""
    context = Context(prec=digits, rounding=ROUND_DOWN)
    return float(context.create_decimal(str(float(threshold))))
