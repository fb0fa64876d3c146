"""What a DICOM header says of its image: is it one frontal projection radiograph of a chest?

A header may confirm it, say nothing or contradict. Contradictions are refused. Silence is accepted
from radiography machines, and from any source whose headers the caller trusts.

Messages hold what the film is (modality, body part, view, size), nothing that tells the patient.
"""

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib.images import dicom_terms as terms
from lib.run.errors import UnreadableFilmError

if TYPE_CHECKING:
    from pydicom import Dataset

TRUST = "if these are chest films, --trust_headers (TRUST_HEADERS=1) reads them"
RAW_DATA = "raw detector data (FOR PROCESSING), not a picture for display"
TURNED = "the header says that the picture is turned"
_FILM_DESCRIPTIONS = ("ProtocolName", "SeriesDescription", "AcquisitionDeviceProcessingDescription")
_REGION_DESCRIPTIONS = (
    *_FILM_DESCRIPTIONS,
    "StudyDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
)
_LONGEST_VALUE = 64  # characters of a header's value that a message repeats


def text_of(value: Any) -> str:
    """A header's value as one text, several values separated by backslashes."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.rstrip(b"\0 ").decode("latin-1")
    if hasattr(value, "iterall"):  # an item of a sequence
        return " ".join(text_of(element.value) for element in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(text_of(part) for part in value)
    return _repaired(str(value).rstrip("\0 "))


def header_value(film: "Dataset", keyword: str) -> Any:
    """A header's value; the bytes as stored where pydicom cannot interpret them."""
    from pydicom.datadict import tag_for_keyword

    try:
        return film.get(keyword)
    except Exception:  # an invalid value must not hide the rest of the header
        tag = tag_for_keyword(keyword)
        item = None if tag is None else film.get_item(tag)
        return None if item is None else item.value


def header_text(film: "Dataset", keyword: str) -> str:
    """A header's value as text without surrounding spaces."""
    return text_of(header_value(film, keyword)).strip()


def header_numbers(film: "Dataset", keyword: str) -> list[float]:
    """The finite numbers of a header's value; a decimal comma is read as a point."""
    value = header_value(film, keyword)
    if isinstance(value, bytes) and not value.rstrip(b"\0 ").decode("latin-1").isprintable():
        return [float(number) for number in struct.unpack(f"<{len(value) // 2}H", value)]
    found = []
    for part in text_of(value).split("\\"):
        try:
            number = float(part.strip(" \0").replace(",", "" if "." in part else "."))
        except ValueError:
            continue
        if math.isfinite(number):
            found.append(number)
    return found


def header_items(film: "Dataset", keyword: str) -> Sequence["Dataset"]:
    """The items of a sequence; none where the header has something else."""
    value = header_value(film, keyword)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return ()
    return [item for item in value if hasattr(item, "iterall")]


def header_integer(film: "Dataset", keyword: str, default: int) -> int:
    """The first number of a header's value, or `default`."""
    return int(next(iter(header_numbers(film, keyword)), default))


def require_chest_film(film: "Dataset", max_pixels: int, trust: bool) -> tuple[str, ...]:
    """Refuse what is no single frontal chest film; returns what a reviewer should know of the rest.

    `trust` accepts headers that say nothing of modality, body part or view.

    Raises:
        UnreadableFilmError: with the value that contradicts, as it stands in the file.
    """
    if all(keyword not in film for keyword in ("SOPClassUID", "Modality", "Rows", "PixelData")):
        raise UnreadableFilmError("DICOM: the header is damaged or holds nothing about an image")
    modality, is_certain = _require_radiograph(film)
    if "Rows" not in film or "Columns" not in film:
        raise UnreadableFilmError("DICOM: holds no image")
    is_chest = _require_no_other_region(film)
    if not (is_chest or is_certain or trust):
        raise UnreadableFilmError(
            f"DICOM: modality {_quoted(modality) or 'missing'}, and nothing says that it is a "
            f"chest film; {TRUST}"
        )
    _require_frontal(film)
    _require_size(film, max_pixels)
    return _notes(film)


def machine_of(film: "Dataset") -> tuple[str, str]:
    """The maker of the machine and the view position; empty where the header does not say."""
    maker, view = (_plain(header_text(film, name)) for name in ("Manufacturer", "ViewPosition"))
    return maker, view.upper()


def _plain(value: str) -> str:
    """On one line, without control characters, cut to the length that the standard allows."""
    one_line = "".join(letter for letter in " ".join(value.split()) if letter.isprintable())
    return one_line[:_LONGEST_VALUE]


