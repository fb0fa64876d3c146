"""Films that joined data/raw with a reader's labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lib.dataset.contradictions import apply_policy, find_contradictions
from lib.dataset.joined import Joining, join, joined
from lib.dataset.label_table import LabelTable
from lib.dataset.manifest import READER_MARK, FilmRecord, write_rows
from lib.run.errors import JobError

PIXELS = b"the bytes of a film"
DIGEST = hashlib.sha256(PIXELS).hexdigest()
FILM = FilmRecord(
    *("NORMAL/1.png", "NORMAL", DIGEST, "0" * 64, 9, 9, "L", 9, 0.0, 90.0, 30.0, "", "", "ok"),
    *("", "normal/1.png"),
)
JOINED = replace(FILM, path="TB/2.png", label="TB", origin=f"{READER_MARK}{DIGEST[:12]}/TB/2.png")


def write(data: Path, *records: FilmRecord) -> Path:
    write_rows(data / "raw" / "manifest.csv", records, FilmRecord)
    return data / "raw" / "manifest.csv"


def test_an_ingest_of_a_dataset_keeps_the_films_that_joined(tmp_path: Path) -> None:
    assert joined(tmp_path) == []
    write(tmp_path, FILM, JOINED)
    assert joined(tmp_path) == [JOINED]


@pytest.mark.parametrize(("old", "new"), [(",9,0.0,", ",nine,0.0,"), ("contrast", "deviation")])
def test_a_manifest_that_cannot_be_read_does_not_lose_them(
    tmp_path: Path, old: str, new: str
) -> None:
    manifest = write(tmp_path, FILM, JOINED)
    manifest.write_text(manifest.read_text().replace(old, new, 1))
    with pytest.raises(JobError, match=r"1 films beside it joined .* nothing was changed"):
        joined(tmp_path)
    manifest.write_text(manifest.read_text().replace(READER_MARK, ""))  # all from the dataset
    assert joined(tmp_path) == []


def labelled(root: Path, there: Sequence[FilmRecord], **labels: str) -> Joining:
    """What joins data/raw where a reader gives files with the same bytes these labels."""
    for name in labels:
        (root / "inbox").mkdir(exist_ok=True)
        (root / "inbox" / name).write_bytes(PIXELS)
    rows = [f"{name},{label}" for name, label in labels.items()]
    (root / "labels.csv").write_text("\n".join(["path,label", *rows, ""]))
    table = LabelTable.read(root / "labels.csv")
    return join(root / "inbox", table, there, root / "raw", follow_links=False, threads=1)


OTHER = replace(FILM, path="TB/1.png", label="TB", origin="tb/1.png")  # under both, by the dataset


@pytest.mark.parametrize(
    ("there", "label", "joins", "superseded"),
    [
        ([FILM], "NORMAL", False, False),
        ([FILM, replace(OTHER, sha256="3" * 64)], "TB", True, False),
        ([FILM, OTHER], "TB", True, False),
        ([FILM, OTHER, JOINED], "TB", False, False),
        ([FILM, JOINED], "NORMAL", False, True),
        ([FILM, OTHER, JOINED], "NORMAL", True, True),
        ([replace(FILM, sha256="3" * 64), JOINED], "NORMAL", True, True),
    ],
)
def test_the_last_label_of_a_reader_is_the_one_that_split_uses(
    tmp_path: Path, there: list[FilmRecord], label: str, joins: bool, superseded: bool
) -> None:
    found = labelled(tmp_path, there, film=label)
    assert bool(found.films) == joins
    assert found.superseded == ({JOINED} if superseded else set())
    stay = [record for record in there if record not in found.superseded]
    new = [replace(FILM, label=one.label, origin=one.origin, path="new") for one in found.films]
    films = [film for film in [*stay, *new] if film.sha256 == DIGEST]
    excluded = apply_policy(find_contradictions(films), "keep:NORMAL")
    assert {film.label for film in films if film.path not in excluded} == {label}


def test_a_film_that_changes_its_label_is_taken_from_data_raw(tmp_path: Path) -> None:
    (tmp_path / "raw" / "TB").mkdir(parents=True)
    (tmp_path / "raw" / JOINED.path).write_bytes(PIXELS)
    there = [replace(FILM, sha256="3" * 64), JOINED]
    (film,) = labelled(tmp_path, there, film="NORMAL").films
    assert film.path == tmp_path / "raw" / JOINED.path


def test_copies_of_a_film_have_one_label(tmp_path: Path) -> None:
    found = labelled(tmp_path, [FILM, OTHER], first="TB", second="TB")
    assert (len(found.films), found.already_there) == (1, 1)
    with pytest.raises(JobError, match="gives first, which is the same film, the label TB"):
        labelled(tmp_path, [FILM, OTHER], first="TB", second="NORMAL")
