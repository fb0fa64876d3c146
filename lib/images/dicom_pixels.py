"""From the pixel data of a DICOM file to the values that were measured.

Headers promise what their pixels do not keep: depths, shifts, codings. What the data themselves say
comes first, DICOM's defaults (PS3.5, 10.1) where nothing is said.
"""

import os
import zlib  # noqa: F401  # before GDCM, whose own copy would be bound to Python's: the next PNG would be written wrongly
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.images.dicom_header import header_integer, header_text
from lib.run.errors import UnreadableFilmError

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_PIXELS_PER_BYTE = 300  # of a film, in any coding
_OVERLAY_SHARE = 0.05  # of the pixels, at most, that text and arrows cover
_ITEM = b"\xfe\xff\x00\xe0"  # begins encapsulated pixel data
_CODINGS = {  # newer than pydicom's dictionary
    "1.2.840.10008.1.2.4.110": "JPEG XL (lossless)",
    "1.2.840.10008.1.2.4.111": "JPEG XL (recompressed JPEG)",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
_STREAMS = {  # marker of a JPEG frame → the transfer syntax it belongs to
    0xC0: "1.2.840.10008.1.2.4.50",
    0xC1: "1.2.840.10008.1.2.4.51",
    0xC2: "1.2.840.10008.1.2.4.51",
    0xC3: "1.2.840.10008.1.2.4.57",
    0xF7: "1.2.840.10008.1.2.4.81",
}
_JPEG_2000 = "1.2.840.10008.1.2.4.91"
_GDCM_ALONE = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_RETIRED_JPEG = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in range(52, 67)) - {
    "1.2.840.10008.1.2.4.57"
}


@dataclass(frozen=True)
class Stored:
    """Pixels `(rows, columns)` of integers, or `(rows, columns, 3)` of colours."""

    values: np.ndarray  # foreign bits cleared, signed where they are
    words: np.ndarray  # as allocated, for comparison with the padding value
    bits: int  # that one value has
    is_signed: bool


def complete(film: "Dataset") -> None:
    """Set what the decoders need and the header leaves out or gets wrong, in place.

    Raises:
        UnreadableFilmError: no pixels.
    """
    if "PixelData" not in film:
        kinds = [name for name in ("FloatPixelData", "DoubleFloatPixelData") if name in film]
        what = "its pixels are floating-point numbers" if kinds else "its pixels are missing"
        raise UnreadableFilmError(f"DICOM: {what}")
    samples = header_integer(film, "SamplesPerPixel", 1)
    count = max(header_integer(film, "Rows", 0) * header_integer(film, "Columns", 0) * samples, 1)
    allocated = header_integer(film, "BitsAllocated", 0)
    if allocated not in (1, 8, 16, 32, 64):
        allocated = 8 if len(film.PixelData) < 2 * count else 16
    stored = header_integer(film, "BitsStored", allocated)
    stored = stored if 1 <= stored <= allocated else allocated
    high = header_integer(film, "HighBit", stored - 1)
    film.SamplesPerPixel, film.BitsAllocated, film.BitsStored = samples, allocated, stored
    film.HighBit = high if stored - 1 <= high < allocated else stored - 1
    film.PixelRepresentation = 1 if header_integer(film, "PixelRepresentation", 0) == 1 else 0
    model = header_text(film, "PhotometricInterpretation").upper()
    if samples == 3 and (not model or model.startswith("MONO")):
        model = "RGB"
    film.PhotometricInterpretation = model or "MONOCHROME2"
    if samples == 3:
        film.PlanarConfiguration = header_integer(film, "PlanarConfiguration", 0)
    if "NumberOfFrames" in film:
        del film.NumberOfFrames  # one, or refused before
    _settle_coding(film)


def require_plausible(film: "Dataset") -> None:
    """Refuse sizes that the amount of data contradicts, before memory is taken for them."""
    rows, columns = int(film.Rows), int(film.Columns)
    if rows * columns > MOST_PIXELS_PER_BYTE * len(film.PixelData):
        raise UnreadableFilmError("DICOM: its data are far too short for its size")
    if film.file_meta.TransferSyntaxUID.is_encapsulated:
        size = _jpeg_frame(_first_frame(film))[1]
        if size not in (None, (rows, columns)):
            raise UnreadableFilmError("DICOM: its header and its pixels disagree about the size")


