"""Numbers as text, for the pages and the console."""

import numpy as np

from lib.evaluation.results import Estimate, Spread
from lib.network.numerics import rounded_down

UNKNOWN = "–"


def with_range(estimate: Estimate, form: str = ".3f") -> str:
    """0.913 (0.862 to 0.951); without an interval 0.913; a dash for an undefined score."""
    if estimate.value is None:
        return UNKNOWN
    text = f"{estimate.value:{form}}"
    if estimate.interval:
        low, high = estimate.interval
        text += f" ({low:{form}} to {high:{form}})"
    return text


def with_spread(spread: Spread) -> str:
    """0.913 ± 0.012, mean and standard deviation; the mean alone for one value."""
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.3f}"
    return f"{spread.mean:.3f}{deviation}"


def score(value: float | None) -> str:
    """0.913, or a dash."""
    return UNKNOWN if value is None else f"{value:.3f}"


def percent(value: float | None, digits: int = 1) -> str:
    """91.3%, or a dash."""
    return UNKNOWN if value is None else f"{value:.{digits}%}"


def threshold(value: float) -> str:
    """0.5, or 0.0001493: four significant digits, rounded down."""
    return all_digits(rounded_down(value))


def all_digits(value: float) -> str:
    """0.0000149, as it is and never as 1.49e-05."""
    return np.format_float_positional(value, trim="-")
