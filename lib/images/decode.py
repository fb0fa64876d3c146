"""One file → one grey array: opening, measuring and shrinking films in whatever container they
come.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kornia_rs
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from lib.images import dicom
from lib.images.files import LARGEST_FILE, MAX_PIXELS, TOO_LARGE_FILE, describe_non_file
from lib.run.errors import UnreadableFilmError

ANY_SIZE = 2**40  # pixels: for films that the ingest job accepted under its own limit
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "PPM", "GIF")
_PLAIN_PNG = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}  # Pillow's mode → kornia-rs's
_WIDE = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of more than 8 bits
_WHITE_IS_ZERO = 0  # TIFF; Pillow minds it up to 8 bits
_FRACTIONS_END = 2.0
_ORIENTATION_MARKS = (
    b"eXIf",
    b"profile type exif",
    b"XML:com.adobe.xmp",
)  # chunks that may say which side is up

warnings.filterwarnings("ignore", module="PIL")  # Pillow warns of odd but readable metadata
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, with a message that names it


def read_grey(path: Path, side: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a film to `(side, side) uint8`, 0 black to 255 white.

    Colour is dropped: a tint tells which hospital photographed its films, not what the lungs look
    like. The aspect ratio is given up as well, since half of the public films come already squeezed
    to a square.

    Raises:
        UnreadableFilmError: not an image, truncated, too large, several frames; a DICOM file that
        is no chest film.
    """
    with _explained(path):
        if _is_dicom(path):
            image = Image.fromarray(dicom.read(path, max_pixels)[0])
            return np.asarray(
                image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
            )
        with _opened(path, max_pixels) as image:
            return np.asarray(
                _decode(image, side).resize(
                    (side, side), Image.Resampling.BILINEAR, reducing_gap=2.0
                )
            )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever a hostile file makes the decoders raise becomes one kind of error."""
    try:
        if not path.is_file():
            raise UnreadableFilmError(describe_non_file(path))
        if path.stat().st_size == 0:
            raise UnreadableFilmError("file is empty")
        if path.stat().st_size > LARGEST_FILE:
            raise UnreadableFilmError(TOO_LARGE_FILE)
        yield
    except UnreadableFilmError:
        raise
    except UnidentifiedImageError:
        raise UnreadableFilmError(
            f"not an image in a known format (DICOM, {', '.join(FORMATS)})"
        ) from None
    except MemoryError:
        raise UnreadableFilmError("decoding it takes more memory than a film needs") from None
    except (
        Exception
    ) as error:  # struct.error, SyntaxError, TypeError …: decoders meet damage in many ways
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableFilmError(
            f"damaged or unreadable: {reason or type(error).__name__}"
        ) from error


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return dicom.is_dicom(file.read(dicom.HEAD))


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[ImageFile]:
    """Open a film and check its header."""
    with Image.open(path, formats=FORMATS) as image:
        if image.format == "TIFF":
            _require_whole_tiff(image)
            image.filename = ""  # else Pillow maps the file, with sides exchanged where an orientation mark turns the film
        width, height = image.size
        if width * height > max_pixels:
            raise UnreadableFilmError(
                f"{width} x {height} pixels are more than the limit of {max_pixels:,}"
            )
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in ("JPEG", "MPO"):
            raise UnreadableFilmError(f"holds {frames} frames; one film per file is needed")
        yield image


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


def _decode(image: ImageFile, wanted_side: int) -> Image.Image:
    """Decode to mode L; a JPEG only as large as needed (DCT scaling), which still reads and checks
    its every byte.
    """
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        image.draft("L", (wanted_side, wanted_side))
    plain = _plain_png(image)
    if plain is not None:
        return plain
    is_negative = (
        image.mode in _WIDE
        and getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    )
    image.load()
    grey = _to_grey(ImageOps.exif_transpose(image))
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
    if image.mode in _WIDE:
        return Image.fromarray(_to_eight_bits(np.asarray(image, dtype=np.float64)))
    if image.mode == "P" or "A" in image.mode:
        layers = image.convert("RGBA")
        black = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layers).convert("L")
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return image.convert("L")


def _to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale 8 to 16 stored bits to 8: full scale is the smallest usual bit depth that holds the
    brightest pixel.

    Numbers below zero were shifted or normalised by somebody: their own range is the scale then.
    """
    darkest, brightest = float(pixels.min(initial=0.0)), float(pixels.max(initial=0.0))
    if not np.isfinite([darkest, brightest]).all():
        raise ValueError("pixels are not finite numbers")
    full_scale = next(
        (2**bits - 1 for bits in (8, 10, 12, 14, 16) if brightest <= 2**bits - 1), brightest
    )
    if brightest <= _FRACTIONS_END and np.any(
        pixels % 1
    ):  # floats in 0..1; some resampling shoots a little beyond
        full_scale = max(brightest, 1.0)
    if darkest < 0:
        pixels, full_scale = pixels - darkest, brightest - darkest
    return np.clip(np.rint(pixels * (255.0 / full_scale)), 0, 255).astype(np.uint8)
