"""What the program knows about particular classes and collections: one table for all rooms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScreeningTarget:
    """The lowest rates that a screening test for a disease must reach."""

    name: str
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class KnownClass:
    """A class with a short name for figures and, for some, a screening target."""

    short: str
    target: ScreeningTarget | None = None


# Source: WHO, "High-priority target product profiles for new tuberculosis diagnostics", 2014.
WHO_TUBERCULOSIS = ScreeningTarget(
    "WHO's minimum for a tuberculosis screening test", sensitivity=0.90, specificity=0.70
)
CLASS_OF_INTEREST = "TUBERCULOSIS"  # of the operating point, unless another one is named
KNOWN_CLASSES = {CLASS_OF_INTEREST: KnownClass("TB", WHO_TUBERCULOSIS)}
NORMAL = "NORMAL"
ABNORMAL = "abnormal"  # the screening score 1 - P(NORMAL); names of classes are in upper case
COLLECTIONS_OF_CHILDREN = ("kermany",)


def is_positive(positive: str, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the classes `(classes,)` count as positive at the operating point of `positive`.

    `positive` is a class, or `ABNORMAL`: every class but NORMAL. The score of a film at the
    operating point is the sum of their probabilities.
    """
    if positive == ABNORMAL:
        return np.array([name != NORMAL for name in classes])
    return np.array([name == positive for name in classes])


def has_screening_score(classes: Sequence[str]) -> bool:
    """Whether 1 - P(NORMAL) has a meaning: there is a class NORMAL, and another one."""
    return NORMAL in classes and len(classes) > 1


def target_of(name: str) -> ScreeningTarget | None:
    """The screening target of a class; None where there is none."""
    return KNOWN_CLASSES[name].target if name in KNOWN_CLASSES else None
