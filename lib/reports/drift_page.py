"""drift.html: the batches of predict_batch over time, and what was unusual in each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lib.prediction.drift import COMPARED_NAMES, FALSE_ALARMS
from lib.prediction.nights import Night
from lib.reports.rendering import write_page

WIDTH, HEIGHT = 300, 70  # of a chart, in its own units


@dataclass(frozen=True)
class Point:
    """A batch in a chart."""

    x: float
    y: float
    words: str
    is_unusual: bool


@dataclass(frozen=True)
class Chart:
    """One measure over all batches that have it."""

    title: str
    highest: str
    points: Sequence[Point]

    @property
    def line(self) -> str:
        """Coordinates for a polyline."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)


def write_drift_page(path: Path, nights: Sequence[Night]) -> None:
    """Write the page of `nights`, the oldest first."""
    content = {
        "nights": list(reversed(nights)),
        "charts": _charts(nights),
        "false_alarms": f"{FALSE_ALARMS:g}",
        "width": WIDTH,
        "height": HEIGHT,
    }
    write_page(path, "drift.html", content)


def _charts(nights: Sequence[Night]) -> list[Chart]:
    classes = sorted(set().union(*(night.predictions for night in nights)))
    shares: dict[str, list[float | None]] = {
        "to review": [night.needs_review / max(night.films, 1) for night in nights],
        "unlike the training films": [night.unlike / max(night.films, 1) for night in nights],
        "unreadable": [night.unreadable / max(night.films, 1) for night in nights],
    }
    for name in classes:
        shares[name] = [night.predictions.get(name, 0) / max(night.films, 1) for night in nights]
    for title, counts in (
        ("maker", [night.makers for night in nights]),
        ("view", [night.views for night in nights]),
    ):
        shares |= _shares_of_names(title, counts)
    medians = {
        "median confidence": [_median(night.confidence) for night in nights],
        "median distance": [_median(night.distance) for night in nights],
        "median megapixels": [_median(night.megapixels) for night in nights],
    }
    return [
        *(_chart(f"share {title}", values, nights, ".0%") for title, values in shares.items()),
        *(
            _chart(title, values, nights, ".3g")
            for title, values in medians.items()
            if any(value is not None for value in values)
        ),
    ]


def _shares_of_names(
    title: str, counts: Sequence[Mapping[str, int]]
) -> dict[str, list[float | None]]:
    """Charts of the most common names; none where no header names one."""
    total = sum(map(Counter, counts), Counter[str]())
    if not any(total):
        return {}
    return {
        f"{title} {name or 'unknown'}": [
            one.get(name, 0) / sum(one.values()) if one else None for one in counts
        ]
        for name, _ in total.most_common(COMPARED_NAMES)
    }


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _chart(title: str, values: Sequence[float | None], nights: Sequence[Night], form: str) -> Chart:
    """Values from 0 to the highest; the newest batch is on the right."""
    highest = max((value for value in values if value), default=1.0)
    step = WIDTH / max(len(nights) - 1, 1)
    points = [
        Point(
            round(number * step, 1),
            round(HEIGHT * (1 - value / highest), 1),
            f"{night.time[:10]} {night.table}: {value:{form}}",
            bool(night.findings),
        )
        for number, (night, value) in enumerate(zip(nights, values, strict=True))
        if value is not None
    ]
    return Chart(title, f"{highest:{form}}", points)
