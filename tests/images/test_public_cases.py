"""The cases of real machines and public collections that lie beside the project."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lib.images import dicom
from lib.images.decode import read_grey
from lib.run.errors import UnreadableFilmError

BUILDER = Path(__file__).resolve().parents[3] / "shared" / "cases" / "build.py"
SIDE, MOST = 224, 3.0  # mean difference in grey levels: probabilities then differ by less than 0.05


@pytest.mark.skipif(not BUILDER.is_file(), reason="no cases beside the project (shared/cases)")
def test_every_public_case_comes_out_right(tmp_path: Path) -> None:
    subprocess.run([sys.executable, BUILDER, tmp_path], check=True, capture_output=True)
    with open(tmp_path / "expected.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] != "tree"]
    wrong = {row["name"]: outcome for row in rows if (outcome := _wrong(tmp_path / "films", row))}
    assert wrong == {}
    assert len(rows) >= 31


def _wrong(films: Path, row: dict[str, str]) -> str:
    """What is wrong with a case; empty if nothing."""
    verdict, _, wanted = row["right"].partition(":")
    try:
        grey = read_grey(films / row["name"], SIDE)
    except UnreadableFilmError as error:
        if verdict == "read" and "--trust_headers" in str(error):
            grey = read_grey(films / row["name"], SIDE, trust_headers=True)
            return "" if grey.std() > 10 else "nothing is seen"
        return "" if verdict == "refused" else str(error)
    if verdict == "refused":
        return "read"
    if verdict == "tags":
        found = dicom.tags(films / row["name"], ["PatientName"])["PatientName"]
        return "" if found == wanted else found
    other = read_grey(films / wanted, SIDE) if verdict == "as" else grey
    shift = float(np.abs(grey.astype(int) - other.astype(int)).mean())
    return "" if shift <= MOST else f"differs by {shift:.1f} levels"
