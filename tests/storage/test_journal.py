"""A table in the making: taken up after any interruption, refused for another model, whole at the
end.
"""

import json
import os
from pathlib import Path

import pytest

from lib.run.errors import JobError
from lib.storage.journal import IsCurrent, Journal
from lib.storage.lines import Column
from lib.storage.stamp import Stamp
from lib.storage.tables import table_of

COLUMNS = [Column("path"), Column("prediction"), Column("error")]
NAMES = sorted(f"{number}.png" for number in range(10))
OURS = {"model": "m"}


def _fill(
    table: Path, numbers: list[int], belongs_to: dict[str, str] = OURS, error: str = ""
) -> None:
    with Journal(table_of(table, COLUMNS), NAMES, belongs_to) as journal:
        journal.open(True, lambda *_: True)
        for number in numbers:
            journal.add(
                number,
                Stamp(1, 2),
                (NAMES[number], f"A{number}", error),
            )


def _finish(table: Path, is_current: IsCurrent = lambda *_: True) -> tuple[int, list[str]]:
    with Journal(table_of(table, COLUMNS), NAMES, OURS) as journal:
        taken_over = journal.open(True, is_current)
        for number in journal.missing():
            journal.add(
                number,
                Stamp(1, 2),
                (NAMES[number], f"B{number}", ""),
            )
        journal.publish()
        journal.remove()
    return taken_over, table.read_text().splitlines()


def test_rows_of_an_interrupted_run_are_taken_over_in_the_order_of_names(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    _fill(table, [7, 2, 3])
    taken_over, rows = _finish(table)
    assert taken_over == 3
    letters = ["A" if number in (2, 3, 7) else "B" for number in range(10)]
    assert rows == [
        "path,prediction,error",
        *(f"{number}.png,{letter}{number}," for number, letter in enumerate(letters)),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_torn_end_is_cut_off(tmp_path: Path, cut: int) -> None:
    table = tmp_path / "t.csv"
    _fill(table, [0, 1, 2])
    journal = tmp_path / ".t.csv.journal"
    os.truncate(journal, journal.stat().st_size - cut)
    taken_over, rows = _finish(table)
    assert taken_over == 2
    assert rows[3] == "2.png,B2,"


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 50, b"1,2,\xff\xfe\n", b"x,y,0.png,A,\n", b'1,2,"0.png,A,\n', b"1,2,3\n", b"\n"],
)
def test_nothing_behind_a_damaged_line_is_believed(tmp_path: Path, garbage: bytes) -> None:
    table = tmp_path / "t.csv"
    _fill(table, [0, 1])
    with open(tmp_path / ".t.csv.journal", "ab") as file:
        file.write(garbage)
        file.write(b"1,2,5.png,A5,\n")
    assert _finish(table)[0] == 2


def test_every_length_that_a_killed_run_can_leave_is_taken_up(tmp_path: Path) -> None:
    table, journal = tmp_path / "t.csv", tmp_path / ".t.csv.journal"
    _fill(table, [0, 1, 2])
    whole = journal.read_bytes()
    for length in range(len(whole)):
        journal.write_bytes(whole[:length])
        taken_over, rows = _finish(table)
        assert taken_over <= 3
        assert [row.split(",")[0] for row in rows[1:]] == NAMES


def test_rows_of_changed_or_vanished_files_and_rows_with_an_error_are_done_again(
    tmp_path: Path,
) -> None:
    table = tmp_path / "t.csv"
    _fill(table, [0, 1])
    _fill(table, [2], error="damaged")
    with open(tmp_path / ".t.csv.journal", "ab") as file:
        file.write(b"1,2,gone.png,A,\n")
    taken_over, rows = _finish(
        table, lambda name, stamp, _: name != "0.png" and stamp == Stamp(1, 2)
    )
    assert taken_over == 1
    assert rows[1:4] == ["0.png,B0,", "1.png,A1,", "2.png,B2,"]


def test_unreadable_files_come_last_and_get_two_tries_however_often_a_run_is_killed(
    tmp_path: Path,
) -> None:
    table = tmp_path / "t.csv"
    _fill(table, [0, 1, 2], error="damaged")
    _fill(table, [4])
    with Journal(table_of(table, COLUMNS), NAMES, OURS) as journal:
        assert journal.open(True, lambda *_: True) == 1
        assert list(journal.missing()) == [3, 5, 6, 7, 8, 9, 0, 1, 2]
    _fill(table, [0, 1], error="still damaged")
    with Journal(table_of(table, COLUMNS), NAMES, OURS) as journal:
        assert journal.open(True, lambda *_: True) == 3
        assert list(journal.missing()) == [3, 5, 6, 7, 8, 9, 2]
    _fill(table, [2])
    _, rows = _finish(table)
    assert rows[1:5] == [
        "0.png,A0,still damaged",
        "1.png,A1,still damaged",
        "2.png,A2,",
        "3.png,B3,",
    ]


def test_rows_of_another_model_are_refused_and_kept_unless_told_otherwise(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    _fill(table, [0], {"model": "other"})
    with Journal(table_of(table, COLUMNS), NAMES, OURS) as journal:
        with pytest.raises(JobError, match=r"other settings \(model\).*--noresume"):
            journal.open(True, lambda *_: True)
        assert json.loads(journal.path.read_text().splitlines()[0]) == {"model": "other"}
        assert journal.open(False, lambda *_: True) == 0


def test_a_row_with_a_cell_of_any_length_is_reused_and_published(tmp_path: Path) -> None:
    table, long = tmp_path / "t.csv", "x" * 200_000
    _fill(table, [0])
    _fill(table, [1], error=long)
    _fill(table, [1], error=long)  # the second failure is reused
    _fill(table, [2])
    taken_over, rows = _finish(table)
    assert taken_over == 3
    assert rows[2] == f"1.png,A1,{long}"
    assert [record[2] for record in table_of(table, COLUMNS).records()][1] == long


def test_a_kept_table_gets_the_new_rows_and_never_two_for_a_path(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,prediction,error\n0.png,old,\n00.png,old,\n")
    with Journal(table_of(table, COLUMNS), ["0.png", "1.png"], OURS) as journal:
        journal.open(True, lambda *_: True)
        for number, name in enumerate(journal.names):
            journal.add(number, Stamp(1, 2), (name, "new", ""))
        journal.publish(keep=True)
    assert table.read_text().splitlines() == [
        "path,prediction,error",
        "0.png,new,",
        "00.png,old,",
        "1.png,new,",
    ]
    table.write_text("path\n0.png\n")
    with Journal(table_of(table, COLUMNS), ["0.png"], OURS) as journal:
        journal.open(True, lambda *_: True)
        with pytest.raises(JobError, match="other columns"):
            journal.publish(keep=True)
    assert table.read_text() == "path\n0.png\n"
