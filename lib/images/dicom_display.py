"""From stored values to the grey levels that a viewer shows at first.

The steps of DICOM PS3.3, C.7.5.1.1.2, C.7.6.3, C.11.1, C.11.2 and PS3.4, N.2: modality table or
rescale, padding, table of interest or window, inversion of MONOCHROME1. A step whose numbers make
no sense is left out: a table is scaled by its own entries, a window must show the film.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.images.dicom_header import (
    header_integer,
    header_items,
    header_numbers,
    header_text,
    header_value,
)
from lib.images.dicom_pixels import Stored
from lib.images.greyscale import display_range, sample
from lib.run.errors import UnreadableFilmError

if TYPE_CHECKING:
    from pydicom import Dataset

WINDOW_NOT_USED = "the header's display window does not fit the film"
_MOST_CLIPPED = 0.5  # of the film, at one end of the grey scale, under a window that fits
_LEAST_SHOWN = 0.3  # of the grey scale, that a film fills under a window that fits
_LEAST_INSIDE = 0.02  # of the film, between black and white
_PICTURE = 64  # different values from which a film is not blank
_TONE_STEP = 8  # levels of grey for which the hue of a tinted film is measured together
_MOST_COLOUR = 0.2  # of the pixels, in other or stronger colours than a tint
_OFF_TONE = 24  # distance of Cb, Cr from the tint, 0 to 255
_STRONG = 0.85  # saturation of colours that no film base has
_DARK = 48  # largest channel below which the colour of a pixel cannot be seen
_COLOUR_MODELS = ("RGB", "YBR_", "PALETTE COLOR")


@dataclass(frozen=True)
class Displayed:
    """Grey levels `(rows, columns) uint8`, 0 black, and what a reviewer should know."""

    levels: np.ndarray
    notes: tuple[str, ...] = ()
    tint: float = 0.0  # mean difference between the strongest and the weakest channel, 0 to 255


def display(film: "Dataset", stored: Stored) -> Displayed:
    """The film as a viewer shows it.

    Raises:
        UnreadableFilmError: a colour picture, or padding alone.
    """
    model = header_text(film, "PhotometricInterpretation").upper()
    if model.startswith(_COLOUR_MODELS) or stored.values.ndim == 3:
        return _of_colour(film, stored, model)
    if not model.startswith("MONOCHROME"):
        raise UnreadableFilmError(f"DICOM: the colour model {model} is not read")
    values = _rescaled(stored.values, film)
    is_film = ~_padding(stored, film)
    if not is_film.any():
        raise UnreadableFilmError("DICOM: holds padding alone")
    levels, notes = _windowed(values, values[is_film], film)
    if levels is None:
        low, high = _own_range(stored, is_film, film)
        levels = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    if model == "MONOCHROME1" or header_text(film, "PresentationLUTShape").upper() == "INVERSE":
        levels = 1 - levels
    levels[~is_film] = 0
    shown: np.ndarray = np.rint(255 * levels).astype(np.uint8)
    return Displayed(shown, notes)


@dataclass(frozen=True)
class _Table:
    """A lookup table: entry `n` is the output for the input `first + n`."""

    first: int
    entries: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        places = np.rint(values).astype(np.int64) - self.first
        found: np.ndarray = self.entries[np.clip(places, 0, self.entries.size - 1)]
        return found


def _table(film: "Dataset", keyword: str) -> _Table | None:
    """The first usable table of a sequence; None without one."""
    for item in header_items(film, keyword):
        count, first, *_ = [*map(int, header_numbers(item, "LUTDescriptor")), 0, 0]
        is_little = getattr(film, "original_encoding", (False, True))[1] is not False
        entries = _entries(header_value(item, "LUTData"), count or 2**16, is_little)
        if entries.size > 1 and np.ptp(entries) > 0:
            is_wrapped = header_integer(film, "PixelRepresentation", 0) and first >= 2**15
            return _Table(first - 2**16 if is_wrapped else first, entries)
    return None


def _entries(data: Any, count: int, is_little: bool) -> np.ndarray:
    """Entries of a table as float32, whatever their width; the length decides, not the header."""
    if data is None:
        return np.empty(0, np.float32)
    if isinstance(data, bytes):
        width = 1 if len(data) <= count + 1 else 4 if len(data) == 4 * count else 2
        kind = np.dtype(f"{'<' if is_little else '>'}u{width}")
        found = np.frombuffer(data[: len(data) // width * width], kind)
        found = found[:count] if width == 1 else found
    else:
        found = np.atleast_1d(np.asarray(data, np.int64))
        if count > 2 and found.size == (count + 1) // 2:  # two entries of 8 bits in one word
            found = found.astype("<u2").view(np.uint8)[:count]
    return found.astype(np.float32)


def _rescaled(values: np.ndarray, film: "Dataset") -> np.ndarray:
    """Values after the modality table or rescale, float32; without a usable slope, as stored."""
    table = _table(film, "ModalityLUTSequence")
    if table:
        return table(values)
    slope, intercept = _rescale(film)
    scaled: np.ndarray = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return scaled


def _rescale(film: "Dataset") -> tuple[float, float]:
    slope = next(iter(header_numbers(film, "RescaleSlope")), 0.0)
    return (slope, next(iter(header_numbers(film, "RescaleIntercept")), 0.0)) if slope else (1, 0)


def _padding(stored: Stored, film: "Dataset") -> np.ndarray:
    """Which pixels lie outside the film: those between padding value and range limit.

    The header's numbers are compared as stored, because files write a signed value as unsigned and
    the reverse. A range that covers the whole picture is reduced to its first value.
    """
    values = header_numbers(film, "PixelPaddingValue")
    if not values:
        return np.zeros(stored.values.shape, bool)
    limits = header_numbers(film, "PixelPaddingRangeLimit")
    for ends in ([values[0], *limits[:1]], values[:1]):
        found: np.ndarray = np.zeros(stored.values.shape, bool)
        for pixels in (stored.words, stored.values):
            low, high = (int(end) for end in (min(ends), max(ends)))
            width = int(film.BitsAllocated)
            low, high = sorted(_as_stored(end, width, stored.is_signed) for end in (low, high))
            found |= (pixels >= low) & (pixels <= high)
        if not found.all():
            break
    return found


def _as_stored(value: int, width: int, is_signed: bool) -> int:
    """`value` as the same `width` bits mean it, signed or not."""
    wrapped = value % (1 << width)
    is_negative = is_signed and wrapped >= 1 << (width - 1)
    return wrapped - (1 << width) if is_negative else wrapped


def _windowed(
    values: np.ndarray, film_values: np.ndarray, film: "Dataset"
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """What the first table or window that fits makes of `values`, 0 to 1; None without one.

    The note says that there were some and none fits.
    """
    some, is_tried = sample(film_values), False
    for transform in _transforms(film):
        is_tried = True
        if _fits(transform(some), some):
            return transform(values), ()
    return None, (WINDOW_NOT_USED,) if is_tried else ()


def _transforms(film: "Dataset") -> list[Any]:
    table = _table(film, "VOILUTSequence")
    found: list[Any] = []
    if table:
        low, span = float(table.entries.min()), float(np.ptp(table.entries))
        found.append(lambda values: (table(values) - low) / span)
    shape = header_text(film, "VOILUTFunction").upper()
    widths = header_numbers(film, "WindowWidth")
    for centre, width in zip(header_numbers(film, "WindowCenter"), widths, strict=False):
        if width > (0 if shape in ("SIGMOID", "LINEAR_EXACT") else 1):
            found.append(_Window(centre, width, shape))
    return found


@dataclass(frozen=True)
class _Window:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3: values to 0 … 1."""

    centre: float
    width: float
    shape: str

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self.shape == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -80, 80)
            return np.asarray(1 / (1 + np.exp(exponent)))
        centre, width = self.centre, self.width
        if self.shape != "LINEAR_EXACT":
            centre, width = centre - 0.5, width - 1
        return np.asarray(np.clip((values - centre) / width + 0.5, 0, 1))


