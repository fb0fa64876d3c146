"""The triage page of a batch: films that need a review first, and a reader's labels for them."""

import hashlib
import heapq
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lib.images.reader import Film
from lib.network.artifact import ModelManifest
from lib.prediction.maps import overlay
from lib.prediction.request import Request
from lib.prediction.rows import BETWEEN_REASONS, Counts, Row
from lib.reports.batch_films import BatchFilms
from lib.reports.rendering import jpeg, write_page
from lib.storage.cells import to_cell

CARDS = 5000  # films on the page
PICTURES = 2000  # films with a picture and a map: they take up to 30 MB
WHOLE = 1000  # films of which the viewer has the whole film: they take up to 30 MB more
WHOLE_SIDE = 512  # pixels, longer side


@dataclass
class Card:
    """One film on the page, as its script reads it. Images are data URLs, or empty."""

    path: str  # as in a cell of the table
    model: str
    prediction: str
    confidence: float
    probabilities: tuple[float, ...]
    review: bool
    reasons: str
    outside: float | None
    sampled: bool
    sha256: str = ""
    picture: str = ""  # what the network saw
    map: str = ""
    whole: str = ""

    @staticmethod
    def of(row: Row) -> "Card":
        """The card of a row, without pictures."""
        reasons = BETWEEN_REASONS.join(row.reasons)
        return Card(
            path=to_cell(row.path),
            model=row.model,
            prediction=row.prediction,
            confidence=row.confidence or 0.0,
            probabilities=row.probabilities,
            review=row.needs_review,
            reasons=f"{reasons}: {row.error}" if row.error else reasons,
            outside=row.outside_lungs,
            sampled=row.is_sampled,
        )


def in_triage_order(rows: Iterable[Row]) -> list[Row]:
    """`CARDS` rows: films that need a review, the random sample, then the least confidence.

    The random sample is there in any case, so that all of it can be labelled.
    """

    def order(row: Row) -> tuple[bool, bool, float, str]:
        return (not row.needs_review, not row.is_sampled, row.confidence or 0, row.path)

    kept = heapq.nsmallest(CARDS, rows, key=lambda row: (not row.is_sampled, order(row)))
    return sorted(kept, key=order)


def write_triage(
    request: Request,
    rows: Sequence[Row],
    counts: Counts,
    manifest: ModelManifest,
    films: BatchFilms,
) -> None:
    """Write the page of `rows`, which are `in_triage_order`; `counts` is of all rows of the table.

    Films with a picture are read and predicted once more, so that rows of an earlier run have
    pictures as well.
    """
    cards = [Card.of(row) for row in rows]
    for card, digest in zip(cards, films.digests([row.path for row in rows]), strict=True):
        card.sha256 = digest
    _add_pictures(cards, rows, manifest, films)
    content = {
        "data": {
            "batch": _identity_of(request.output),
            "classes": manifest.classes,
            "films": [asdict(card) for card in cards],
        },
        "counts": counts,
        "classes": manifest.classes,
        "model": manifest.name,
        "shown": len(cards),
        "without": sum(bool(card.prediction) and not card.picture for card in cards),
    }
    assert request.report
    write_page(request.report, "triage.html", content)


def _identity_of(table: Path) -> str:
    """The name under which a browser keeps the labels of this batch; it does not show the path."""
    return hashlib.sha256(os.fsencode(table.absolute())).hexdigest()


def _add_pictures(
    cards: Sequence[Card], rows: Sequence[Row], manifest: ModelManifest, films: BatchFilms
) -> None:
    """Add pictures and maps to the first readable films, whole films to fewer of them.

    The random sample comes first.
    """
    readable = [(card, row) for card, row in zip(cards, rows, strict=True) if row.prediction]
    readable.sort(key=lambda film: not film[1].is_sampled)
    shown = readable[:PICTURES]
    predictions = films.predict([row.path for _, row in shown])
    for (card, row), prediction in zip(shown, predictions, strict=True):
        if prediction.logits is not None:
            index = manifest.classes.index(row.prediction)
            grey = prediction.film.grey
            card.picture = jpeg(grey)
            card.map = jpeg(np.asarray(overlay(grey, prediction.maps, index)))
    viewed = readable[:WHOLE]
    for (card, _), film in zip(
        viewed, films.whole([row.path for _, row in viewed], WHOLE_SIDE), strict=True
    ):
        card.whole = "" if film.error else jpeg(film.grey, _size_of(film))


def _size_of(film: Film) -> tuple[int, int]:
    """Width and height in pixels of the whole film in the viewer, in its own proportions."""
    longer = max(film.aspect, 1.0)
    return (
        max(round(WHOLE_SIDE * film.aspect / longer), 1),
        max(round(WHOLE_SIDE / longer), 1),
    )
