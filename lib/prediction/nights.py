"""What is kept of each batch in RUNS_DIR/nights, so that later ones can be compared with it."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lib.prediction.rows import Row
from lib.prediction.triage import UNLIKE
from lib.storage import atomic

FOLDER = "nights"  # below RUNS_DIR
SAMPLE = 1000  # films of a batch whose confidence, distance and size are kept
KEPT = 400  # batches
NAMES = 20  # makers and views of a batch that are counted by name, the most common ones
OTHER = "other"


@dataclass(frozen=True)
class Night:
    """One batch. Counts are of its films; no path of a film is kept, of headers maker and view."""

    time: str  # UTC, when the table was published
    table: str  # name of the file, without its folder
    model: str
    films: int
    unreadable: int
    needs_review: int
    unlike: int  # films that are out of distribution
    predictions: dict[str, int]  # class → films
    confidence: tuple[float, ...]  # of at most `SAMPLE` films
    distance: tuple[float, ...]
    megapixels: tuple[float, ...] = ()  # of the films as stored
    makers: dict[str, int] = field(
        default_factory=dict
    )  # maker of the machine → films; "": unknown
    views: dict[str, int] = field(default_factory=dict)  # position → films; "": unknown
    findings: tuple[str, ...] = ()  # what was unusual

    @staticmethod
    def of(rows: Iterable[Row], table: str, model: str) -> "Night":
        """Summarise the rows of a batch as they come."""
        films = unreadable = needs_review = unlike = 0
        predictions, makers, views = Counter[str](), Counter[str](), Counter[str]()
        sample, step = list[Row](), 1
        for row in rows:
            films += 1
            needs_review += row.needs_review
            if not row.prediction:
                unreadable += 1
                continue
            unlike += UNLIKE in row.reasons
            predictions[row.prediction] += 1
            makers[row.maker] += 1
            views[row.view] += 1
            if predictions.total() % step == 0:
                sample.append(row)
            if len(sample) > SAMPLE:  # every second one, evenly over the table
                sample, step = sample[1::2], 2 * step
        return Night(
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            table=table,
            model=model,
            films=films,
            unreadable=unreadable,
            needs_review=needs_review,
            unlike=unlike,
            predictions=dict(predictions),
            confidence=tuple(
                round(row.confidence, 4) for row in sample if row.confidence is not None
            ),
            distance=tuple(round(row.distance, 4) for row in sample if row.distance is not None),
            megapixels=tuple(round(_megapixels(row.size), 4) for row in sample if row.size),
            makers=_common(makers),
            views=_common(views),
        )


def _megapixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / 1e6


def _common(counts: Counter[str]) -> dict[str, int]:
    """The `NAMES` most common names, and the others together."""
    common = dict(counts.most_common(NAMES))
    rest = counts.total() - sum(common.values())
    return {**common, OTHER: common.get(OTHER, 0) + rest} if rest else common


_LISTS = ("confidence", "distance", "megapixels", "findings")


def read_nights(runs: Path) -> list[Night]:
    """The batches that are kept, the oldest first. A damaged file is passed over."""
    nights = []
    for path in sorted((runs / FOLDER).glob("*.json")):
        try:
            content = json.loads(path.read_text())
            lists = {name: tuple(content[name]) for name in _LISTS if name in content}
            nights.append(Night(**{**content, **lists}))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return nights


def keep_night(runs: Path, night: Night) -> None:
    """Add a batch, and delete the oldest beyond `KEPT`. Several runs may do so at a time."""
    folder = runs / FOLDER
    atomic.make_folder(folder)
    atomic.write_json(folder / f"{time.time_ns():020d}.json", asdict(night))
    for path in sorted(folder.glob("*.json"))[:-KEPT]:
        path.unlink(missing_ok=True)


def ordinary(nights: Sequence[Night], model: str) -> list[Night]:
    """The batches that this model answered and that had nothing unusual.

    A strange night does not become the measure of the next ones.
    """
    return [night for night in nights if night.model == model and not night.findings]
