"""Which folder the advice for --group_by names."""

import re
from dataclasses import replace

import pytest

from lib.dataset.collections import source_and_patient
from lib.dataset.manifest import FilmRecord
from lib.dataset.patients import find_patient_folders, patients

BLANK = FilmRecord("", "NORMAL", "", "", 1, 1, "L", 1, 0.0, 0.0, 0.0, "", "", "ok", "", "")
HEX = ("0" * 31 + "a", "0" * 31 + "b")


def _films(*origins: str) -> list[FilmRecord]:
    return [replace(BLANK, path=origin, origin=origin) for origin in origins]


@pytest.mark.parametrize(
    ("origins", "layout", "names"),
    [
        (
            (
                "normal/patient00001/study1/view1_frontal.jpg",
                "normal/patient00001/study2/view1_frontal.jpg",
                "normal/patient00002/study1/view1_frontal.jpg",
            ),
            "CheXpert",
            ["patient00001", "patient00001", "patient00002"],
        ),
        (
            (
                "files/normal/p10/p10000032/s50414267/a.jpg",
                "files/normal/p10/p10000032/s53189527/b.jpg",
                "files/normal/p11/p11000011/s50000001/c.jpg",
            ),
            "MIMIC-CXR",
            ["p10000032", "p10000032", "p11000011"],
        ),
        ((f"normal/{HEX[0]}/1.dicom", f"normal/{HEX[1]}/2.dicom"), "VinDr", list(HEX)),
        (
            ("train/normal/ann/1/a.png", "test/normal/ann/2/b.png", "train/normal/bob/1/c.png"),
            "",
            ["ann", "ann", "bob"],
        ),
        (("normal/images/ann/a.png", "normal/images/bob/b.png"), "", ["ann", "bob"]),
    ],
)
def test_the_advice_names_the_folder_of_the_patient(
    origins: tuple[str, ...], layout: str, names: list[str]
) -> None:
    films = _films(*origins)
    found = find_patient_folders(films)
    assert found
    assert found.layout == layout
    assert patients(films, found.pattern) == names
    assert re.compile(found.pattern)


@pytest.mark.parametrize(
    "origins",
    [("normal/a.png", "normal/b.png"), ("normal/images/a.png", "normal/images/b.png"), ()],
)
def test_no_advice_where_no_folder_can_be_a_patient(origins: tuple[str, ...]) -> None:
    assert find_patient_folders(_films(*origins)) is None


@pytest.mark.parametrize("name", ["20240131_001.png", "19991231_012.jpg", "31012024_001.png"])
def test_a_date_is_no_patient(name: str) -> None:
    assert source_and_patient(name) == ("", "")
