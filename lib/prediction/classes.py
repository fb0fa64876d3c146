"""What the program knows about particular classes and collections: one table for all rooms."""

from dataclasses import dataclass


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
COLLECTIONS_OF_CHILDREN = ("kermany",)


def target_of(name: str) -> ScreeningTarget | None:
    """The screening target of a class; None where there is none."""
    return KNOWN_CLASSES[name].target if name in KNOWN_CLASSES else None
