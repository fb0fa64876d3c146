"""What a DICOM header says of its film: the words of hospitals and collections, and silence."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from jobs import ingest
from lib.dataset.manifest import read_manifest
from lib.images import dicom, dicom_terms
from lib.images.decode import decode_film, read_grey
from lib.images.dicom_header import RAW_DATA, TURNED
from lib.run.errors import UnreadableFilmError
from tests import formats
from tests.conftest import LITE0, environment, film, run

FILM = formats.smooth_film((96, 80))
SILENT: dict[str, Any] = {
    "SOPClassUID": None,
    "Modality": None,
    "BodyPartExamined": None,
    "ViewPosition": None,
}


def _each(values: str) -> list[str]:
    return values.split("|")


@pytest.fixture(autouse=True)
def _write_what_machines_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydicom refuses to write some of the values that it reads."""
    monkeypatch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)


def _read(tmp_path: Path, *, trust: bool = False, **header: Any) -> np.ndarray:
    return read_grey(formats.dicom(tmp_path / "a.dcm", FILM, **header), 64, trust_headers=trust)


def _refusal(tmp_path: Path, *, trust: bool = False, **header: Any) -> str:
    with pytest.raises(UnreadableFilmError) as refusal:
        _read(tmp_path, trust=trust, **header)
    return str(refusal.value)


@pytest.mark.parametrize(
    "part",
    _each(
        "CHEST|Chest PA|PORT CHEST|CHEST_LUNG|2- TORAX|THORAX|TORAX|TÓRAX|TÒRAX|T?RAX|T_RAX|TORACE|"
        "POITRINE|BRUST|BRUSTKORB|LUNGE|POUMONS|Pecho|PEITO|CXR|THX|RIBS|HRUDNÍK|BRÖST|BRYST|"
        "PŁUCA|KLATKA PIERSIOWA|MELLKAS|GÖĞÜS|AKCİĞER|NGỰC|PHỔI|ГРУДНАЯ КЛЕТКА|ОГК|ЛЁГКИЕ|ΘΩΡΑΚΑΣ|"
        "胸部|肺部|흉부|가슴|صدر|חזה|ทรวงอก|छाती"
    ),
)
def test_a_chest_is_named_in_the_words_of_hospitals(part: str) -> None:
    assert dicom_terms.names_chest(part)
    assert not dicom_terms.says_nothing(part)


@pytest.mark.parametrize("page", ["utf-8", "cp850", "cp1252", "mac_roman"])
@pytest.mark.parametrize("part", ["TÓRAX", "HRUDNÍK", "BRÖST"])
def test_ruined_accents_still_name_the_chest(tmp_path: Path, part: str, page: str) -> None:
    try:
        stored = part.encode(page)
    except UnicodeEncodeError:
        pytest.skip(f"{page} has no such letter")
    path = formats.dicom(tmp_path / "a.dcm", FILM, BodyPartExamined="X" * len(stored))
    path.write_bytes(path.read_bytes().replace(b"X" * len(stored), stored))
    assert read_grey(path, 64).std() > 10


@pytest.mark.parametrize("page", ["cp1251", "koi8_r", "cp866", "utf-8"])
def test_words_in_other_scripts_are_read_in_any_code_page(page: str) -> None:
    assert dicom_terms.names_chest("ГРУДНАЯ КЛЕТКА".encode(page).decode("latin-1"))


@pytest.mark.parametrize(
    "part",
    _each(
        "HAND|ABDOMEN|THORACIC SPINE|TSPINE|T-SPINE|THORACOLUMBAR|COLUMNA DORSAL|BWS|STERNUM|SKULL|"
        "BREAST|胸椎|腹部|ЧЕРЕП|MAIN|Cráneo|PELVIS"
    ),
)
def test_other_regions_are_refused_with_the_value_as_it_stands_in_the_file(
    tmp_path: Path, part: str
) -> None:
    if part.isascii():
        assert _refusal(tmp_path, BodyPartExamined=part) == (
            f"DICOM: body part {part} is not a chest"
        )
        assert "not a chest" in _refusal(tmp_path, BodyPartExamined=part, trust=True)
    assert not dicom_terms.names_chest(part)
    assert not dicom_terms.says_nothing(part)


@pytest.mark.parametrize(
    "part", ["", "UNKNOWN", "N/A", "NONE", "***", "XXX", "-", "0", "Other", "????", "不明", "CR"]
)
def test_a_placeholder_says_nothing(tmp_path: Path, part: str) -> None:
    assert dicom_terms.says_nothing(part)
    if part.isascii():
        assert _read(tmp_path, BodyPartExamined=part).std() > 10
        assert "nothing says" in _refusal(tmp_path, BodyPartExamined=part, Modality="OT")


