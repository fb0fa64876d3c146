"""What is wrong, or merely telling, with a set of films: found in the manifest alone, before
anything is trained.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from statistics import median
from typing import Any

import numpy as np

from lib.dataset import duplicates, provenance
from lib.dataset.contradictions import Contradiction, accuracy_ceiling, find_contradictions
from lib.dataset.manifest import FilmRecord
from lib.images.measure import LOW_CONTRAST

INVERTED = -0.25  # likeness; of 1,426 real films none is below, of their negatives all but a few
TINTED = 2.0  # mean difference of colour channels from which a film counts as tinted


@dataclass(frozen=True)
class Audit:
    """The findings, ready to be printed or drawn."""

    films: int
    unreadable: int
    contradictions: Sequence[Contradiction]
    contradictory_labels: dict[str, int]  # "NORMAL / TUBERCULOSIS" → films
    crossing: int  # contradictions whose copies lie in two of the source's own splits
    ceiling: float  # highest accuracy that the labels as filed allow
    near_pairs: Sequence[
        tuple[FilmRecord, FilmRecord]
    ]  # same or nearly same film, other than contradictions
    near_pairs_across_labels: int
    sources: dict[str, dict[str, int]]  # source → class → films
    single_class_sources: Sequence[str]
    properties: Sequence[dict[str, Any]]  # per class
    blank: Sequence[str]  # paths
    inverted: Sequence[str]  # paths: light and dark as in a negative of the usual film


def audit(records: Sequence[FilmRecord], near: np.ndarray | None = None) -> Audit:
    """Look through a manifest. `near` are the pairs of `duplicates.near_duplicates` on its readable
    films, where known.
    """
    films = [record for record in records if record.status == "ok"]
    contradictions = find_contradictions(films)
    near = duplicates.near_duplicates([film.dhash for film in films]) if near is None else near
    pairs = [(films[first], films[second]) for first, second in near]
    pairs = [(a, b) for a, b in pairs if a.sha256 != b.sha256 or a.label == b.label]
    sources: dict[str, dict[str, int]] = {}
    labels = _labels(films)
    for film, source in zip(films, provenance.sources(films), strict=True):
        counts = sources.setdefault(source, dict.fromkeys(labels, 0))
        counts[film.label] += 1
    return Audit(
        films=len(records),
        unreadable=len(records) - len(films),
        contradictions=contradictions,
        contradictory_labels=dict(Counter(" / ".join(found.labels) for found in contradictions)),
        crossing=sum(
            len({_source_split(film) for film in found.films} - {""}) > 1
            for found in contradictions
        ),
        ceiling=accuracy_ceiling(films, contradictions),
        near_pairs=pairs,
        near_pairs_across_labels=sum(a.label != b.label for a, b in pairs),
        sources=dict(sorted(sources.items())),
        single_class_sources=[
            name
            for name, counts in sorted(sources.items())
            if name != provenance.UNKNOWN and sum(map(bool, counts.values())) == 1
        ],
        properties=[
            _properties(label, [film for film in films if film.label == label]) for label in labels
        ],
        blank=[film.path for film in films if film.contrast < LOW_CONTRAST],
        inverted=[
            film.path
            for film, alike in zip(films, _likeness(films), strict=True)
            if alike < INVERTED
        ],
    )


def _likeness(films: Sequence[FilmRecord]) -> np.ndarray:
    """Cosine `(N,)` of each film's difference hash with the mean of all: -1 for the negative of the
    usual film.
    """
    hashes = np.frombuffer(bytes.fromhex("".join(film.dhash for film in films)), np.uint8).reshape(
        len(films), -1
    )
    signs = np.unpackbits(hashes, axis=1) * np.float32(2) - 1
    usual = signs.mean(axis=0)
    answer: np.ndarray = signs @ usual / max(np.linalg.norm(usual) * np.sqrt(signs.shape[1]), 1e-9)
    return answer


def _labels(films: Sequence[FilmRecord]) -> list[str]:
    return sorted({film.label for film in films})


def _source_split(film: FilmRecord) -> str:
    parts = {part.lower() for part in PurePosixPath(film.origin).parts[:-1]}
    return next(
        (name for name in ("train", "val", "valid", "validation", "test") if name in parts), ""
    )


def _properties(label: str, films: Sequence[FilmRecord]) -> dict[str, Any]:
    kinds = Counter(
        PurePosixPath(film.origin).suffix.lower().lstrip(".") or "none" for film in films
    )
    aspects = np.array([film.width / max(film.height, 1) for film in films])
    return {
        "class": label,
        "films": len(films),
        "width": int(median(film.width for film in films)),
        "height": int(median(film.height for film in films)),
        "sizes": len({(film.width, film.height) for film in films}),
        "square": float((np.abs(aspects - 1) < 0.01).mean()),
        "tinted": float(np.mean([film.tint >= TINTED for film in films])),
        "brightness": float(np.mean([film.brightness for film in films])),
        "contrast": float(np.mean([film.contrast for film in films])),
        "files": ", ".join(
            f"{kind} {count / len(films):.0%}" for kind, count in kinds.most_common(3)
        ),
        "blank": sum(film.contrast < LOW_CONTRAST for film in films),
    }
