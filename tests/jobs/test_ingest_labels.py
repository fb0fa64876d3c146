"""ingest --labels: films of an inbox join data/raw under the labels of a reader."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from jobs import ingest, split
from lib.dataset.manifest import FilmRecord, read_manifest, read_split
from lib.storage.atomic import sha256_of
from tests.conftest import LITE0, dirs, film, run


@pytest.fixture
def root(tmp_path: Path, make_films: Callable[..., Path]) -> Path:
    """A project with data/raw of 16 films, and beside it an inbox of five."""
    source = make_films(normal=8, tuberculosis=8)
    for number in range(5):
        film(tmp_path / "inbox" / "ward" / f"{number}.png", seed=500 + number)
    flags = ["--dataset", f"folder:{source}", *LITE0, *dirs(tmp_path)[:2]]
    assert run(ingest, *flags) == 0
    return tmp_path


def labels(root: Path, *rows: tuple[str, str], digests: bool = True) -> Path:
    """A table of labels for files of the inbox."""
    lines = ["path,sha256,label"]
    for name, label in rows:
        path = root / "inbox" / name
        lines.append(f"{name},{sha256_of(path) if digests and path.exists() else ''},{label}")
    (root / "labels.csv").write_text("\n".join([*lines, ""]))
    return root / "labels.csv"


def join(root: Path, table: Path) -> int:
    inbox = f"folder:{root / 'inbox'}"
    return run(ingest, "--dataset", inbox, "--labels", table, *dirs(root)[:2])


def joined(root: Path) -> list[FilmRecord]:
    return [row for row in read_manifest(root / "data") if row.is_from_reader]


def test_labelled_films_join_and_stay_in_a_later_ingest(root: Path) -> None:
    before = read_manifest(root / "data")
    source = json.loads((root / "data/raw/source.json").read_text())
    table = labels(
        root, ("ward/0.png", "TB"), ("ward/1.png", "NORMAL"), ("ward/2.png", "CANNOT_TELL")
    )
    assert join(root, table) == 0
    assert {(row.label, row.path) for row in joined(root)} == {
        ("TUBERCULOSIS", "TUBERCULOSIS/0.png"),
        ("NORMAL", "NORMAL/1.png"),
    }
    assert [row for row in read_manifest(root / "data") if row in before] == before
    assert json.loads((root / "data/raw/source.json").read_text()) == source
    assert join(root, table) == 0
    assert len(joined(root)) == 2
    shutil.rmtree(root / "inbox")
    flags = ["--dataset", f"folder:{root / 'source'}", *LITE0, *dirs(root)[:2]]
    assert run(ingest, *flags) == 0
    assert len(read_manifest(root / "data")) == 18
    assert len(joined(root)) == 2


def test_the_bytes_decide_which_film_is_meant(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = labels(root, ("ward/0.png", "TB"), ("ward/1.png", "TB"), ("ward/2.png", "TB"))
    wanted = sha256_of(root / "inbox/ward/0.png")
    (root / "inbox/ward/0.png").rename(root / "inbox/moved.png")
    film(root / "inbox/ward/1.png", seed=999)  # another film took the name
    assert join(root, table) == 3
    assert {row.sha256 for row in joined(root)} >= {wanted}
    assert len(joined(root)) == 2
    assert "1 labels are of no film in the folder, the first: ward/1.png" in capsys.readouterr().err


def test_a_label_of_a_reader_prevails_over_the_dataset(root: Path) -> None:
    shutil.copy(root / "source/normal/normal_0.png", root / "inbox/known.png")
    shutil.copy(root / "source/normal/normal_1.png", root / "inbox/agreed.png")
    assert join(root, labels(root, ("known.png", "TB"), ("agreed.png", "NORMAL"))) == 0
    (row,) = joined(root)
    assert row.path == "TUBERCULOSIS/known.png"
    assert run(split, *dirs(root)[:2]) == 0
    reasons = {row.path: row.excluded_because for row in read_split(root / "data")}
    assert "a reader labelled these bytes TUBERCULOSIS" in reasons["NORMAL/normal_0.png"]
    assert reasons["TUBERCULOSIS/known.png"] == ""


def test_a_corrected_label_takes_the_place_of_the_first_one(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert join(root, labels(root, ("ward/0.png", "NORMAL"), ("ward/1.png", "NORMAL"))) == 0
    assert join(root, labels(root, ("ward/0.png", "TB"), ("ward/1.png", "NORMAL"))) == 0
    assert "1 labels of a reader are replaced by a newer one" in capsys.readouterr().out
    assert {row.path for row in joined(root)} == {"TUBERCULOSIS/0.png", "NORMAL/1.png"}
    films = {path.name for path in (root / "data/raw").rglob("*.png")}
    assert films == {PurePosixPath(row.path).name for row in read_manifest(root / "data")}
    assert run(split, *dirs(root)[:2]) == 0
    assert not any(row.excluded_because for row in read_split(root / "data"))


def test_wrong_use_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_manifest(root / "data")
    table = labels(root, ("gone.png", "TB"))
    assert join(root, table) == 1
    assert "none of its 1 films is in" in capsys.readouterr().err
    assert join(root, labels(root, ("ward/0.png", "TB"), ("ward/0.png", "NORMAL"))) == 1
    assert "Correct one of them" in capsys.readouterr().err
    assert run(ingest, "--dataset", "phantom", "--labels", table, *dirs(root)[:2]) == 2
    assert "needs --dataset folder:PATH" in capsys.readouterr().err
    assert join(root, labels(root, ("ward/0.png", "COVID"), ("ward/1.png", "TB"))) == 0
    assert "left out: COVID (1)" in capsys.readouterr().err
    assert len(read_manifest(root / "data")) == len(before) + 1
    manifest = root / "data/raw/manifest.csv"
    manifest.write_text(manifest.read_text().replace(",96,96,", ",96,wide,", 1))
    assert join(root, labels(root, ("ward/3.png", "TB"))) == 1
    assert run(ingest, "--dataset", f"folder:{root / 'source'}", *LITE0, *dirs(root)[:2]) == 1
    assert "1 films beside it joined with a reader's labels" in capsys.readouterr().err
    assert len(list((root / "data/raw").rglob("*.png"))) == len(before) + 1
