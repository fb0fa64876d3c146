"""Tables as CSV and as Parquet: the same rows, types that readers know, whole or absent, never over
foreign files.
"""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.run.errors import JobError, UsageError
from lib.storage import atomic, tables
from lib.storage.cells import from_cell, to_cell
from lib.storage.lines import Column, LineCodec, Record
from tests.conftest import environment

COLUMNS = [
    Column("path"),
    Column("prediction", nullable=True),
    Column("confidence", "number"),
    Column("prob_A", "number"),
    Column("prob_B", "number"),
    Column("needs_review", "flag"),
    Column("reasons"),
    Column("outside_lungs", "number", ".3f"),
    Column("error"),
    Column("model"),
]
TWO = [Column("path"), Column("error")]
NAMES = [column.name for column in COLUMNS]
ODD = [
    "=1+1.png",
    "-a.png",
    "a,b.png",
    'a "quoted".png',
    "a\nb.png",
    "a\r.png",
    "ä/ü 漢.png",
    os.fsdecode(b"\xff\xfe.png"),
    "'x.png",
]


def _record(name: str, confidence: float | None = 0.75) -> Record:
    if confidence is None:
        return (to_cell(name), None, None, None, None, True, "unreadable", None, "no, film", "m@1")
    confidence = round(confidence, 6)
    other = round(1 - confidence, 6)
    return (to_cell(name), "A", confidence, confidence, other, False, "", 0.12, "", "m@1")


