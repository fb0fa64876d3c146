"""Measurements of one film: size, mode, perceptual hash, tint, brightness, contrast."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.images import dicom
from lib.images.decode import decode_image, decoding, is_dicom_file, opened_image
from lib.images.files import MAX_PIXELS

LOW_CONTRAST = 6.0  # standard deviation of grey levels below which a film shows nothing
DHASH_SIDE = 16  # 256 bits: with 64, films of different patients have collided at distance 0


@dataclass(frozen=True, slots=True)
class Measurements:
    """What a file shows of itself when it is opened and fully decoded."""

    width: int
    height: int
    mode: str
    dhash: str
    tint: float  # mean difference between the strongest and the weakest colour channel, 0 to 255
    brightness: float  # mean grey level, 0 to 255
    contrast: float  # standard deviation of the grey levels


NOT_MEASURED = Measurements(0, 0, "", "", 0.0, 0.0, 0.0)


def measure(path: Path, max_pixels: int = MAX_PIXELS, trust_headers: bool = False) -> Measurements:
    """Open and decode a film; its size and mode as stored, a perceptual hash, tint, brightness and
    contrast.

    Raises:
        UnreadableFilmError: as `read_grey`.
    """
    with decoding(path):
        if is_dicom_file(path):
            film = dicom.read(path, max_pixels, trust_headers)
            grey, mode = Image.fromarray(film.levels), "L" if film.bits <= 8 else "I;16"
            (width, height), tint = grey.size, film.tint
        else:
            with opened_image(path, max_pixels) as image:
                (width, height), mode = image.size, image.mode
                grey = decode_image(image, path, 8 * DHASH_SIDE)
            tint = _tint(path, mode, max_pixels)
        levels = np.asarray(
            grey.resize((8 * DHASH_SIDE,) * 2, Image.Resampling.BOX, reducing_gap=2.0)
        )
        shown = round(float(levels.mean()), 2), round(float(levels.std()), 2)
        return Measurements(width, height, mode, dhash(grey), tint, *shown)


def _tint(path: Path, mode: str, max_pixels: int) -> float:
    if mode in ("L", "1", "LA") or mode.startswith(("I", "F")):
        return 0.0
    with opened_image(path, max_pixels) as image:
        if image.format == "JPEG":
            image.draft("RGB", (32, 32))
        small = image.convert("RGB").resize((32, 32), Image.Resampling.BOX)
    channels = np.asarray(small, dtype=np.float32)
    return round(float((channels.max(axis=2) - channels.min(axis=2)).mean()), 2)


def dhash(image: Image.Image) -> str:
    """Difference hash of a grey image as 64 hexadecimal digits (256 bits): is each cell brighter
    than its left one?

    Same film re-encoded, resized or re-exposed: a Hamming distance of a few bits. Different films:
    18 and more. Source: N. Krawetz, "Kind of Like That", hackerfactor.com, 2013.
    """
    cells = np.asarray(
        image.resize((DHASH_SIDE + 1, DHASH_SIDE), Image.Resampling.LANCZOS), dtype=np.int16
    )
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()
