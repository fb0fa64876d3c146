"""Provenance: which collection a film comes from, by its name or its signature."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from lib.dataset.manifest import FilmRecord

UNKNOWN = "unknown"  # source of films that neither name nor signature tells
USUAL_SIGNATURE = 20  # films of one size and format that are taken for one unnamed source


def sources(records: Sequence[FilmRecord]) -> list[str]:
    """Where each film seems to come from: the collection its name gives away, else its size and
    format if many share it.
    """
    shapes = [f"{_kind(record)} {record.mode} {record.width}x{record.height}" for record in records]
    count = Counter(
        shape for shape, record in zip(shapes, records, strict=True) if not record.source
    )
    return [
        record.source or (shape if count[shape] >= USUAL_SIGNATURE else UNKNOWN)
        for shape, record in zip(shapes, records, strict=True)
    ]


def _kind(record: FilmRecord) -> str:
    suffix = PurePosixPath(record.origin).suffix.lower().lstrip(".")
    return {"jpeg": "jpg", "tiff": "tif"}.get(suffix, suffix)
