"""Names in tables: one line, nothing a spreadsheet runs, and back again without a loss."""

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.storage.cells import from_cell, is_inside, to_cell


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_every_name_comes_back_byte_for_byte_and_takes_one_line(name: bytes) -> None:
    cell = to_cell(os.fsdecode(name))
    assert os.fsencode(from_cell(cell)) == name
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerow([cell, "x"])
    assert len(table.getvalue().splitlines()) == 1
    table.getvalue().encode()  # valid UTF-8
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("film 1.png", "film 1.png"),
        ("b/ünï.png", "b/ünï.png"),
        ("=cmd()|'x'!A1.png", "'=cmd()|'x'!A1.png"),
        ("'quoted'.png", "''quoted'.png"),
        ("a\nb.png", r"a\nb.png"),
        ("a\\nb.png", r"a\\nb.png"),
        ("\x1b[31m.png", r"\x1b[31m.png"),
        (os.fsdecode(b"\xff.png"), r"\xff.png"),
        ("\x85\x9b31m.png", r"\xc2\x85\xc2\x9b31m.png"),
        ("a\u2028b\u2029.png", r"a\xe2\x80\xa8b\xe2\x80\xa9.png"),
        ("-1.png", "'-1.png"),
    ],
)
def test_what_a_cell_looks_like(name: str, cell: str) -> None:
    assert to_cell(name) == cell
    assert from_cell(cell) == name


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.png", True),
        ("a/..b/c..png", True),
        ("a//b.png", True),
        ("../a.png", False),
        ("a/../../b.png", False),
        ("/a.png", False),
    ],
)
def test_which_names_stay_below_a_folder(name: str, inside: bool) -> None:
    assert is_inside(name) == inside