def _records(count: int) -> list[Record]:
    return [
        _record(f"{number:07}.png", None if number % 7 == 3 else number / count)
        for number in range(count)
    ]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of ten rows, parsed by four."""
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 10)
    monkeypatch.setattr(tables, "ROWS_PER_BLOCK", 4)


@pytest.mark.parametrize("rows_per_file", [0, 8])
def test_both_formats_hold_the_same_rows(tmp_path: Path, few: None, rows_per_file: int) -> None:
    as_csv = tables.table_of(tmp_path / "x.csv", COLUMNS)
    as_parquet = tables.table_of(tmp_path / "x.parquet", COLUMNS, rows_per_file)
    for table in (as_csv, as_parquet):
        table.write(iter(_records(25)))
        assert list(table.records()) == _records(25)
    assert (tmp_path / "x.csv").read_bytes() == (",".join(NAMES) + "\n").encode() + b"".join(
        map(LineCodec(COLUMNS).encode, _records(25))
    )


@pytest.mark.parametrize("rows_per_file", [0, 8])
def test_pandas_polars_and_duckdb_read_it_as_one_table(tmp_path: Path, rows_per_file: int) -> None:
    path = tmp_path / "x.parquet"
    tables.table_of(path, COLUMNS, rows_per_file).write(_records(25))
    names = [f"{number:07}.png" for number in range(25)]
    by_pandas, by_polars = pd.read_parquet(path), pl.read_parquet(path)
    source = f"{path}/*.parquet" if rows_per_file else str(path)
    by_duckdb = duckdb.sql(f"SELECT * FROM '{source}' ORDER BY path").fetchall()
    assert (
        list(by_pandas["path"])
        == by_polars["path"].to_list()
        == [row[0] for row in by_duckdb]
        == names
    )
    assert list(by_pandas.columns) == by_polars.columns == NAMES
    assert by_pandas["confidence"].dtype == "float64"
    assert by_pandas["needs_review"].dtype == "bool"
    assert by_polars["prob_B"][5] == 1 - 5 / 25
    assert [number for number, row in enumerate(by_duckdb) if row[2] is None] == [3, 10, 17, 24]


def test_types_and_nulls_are_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    tables.table_of(path, [*COLUMNS, Column("StudyInstanceUID")]).write(
        [(*_record("a.png", 0.5), "1.2.840"), (*_record("b.png", None), "")]
    )
    table = pq.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == {
        "path": "string",
        "prediction": "string",
        "confidence": "double",
        "prob_A": "double",
        "prob_B": "double",
        "needs_review": "bool",
        "reasons": "string",
        "outside_lungs": "double",
        "error": "string",
        "model": "string",
        "StudyInstanceUID": "string",
    }
    good, bad = table.to_pylist()
    assert good == dict(
        zip(
            table.column_names,
            ["a.png", "A", 0.5, 0.5, 0.5, False, "", 0.12, "", "m@1", "1.2.840"],
            strict=True,
        )
    )
    assert bad == dict(
        zip(
            table.column_names,
            ["b.png", None, None, None, None, True, "unreadable", None, "no, film", "m@1", ""],
            strict=True,
        )
    )


def test_text_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    records = [("007", "NULL", "NaN"), ("1e5", "true", "0"), ("", "2026-01-01", "a\\nb")]
    for name in ("x.csv", "x.parquet"):
        table = tables.table_of(tmp_path / name, COLUMNS[:1] + COLUMNS[8:])
        table.write(iter(records))
        assert list(table.records()) == records


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_odd_names_come_back_and_both_formats_join(tmp_path: Path, suffix: str) -> None:
    table = tables.table_of(tmp_path / f"x{suffix}", COLUMNS)
    table.write(map(_record, ODD))
    assert [from_cell(str(record[0])) for record in table.records()] == ODD
    if suffix == ".parquet":
        assert [from_cell(cell) for cell in pq.read_table(table.path)["path"].to_pylist()] == ODD


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_numbers_come_back_as_the_same_doubles(tmp_path: Path, suffix: str) -> None:
    columns = [COLUMNS[0], COLUMNS[2], COLUMNS[7]]
    table = tables.table_of(tmp_path / f"x{suffix}", columns)
    records = [
        (f"{n:06}", float(f"{n / 999_983:.6f}"), float(f"{n % 1001 / 1000:.3f}"))
        for n in range(0, 999_983, 97)
    ]
    table.write(iter(records))
    assert list(table.records()) == records


def test_a_csv_with_a_cell_of_another_type_is_refused(tmp_path: Path) -> None:
    table = tables.table_of(tmp_path / "x.csv", COLUMNS)
    table.write(_records(3))
    table.path.write_text(table.path.read_text().replace(",False,", ",perhaps,"))
    with pytest.raises(JobError, match=r"cannot be read.*'perhaps' is neither True nor False"):
        list(table.records())


@pytest.mark.parametrize("rows_per_file", [0, 10])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, few: None, rows_per_file: int) -> None:
    written = []
    for name in ("a", "b"):
        tables.table_of(tmp_path / f"{name}.parquet", COLUMNS, rows_per_file).write(_records(35))
        files = (
            sorted((tmp_path / f"{name}.parquet").iterdir())
            if rows_per_file
            else [tmp_path / f"{name}.parquet"]
        )
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]


def test_the_file_says_which_program_wrote_it_and_nothing_else(tmp_path: Path, few: None) -> None:
    tables.table_of(tmp_path / "x.parquet", COLUMNS).write(_records(35))
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert list(metadata.metadata) == [b"program"]
    assert metadata.metadata[b"program"].startswith(b"cxr-jobs ")
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [
        10,
        10,
        10,
        5,
    ]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize(
    ("rows", "parts"), [(0, [0]), (1, [1]), (8, [8]), (9, [8, 1]), (24, [8, 8, 8])]
)
def test_parts_are_full_but_for_the_last_and_a_table_without_rows_has_one(
    tmp_path: Path, few: None, rows: int, parts: list[int]
) -> None:
    table = tables.table_of(tmp_path / "x.parquet", COLUMNS, 8)
    table.write(_records(rows))
    assert [path.name for path in sorted(table.path.iterdir())] == [
        f"part-{number:05}.parquet" for number in range(len(parts))
    ]
    assert [pq.read_metadata(path).num_rows for path in sorted(table.path.iterdir())] == parts
    assert list(table.records()) == _records(rows)
    assert len(pd.read_parquet(table.path)) == rows


@pytest.mark.parametrize("rows_per_file", [0, 5000])
def test_rows_are_written_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_file: int
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 2000)
    monkeypatch.setattr(tables, "ROWS_PER_BLOCK", 500)
    pulled, most = 0, 0
    taken = iter(_records(20_000))

    def records() -> Iterator[Record]:
        nonlocal pulled, most
        for record in taken:
            pulled += 1
            most = max(most, pa.total_allocated_bytes())
            yield record

    table = tables.table_of(tmp_path / "x.parquet", COLUMNS, rows_per_file)
    before = pa.total_allocated_bytes()
    table.write(records())
    assert pulled == 20_000
    assert most - before < pq.read_table(table.path).nbytes / 3
    tracemalloc.start()
    read = sum(1 for _ in table.records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == 20_000
    assert peak < 2_000_000


@pytest.mark.parametrize("rows_per_file", [0, 8])
def test_a_write_that_fails_leaves_the_earlier_table(
    tmp_path: Path, few: None, rows_per_file: int
) -> None:
    def torn() -> Iterator[Record]:
        yield from _records(25)
        raise KeyboardInterrupt

    table = tables.table_of(tmp_path / "x.parquet", COLUMNS, rows_per_file)
    table.write(_records(9))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            table.write(torn())
        assert list(table.records()) == _records(9)
    table.write(_records(10))
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_a_folder_of_parts_takes_the_place_of_a_file_and_of_a_folder(
    tmp_path: Path, few: None
) -> None:
    tables.table_of(tmp_path / "x.parquet", COLUMNS).write(_records(9))
    in_parts = tables.table_of(tmp_path / "x.parquet", COLUMNS, 8)
    assert list(in_parts.records()) == _records(9)
    for rows in (17, 3):
        in_parts.write(_records(rows))
        assert list(in_parts.records()) == _records(rows)
        assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize("was", ["file", "folder"])
def test_a_kill_between_the_two_renames_is_mended_by_the_next_run(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch, was: str
) -> None:
    path = tmp_path / "x.parquet"
    tables.table_of(path, COLUMNS, 8 * (was == "folder")).write(_records(9))
    real_rename = os.rename

    def killed(source: Path, target: Path) -> None:
        if target == path:
            raise KeyboardInterrupt
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        tables.table_of(path, COLUMNS, 8).write(_records(20))
    assert not path.exists()
    monkeypatch.setattr(os, "rename", real_rename)
    table = tables.table_of(path, COLUMNS, 8)
    assert list(table.records()) == _records(9)
    table.write(_records(20))
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize(
    "foreign",
    ["notes.txt", "part-1.parquet", "part-00000.parquet.bak", ".hidden", "part-00001.parquet/x"],
)
def test_a_folder_with_anything_else_is_refused_and_kept(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "x.parquet"
    tables.table_of(path, COLUMNS, 8).write(_records(3))
    (path / foreign).parent.mkdir(exist_ok=True)
    (path / foreign).write_text("mine")
    with pytest.raises(UsageError, match="more than the parts of a table"):
        tables.check(path, 8)
    with pytest.raises(UsageError, match="more than the parts of a table"):
        tables.table_of(path, COLUMNS, 8).write(_records(3))
    assert (path / foreign).read_text() == "mine"
    assert (path / "part-00000.parquet").exists()


def test_names_that_no_table_can_have_are_refused(tmp_path: Path) -> None:
    for name in ("x", "x.txt", "x.csv.gz", "x.parquet.tmp"):
        with pytest.raises(UsageError, match=r"ends in \.csv or \.parquet"):
            tables.check(tmp_path / name, 0)
    with pytest.raises(UsageError, match="only Parquet is written in parts"):
        tables.check(tmp_path / "x.csv", 5)
    for name in ("x.csv", "x.parquet"):
        (tmp_path / name).mkdir()
        with pytest.raises(UsageError, match="is a folder"):
            tables.check(tmp_path / name, 0)
    for name, rows_per_file in (("y.CSV", 0), ("y.Parquet", 0), ("y.parquet", 1), ("x.parquet", 1)):
        tables.check(tmp_path / name, rows_per_file)


def test_an_earlier_table_of_another_kind_is_refused_and_kept(tmp_path: Path) -> None:
    for name in ("x.csv", "x.parquet"):
        tables.table_of(tmp_path / name, TWO).write([("a.png", "")])
        with pytest.raises(JobError, match="other columns"):
            list(tables.table_of(tmp_path / name, COLUMNS).records())
    (tmp_path / "y.parquet").write_text("no Parquet")
    with pytest.raises(JobError, match="cannot be read"):
        list(tables.table_of(tmp_path / "y.parquet", COLUMNS).records())
    pq.write_table(pa.table({"path": ["a.png"], "error": [0]}), tmp_path / "z.parquet")
    with pytest.raises(JobError, match="other columns"):
        list(tables.table_of(tmp_path / "z.parquet", TWO).records())


def test_a_csv_costs_no_import_of_arrow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import jobs.predict_batch;"
        "from lib.storage import journal, tables; from lib.storage.lines import Column;"
        f"table = tables.table_of(Path({str(tmp_path / 'x.csv')!r}), [Column('path')]);"
        "table.write([('a.png',)]); list(table.records()); assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), cwd=tmp_path)


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if (
        os.getuid() != 0
        or subprocess.run(command, check=False, capture_output=True).returncode != 0
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        for rows_per_file in (0, 8000):
            with pytest.raises(OSError, match="No space left"):
                tables.table_of(small / "x.parquet", COLUMNS, rows_per_file).write(_records(50_000))
            assert not (small / "x.parquet").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_long_names_leave_room_for_their_neighbours(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 246 + ".parquet")
    for rows in (3, 4):
        tables.table_of(path, COLUMNS, 8).write(_records(rows))
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert atomic.hidden_neighbour(path, "journal").name.endswith(".journal")
