"""Which collection a film comes from, by its name or by the size and format of its file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from lib.dataset.manifest import FilmRecord

UNKNOWN = "unknown"  # source of a film whose collection cannot be told
USUAL_SIGNATURE = 20  # films of one size and format from which on they count as one unnamed source


def sources(records: Sequence[FilmRecord]) -> list[str]:
    """The source of each film: the collection in its name, else its size and format if common."""
    signatures = [
        "" if record.source else f"{file_type(record)} {record.mode} {record.width}x{record.height}"
        for record in records
    ]
    count = Counter(filter(None, signatures))
    return [
        record.source or (signature if count[signature] >= USUAL_SIGNATURE else UNKNOWN)
        for signature, record in zip(signatures, records, strict=True)
    ]


def file_type(record: FilmRecord) -> str:
    """Suffix of the original file in lower case, without the dot, one spelling per type."""
    suffix = PurePosixPath(record.origin).suffix.lower().lstrip(".")
    return {"jpeg": "jpg", "tiff": "tif"}.get(suffix, suffix)
