"""The split job: folders for ImageFolder, the table, and what never happens."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import ingest, split
from lib.dataset.manifest import read_manifest, read_split
from lib.network.torchvision import torchvision
from tests.conftest import LITE0, film, run

MakeFilms = Callable[..., Path]


@pytest.fixture
def data(make_films: MakeFilms, tmp_path: Path) -> Path:
    """30 films of each of two classes; the first three normal ones lie under tuberculosis, too."""
    source = make_films(normal=30, tb=30)
    for number in range(3):
        shutil.copy(source / f"normal/normal_{number}.png", source / f"tb/copy_{number}.png")
    assert (
        run(ingest, "--dataset", f"folder:{source}", "--data_dir", tmp_path / "data", *LITE0) == 0
    )
    return tmp_path / "data"


def test_the_folders_are_what_split_csv_says_and_imagefolder_reads_them(data: Path) -> None:
    assert run(split, "--data_dir", data) == 0
    rows = read_split(data)
    for name in ("train", "val", "test"):
        dataset = torchvision.datasets.ImageFolder(str(data / name))
        assert dataset.classes == ["NORMAL", "TUBERCULOSIS"]
        assert len(dataset) == sum(row.split == name for row in rows)
    assert len(rows) == len(read_manifest(data)) == 63
    assert all((data / row.file).samefile(data / "raw" / row.path) for row in rows if row.split)


def test_contradictions_follow_the_policy_and_are_told(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(split, "--data_dir", data) == 0
    out = capsys.readouterr().out
    assert "3 films lie under two labels (3 NORMAL / TUBERCULOSIS)" in out
    assert "95.2%" in out  # 60 of 63
    assert "Groups on two sides: 0" in out
    excluded = [row for row in read_split(data) if not row.split]
    assert sorted(row.path for row in excluded) == [
        f"TUBERCULOSIS/copy_{number}.png" for number in range(3)
    ]
    assert all(row.excluded_because.startswith("contradiction") for row in excluded)
    assert run(split, "--data_dir", data, "--on_contradiction", "drop") == 0
    assert sum(not row.split for row in read_split(data)) == 6
    assert run(split, "--data_dir", data, "--on_contradiction", "keep:TUBERCULOSIS") == 0
    assert {row.label for row in read_split(data) if not row.split} == {"NORMAL"}


def test_where_no_class_is_to_be_preferred_all_copies_leave(
    make_films: MakeFilms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_films(cat=20, dog=20)
    shutil.copy(source / "cat/cat_0.png", source / "dog/twin.png")
    run(ingest, "--dataset", f"folder:{source}", "--data_dir", tmp_path / "data", *LITE0)
    assert run(split, "--data_dir", tmp_path / "data") == 0
    assert sorted(row.path for row in read_split(tmp_path / "data") if not row.split) == [
        "CAT/cat_0.png",
        "DOG/twin.png",
    ]
    assert "Policy drop" in capsys.readouterr().out


def test_folders_that_may_be_patients_are_pointed_out(
    make_films: MakeFilms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_films(normal=0, tb=0)
    for number in range(24):
        film(
            source / ("normal" if number % 2 else "tb") / f"pat{number // 2}" / f"{number}.png",
            seed=number,
        )
    run(ingest, "--dataset", f"folder:{source}", "--data_dir", tmp_path / "data", *LITE0)
    fractions = ["--val_fraction", "0.2", "--test_fraction", "0.2", "--data_dir", tmp_path / "data"]
    assert run(split, *fractions) == 0
    assert "not taken for patients" in capsys.readouterr().err
    assert run(split, *fractions, "--group_by", "([^/]+)/[^/]+$") == 0
    assert "not taken for patients" not in capsys.readouterr().err
    sides: dict[str, set[str]] = {}
    for row, record in zip(
        read_split(tmp_path / "data"), read_manifest(tmp_path / "data"), strict=True
    ):
        sides.setdefault(Path(record.origin).parent.name, set()).add(row.split)
    assert all(len(found) == 1 for found in sides.values())


@pytest.fixture
def two_sources(tmp_path: Path) -> Path:
    """20 films of two classes of each of two collections; one film lies in both."""
    source = tmp_path / "films"
    for number in range(40):
        label = ("normal", "pneumonia")[number % 2]
        film(source / label / f"{number:08}_000.png", seed=number)
        film(source / label / f"person{number}_virus_{number}.jpeg", seed=100 + number)
    shutil.copy(source / "normal/00000000_000.png", source / "normal/person900_virus_900.jpeg")
    data = tmp_path / "data"
    assert run(ingest, "--dataset", f"folder:{source}", "--data_dir", data, *LITE0) == 0
    return data


def test_a_source_that_is_held_out_is_the_test_set(two_sources: Path) -> None:
    assert run(split, "--data_dir", two_sources, "--hold_out", "nih") == 0
    source_of = {record.path: record.source for record in read_manifest(two_sources)}
    rows = read_split(two_sources)
    assert len(rows) == 81
    assert {source_of[row.path] for row in rows if row.split == "test"} == {"nih"}
    assert {source_of[row.path] for row in rows if row.split in ("train", "val")} == {"kermany"}
    left_out = [row for row in rows if not row.split]
    assert [row.path for row in left_out] == ["NORMAL/person900_virus_900.jpeg"]
    assert "nih is held out" in left_out[0].excluded_because


def test_an_unknown_source_is_refused_with_those_that_are_there(
    two_sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(split, "--data_dir", two_sources, "--hold_out", "rsna") == 2
    assert "the films come from kermany, nih" in capsys.readouterr().err
    assert not (two_sources / "split.csv").exists()


def test_policy_fail_touches_nothing(data: Path) -> None:
    assert run(split, "--data_dir", data) == 0
    before = (data / "split.csv").read_bytes()
    assert run(split, "--data_dir", data, "--on_contradiction", "fail") == 1
    assert (data / "split.csv").read_bytes() == before


def test_no_file_of_an_earlier_split_survives(data: Path) -> None:
    run(split, "--data_dir", data, "--seed", "1")
    (data / "train" / "NORMAL" / "stale.png").touch()
    run(split, "--data_dir", data, "--seed", "2")
    on_disk = {
        path.relative_to(data).as_posix()
        for name in ("train", "val", "test")
        for path in (data / name).rglob("*.png")
    }
    assert on_disk == {row.file for row in read_split(data) if row.split}


def test_the_same_seed_gives_the_same_split(data: Path) -> None:
    run(split, "--data_dir", data, "--seed", "1")
    first = (data / "split.csv").read_bytes()
    run(split, "--data_dir", data, "--seed", "2")
    assert (data / "split.csv").read_bytes() != first
    run(split, "--data_dir", data, "--seed", "1")
    assert (data / "split.csv").read_bytes() == first


def test_a_regex_keeps_its_groups_on_one_side(data: Path) -> None:
    assert run(split, "--data_dir", data, "--group_by", r"normal_(\d)") == 0
    sides: dict[str, set[str]] = {}
    for row in read_split(data):
        if row.split and row.label == "NORMAL":
            sides.setdefault(Path(row.path).stem.removeprefix("normal_")[0], set()).add(row.split)
    assert all(len(found) == 1 for found in sides.values())


@pytest.mark.parametrize(
    "argv",
    [
        ["--val_fraction", "0.6", "--test_fraction", "0.5"],
        ["--val_fraction", "0"],
        ["--on_contradiction", "keep:MEASLES"],
        ["--group_by", "("],
    ],
)
def test_wrong_usage_touches_nothing(data: Path, argv: list[str]) -> None:
    assert run(split, "--data_dir", data, *argv) == 2
    assert not (data / "split.csv").exists()


def test_too_few_films_name_the_class(
    make_films: MakeFilms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        ingest,
        "--dataset",
        f"folder:{make_films(normal=20, tb=2)}",
        "--data_dir",
        tmp_path / "data",
        *LITE0,
    )
    assert run(split, "--data_dir", tmp_path / "data") == 1
    assert "class TUBERCULOSIS has 2 films" in capsys.readouterr().err


def test_without_a_manifest_the_job_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(split, "--data_dir", tmp_path) == 1
    assert "make ingest" in capsys.readouterr().err


def test_patients_and_near_duplicates_of_generated_films_stay_together(ready: Path) -> None:
    rows = {row.path: row for row in read_split(ready / "data")}
    sides: dict[str, set[str]] = {}
    for record in read_manifest(ready / "data"):
        if record.patient and rows[record.path].split:
            sides.setdefault(record.patient, set()).add(rows[record.path].split)
    assert len(sides) > 20
    assert all(len(found) == 1 for found in sides.values())
