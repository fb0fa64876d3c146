"""One file as a job meets it: what worker processes do with a file, and what they bring back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from lib.images import dicom
from lib.images.decode import read_grey
from lib.images.files import leads_out
from lib.images.measure import NOT_MEASURED, Measurements, measure
from lib.run.errors import UnreadableFilmError
from lib.storage.atomic import sha256_of
from lib.storage.stamp import Stamp

THUMBNAIL_SIDE = 32  # pixels
Source = TypeVar("Source", contravariant=True)
_NOTHING = np.empty(0, np.uint8)


@dataclass(frozen=True)
class Film:
    """What was read of a file, or why it could not be read."""

    path: Path
    error: str = ""
    grey: np.ndarray = field(default_factory=lambda: _NOTHING)  # (side, side) uint8
    thumbnail: np.ndarray = field(default_factory=lambda: _NOTHING)  # (32, 32) uint8
    contrast: float = 0.0  # standard deviation of the grey levels, 0..127
    stamp: Stamp = Stamp()  # noqa: RUF009
    tags: Mapping[str, str] = field(default_factory=dict)  # of a DICOM header, as asked for
    notes: tuple[str, ...] = ()  # what the decoder noticed: each is a reason for a review


class FilmReader(Protocol[Source]):
    """Reads one film after the other, from wherever it lies; picklable, for worker processes."""

    def __call__(self, source: Source, /) -> Film:
        """Decode, measure. Whatever is wrong with the film is said in `error`."""

    def lost(self, source: Source, reason: str, /) -> Film:
        """The film whose reading process did not come back."""


@dataclass(frozen=True)
class Reader:
    """A `FilmReader` of files."""

    side: int  # pixels
    max_pixels: int
    within: Path | None = None  # resolved folder that links must not lead out of
    tags: tuple[str, ...] = ()  # keywords of the DICOM header

    def __call__(self, path: Path) -> Film:
        """Decode, measure. Whatever is wrong with the file is said in `error`."""
        before = Stamp.of(path)
        if self.within and leads_out(path, self.within):
            return Film(
                path, "link leads out of the input folder and is not followed", stamp=before
            )
        tags = dicom.tags(path, self.tags) if self.tags else {}
        try:
            grey = read_grey(path, self.side, self.max_pixels)
        except UnreadableFilmError as error:
            return Film(path, str(error), stamp=before, tags=tags)
        if Stamp.of(path) != before:
            return Film(path, "changed while it was read: is it still being copied?", stamp=before)
        return Film(path, "", grey, thumbnail_of(grey), float(grey.std()), before, tags)

    def lost(self, path: Path, reason: str) -> Film:
        """The film whose reading process did not come back."""
        return Film(path, reason, stamp=Stamp.of(path))


@dataclass(frozen=True)
class Examination:
    """What the ingest job wants to know of a film, or why it cannot be read."""

    measured: Measurements = NOT_MEASURED
    sha256: str = ""
    bytes: int = 0
    problem: str = ""
    patient: str = ""  # pseudonym from a DICOM header


def examine(path: Path, max_pixels: int) -> Examination:
    """Hash, decode and measure a copy that the ingest job made."""
    digest, size = sha256_of(path), path.stat().st_size
    try:
        return Examination(measure(path, max_pixels), digest, size, patient=dicom.patient(path))
    except UnreadableFilmError as error:
        return Examination(NOT_MEASURED, digest, size, str(error))


def unexamined(path: Path, reason: str) -> Examination:
    """The examination whose process did not come back."""
    return Examination(NOT_MEASURED, sha256_of(path), path.stat().st_size, reason)


def thumbnail_of(grey: np.ndarray) -> np.ndarray:
    """A film `(side, side) uint8` as `(32, 32) uint8`: what is left when no lung can be made out."""
    return np.asarray(
        Image.fromarray(grey).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    )
