"""The triage page of a batch: films that need a review first."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.network.artifact import ModelManifest
from lib.prediction.maps import overlay
from lib.prediction.prediction import Prediction
from lib.prediction.rows import Counts, Row
from lib.reports.rendering import jpeg, write_page
from lib.storage.cells import to_cell

CARDS = 5000  # films on the page: a browser still sorts them at once
PICTURES = 2000  # films with a picture and a map: the page stays below 30 MB


@dataclass
class Card:
    """One film on the page; images are data URLs, empty if there is none."""

    row: Row
    picture: str = ""
    map: str = ""
    path: str = field(init=False)  # as in a cell of the table

    def __post_init__(self) -> None:
        self.path = to_cell(self.row.path)


def in_triage_order(rows: Iterable[Row]) -> list[Row]:
    """The first `CARDS` rows: films that need a review, then those with the least confidence."""
    return heapq.nsmallest(
        CARDS, rows, key=lambda row: (not row.needs_review, row.confidence or 0, row.path)
    )


def write_triage(
    path: Path,
    rows: Sequence[Row],
    counts: Counts,
    manifest: ModelManifest,
    predict: Callable[[Sequence[str]], Iterator[Prediction]],
) -> None:
    """Write the page of `rows`, which are `in_triage_order`; `counts` is of all rows of the table.

    `predict` takes names of films: those with a picture are predicted once more, so that rows of
    an earlier run have pictures as well.
    """
    cards = [Card(row) for row in rows]
    shown = [card for card in cards if card.row.prediction][:PICTURES]
    predictions = predict([card.row.path for card in shown])
    for card, prediction in zip(shown, predictions, strict=True):
        if prediction.logits is not None:
            index = manifest.classes.index(card.row.prediction)
            grey = prediction.film.grey
            card.picture = jpeg(grey)
            card.map = jpeg(np.asarray(overlay(grey, prediction.maps, index)))
    content = {
        "cards": cards,
        "counts": counts,
        "classes": manifest.classes,
        "model": manifest.name,
        "without": sum(bool(card.row.prediction) and not card.picture for card in cards),
    }
    write_page(path, "triage.html", content)
