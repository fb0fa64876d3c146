"""The audit: defects and shortcuts of a collection that its manifest shows before training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from statistics import median

import numpy as np
from numpy.typing import NDArray

from lib.dataset import duplicates, provenance
from lib.dataset.contradictions import Contradiction, accuracy_ceiling, find_contradictions
from lib.dataset.manifest import FilmRecord
from lib.images.measure import LOW_CONTRAST

INVERTED = -0.25  # similarity; none of 1,426 real films is below, nearly all their negatives are
TINTED = 2.0  # mean difference of colour channels from which a film counts as tinted
_FILMS_PER_BLOCK = 20_000  # whose bits are numbers at the same time: 20 MB
_SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")

Pair = tuple[FilmRecord, FilmRecord]


@dataclass(frozen=True)
class ClassProperties:
    """Properties of the films of one class that a model could learn instead of anatomy."""

    label: str
    films: int
    width: int  # median, pixels
    height: int  # median, pixels
    sizes: int  # different sizes
    square: float  # share of square films
    tinted: float  # share of tinted films
    brightness: float  # mean grey level, 0 to 255
    contrast: float  # mean standard deviation of the grey levels
    files: str  # "png 90%, jpg 10%"
    blank: int


@dataclass(frozen=True)
class Audit:
    """The findings, ready to be printed or drawn."""

    films: int
    unreadable: int
    contradictions: Sequence[Contradiction]
    contradictory_labels: dict[str, int]  # "NORMAL / TUBERCULOSIS" → films
    crossing: int  # contradictions whose copies lie in two of the source's own splits
    ceiling: float  # highest accuracy that the labels as filed allow
    near_pairs: Sequence[Pair]  # duplicates and near-duplicates, other than contradictions
    near_pairs_across_labels: int
    sources: dict[str, dict[str, int]]  # source → class → films
    single_class_sources: Sequence[str]
    properties: Sequence[ClassProperties]
    blank: Sequence[str]  # paths
    inverted: Sequence[str]  # paths of films that look like a negative of the mean film


def audit(records: Sequence[FilmRecord], near: NDArray[np.int64] | None = None) -> Audit:
    """Audit a manifest.

    `near` are the pairs `(pairs, 2)` of `duplicates.near_duplicates` on its readable films, if
    they are known already.
    """
    films = [record for record in records if record.status == "ok"]
    labels = sorted({film.label for film in films})
    contradictions = find_contradictions(films)
    pairs = _near_pairs(films, near)
    sources = _films_by_source(films, labels)
    similarities = zip(films, _similarity(films), strict=True)
    return Audit(
        films=len(records),
        unreadable=len(records) - len(films),
        contradictions=contradictions,
        contradictory_labels=dict(Counter(" / ".join(c.labels) for c in contradictions)),
        crossing=sum(_crosses_splits(contradiction) for contradiction in contradictions),
        ceiling=accuracy_ceiling(films, contradictions),
        near_pairs=pairs,
        near_pairs_across_labels=sum(a.label != b.label for a, b in pairs),
        sources=sources,
        single_class_sources=[
            name
            for name, counts in sources.items()
            if name != provenance.UNKNOWN and sum(map(bool, counts.values())) == 1
        ],
        properties=[
            _properties(label, [film for film in films if film.label == label]) for label in labels
        ],
        blank=[film.path for film in films if film.contrast < LOW_CONTRAST],
        inverted=[film.path for film, similarity in similarities if similarity < INVERTED],
    )


def _near_pairs(films: Sequence[FilmRecord], near: NDArray[np.int64] | None) -> list[Pair]:
    if near is None:
        near = duplicates.near_duplicates([film.dhash for film in films])
    pairs = [(films[first], films[second]) for first, second in near]
    return [(a, b) for a, b in pairs if a.sha256 != b.sha256 or a.label == b.label]


def _films_by_source(
    films: Sequence[FilmRecord], labels: Sequence[str]
) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for film, source in zip(films, provenance.sources(films), strict=True):
        counts.setdefault(source, dict.fromkeys(labels, 0))[film.label] += 1
    return dict(sorted(counts.items()))


def _similarity(films: Sequence[FilmRecord]) -> NDArray[np.floating]:
    """Cosine `(N,)` of each film's difference hash with the mean hash.

    It is -1 for the negative of a film that equals the mean.
    """
    hashes = np.frombuffer(bytes.fromhex("".join(film.dhash for film in films)), np.uint8)
    blocks = np.array_split(hashes.reshape(len(films), -1), len(films) // _FILMS_PER_BLOCK + 1)
    mean = sum(_signs(block).sum(axis=0) for block in blocks) / len(films)
    length = np.linalg.norm(mean) * np.sqrt(len(mean))
    cosine: NDArray[np.floating] = np.concatenate([_signs(block) @ mean for block in blocks])
    cosine /= max(length, 1e-9)
    return cosine


def _signs(hashes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bits of hashes `(N, 32)` as `(N, 256)`: 1 for a cell brighter than its left one, else -1."""
    return np.unpackbits(hashes, axis=1) * np.float32(2) - 1


def _crosses_splits(contradiction: Contradiction) -> bool:
    splits = {_split_of_source(film) for film in contradiction.films}
    return len(splits - {""}) > 1


def _split_of_source(film: FilmRecord) -> str:
    """The split folder in a film's original path, or empty."""
    folders = {part.lower() for part in PurePosixPath(film.origin).parts[:-1]}
    return next((name for name in _SPLIT_FOLDERS if name in folders), "")


def _properties(label: str, films: Sequence[FilmRecord]) -> ClassProperties:
    suffixes = Counter(
        PurePosixPath(film.origin).suffix.lower().lstrip(".") or "none" for film in films
    )
    aspects = np.array([film.width / max(film.height, 1) for film in films])
    return ClassProperties(
        label=label,
        films=len(films),
        width=int(median(film.width for film in films)),
        height=int(median(film.height for film in films)),
        sizes=len({(film.width, film.height) for film in films}),
        square=float((np.abs(aspects - 1) < 0.01).mean()),
        tinted=float(np.mean([film.tint >= TINTED for film in films])),
        brightness=float(np.mean([film.brightness for film in films])),
        contrast=float(np.mean([film.contrast for film in films])),
        files=", ".join(
            f"{suffix} {count / len(films):.0%}" for suffix, count in suffixes.most_common(3)
        ),
        blank=sum(film.contrast < LOW_CONTRAST for film in films),
    )
