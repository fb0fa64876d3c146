"""The triage page of a batch: the films that need a look first."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib.network.artifact import ModelManifest
from lib.prediction.maps import overlay
from lib.prediction.prediction import Prediction
from lib.reports import figures
from lib.reports.pages import _TEMPLATES, jpeg

CARDS = 5000  # films in the page of a batch: a browser still sorts them at once
PICTURES = 2000  # of them with a picture and a map: the page stays below 30 MB


def in_triage_order(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first `CARDS` rows of a batch's table as its page shows them: films that need a look,
    then the least sure.
    """
    first = heapq.nsmallest(
        CARDS,
        rows,
        key=lambda row: (not row["needs_review"], float(row["confidence"] or 0), row["path"]),
    )
    return [dict(row) for row in first]


def write_triage(
    path: Path, rows: Sequence[Mapping[str, Any]], counts: Mapping[str, int], card: ModelManifest
) -> None:
    """The page of a batch: rows `in_triage_order`, of which some bring `picture` and `map`;
    `counts` is of all rows.
    """
    content = {
        "rows": [
            {"confidence": "", "picture": "", "map": "", "outside_lungs": "", **row} for row in rows
        ],
        "counts": counts,
        "classes": card.classes,
        "model": card.name,
        "without": sum("picture" not in row and bool(row["prediction"]) for row in rows),
    }
    figures.save_text(path, _TEMPLATES.get_template("triage.html").render(content))


def pictures(answer: Prediction, card: ModelManifest, predicted: str) -> dict[str, str]:
    """A film and the map over it, small, as data URLs."""
    grey = answer.film.grey
    over = overlay(grey, answer.maps, card.classes.index(predicted))
    return {"picture": jpeg(grey), "map": jpeg(np.asarray(over))}
