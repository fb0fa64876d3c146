"""The rows of the benchmark's table: printed, in Markdown, and drawn."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

HEADINGS = ("", "jobs", "other", "ratio", "goal", "")


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

    @property
    def verdict(self) -> str:
        """Whether the goal is met; without a goal a word where the other is faster."""
        if self.goal:
            return "met" if self.met else "not met"
        return "" if self.met else "faster than the jobs"

    @property
    def cells(self) -> tuple[str, ...]:
        ours, theirs = f"{self.ours:.4g} {self.unit}", f"{self.theirs:.4g} {self.unit}"
        return self.name, ours, theirs, f"{self.ratio:.3g}", self.goal, self.verdict


@dataclass(frozen=True)
class Skipped:
    """A comparison that could not be made here."""

    name: str
    why: str

    @property
    def cells(self) -> tuple[str, ...]:
        return self.name, "", "", "", "", f"skipped: {self.why}"


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


def show(rows: Sequence[Row | Skipped], title: str | None) -> None:
    """Print the table."""
    table = Table(title=title, title_justify="left")
    for column in HEADINGS:
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for row in rows:
        table.add_row(*row.cells)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def markdown(rows: Sequence[Row | Skipped]) -> str:
    """The table as docs/PERFORMANCE.md has it."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars of the ratios that should be large."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.goal.startswith("≥") and row.unit != "F1"]
    if not shown:
        return
    figure = Figure(figsize=(14, 0.45 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown), 0, -1)
    axes.barh(
        places,
        [row.ratio for row in shown],
        color=["#2b6cb0" if row.met else "#c05621" for row in shown],
    )
    for place, row in zip(places, shown, strict=True):
        goal = float(row.goal[2:])
        axes.plot([goal, goal], [place - 0.4, place + 0.4], color="#1a202c")
        axes.text(row.ratio * 1.03, place, f"{row.ratio:.3g} ×", va="center")
    axes.set_yticks(list(places), [row.name for row in shown])
    axes.set_xscale("log")
    axes.set_xlim(0.5, 2 * max(row.ratio for row in shown))
    axes.set_xlabel("times as fast (log scale); black: goal")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
