"""One file → one grey array: opening, measuring and shrinking films in whatever container they
come.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kornia_rs
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from lib.images import deep, dicom
from lib.images.files import LARGEST_FILE, MAX_PIXELS, TOO_LARGE_FILE, describe_non_file
from lib.run.errors import UnreadableFilmError, mapped

ANY_SIZE = 2**40  # pixels: for films that the ingest job accepted under its own limit
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "PPM", "GIF")
_PLAIN_PNG = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}  # Pillow's mode → kornia-rs's
_WHITE_IS_ZERO = 0  # TIFF; Pillow minds it up to 8 bits
_TURNS = {  # EXIF orientation → what sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SUBFILE_TYPE = 254  # TIFF: bit 0 marks a reduced version of another page, bit 2 a mask
_REDUCED_OR_MASK = 0b101
_MOST_PAGES = 32  # of a pyramid of thumbnails
_ORIENTATION_MARKS = (
    b"eXIf",
    b"profile type exif",
    b"XML:com.adobe.xmp",
)  # chunks that may say which side is up

warnings.filterwarnings("ignore", module="PIL")  # Pillow warns of odd but readable metadata
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, with a message that names it


@dataclass(frozen=True)
class DecodedFilm:
    """A film as a square."""

    grey: np.ndarray  # (side, side) uint8, 0 black to 255 white
    aspect: float = 1.0  # width / height of the film before it became a square
    notes: tuple[str, ...] = ()  # why a person should look at it, as far as the file tells
    size: tuple[int, int] = (0, 0)  # width and height in pixels as stored
    maker: str = ""  # of the machine, by a DICOM header
    view: str = ""  # position, by a DICOM header


def read_grey(
    path: Path,
    side: int,
    max_pixels: int = MAX_PIXELS,
    trust_headers: bool = False,
) -> np.ndarray:
    """The grey levels of `decode_film`."""
    return decode_film(path, side, max_pixels, trust_headers).grey


def decode_film(
    path: Path,
    side: int,
    max_pixels: int = MAX_PIXELS,
    trust_headers: bool = False,
) -> DecodedFilm:
    """Decode a film and bring it to a square of `side` pixels.

    Colour is dropped: a tint tells which hospital photographed its films, not what the lungs look
    like. The aspect ratio is given up as well, since half of the public films come already squeezed
    to a square.

    Raises:
        UnreadableFilmError: not an image, truncated, too large, several frames; a DICOM file that
        is no chest film.
    """
    with decoding(path):
        if is_dicom_file(path):
            film = dicom.read(path, max_pixels, trust_headers)
            image = Image.fromarray(film.levels)
            square = _squared(image, side)
            aspect = image.width / image.height
            return DecodedFilm(square, aspect, film.notes, image.size, film.maker, film.view)
        with opened_image(path, max_pixels) as file:
            size = file.size  # a JPEG is decoded to a smaller one
            image = decode_image(file, path, side)
            square = _squared(image, side)
            return DecodedFilm(square, image.width / image.height, size=size)


def _squared(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0))


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Check that `path` is a file of a film's size, and map all errors of the decoders.

    The known errors lose their cause, because Pillow's message names the film.
    """
    with mapped({Exception: _damaged}), mapped(_KNOWN_ERRORS, keep_cause=False):
        if not path.is_file():
            raise UnreadableFilmError(describe_non_file(path))
        if path.stat().st_size == 0:
            raise UnreadableFilmError("file is empty")
        if path.stat().st_size > LARGEST_FILE:
            raise UnreadableFilmError(TOO_LARGE_FILE)
        yield


def _damaged(error: Exception) -> UnreadableFilmError:
    """Decoders meet damage with errors of many types: struct.error, SyntaxError, TypeError …"""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnreadableFilmError(f"damaged or unreadable: {reason or type(error).__name__}")


def _unknown_format(_: UnidentifiedImageError) -> UnreadableFilmError:
    return UnreadableFilmError(f"not an image in a known format (DICOM, {', '.join(FORMATS)})")


def _too_much_memory(_: MemoryError) -> UnreadableFilmError:
    return UnreadableFilmError("decoding it takes more memory than a film needs")


