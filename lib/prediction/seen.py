"""What the network sees of a file: decoded, and cropped to the lungs where the model wants that."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

from lib.images.reader import Film, Source, SourceReader
from lib.network.crop import LungCropper
from lib.network.lungs import Lungs


@dataclass(frozen=True)
class Seen:
    """A film with `film.grey` as the network sees it. `lungs` are those of the whole film; None:
    the model takes whole films, or the file cannot be read.
    """

    film: Film
    lungs: Lungs | None = None


@dataclass(frozen=True)
class CropSettings:
    """How films are cropped: its fields decide every pixel of a view."""

    segmenter: Path  # folder
    side: int  # pixels of the view
    even_exposure: bool


@dataclass(frozen=True)
class SeeingReader(Generic[Source]):
    """Reads and crops in one step, so that a whole film never leaves its decoding process.

    Picklable. A process compiles the segmenter once.
    """

    reader: SourceReader[Source]
    crop: CropSettings | None  # None: the network sees what the reader gives

    def prepare(self) -> None:
        """Compile the segmenter in this process, if it is needed.

        Raises:
            JobError: as `LungCropper`.
        """
        if self.crop:
            _cropper_of(self.crop)

    def __call__(self, source: Source) -> Seen:
        """Read one film and crop it.

        Raises:
            JobError: as `LungCropper`.
        """
        film = self.reader(source)
        if film.error or not self.crop:
            return Seen(film)
        view = _cropper_of(self.crop).view(film.grey, self.crop.side)
        return Seen(replace(film, grey=view.grey), view.lungs)

    def lost(self, source: Source, reason: str) -> Seen:
        """See `SourceReader`."""
        return Seen(self.reader.lost(source, reason))


@functools.cache
def _cropper_of(crop: CropSettings) -> LungCropper:
    """The cropper of this process, for one film at a time."""
    return LungCropper(1, crop.segmenter, even_exposure=crop.even_exposure)
