"""The triage page of a batch: films that need a look come first."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib.network.artifact import ModelManifest
from lib.prediction.maps import overlay
from lib.prediction.prediction import Prediction
from lib.reports.rendering import jpeg, write_page

CARDS = 5000  # films in a page: a browser still sorts as many at once
PICTURES = 2000  # films with a picture and a map: the page stays below 30 MB


def in_triage_order(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first `CARDS` rows for the page: films that need a look, then the least confident."""
    first = heapq.nsmallest(
        CARDS,
        rows,
        key=lambda row: (not row["needs_review"], float(row["confidence"] or 0), row["path"]),
    )
    return [dict(row) for row in first]


def write_triage(
    path: Path, rows: Sequence[Mapping[str, Any]], counts: Mapping[str, int], card: ModelManifest
) -> None:
    """Write the page of rows `in_triage_order`.

    Some rows have a `picture` and a `map`; `counts` is of all rows of the table.
    """
    empty = dict.fromkeys(("confidence", "picture", "map", "outside_lungs"), "")
    content = {
        "rows": [{**empty, **row} for row in rows],
        "counts": counts,
        "classes": card.classes,
        "model": card.name,
        "without": sum("picture" not in row and bool(row["prediction"]) for row in rows),
    }
    write_page(path, "triage.html", content)


def pictures(prediction: Prediction, card: ModelManifest, predicted: str) -> dict[str, str]:
    """A film and the map over it, small, as data URLs."""
    grey = prediction.film.grey
    over = overlay(grey, prediction.maps, card.classes.index(predicted))
    return {"picture": jpeg(grey), "map": jpeg(np.asarray(over))}
