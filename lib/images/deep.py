"""Pictures of more than 8 bits per channel, at full depth, then to the 8 bits of a film.

Pillow reduces 16-bit colour and grey + alpha to the high bytes: 12 bits stored in 16 would keep 16
levels. It can be asked for the low bytes as well.
"""

import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile, _Tile
from PIL.TiffImagePlugin import II, MM, OPEN_INFO

from lib.images.greyscale import display_range
from lib.run.errors import UnreadableFilmError

_WIDE = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of more than 8 bits
_FRACTIONS_END = 2.0
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode L
_BITS_PER_SAMPLE, _PLANES = 258, 284  # TIFF; 2: each channel is a plane of its own
_DEEP = re.compile(r"RGB[AaX]?;16[LBN]")
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}

for _prefix in (II, MM):  # TIFF, grey + alpha: four bytes per pixel, which Pillow has no mode for
    for _extra in (0, 1, 2):
        _key = (_prefix, 1, (1,), 1, (16, 16), (_extra,))
        OPEN_INFO.setdefault(_key, ("RGBA", "RGBA"))


def is_deep(image: ImageFile) -> bool:
    """Whether an opened, not yet loaded picture has channels of more than 8 bits."""
    if image.mode in _WIDE or _is_grey_alpha(image) or _DEEP.match(_raw_mode(image)):
        return True
    return _raw_mode(image) in ("R", "G", "B", "A") and set(_stored_bits(image)) == {16}


def read_deep(image: ImageFile, path: Path) -> np.ndarray:
    """Decode such a picture, opened from `path`, to grey levels `(rows, columns) uint8`.

    Transparent pixels are black.
    """
    if image.mode in _WIDE:
        if _raw_mode(image) == "I":  # planes are named by one letter, also if there is only one
            image.tile = [_with_raw_mode(tile, image.mode) for tile in image.tile]
        return to_eight_bits(np.asarray(image, dtype=np.float64))
    alpha: np.ndarray | None
    if _is_grey_alpha(image):
        grey, alpha = _grey_alpha(image)
    else:
        if _raw_mode(image).endswith("N") and getattr(image, "tag_v2", {}).get(_PLANES) == 2:
            raise UnreadableFilmError(
                "16-bit colours in compressed planes of their own are not read"
            )
        is_composed = _raw_mode(image).startswith("RGBa")  # already multiplied with its alpha
        channels = _both_bytes(image, path)
        grey = channels[..., :3].astype(np.float32) @ _LUMINANCE
        alpha = None if channels.shape[2] == 3 or is_composed else channels[..., 3]
    if alpha is not None and alpha.min() < alpha.max(initial=1):
        grey = grey * (alpha / np.float32(alpha.max(initial=1)))
    return to_eight_bits(np.rint(grey))


def to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale numbers of any range to 8 bits.

    Integers: the depth that the film fills, without burned-in labels (`greyscale.display_range`).
    Fractions: 0 to 1. With numbers below zero, which somebody has shifted or normalised: their own
    range.
    """
    darkest, brightest = float(pixels.min(initial=0.0)), float(pixels.max(initial=0.0))
    if not np.isfinite([darkest, brightest]).all():
        raise ValueError("pixels are not finite numbers")
    low, high = darkest, brightest
    if brightest <= _FRACTIONS_END and darkest >= 0 and np.any(pixels % 1):
        high = max(brightest, 1.0)  # some resampling shoots a little beyond
    elif darkest >= 0:
        low, high = display_range(pixels)
    scaled = (pixels - low) * (255.0 / max(high - low, 1e-9))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _raw_mode(image: ImageFile) -> str:
    return _raw_mode_of(image.tile[0]) if image.tile else ""


def _is_grey_alpha(image: ImageFile) -> bool:
    return _raw_mode(image) == "LA;16B" or _stored_bits(image) == (16, 16)


def _grey_alpha(image: ImageFile) -> tuple[np.ndarray, np.ndarray]:
    """Grey and alpha as `(rows, columns) uint16`: a pixel's four bytes, read as four channels."""
    is_native = image.format == "TIFF" and image.tile[0].codec_name == "libtiff"
    is_little = sys.byteorder == "little" if is_native else _is_little(image)
    image.tile = [_with_raw_mode(tile, "RGBA") for tile in image.tile]
    found = np.ascontiguousarray(np.asarray(image)).view("<u2" if is_little else ">u2")
    return found[..., 0], found[..., 1]


def _both_bytes(image: ImageFile, path: Path) -> np.ndarray:
    """Channels as `(rows, columns, channels) uint16`: the high bytes, then the low ones."""
    with Image.open(path, formats=(str(image.format),)) as again:
        again.filename = ""  # read, not mapped: a map ignores the raw mode
        again.seek(image.tell())
        again.tile = [_with_raw_mode(tile, _of_byte(again, tile, True)) for tile in again.tile]
        low = np.asarray(again).astype(np.uint16)
    image.tile = [_with_raw_mode(tile, _of_byte(image, tile, False)) for tile in image.tile]
    return np.asarray(image).astype(np.uint16) << 8 | low


def _of_byte(image: ImageFile, tile: _Tile, is_low: bool) -> str:
    """The raw mode that takes the low or the high byte of each 16-bit channel."""
    channels, _, order = _raw_mode_of(tile).replace("a", "A").partition(";16")
    order = order or ("L" if _is_little(image) else "B")  # a plane of one channel
    return f"{channels};16{_OTHER_BYTE[order] if is_low else order}"


def _raw_mode_of(tile: _Tile) -> str:
    """How the stored channels are arranged, in Pillow's words."""
    return str(tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args)


def _with_raw_mode(tile: _Tile, raw_mode: str) -> _Tile:
    rest = tile.args[1:] if isinstance(tile.args, tuple) else None
    return tile._replace(args=raw_mode if rest is None else (raw_mode, *rest))


def _is_little(image: ImageFile) -> bool:
    """The byte order of a TIFF file; other formats have the high byte first."""
    return getattr(getattr(image, "tag_v2", None), "prefix", MM) == II


def _stored_bits(image: ImageFile) -> tuple[int, ...]:
    """Bits per channel of a TIFF file, nothing for other formats."""
    return tuple(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()))
