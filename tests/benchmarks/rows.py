"""The rows of the benchmark's table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Row:
    """One comparison. `ratio` is what the goal is about: above it for speed, below it for memory
    and growth. An empty goal: nobody set one.
    """

    name: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    goal: str
    met: bool
    runs: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the goal is met, and the note."""
        met = ("met" if self.met else "not met") if self.goal else ""
        return "; ".join(part for part in (met, self.note) if part)


@dataclass(frozen=True)
class Skipped:
    """A comparison that could not be made here."""

    name: str
    why: str


def at_least(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    unit: str,
    goal: float | None,
    inverse: bool = False,
) -> Row:
    """A row whose ratio must reach `goal`: ours / theirs; for times (`inverse`) theirs / ours.

    Without a goal it is met where the jobs are not slower.
    """
    a, b = median(ours), median(theirs)
    ratio = b / a if inverse else a / b
    return Row(
        name,
        a,
        b,
        unit,
        ratio,
        "" if goal is None else f"≥ {goal:g}",
        ratio >= (1 if goal is None else goal),
        {"ours": list(ours), "theirs": list(theirs)},
    )


def at_most(name: str, ours: float, theirs: float, unit: str, goal: float) -> Row:
    """A row whose ratio ours / theirs must not exceed `goal`."""
    return Row(name, ours, theirs, unit, ours / theirs, f"≤ {goal:g}", ours / theirs <= goal)
