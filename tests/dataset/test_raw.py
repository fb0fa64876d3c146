"""What an ingest takes over from an earlier one, by the content of films."""

from dataclasses import replace
from pathlib import Path

from lib.dataset.labels import FoundFilm
from lib.dataset.raw import RawPlan, record_of
from lib.images.files import MAX_PIXELS
from lib.images.reader import examine
from lib.storage.atomic import sha256_of
from tests.conftest import film


def _plan(staging: Path, *names: str) -> RawPlan:
    """The plan for new films of one class, staged under their own names."""
    films = [FoundFilm(name, str(staging / f"A/{name}"), "A") for name in names]
    return RawPlan.of(films, staging)


def test_bytes_that_were_measured_under_another_name_are_not_measured_again(tmp_path: Path) -> None:
    film(tmp_path / "A" / "first.png", seed=1)
    before = _plan(tmp_path, "first.png")
    row = record_of(before.films[0], examine(tmp_path / "A" / "first.png", MAX_PIXELS))
    (tmp_path / "A" / "moved.png").write_bytes((tmp_path / "A" / "first.png").read_bytes())
    film(tmp_path / "A" / "new.png", seed=2)
    plan = replace(_plan(tmp_path, "moved.png", "new.png"), earlier=(row,))
    known = plan.known(tmp_path, threads=1)
    assert list(known) == ["moved.png"]
    expected = replace(row, path="A/moved.png", origin="moved.png")
    assert known["moved.png"] == expected
    assert known["moved.png"].sha256 == sha256_of(tmp_path / "A" / "moved.png")


def test_a_patient_that_a_name_gave_is_not_taken_for_that_of_the_header(tmp_path: Path) -> None:
    name = "person12_bacteria_3.jpeg"
    film(tmp_path / "A" / name, format="PNG")
    row = record_of(_plan(tmp_path, name).films[0], examine(tmp_path / "A" / name, MAX_PIXELS))
    assert row.patient
    (tmp_path / "A" / "anonymous.png").write_bytes((tmp_path / "A" / name).read_bytes())
    plan = replace(_plan(tmp_path, "anonymous.png"), earlier=(row,))
    assert plan.known(tmp_path, threads=1) == {}
