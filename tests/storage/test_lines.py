"""A record as a line of CSV and back: types are kept, damage is an error."""

import csv

import pytest

from lib.storage.lines import Column, LineCodec, Record

CODEC = LineCodec(
    [
        Column("path"),
        Column("prediction", nullable=True),
        Column("confidence", "number"),
        Column("needs_review", "flag"),
        Column("share", "number", ".3f"),
    ]
)


def _decoded(line: bytes) -> Record:
    return CODEC.decode(next(csv.reader([line.decode()])))


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (("a.png", "A", 0.5, False, 0.25), b"a.png,A,0.500000,False,0.250\n"),
        (('a,"b".png', None, None, True, None), b'"a,""b"".png",,,True,\n'),
        (("", "None", 1e-6, True, 0.0), b",None,0.000001,True,0.000\n"),
    ],
)
def test_a_record_is_one_line_and_comes_back(record: Record, line: bytes) -> None:
    assert CODEC.encode(record) == line
    assert _decoded(line) == record


def test_a_number_keeps_the_digits_of_its_column() -> None:
    assert _decoded(CODEC.encode(("a", "A", 1 / 3, True, 2 / 3))) == (
        *("a", "A", 0.333333, True, 0.667),
    )


@pytest.mark.parametrize(
    "line", [b"a,A,0.5,False\n", b"a,A,0.5,False,0.2,x\n", b"a,A,much,False,\n", b"a,A,,maybe,\n"]
)
def test_a_line_of_another_table_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        _decoded(line)