def test_a_series_that_names_another_region_contradicts_where_the_body_part_is_silent(
    tmp_path: Path,
) -> None:
    silent = {"BodyPartExamined": "UNKNOWN", "ViewPosition": None}
    assert "description" in _refusal(tmp_path, SeriesDescription="Knee AP", **silent)
    assert _read(tmp_path, StudyDescription="ABDOMEN SERIES", **silent).std() > 10
    chest = {"SeriesDescription": "Chest PA", "Modality": "OT"}
    assert _read(tmp_path, **silent, **chest).std() > 10


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "DR", "XR", "RX", "dx", "CR\\DX"])
def test_machines_write_many_words_for_a_digital_radiograph(tmp_path: Path, modality: str) -> None:
    assert _read(tmp_path, Modality=modality, BodyPartExamined=None).std() > 10


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "MG", "PX", "IO", "XC", "NM", "SR"])
def test_other_modalities_are_refused_also_by_one_who_trusts(tmp_path: Path, modality: str) -> None:
    reason = f"modality {modality} is no projection radiograph"
    assert reason in _refusal(tmp_path, Modality=modality)
    assert reason in _refusal(tmp_path, Modality=modality, trust=True)


@pytest.mark.parametrize("modality", ["OT", "SC", "RF", "XA"])
def test_a_modality_that_leaves_it_open_needs_a_word_for_the_chest(
    tmp_path: Path, modality: str
) -> None:
    assert _read(tmp_path, Modality=modality).std() > 10
    assert "--trust_headers" in _refusal(tmp_path, Modality=modality, BodyPartExamined=None)