def _fits(levels: np.ndarray, values: np.ndarray) -> bool:
    """Whether a film of `values` can be seen in its `levels`; a blank film always fits."""
    low, high = np.quantile(values, [0.005, 0.995])
    if high <= low:
        return True
    inside = float(((levels > 0.01) & (levels < 0.99)).mean())
    if inside < _LEAST_INSIDE:
        return False
    inner = levels[(values > low) & (values < high)]
    if inner.size and max((inner <= 0.01).mean(), (inner >= 0.99).mean()) > _MOST_CLIPPED:
        return False
    darkest, brightest = np.quantile(levels, [0.005, 0.995])
    return bool(brightest - darkest >= _LEAST_SHOWN or high - low < _PICTURE)


def _own_range(stored: Stored, is_film: np.ndarray, film: "Dataset") -> tuple[float, float]:
    """Black and white where no window fits, on the scale after the rescale."""
    table = _table(film, "ModalityLUTSequence")
    if table:
        values = table(sample(stored.values[is_film]))
        return display_range(values, max(int(values.max()).bit_length(), 8))
    slope, intercept = _rescale(film)
    ends = display_range(stored.values[is_film], stored.bits, stored.is_signed)
    low, high = sorted(slope * end + intercept for end in ends)
    return low, high


def _of_colour(film: "Dataset", stored: Stored, model: str) -> Displayed:
    """Grey levels of a film stored in colour: grey, tinted, or with coloured labels.

    Raises:
        UnreadableFilmError: more than a fifth of the picture has other colours than a tint.
    """
    pixels, depth = stored.values, stored.bits
    if model.startswith("PALETTE"):
        from pydicom.pixels.processing import apply_color_lut

        if "RedPaletteColorLookupTableDescriptor" not in film:
            raise UnreadableFilmError("DICOM: the palette of its colours is missing")
        pixels = apply_color_lut(stored.words, film)
        depth = 8 if pixels.max(initial=0) < 256 else 16
    pixels = (pixels >> max(depth - 8, 0)).astype(np.uint8)[..., :3]
    grey, coloured = _grey_and_colour(pixels)
    if coloured > _MOST_COLOUR:
        raise UnreadableFilmError("DICOM: a colour picture is no radiograph")
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return Displayed(grey, tint=round(float(spread.mean()), 2))


def _grey_and_colour(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Luminance of RGB `pixels` as Pillow computes it, and the share of them that is coloured.

    A tint (sepia, blue film base) is one hue for each grey level, and not a strong one.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    grey = np.asarray(image.convert("L"))
    small = image.reduce(max(1, min(image.size) // 512))
    channels = np.asarray(small).astype(np.float32)
    brightest, weakest = channels.max(axis=2), channels.min(axis=2)
    coloured = (brightest > _DARK) & (brightest - weakest > _STRONG * brightest)
    tone, *chroma = (np.asarray(part) for part in small.convert("YCbCr").split())
    tone = tone // _TONE_STEP
    for step in np.unique(tone):
        hues = np.stack([part[tone == step] for part in chroma], axis=1).astype(np.float32)
        coloured[tone == step] |= np.abs(hues - np.median(hues, axis=0)).max(axis=1) > _OFF_TONE
    return grey, float(coloured.mean())
