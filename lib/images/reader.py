"""What a worker process does with one file: decode, measure, and say what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.images import dicom
from lib.images.decode import decode_film
from lib.images.files import (
    LARGEST_FILE,
    NOT_FOLLOWED,
    TOO_LARGE_FILE,
    describe_non_file,
    leads_out,
)
from lib.images.measure import NOT_MEASURED, Measurements, measure
from lib.run.errors import UnreadableFilmError
from lib.storage.atomic import sha256_of
from lib.storage.stamp import Stamp

THUMBNAIL_SIDE = 32  # pixels
Source = TypeVar("Source", contravariant=True)
_NOTHING: NDArray[np.uint8] = np.empty(0, np.uint8)


@dataclass(frozen=True)
class Film:
    """A decoded file, or the error that prevented it."""

    path: Path
    error: str = ""
    grey: NDArray[np.uint8] = field(default_factory=lambda: _NOTHING)  # (side, side), the reader's
    thumbnail: NDArray[np.uint8] = field(default_factory=lambda: _NOTHING)  # (32, 32)
    contrast: float = 0.0  # standard deviation of the grey levels, 0..127
    stamp: Stamp = Stamp()  # noqa: RUF009
    tags: Mapping[str, str] = field(default_factory=dict)  # DICOM keyword → value
    notes: tuple[str, ...] = ()  # what the decoder noticed: each is a reason for a review
    aspect: float = 1.0  # width / height as stored
    size: tuple[int, int] = (0, 0)  # width and height in pixels as stored
    maker: str = ""  # of the machine, by a DICOM header
    view: str = ""  # position, by a DICOM header


class SourceReader(Protocol[Source]):
    """Reads films from a file system or a store; picklable, for worker processes."""

    def __call__(self, source: Source, /) -> Film:
        """Decode and measure. If the film cannot be read, `Film.error` says why."""

    def lost(self, source: Source, reason: str, /) -> Film:
        """A film whose decoding process crashed or was stopped."""


@dataclass(frozen=True)
class Reader:
    """A `SourceReader` of files."""

    side: int  # pixels
    max_pixels: int
    within: Path | None = None  # resolved folder that links must not lead out of
    tags: tuple[str, ...] = ()  # keywords of the DICOM header
    trust_headers: bool = False  # read DICOM files that do not say that they are chest films

    def __call__(self, path: Path) -> Film:
        """See `SourceReader`."""
        before = Stamp.of(path)
        if self.within and leads_out(path, self.within):
            return Film(
                path, f"link leads out of the input folder and {NOT_FOLLOWED}", stamp=before
            )
        tags = dicom.tags(path, self.tags) if self.tags else {}
        try:
            decoded = decode_film(path, self.side, self.max_pixels, self.trust_headers)
        except UnreadableFilmError as error:
            return Film(path, str(error), stamp=before, tags=tags)
        if Stamp.of(path) != before:
            return Film(path, "changed while it was read: is it still being copied?", stamp=before)
        grey = decoded.grey
        contrast = float(grey.std())
        return Film(
            path,
            grey=grey,
            thumbnail=thumbnail_of(grey),
            contrast=contrast,
            stamp=before,
            tags=tags,
            notes=decoded.notes,
            aspect=decoded.aspect,
            size=decoded.size,
            maker=decoded.maker,
            view=decoded.view,
        )

    def lost(self, path: Path, reason: str) -> Film:
        """See `SourceReader`."""
        return Film(path, reason, stamp=Stamp.of(path))


@dataclass(frozen=True, slots=True)
class Examination:
    """What the ingest job records of a film, or why it cannot be read."""

    measured: Measurements = NOT_MEASURED
    sha256: str = ""
    bytes: int = 0
    problem: str = ""
    patient: str = ""  # pseudonym from a DICOM header


def examine(path: Path, max_pixels: int, trust_headers: bool = False) -> Examination:
    """Hash, decode and measure a copy that the ingest job made."""
    digest, size = sha256_of(path), path.stat().st_size
    try:
        measured = measure(path, max_pixels, trust_headers)
        return Examination(measured, digest, size, patient=dicom.patient(path))
    except UnreadableFilmError as error:
        return Examination(NOT_MEASURED, digest, size, str(error))


def unexamined(path: Path, reason: str) -> Examination:
    """The examination of a file whose decoding process crashed or was stopped."""
    return Examination(NOT_MEASURED, sha256_of(path), path.stat().st_size, reason)


def examine_in_place(
    path: Path, max_pixels: int, trust_headers: bool, within: Path | None
) -> Examination:
    """Hash, decode and measure a file of somebody else's folder; what cannot be read has a problem.

    `within` is the resolved folder that links must not lead out of.
    """
    try:
        if not path.is_file():
            return Examination(problem=describe_non_file(path))
        if path.stat().st_size > LARGEST_FILE:
            return Examination(problem=TOO_LARGE_FILE)
        if within and leads_out(path, within):
            return Examination(problem=f"link leads out of the folder and {NOT_FOLLOWED}")
        return examine(path, max_pixels, trust_headers)
    except OSError as error:
        return Examination(problem=f"cannot be read: {error.strerror}")


def not_examined(_path: Path, reason: str) -> Examination:
    """The examination in place of a file whose decoding process crashed or was stopped."""
    return Examination(problem=reason)


def thumbnail_of(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A film `(side, side)` as `(32, 32)`: too small to show the lungs."""
    return np.asarray(
        Image.fromarray(grey).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    )
