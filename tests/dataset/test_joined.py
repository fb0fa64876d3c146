"""Films that joined data/raw with a reader's labels."""

from dataclasses import replace
from pathlib import Path

import pytest

from lib.dataset.joined import MARK, joined
from lib.dataset.manifest import FilmRecord, write_rows
from lib.run.errors import JobError

FILM = FilmRecord(
    *("NORMAL/1.png", "NORMAL", "1" * 64, "0" * 64, 9, 9, "L", 9, 0.0, 90.0, 30.0, "", "", "ok"),
    *("", "normal/1.png"),
)
JOINED = replace(
    FILM, path="TB/2.png", label="TB", sha256="2" * 64, origin=f"{MARK}222222222222/TB/2.png"
)


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
    manifest.write_text(manifest.read_text().replace(MARK, ""))  # all from the dataset
    assert joined(tmp_path) == []
