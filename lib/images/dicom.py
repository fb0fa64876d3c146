"""DICOM files of chest films: grey levels as a viewer shows them, header fields on request.

`dicom_header` decides whether a file is one frontal chest film, `dicom_pixels` decodes it,
`dicom_display` turns its values into grey levels. pydicom is imported when the first DICOM file is
read, and never heard: its warnings and log lines quote the header.
"""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.images import dicom_display, dicom_header, dicom_pixels
from lib.run.errors import UnreadableFilmError, UsageError

HEAD = 132  # bytes that tell a DICOM file: 128 of preamble and the letters DICM
_FIRST_GROUPS = (0x02, 0x08, 0x10, 0x18, 0x20, 0x28)  # of a file without a preamble
_LONGEST_FIRST_VALUE = 2**12  # bytes

# Filters of the process, not of a block: films are read on threads, which a block would race with.
warnings.filterwarnings("ignore", module="pydicom")
for _name in ("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.utils"):
    logging.getLogger(_name).addFilter(lambda _: False)  # pydicom resets levels, not filters


@dataclass(frozen=True)
class Radiograph:
    """A DICOM film as decoded."""

    levels: np.ndarray  # (rows, columns) uint8, 0 black
    bits: int  # that a pixel has stored
    tint: float = 0.0  # mean difference between the strongest and the weakest channel, 0 to 255
    notes: tuple[str, ...] = ()  # why a person should look at it
    maker: str = ""  # of the machine
    view: str = ""  # position, such as PA


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head`, `HEAD` bytes of it, is DICOM.

    Old archives leave out the preamble: then the first element of the header must be plausible,
    group 2 to 28 (hexadecimal) in either byte order with a value representation or a short length.
    """
    if head[128:132] == b"DICM":
        return True
    is_big = head[:1] == b"\0"
    group = int.from_bytes(head[:2], "big" if is_big else "little")
    if len(head) < 8 or group not in _FIRST_GROUPS:
        return False
    if head[4:6].isalpha() and head[4:6].isupper():
        return True
    length = int.from_bytes(head[4:8], "big" if is_big else "little")
    return not is_big and length % 2 == 0 and length <= _LONGEST_FIRST_VALUE


def read(path: Path, max_pixels: int, trust_headers: bool = False) -> Radiograph:
    """A chest film as a viewer shows it at first.

    `trust_headers` reads films whose headers do not say that they are chest films.

    Raises:
        UnreadableFilmError: damaged, a coding without a decoder, or no single frontal projection
        radiograph of a chest as far as the header tells.
    """
    from pydicom import dcmread

    try:
        header = dcmread(path, force=True, stop_before_pixels=True)
        notes = dicom_header.require_chest_film(header, max_pixels, trust_headers)
        film = dcmread(path, force=True)
        dicom_pixels.complete(film)
        dicom_pixels.require_plausible(film)
        stored = dicom_pixels.decode(film, path)
        shown = dicom_display.display(film, stored)
        maker, view = dicom_header.machine_of(header)
        return Radiograph(
            shown.levels, stored.bits, shown.tint, (*notes, *shown.notes), maker, view
        )
    except (UnreadableFilmError, MemoryError):
        raise
    except Exception as error:  # its text may quote the header
        raise UnreadableFilmError(
            f"DICOM: damaged, its header or pixels cannot be decoded ({type(error).__name__})"
        ) from None


def tags(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """The values of `keywords` in a file's header as texts; empty where the file has none or is no
    DICOM file.
    """
    found = dict.fromkeys(keywords, "")
    try:
        if not path.is_file():  # to open a pipe would wait for whoever writes to it
            return found
        with open(path, "rb") as file:
            if not is_dicom(file.read(HEAD)):
                return found
        from pydicom import dcmread

        header = dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(keywords))
        return found | {name: dicom_header.header_text(header, name) for name in keywords}
    except Exception:  # a damaged header: the film's own row says so
        return found


def patient(path: Path) -> str:
    """A pseudonym of the patient: the same for the same PatientID; empty where the header has none.
    Not the id itself.
    """
    found = tags(path, ["PatientID", "IssuerOfPatientID"])
    if not found["PatientID"].strip():
        return ""
    identity = "\0".join(found.values()).encode("utf-8", "surrogateescape")
    return f"dicom-{hashlib.sha256(identity).hexdigest()[:12]}"


def check_keywords(keywords: Sequence[str]) -> None:
    """Refuse what is no keyword of DICOM's dictionary.

    Raises:
        UsageError: with the nearest keyword.
    """
    if not keywords:
        return  # without pydicom, whose import takes 0.2 s
    from pydicom.datadict import keyword_dict

    from lib.run.suggest import did_you_mean

    for keyword in keywords:
        if keyword not in keyword_dict or keyword == "PixelData":
            hint = did_you_mean(keyword, list(keyword_dict))
            raise UsageError(f"--dicom_tags {keyword}: there is no such DICOM keyword.{hint}")
