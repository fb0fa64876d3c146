"""What is kept of each batch in RUNS_DIR/nights, so that later ones can be compared with it."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.prediction.rows import Row
from lib.prediction.triage import UNLIKE
from lib.storage import atomic

FOLDER = "nights"  # below RUNS_DIR
SAMPLE = 1000  # films of a batch whose confidence and distance are kept
KEPT = 400  # batches


@dataclass(frozen=True)
class Night:
    """One batch. Counts are of its films; no path of a film and nothing of a header is kept."""

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
    findings: tuple[str, ...] = ()  # what was unusual

    @staticmethod
    def of(rows: Iterable[Row], table: str, model: str) -> "Night":
        """Summarise the rows of a batch as they come."""
        films = unreadable = needs_review = unlike = 0
        predictions: Counter[str] = Counter()
        sample, step = list[Row](), 1
        for row in rows:
            films += 1
            needs_review += row.needs_review
            if not row.prediction:
                unreadable += 1
                continue
            unlike += UNLIKE in row.reasons
            predictions[row.prediction] += 1
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
        )


def read_nights(runs: Path) -> list[Night]:
    """The batches that are kept, the oldest first. A damaged file is passed over."""
    nights = []
    for path in sorted((runs / FOLDER).glob("*.json")):
        try:
            content = json.loads(path.read_text())
            lists = {name: tuple(content[name]) for name in ("confidence", "distance", "findings")}
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
