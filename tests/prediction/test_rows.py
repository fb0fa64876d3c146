"""Rows: one builder from predictions, typed values that come back, notes that ask for a review."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib.images.reader import Film
from lib.network.lungs import SIDE, Lungs
from lib.prediction.prediction import Prediction
from lib.prediction.rows import Row, RowSchema, row_of
from lib.prediction.triage import Code, Triage
from tests.conftest import environment

CLASSES = ("NORMAL", "TUBERCULOSIS")
SCHEMA = RowSchema(CLASSES, ("Modality", "KVP"))


def _prediction(**film: object) -> Prediction:
    maps = np.zeros((2, 7, 7), np.float32)
    maps[1, 3, 3] = 1
    header = {"tags": {"Modality": "=DX"}, "maker": "=Alpha", "view": "PA"}
    film = {"path": Path("a.png"), "contrast": 60.0, "size": (2000, 2500), **header, **film}
    return Prediction(
        Film(**film),  # type: ignore[arg-type]
        np.array([0.0, 2.0], np.float32),
        np.array([0.1234567891, 0.8765432109]),
        maps=maps,
    )


def test_a_readable_film_has_its_class_and_typed_probabilities() -> None:
    row = row_of("in/a.png", _prediction(), Triage(CLASSES), "m@1")
    assert (row.prediction, row.confidence) == ("TUBERCULOSIS", 0.8765432109)
    assert row.probabilities == (0.1234567891, 0.8765432109)
    assert row.outside_lungs == pytest.approx(0, abs=0.05)
    assert (row.needs_review, row.reasons, row.error) == (False, (), "")
    cells = SCHEMA.cells(row)
    assert [cells[name] for name in ("width", "height", "maker", "view")] == [
        *("2000", "2500", "'=Alpha", "PA")
    ]


def test_an_unreadable_film_has_its_error_and_nothing_else() -> None:
    row = row_of("a.png", Prediction(Film(Path("a.png"), "damaged")), Triage(CLASSES), "m@1")
    assert row == Row("a.png", "m@1", reasons=("unreadable",), error="damaged")
    assert row.needs_review
    assert list(SCHEMA.cells(row).values()) == [
        *("a.png", "", "", "", "", "True", "unreadable", *[""] * 6, "damaged", "m@1", "", "")
    ]


def test_what_the_decoder_noticed_becomes_a_reason_of_the_row() -> None:
    prediction = _prediction(notes=("raw data, not for presentation", "no lungs found"))
    triage = Triage(CLASSES, review_below=0.9)
    assert [reason.code for reason in triage.reasons(prediction)] == [
        Code.LOW_CONFIDENCE,
        Code.DECODER_NOTE,
        Code.DECODER_NOTE,
    ]
    row = row_of("a.png", prediction, triage, "m@1")
    assert row.needs_review
    assert SCHEMA.cells(row)["reasons"] == (
        "low confidence: below 0.9; raw data, not for presentation; no lungs found"
    )


@pytest.mark.parametrize(
    ("orientation", "found", "reasons"),
    [
        ("upright", True, []),
        ("turned 90", True, [(Code.TURNED, "looks turned by 90 degrees")]),
        ("turned 180", True, [(Code.TURNED, "looks turned by 180 degrees")]),
        ("turned 270", False, [(Code.NO_LUNGS, "no lungs found")]),
        ("no lungs", False, [(Code.NO_LUNGS, "no lungs found")]),
    ],
)
def test_a_turned_film_asks_for_a_review(
    orientation: str, found: bool, reasons: list[tuple[Code, str]]
) -> None:
    mask = np.full((SIDE, SIDE), found)
    lungs = Lungs(mask, mask, (0.0, 0.0, 1.0, 1.0) if found else None, orientation, 0.9)
    prediction = replace(_prediction(), lungs=lungs)
    given = Triage(CLASSES).reasons(prediction)
    assert [(reason.code, reason.text) for reason in given] == reasons
    assert row_of("a.png", prediction, Triage(CLASSES), "m@1").needs_review == bool(reasons)


def test_the_schema_decides_the_digits_of_a_file() -> None:
    row = row_of("a.png", _prediction(), Triage(CLASSES), "m@1")
    assert SCHEMA.cells(row)["prob_NORMAL"] == "0.123457"
    assert RowSchema(CLASSES, (), ".9g").cells(row)["prob_NORMAL"] == "0.123456789"


@pytest.mark.parametrize("name", ["=1+1.png", "a\nb\\.png", os.fsdecode(b"\xff.png"), "ä/ü 漢.png"])
def test_a_row_comes_back_from_its_record(name: str) -> None:
    for prediction in (_prediction(notes=("a", "b")), Prediction(Film(Path("x"), "-no\tfilm"))):
        row = row_of(name, prediction, Triage(CLASSES), "m@1")
        record = SCHEMA.record(row)
        assert SCHEMA.row(record) == row
        assert record[0] != name or "ä" in name


def test_rows_and_calibration_load_no_inference_engine() -> None:
    code = (
        "import sys, lib.prediction.calibration; "
        "assert not {'openvino', 'PIL', 'kornia_rs', 'pebble'} & set(sys.modules);"
        "import lib.prediction.rows; assert 'openvino' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