def test_a_missing_modality_is_told_by_the_class_of_the_object(tmp_path: Path) -> None:
    missing: dict[str, Any] = {"Modality": None, "BodyPartExamined": None}
    assert _read(tmp_path, **missing).std() > 10
    ct = _refusal(tmp_path, **missing, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", trust=True)
    assert ct == "DICOM: CT Image Storage is no projection radiograph"


@pytest.mark.parametrize(
    "view",
    _each(
        "LL|RL|LLD|RLD|LLO|LAO|RPO|AP LLD|AP RLD|PA LLD|LLAT|RLAT|L LAT|LATERAL|Lat.|LATERALE|"
        "LATERO-LATERAL|SWIMMERS|PROFIL|PERFIL|OBLIQUE|LPO OBLIQUE|DECUBITUS|LAT DECUB|"
        "AP DECUBITUS|CROSSTABLE LATERAL|L|SEITLICH|側面"
    ),
)
def test_one_word_of_a_view_position_decides(tmp_path: Path, view: str) -> None:
    assert dicom_terms.names_no_frontal_view(view, is_position=True) is True
    if view.isascii():
        assert _refusal(tmp_path, ViewPosition=view) == f"DICOM: view {view} is not frontal"
        assert "not frontal" in _refusal(tmp_path, ViewPosition=view, trust=True)


@pytest.mark.parametrize(
    "view",
    _each("PA|AP|P.A.|A-P|AP SUPINE|AP ERECT|PA UPRIGHT|POSTEROANTERIOR|antero-posterior|正位"),
)
def test_frontal_views_are_read(view: str) -> None:
    assert dicom_terms.names_no_frontal_view(view, is_position=True) is False


@pytest.mark.parametrize(
    "text",
    _each(
        "CHEST PA AND LATERAL|CHEST PA/LAT|Chest 2V PA+LAT|CHEST (PA AND LAT)|"
        "CHEST 2 VIEWS AND LAT|Thorax p.a. und seitlich|Torax PA e perfil|FACE ET PROFIL|"
        "TORAX AP Y LATERAL|BILATERAL LUNGS|LATIN AMERICA CHEST|LATERALITY: U|PLATE 3"
        "|COLLATERAL|Thorax 2 Ebenen"
    ),
)
def test_a_description_of_several_views_or_of_none_decides_nothing(
    tmp_path: Path, text: str
) -> None:
    assert dicom_terms.names_no_frontal_view(text) is None
    assert _read(tmp_path, ViewPosition=None, SeriesDescription=text).std() > 10


@pytest.mark.parametrize(
    "text",
    _each(
        "W Chest Lat.|CHEST LATERAL|ChestLat|CHEST_LAT_2|Thorax seitlich|TORAX PERFIL|"
        "CHEST AP DECUBITUS|CHEST LAT DECUB|Thorax profil"
    ),
)
@pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName"])
def test_a_description_of_one_other_view_is_refused(
    tmp_path: Path, text: str, keyword: str
) -> None:
    assert "not frontal" in _refusal(tmp_path, **{"ViewPosition": None, keyword: text})
    assert _read(tmp_path, **{"ViewPosition": "PA", keyword: text}).std() > 10


def test_the_order_names_no_view_of_this_film(tmp_path: Path) -> None:
    order = {"StudyDescription": "CHEST LATERAL", "ViewPosition": None}
    assert _read(tmp_path, **order).std() > 10


def test_supine_is_frontal_in_the_languages_that_call_it_a_decubitus() -> None:
    assert dicom_terms.names_no_frontal_view("TORAX AP DECUBITO SUPINO") is False
    assert dicom_terms.names_no_frontal_view("DORSAL DECUBITUS") is True


def test_a_silent_header_is_read_by_one_who_trusts_and_the_refusal_says_how(tmp_path: Path) -> None:
    assert "--trust_headers (TRUST_HEADERS=1)" in _refusal(tmp_path, **SILENT)
    assert _read(tmp_path, trust=True, **SILENT).std() > 10
    for more in ({"BodyPartExamined": "HAND"}, {"ViewPosition": "LL"}, {"Modality": "CT"}):
        assert _refusal(tmp_path, trust=True, **(SILENT | more))


def test_films_that_ingest_was_told_to_trust_are_in_the_manifest(tmp_path: Path) -> None:
    for label in ("normal", "tuberculosis"):
        for number in range(3):
            grey = Image.open(film(tmp_path / "png" / f"{label}{number}.png", len(label) + number))
            formats.dicom(tmp_path / "in" / label / f"{number}.dcm", grey, **SILENT)
    words = ["--dataset", f"folder:{tmp_path / 'in'}", *LITE0, "--data_dir", tmp_path / "data"]
    assert run(ingest, *words) == 3
    assert {record.status for record in read_manifest(tmp_path / "data")} == {"unreadable"}
    assert run(ingest, *words, "--trust_headers") == 0
    assert {record.status for record in read_manifest(tmp_path / "data")} == {"ok"}


def test_raw_data_and_turned_pictures_ask_for_a_look(tmp_path: Path) -> None:
    def notes(**header: Any) -> tuple[str, ...]:
        return decode_film(formats.dicom(tmp_path / "a.dcm", FILM, **header), 64).notes

    assert notes() == ()
    assert notes(PatientOrientation=["L", "F"]) == ()
    assert notes(PresentationIntentType="FOR PROCESSING") == (RAW_DATA,)
    assert notes(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1") == (RAW_DATA,)
    for turned in (["F", "R"], ["H", "L"], ["R", "H"]):
        assert notes(PatientOrientation=turned) == (TURNED,)


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "ISO_IR 144", None])
def test_tags_are_whole_in_every_character_set(tmp_path: Path, charset: str | None) -> None:
    name = "Иванов^Пётр" if charset in ("ISO_IR 144", "ISO_IR 192") else "Müller^Jörg"
    path = formats.dicom(
        tmp_path / "a.dcm",
        FILM,
        SpecificCharacterSet=charset or "ISO_IR 192",
        PatientName=name,
        OtherPatientNames=["Doe^Jane", "Roe^Jane"],
        ImageType=["ORIGINAL", "PRIMARY"],
        RescaleSlope="1.50",
    )
    if charset is None:  # UTF-8 without a word about it
        stored = pydicom.dcmread(path)
        raw = path.read_bytes()
        place = raw.index(b"ISO_IR 192")
        path.write_bytes(raw[:place] + b"ISO_IR 100" + raw[place + 10 :])
        del stored
    keywords = ["PatientName", "OtherPatientNames", "ImageType", "RescaleSlope", "PatientAge"]
    found = list(dicom.tags(path, keywords).values())
    assert found == [name, "Doe^Jane\\Roe^Jane", "ORIGINAL\\PRIMARY", "1.50", ""]


def test_pydicom_is_never_heard_on_threads(tmp_path: Path) -> None:
    """Its warnings quote the header; films are read on threads."""
    for number in range(8):
        path = formats.dicom(tmp_path / f"{number}.dcm", FILM, BodyPartExamined="CHEST SECRET")
        path.write_bytes(path.read_bytes().replace(b"CHEST SECRET", b"Chest s\xe9cret"))
    code = """
import sys, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from lib.images.decode import read_grey
before = list(warnings.filters)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda path: read_grey(path, 32), sorted(Path(sys.argv[1]).glob("*.dcm")) * 5))
import pydicom
assert warnings.filters[-len(before):] == before or set(before) <= set(warnings.filters)
pydicom.dcmread(next(Path(sys.argv[1]).glob("*.dcm"))).BodyPartExamined
"""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