def decode(film: "Dataset", path: Path) -> Stored:
    """Pixels as they were measured; `film` is `complete`.

    Raises:
        UnreadableFilmError: a coding that no decoder here reads, by its name.
    """
    words = _words(film, path)
    bits, is_signed = int(film.BitsStored), bool(film.PixelRepresentation)
    if words.ndim == 3 or words.dtype.kind not in "iu" or not 1 <= bits <= 32:
        return Stored(words, words, bits, is_signed)
    wide: np.ndarray = words.astype(np.int32 if bits <= 16 else np.int64)
    below = int(film.HighBit) + 1 - bits
    if film.file_meta.TransferSyntaxUID.is_encapsulated or not (wide >> bits).any():
        below = 0
    if not below and not is_signed and not _has_overlay_bits(film):
        bits = _held_bits(wide, bits, int(film.BitsAllocated))
    wide = (wide >> below) & ((1 << bits) - 1)
    sign = 1 << (bits - 1)
    return Stored((wide ^ sign) - sign if is_signed else wide, words, bits, is_signed)


def _held_bits(words: np.ndarray, bits: int, allocated: int) -> int:
    """The depth of unsigned `words`: more than `bits` where the next bit varies as a film's does.

    A bit that is set everywhere, or in a few lines of text, is no part of the film.
    """
    if allocated > 16 or bits >= allocated:
        return bits
    share = float(((words >> bits) & 1).mean())
    if not _OVERLAY_SHARE < share < 1 - _OVERLAY_SHARE:
        return bits
    return min(int(words.max()).bit_length(), allocated)


def _has_overlay_bits(film: "Dataset") -> bool:
    """Whether an overlay lies in bits of the pixels, as old files have it (group 60xx)."""
    return any((group, 0x0010) in film for group in range(0x6000, 0x6020, 2))


def _words(film: "Dataset", path: Path) -> np.ndarray:
    from pydicom.pixels.utils import pixel_array

    syntax = film.file_meta.TransferSyntaxUID
    if (syntax == _JPEG_EXTENDED and film.BitsStored > 8) or syntax in _RETIRED_JPEG:
        return _by_gdcm(path, int(film.SamplesPerPixel))
    plugin = "gdcm" if syntax in _GDCM_ALONE else ""
    return pixel_array(film, correct_unused_bits=False, decoding_plugin=plugin)


def _by_gdcm(path: Path, samples: int) -> np.ndarray:
    """JPEG of 12 bits and retired JPEG processes, which pydicom does not ask GDCM for."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(os.fsdecode(path))
    if not reader.Read():
        raise ValueError("GDCM cannot read it")
    image = reader.GetImage()
    columns, rows = image.GetDimension(0), image.GetDimension(1)
    kind = np.uint8 if image.GetPixelFormat().GetBitsAllocated() <= 8 else np.uint16
    data = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), kind)
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    return data[: rows * columns * samples].reshape(shape)


def _settle_coding(film: "Dataset") -> None:
    """Set the transfer syntax: DICOM's default where none is named, the stream's own where the
    named one contradicts it.

    Raises:
        UnreadableFilmError: a coding without a decoder, by its name.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if getattr(film, "file_meta", None) is None:
        film.file_meta = FileMetaDataset()
    named = UID(header_text(film.file_meta, "TransferSyntaxUID"))
    syntax = named
    if not named:
        is_implicit, is_little = film.original_encoding
        explicit = ExplicitVRLittleEndian if is_little is not False else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if is_implicit else explicit
    if bytes(film.PixelData[:4]) == _ITEM and (not named or not _is_encapsulated(named)):
        marker, _ = _jpeg_frame(_first_frame(film))
        syntax = UID(_STREAMS.get(marker or 0, _JPEG_2000 if marker == 0x51 else syntax))
    try:
        is_read = syntax in _RETIRED_JPEG or get_decoder(syntax).is_available
    except NotImplementedError:
        is_read = False
    if not is_read:
        name = _CODINGS.get(syntax) or (syntax.name if syntax.name != syntax else "")
        known = f"{name} ({syntax})" if name else f"a private coding ({syntax})"
        raise UnreadableFilmError(
            f"DICOM: coded as {known}, which is not read; convert it to an uncompressed file, "
            "JPEG 2000 or JPEG-LS"
        )
    film.file_meta.TransferSyntaxUID = syntax


def _is_encapsulated(syntax: str) -> bool:
    from pydicom.uid import UID

    try:
        return UID(syntax).is_encapsulated
    except ValueError:  # private, or newer than pydicom
        return True


def _first_frame(film: "Dataset") -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(film.PixelData, 0, number_of_frames=1)


def _jpeg_frame(stream: bytes) -> tuple[int | None, tuple[int, int] | None]:
    """The frame marker of a JPEG or JPEG-LS stream, and the rows and columns that it names.

    0x51 and no size for JPEG 2000, None for other codings. Source: ITU-T T.81, B.2.2; T.800, A.5.
    """
    if stream[:4] == b"\xff\x4f\xff\x51" or stream[4:8] == b"jP  ":
        return 0x51, None
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF and stream[:2] == b"\xff\xd8":
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = stream[place + 5 : place + 7], stream[place + 7 : place + 9]
            return marker, (int.from_bytes(rows), int.from_bytes(columns))
        place += 2 + int.from_bytes(stream[place + 2 : place + 4])
    return None, None
