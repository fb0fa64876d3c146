"""DICOM: from the file of a chest film to the grey levels that a viewer would show; anything else
with the reason why not.

Nothing of the header but what the film is (modality, body part, view, size) ever appears in a
message.
"""

import hashlib
import logging
import os
import re
import warnings
import zlib  # noqa: F401  # before GDCM, whose own copy would be bound into the system's: the next PNG would be written amiss
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.run.errors import UnreadableFilmError, UsageError

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_PIXELS_PER_BYTE = 300
HEAD = 132  # bytes that tell a DICOM file: 128 of preamble and the letters DICM
_MODALITIES = {"CR", "DX", "RG"}  # computed and digital radiography, film digitised
_UNCERTAIN_MODALITIES = {
    "OT",
    "SC",
    "RF",
    "XA",
    "PX",
    "",
}  # may hold a chest film, if the header says chest
_CHEST = re.compile(r"CHEST|THORA|TORAX|LUNG|THX|\bRIB", re.IGNORECASE)
_CHEST_CODES = {
    "T-D3000",
    "T-28000",
    "51185008",
    "39607008",
    "43799004",
}  # SNOMED: thorax, lung, thoracic cavity
_LATERAL = re.compile(
    r"^(LL|RL|LLD|RLD|LLO|RLO|LAO|RAO|LPO|RPO)$|\bLAT|LATERAL|OBLIQUE|\bOBL\b|DECUB", re.IGNORECASE
)
_SAID = re.compile(r"[^A-Z0-9 ]")
_FIRST_ELEMENTS = {bytes([2, 0, place, 0]) for place in (0, 1)} | {
    bytes([8, 0, place, 0]) for place in (0, 1, 5, 8, 22)
}
_EXTREME = 1e12  # a stored value beyond any window


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head`, `HEAD` bytes of it, is DICOM; older files have no
    preamble.
    """
    return head[128:132] == b"DICM" or head[:4] in _FIRST_ELEMENTS


def read(path: Path, max_pixels: int) -> tuple[np.ndarray, int]:
    """Grey levels `(rows, columns) uint8`, 0 black, as a viewer shows them at first, and the bits
    that a pixel has stored.

    Modality rescale, padding, window or value-of-interest table (without one: the range of the
    film), inversion of MONOCHROME1, in this order. Source: DICOM PS3.3, C.7.6.3, C.11.1, C.11.2;
    PS3.4, N.2.

    Raises:
        UnreadableFilmError: damaged; or no single frontal projection radiograph of a chest, as far
        as the header tells.
    """
    with _silent():
        from pydicom import dcmread

        try:
            _require_chest_film(dcmread(path, force=True, stop_before_pixels=True), max_pixels)
            film = dcmread(path, force=True)
            _require_plausible_data(film)
            return _displayed(film, path), int(film.BitsStored)
        except (UnreadableFilmError, MemoryError):
            raise
        except Exception as error:  # its text may quote the header
            raise UnreadableFilmError(
                f"DICOM: damaged, or a coding that is not read ({type(error).__name__})"
            ) from None


def tags(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """The values of `keywords` in a file's header as texts; empty where the file has none or is no
    DICOM file.
    """
    found = dict.fromkeys(keywords, "")
    with _silent():
        from pydicom import dcmread

        try:
            with open(path, "rb") as file:
                if not is_dicom(file.read(HEAD)):
                    return found
            header = dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=list(keywords)
            )
            return found | {name: _text(header.get(name)) for name in keywords}
        except Exception:  # a damaged header: the film's own row says so
            return found


def patient(path: Path) -> str:
    """A pseudonym of the patient: the same for the same PatientID; empty where the header has none.
    Not the id itself.
    """
    found = tags(path, ["PatientID", "IssuerOfPatientID"])
    if not found["PatientID"].strip():
        return ""
    return (
        "dicom-"
        + hashlib.sha256("\0".join(found.values()).encode("utf-8", "surrogateescape")).hexdigest()[
            :12
        ]
    )


def check_keywords(keywords: Sequence[str]) -> None:
    """Refuse what is no keyword of DICOM's dictionary.

    Raises:
        UsageError: with the nearest keyword.
    """
    from pydicom.datadict import keyword_dict

    from lib.run.suggest import did_you_mean

    for keyword in keywords:
        if keyword not in keyword_dict or keyword == "PixelData":
            hint = did_you_mean(keyword, list(keyword_dict))
            raise UsageError(f"--dicom_tags {keyword}: there is no such DICOM keyword.{hint}")


@contextmanager
def _silent() -> Iterator[None]:
    """pydicom's warnings and log lines quote the header."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value)
    return "\\".join(str(part) for part in value)


def _said(film: "Dataset", keyword: str) -> str:
    """A code of the header, upper case, without anything that is no letter, digit or space."""
    return _SAID.sub(" ", _text(film.get(keyword)).upper())[:32].strip()


def _codes(film: "Dataset", keyword: str) -> str:
    """Values and meanings of a code sequence, in one text."""
    items = film.get(keyword) or []
    return " ".join(f"{item.get('CodeValue', '')} {item.get('CodeMeaning', '')}" for item in items)


def _require_chest_film(film: "Dataset", max_pixels: int) -> None:
    modality, part = _said(film, "Modality"), _said(film, "BodyPartExamined")
    if "SOPClassUID" not in film and "Modality" not in film and "Rows" not in film:
        raise UnreadableFilmError("DICOM: the header is damaged or holds nothing about an image")
    if modality not in _MODALITIES | _UNCERTAIN_MODALITIES:
        raise UnreadableFilmError(f"DICOM: modality {modality} is no projection radiograph")
    if "Rows" not in film or "Columns" not in film:
        raise UnreadableFilmError("DICOM: holds no image")
    region = _codes(film, "AnatomicRegionSequence")
    is_chest = bool(_CHEST.search(f"{part} {region}")) or any(
        code in region.split() for code in _CHEST_CODES
    )
    if not is_chest and (part or region.strip()):
        raise UnreadableFilmError(f"DICOM: body part {part or 'by its code'} is not a chest")
    if not is_chest and modality in _UNCERTAIN_MODALITIES:
        raise UnreadableFilmError(
            f"DICOM: modality {modality or 'missing'}, and nothing says that it is a chest film"
        )
    _require_frontal(film)
    frames = int(film.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableFilmError(f"DICOM: holds {frames} frames; one film per file is needed")
    rows, columns = int(film.Rows), int(film.Columns)
    if rows < 1 or columns < 1:
        raise UnreadableFilmError("DICOM: its image has no pixels")
    if rows * columns > max_pixels:
        raise UnreadableFilmError(
            f"DICOM: {columns} x {rows} pixels are more than the limit of {max_pixels:,}"
        )


def _require_plausible_data(film: "Dataset") -> None:
    """No coding packs this many pixels of a film into a byte: sizes that lie would cost time and
    memory to refute.
    """
    if "PixelData" not in film:
        raise UnreadableFilmError("DICOM: its pixels are missing")
    if int(film.Rows) * int(film.Columns) > MOST_PIXELS_PER_BYTE * len(film.PixelData):
        raise UnreadableFilmError("DICOM: its data are far too short for its size")
    if film.file_meta.TransferSyntaxUID.is_encapsulated:
        from pydicom.encaps import get_frame

        size = _jpeg_size(get_frame(film.PixelData, 0, number_of_frames=1))
        if size not in (None, (int(film.Rows), int(film.Columns))):
            raise UnreadableFilmError("DICOM: its header and its pixels disagree about the size")


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG or JPEG-LS stream names itself; None for other codings (ITU-T
    T.81, B.2.2).
    """
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF and stream[:2] == b"\xff\xd8":
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return int.from_bytes(stream[place + 5 : place + 7]), int.from_bytes(
                stream[place + 7 : place + 9]
            )
        place += 2 + int.from_bytes(stream[place + 2 : place + 4])
    return None


def _require_frontal(film: "Dataset") -> None:
    view = _said(film, "ViewPosition")
    if _LATERAL.search(view) or _LATERAL.search(_codes(film, "ViewCodeSequence")):
        raise UnreadableFilmError(f"DICOM: view {view or 'by its code'} is not frontal")
    if view:
        return
    along_rows = _said(film, "PatientOrientation")[:1]
    if along_rows in ("A", "P"):  # rows that run from back to front are those of a lateral film
        raise UnreadableFilmError("DICOM: by its orientation the view is lateral")
    if any(
        _LATERAL.search(_said(film, keyword)) for keyword in ("SeriesDescription", "ProtocolName")
    ):
        raise UnreadableFilmError("DICOM: by its description the view is not frontal")


def _displayed(film: "Dataset", path: Path) -> np.ndarray:
    from pydicom.pixels.processing import apply_modality_lut

    if (
        _said(film, "PhotometricInterpretation") == "PALETTE COLOR"
    ):  # its values are places in a table, no grey levels
        raise UnreadableFilmError("DICOM: an image in the colours of a palette is no radiograph")
    stored = _stored_values(film, path)
    if stored.ndim == 3:
        return _grey_of_colour(stored)
    values = apply_modality_lut(stored, film).astype(np.float32)
    is_film = ~_padding(stored, film)
    if not is_film.any():
        raise UnreadableFilmError("DICOM: holds padding alone")
    levels = _windowed(values, film)
    if levels is None or _is_washed_out(levels[is_film], values[is_film]):
        low, high = _range(values[is_film], film)
        levels = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    if (
        _said(film, "PhotometricInterpretation") == "MONOCHROME1"
        or _said(film, "PresentationLUTShape") == "INVERSE"
    ):
        levels = 1 - levels
    levels[~is_film] = 0
    shown: np.ndarray = np.rint(255 * levels).astype(np.uint8)
    return shown


def _stored_values(film: "Dataset", path: Path) -> np.ndarray:
    """The pixels as they were measured: bits that are not theirs (old overlays) cleared, signed
    where they are.
    """
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import JPEGExtended12Bit, JPEGLSTransferSyntaxes

    bits, syntax = int(film.BitsStored), film.file_meta.TransferSyntaxUID
    is_jpeg_12 = syntax == JPEGExtended12Bit and bits > 8
    pixels = (
        _by_gdcm(path)
        if is_jpeg_12
        else pixel_array(
            film,
            correct_unused_bits=False,
            decoding_plugin="gdcm" if syntax in JPEGLSTransferSyntaxes else "",
        )
    )
    if pixels.ndim == 3 or pixels.dtype.kind == "f" or not 1 <= bits <= 32:
        return pixels
    below = 0 if syntax.is_encapsulated else max(int(film.get("HighBit", bits - 1)) + 1 - bits, 0)
    wide: np.ndarray = pixels.astype(np.int32) if bits <= 16 else pixels.astype(np.int64)
    wide = (wide >> below) & ((1 << bits) - 1)
    sign = 1 << (bits - 1)
    return (wide ^ sign) - sign if int(film.get("PixelRepresentation", 0)) else wide


def _by_gdcm(path: Path) -> np.ndarray:
    """JPEG of 12 bits, which pydicom does not ask GDCM for."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(os.fsdecode(path))
    if not reader.Read():
        raise ValueError("GDCM cannot read it")
    image = reader.GetImage()
    columns, rows = image.GetDimension(0), image.GetDimension(1)
    return np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), np.uint16)[
        : rows * columns
    ].reshape(rows, columns)


def _grey_of_colour(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or int(np.ptp(pixels.astype(np.int16), axis=2).max()) > 3:
        raise UnreadableFilmError("DICOM: a colour image is no radiograph")
    return pixels[..., 0]


def _padding(stored: np.ndarray, film: "Dataset") -> np.ndarray:
    """Which pixels lie outside the film (PS3.3, C.7.5.1.1.2)."""
    value = film.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = film.get("PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(limit)))
    found: np.ndarray = (stored >= low) & (stored <= high)
    return found


def _windowed(values: np.ndarray, film: "Dataset") -> np.ndarray | None:
    """What table or window make of the values, 0 to 1; None without either, and where it makes no
    sense.
    """
    from pydicom.pixels.processing import apply_voi, apply_windowing

    levels: np.ndarray | None = None
    try:
        if film.get("VOILUTSequence"):
            item = film.VOILUTSequence[0]
            shown = apply_voi(np.rint(values).astype(np.int64), film).astype(np.float64)
            levels = np.clip(shown / (2 ** int(item.LUTDescriptor[2]) - 1), 0, 1)
        elif film.get("WindowWidth") is not None and film.get("WindowCenter") is not None:
            low, high = apply_windowing(np.array([-_EXTREME, _EXTREME]), film)
            levels = np.clip((apply_windowing(values, film) - low) / (high - low), 0, 1)
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        NotImplementedError,
        ZeroDivisionError,
    ):
        return None
    return levels


def _is_washed_out(levels: np.ndarray, values: np.ndarray) -> bool:
    """A window beside the film: hardly a pixel keeps a level of its own although the film has many."""
    inside = float(((levels > 0.01) & (levels < 0.99)).mean())
    return not np.isfinite(levels).all() or (inside < 0.02 and float(values.std()) > 0)


def _range(values: np.ndarray, film: "Dataset") -> tuple[float, float]:
    """Ends of the grey scale where the file names none: all stored bits if the film uses most of
    them, else its own range.
    """
    from pydicom.pixels.processing import apply_modality_lut

    low, high = np.quantile(values, [0.005, 0.995])
    bits, is_signed = int(film.BitsStored), int(film.get("PixelRepresentation", 0))
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1])
    if "ModalityLUTSequence" in film:
        return float(low), float(high)
    first, last = sorted(float(end) for end in apply_modality_lut(ends, film))
    return (
        (first, last)
        if bits <= 8 or high - low >= 0.6 * (last - first)
        else (float(low), float(high))
    )
