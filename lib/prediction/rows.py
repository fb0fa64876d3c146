"""One row of a table of predictions: built once, for predict_batch and for evaluate.

A `Row` holds typed values. Text, and the number of digits, are chosen where a file is written.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lib.prediction.maps import share_outside_lungs
from lib.prediction.prediction import Prediction
from lib.prediction.triage import Triage
from lib.storage.cells import from_cell, to_cell
from lib.storage.lines import Column, LineCodec, Record

BETWEEN_REASONS = "; "
SAMPLED = "sampled"  # column


@dataclass(frozen=True)
class Row:
    """What a table says of one file. A file that cannot be read has an error and no prediction."""

    path: str  # below the input folder
    model: str  # ModelManifest.name
    prediction: str = ""  # class; empty: not readable
    confidence: float | None = None  # probability of the prediction
    probabilities: tuple[float, ...] = ()  # calibrated, in the order of the model's classes
    needs_review: bool = True
    reasons: tuple[str, ...] = ()
    outside_lungs: float | None = None  # share of the evidence, 0 to 1
    distance: float | None = None  # of its features to the nearest validation films, 0 to 2
    size: tuple[int, int] | None = None  # width and height of the film in pixels, as stored
    maker: str = ""  # of the machine, by a DICOM header
    view: str = ""  # position, by a DICOM header
    error: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)  # DICOM keyword → value
    is_sampled: bool = False  # drawn at random, for labelling


def row_of(path: str, prediction: Prediction, triage: Triage, model: str) -> Row:
    """The row of one prediction. `triage` chooses the class and says what needs a review."""
    film, probabilities = prediction.film, prediction.probabilities
    reasons = tuple(reason.text for reason in triage.reasons(prediction))
    if probabilities is None:
        return Row(path, model, reasons=reasons, error=film.error, tags=film.tags)
    best = triage.choose(probabilities)
    return Row(
        path,
        model,
        prediction=triage.classes[best],
        confidence=float(probabilities[best]),
        probabilities=tuple(probabilities.tolist()),
        needs_review=bool(reasons),
        reasons=reasons,
        outside_lungs=share_outside_lungs(prediction.maps, best, prediction.lungs),
        distance=triage.distance(prediction),
        size=film.size,
        maker=film.maker,
        view=film.view,
        error=film.error,
        tags=film.tags,
    )


@dataclass(frozen=True)
class RowSchema:
    """The columns of a table of rows, and a `Row` as the values of these columns."""

    classes: tuple[str, ...]
    tags: tuple[str, ...] = ()  # DICOM keywords
    probability_format: str = ".6f"
    has_sample: bool = False  # whether films were drawn for labelling

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """`path` first."""
        probability = self.probability_format
        return (
            Column("path"),
            Column("prediction", nullable=True),
            Column("confidence", "number", probability),
            *(Column(f"prob_{name}", "number", probability) for name in self.classes),
            Column("needs_review", "flag"),
            Column("reasons"),
            Column("outside_lungs", "number", ".3f"),
            Column("distance", "number", ".4f"),
            Column("width", "number", ".0f"),
            Column("height", "number", ".0f"),
            Column("maker"),
            Column("view"),
            Column("error"),
            Column("model"),
            *([Column(SAMPLED, "flag")] if self.has_sample else []),
            *(Column(keyword) for keyword in self.tags),
        )

    def record(self, row: Row) -> Record:
        """The values of `columns`. Text from outside is made safe for spreadsheets: `to_cell`."""
        return (
            to_cell(row.path),
            row.prediction or None,
            row.confidence,
            *(row.probabilities or (None,) * len(self.classes)),
            row.needs_review,
            to_cell(BETWEEN_REASONS.join(row.reasons)),
            row.outside_lungs,
            row.distance,
            *(row.size or (None, None)),
            to_cell(row.maker),
            to_cell(row.view),
            to_cell(row.error),
            row.model,
            *([row.is_sampled] if self.has_sample else []),
            *(to_cell(row.tags.get(keyword, "")) for keyword in self.tags),
        )

    def row(self, record: Record) -> Row:
        """The row that `record` was made of, with the digits that the file kept."""
        values: Sequence[Any] = record
        path, prediction, confidence = values[:3]
        behind = 3 + len(self.classes)
        probabilities = values[3:behind]
        needs_review, reasons, outside_lungs, distance, *more = values[behind:]
        width, height, maker, view, error, model, *rest = more
        is_sampled = rest.pop(0) if self.has_sample else False
        return Row(
            path=from_cell(path),
            model=model,
            prediction=prediction or "",
            confidence=confidence,
            probabilities=tuple(probabilities) if confidence is not None else (),
            needs_review=needs_review,
            reasons=tuple(from_cell(reasons).split(BETWEEN_REASONS)) if reasons else (),
            outside_lungs=outside_lungs,
            distance=distance,
            size=None if width is None else (int(width), int(height)),
            maker=from_cell(maker),
            view=from_cell(view),
            error=from_cell(error),
            tags={
                keyword: from_cell(value)
                for keyword, value in zip(self.tags, rest, strict=True)
                if value
            },
            is_sampled=is_sampled,
        )

    def cells(self, row: Row) -> dict[str, str]:
        """Column → text, as it stands in a CSV."""
        cells = LineCodec(self.columns).cells(self.record(row))
        return {column.name: cell for column, cell in zip(self.columns, cells, strict=True)}


@dataclass
class Counts:
    """How many rows a table has, of which kind."""

    rows: int = 0
    unreadable: int = 0
    needs_review: int = 0
    predictions: Counter[str] = field(default_factory=Counter)  # class → rows

    @staticmethod
    def of(rows: Iterable[Row]) -> "Counts":
        """Count rows as they come."""
        counts = Counts()
        for row in rows:
            counts.rows += 1
            counts.needs_review += row.needs_review
            if row.prediction:
                counts.predictions[row.prediction] += 1
            else:
                counts.unreadable += 1
        return counts