_KNOWN_ERRORS: dict[type[Exception], Callable[[Any], UnreadableFilmError]] = {
    UnidentifiedImageError: _unknown_format,
    MemoryError: _too_much_memory,
}


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM, by its first bytes."""
    with open(path, "rb") as file:
        return dicom.is_dicom(file.read(dicom.HEAD))


@contextmanager
def opened_image(path: Path, max_pixels: int) -> Iterator[ImageFile]:
    """Open a film that is not DICOM, and check its header; its pixels are read by `decode_image`.

    Raises:
        UnreadableFilmError: too large, several frames, or a damaged TIFF.
    """
    with Image.open(path, formats=FORMATS) as image:
        frames = getattr(image, "n_frames", 1)
        if image.format == "TIFF":
            if 1 < frames <= _MOST_PAGES and _seek_film(image, frames):
                frames = 1
            _require_whole_tiff(image)
            image.filename = ""  # a mapped file has its sides exchanged by an orientation mark
        width, height = image.size
        if width * height > max_pixels:
            raise UnreadableFilmError(
                f"{width} x {height} pixels are more than the limit of {max_pixels:,}"
            )
        if frames > 1 and image.format not in ("JPEG", "MPO"):
            raise UnreadableFilmError(f"holds {frames} frames; one film per file is needed")
        yield image


def _seek_film(image: ImageFile, pages: int) -> bool:
    """Go to the largest page of a TIFF file if all others are thumbnails of it; whether they are.

    A thumbnail is marked as one (NewSubfileType), or at most half as wide and as high.
    """
    sizes, is_marked = [], []
    for page in range(pages):
        image.seek(page)
        sizes.append(image.size)
        tags = getattr(image, "tag_v2", {})
        is_marked.append(bool(int(tags.get(_SUBFILE_TYPE, 0)) & _REDUCED_OR_MASK))
    film = max(range(pages), key=lambda page: (sizes[page], -page))
    width, height = sizes[film]
    image.seek(film)
    return all(
        is_marked[page] or (2 * sizes[page][0] <= width and 2 * sizes[page][1] <= height)
        for page in range(pages)
        if page != film
    )


def _require_whole_tiff(image: ImageFile) -> None:
    """Refuse a height that the strips do not fill: Pillow leaves the rest black and calls it a
    film.
    """
    right, bottom = (
        max((tile.extents[place] for tile in image.tile if tile.extents), default=0)
        for place in (2, 3)
    )
    if right * bottom < image.width * image.height:
        raise UnreadableFilmError("damaged: its strips end before the picture does")


def decode_image(image: ImageFile, path: Path, wanted_side: int) -> Image.Image:
    """Decode an image that `opened_image` gave to mode L; a JPEG only as large as `wanted_side`
    needs (DCT scaling), which still reads and checks its every byte.
    """
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        image.draft("L", (wanted_side, wanted_side))
    plain = _plain_png(image)
    if plain is not None:
        return plain
    if deep.is_deep(image):
        return _decode_deep(image, path)
    image.load()
    return _to_grey(ImageOps.exif_transpose(image))


def _decode_deep(image: ImageFile, path: Path) -> Image.Image:
    """Decode a picture of more than 8 bits per channel to mode L."""
    is_negative = getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    grey = Image.fromarray(deep.read_deep(image, path))
    orientation = image.getexif().get(ExifTags.Base.Orientation)  # of PNG known after its pixels
    if orientation in _TURNS and image.format != "TIFF":  # Pillow has turned a loaded TIFF
        grey = grey.transpose(_TURNS[orientation])
    return ImageOps.invert(grey) if is_negative else grey


def _plain_png(image: ImageFile) -> Image.Image | None:
    """A PNG of 8-bit channels without anything else to mind, decoded by kornia-rs at twice Pillow's
    speed.

    None where it is not one, or is damaged: Pillow then reads what can be read, or tells what is
    wrong.
    """
    if image.format != "PNG" or image.mode not in _PLAIN_PNG or image.tile[0].args != image.mode:
        return None
    if "transparency" in image.info or image.info.get("interlace"):
        return None
    data = Path(os.fsdecode(image.filename)).read_bytes()
    if any(mark in data for mark in _ORIENTATION_MARKS):
        return None
    try:
        pixels = kornia_rs.io.decode_image_png_u8(data, image.size[::-1], _PLAIN_PNG[image.mode])
    except Exception:  # whatever it was, Pillow finds it as well and words it for the person
        return None
    return _to_grey(Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels))


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode == "P" or "A" in image.mode:
        layers = image.convert("RGBA")
        black = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layers).convert("L")
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return image.convert("L")