def _require_radiograph(film: "Dataset") -> tuple[str, bool]:
    """The modality, and whether it is one of radiography."""
    stated, sop_class = header_text(film, "Modality"), header_text(film, "SOPClassUID")
    found = set(terms.words(stated))
    if found & (terms.CERTAIN_MODALITIES | terms.UNCERTAIN_MODALITIES):
        return stated, bool(found & terms.CERTAIN_MODALITIES)
    if not terms.says_nothing(stated):
        raise UnreadableFilmError(f"DICOM: modality {_quoted(stated)} is no projection radiograph")
    if sop_class in terms.RADIOGRAPH_CLASSES:
        return terms.RADIOGRAPH_CLASSES[sop_class], True
    if sop_class.startswith("1.2.840.10008.") and sop_class not in terms.UNSPECIFIC_CLASSES:
        from pydicom.uid import UID

        raise UnreadableFilmError(
            f"DICOM: {_quoted(UID(sop_class).name)} is no projection radiograph"
        )
    return stated, False


def _require_no_other_region(film: "Dataset") -> bool:
    """Whether the header names the chest.

    Raises:
        UnreadableFilmError: it names another region.
    """
    part, region = header_text(film, "BodyPartExamined"), _codes(film, "AnatomicRegionSequence")
    if terms.names_chest(part) or terms.names_chest(region):
        return True
    if terms.CHEST_CODES & set(region.split()):
        return True
    if not terms.says_nothing(part):
        raise UnreadableFilmError(f"DICOM: body part {_quoted(part)} is not a chest")
    if not terms.says_nothing(region):
        raise UnreadableFilmError(
            f"DICOM: body part {_quoted(region)} (by its code) is not a chest"
        )
    if any(terms.names_chest(header_text(film, keyword)) for keyword in _REGION_DESCRIPTIONS):
        return True
    if any(terms.names_other_region(header_text(film, keyword)) for keyword in _FILM_DESCRIPTIONS):
        raise UnreadableFilmError("DICOM: by its description the body part is not a chest")
    return False


def _require_frontal(film: "Dataset") -> None:
    """The view position decides, then the view's code, the orientation, the descriptions."""
    view, code = header_text(film, "ViewPosition"), _codes(film, "ViewCodeSequence")
    verdict = terms.names_no_frontal_view(view, is_position=True)
    if verdict:
        raise UnreadableFilmError(f"DICOM: view {_quoted(view)} is not frontal")
    if terms.VIEW_CODES & set(code.split()) or terms.names_no_frontal_view(code):
        raise UnreadableFilmError(f"DICOM: view {_quoted(code)} (by its code) is not frontal")
    if verdict is False:
        return
    if header_text(film, "PatientOrientation")[:1].upper() in ("A", "P"):  # of a row: front to back
        raise UnreadableFilmError("DICOM: by its orientation the view is lateral")
    if any(
        terms.names_no_frontal_view(header_text(film, keyword)) for keyword in _FILM_DESCRIPTIONS
    ):
        raise UnreadableFilmError("DICOM: by its description the view is not frontal")


def _require_size(film: "Dataset", max_pixels: int) -> None:
    frames = header_integer(film, "NumberOfFrames", 1)
    if frames > 1:
        raise UnreadableFilmError(f"DICOM: holds {frames} frames; one film per file is needed")
    rows, columns = header_integer(film, "Rows", 0), header_integer(film, "Columns", 0)
    if rows < 1 or columns < 1:
        raise UnreadableFilmError("DICOM: its image has no pixels")
    if rows * columns > max_pixels:
        raise UnreadableFilmError(
            f"DICOM: {columns} x {rows} pixels are more than the limit of {max_pixels:,}"
        )


def _notes(film: "Dataset") -> tuple[str, ...]:
    notes = []
    if (
        "PROCESSING" in header_text(film, "PresentationIntentType").upper()
        or header_text(film, "SOPClassUID") == terms.DX_FOR_PROCESSING
    ):
        notes.append(RAW_DATA)
    along_rows, *along_columns = header_text(film, "PatientOrientation").upper().split("\\")
    if along_rows[:1] in ("F", "H") or "".join(along_columns)[:1] == "H":
        notes.append(TURNED)
    return tuple(notes)


def _codes(film: "Dataset", keyword: str) -> str:
    """Values and meanings of a code sequence, in one text."""
    return " ".join(
        f"{header_text(item, 'CodeValue')} {header_text(item, 'CodeMeaning')}"
        for item in header_items(film, keyword)
    )


def _quoted(value: str) -> str:
    """A value as it stands in the file, cut to a length that a message can hold."""
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


def _repaired(value: str) -> str:
    """UTF-8 that was read as Latin-1, because the file names no or another character set."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value
