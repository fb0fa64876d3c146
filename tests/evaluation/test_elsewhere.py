"""Folders of films from elsewhere: which films are scored, with which labels, and which are not."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib.dataset.label_table import LabelTable
from lib.dataset.labels import FoundFilm
from lib.dataset.raw import PlannedFilm, record_of
from lib.evaluation.elsewhere import FolderElsewhere, evaluation_set
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.home import COPY, HomeFilms
from lib.evaluation.labelled_folder import (
    LINK,
    MASK,
    NO_FILE,
    NO_LABEL,
    NO_ROW,
    UNKNOWN_CLASS,
)
from lib.evaluation.reading import Reading
from lib.images.reader import examine
from lib.run.errors import JobError, UsageError
from tests.conftest import film
from tests.formats import dicom, write_every_format

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
NO_HOME = HomeFilms({}, "there is no data folder")
SILENT: dict[str, Any] = {"BodyPartExamined": None, "ViewPosition": None, "Modality": "OT"}


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Three films of each of two classes."""
    for number in range(3):
        film(tmp_path / "hospital" / "Healthy" / f"h{number}.png", seed=number, side=128)
        film(tmp_path / "hospital" / "TB" / f"t{number}.png", seed=100 + number, side=128)
    return tmp_path / "hospital"


def found(
    root: Path, home: HomeFilms = NO_HOME, table: LabelTable | None = None, **reading: Any
) -> EvaluationSet:
    folder = FolderElsewhere(root, table, Reading(**reading))
    return evaluation_set(folder, CLASSES, home, readers=2)


def left_out(films: EvaluationSet) -> dict[str, str]:
    assert films.elsewhere
    return {one.path: one.reason for one in films.elsewhere.left_out}


def at_home(**sides: Path) -> HomeFilms:
    """A split with one film on each side."""
    films = {}
    for side, path in sides.items():
        planned = PlannedFilm(
            FoundFilm(path.name, str(path), "NORMAL"), f"NORMAL/{path.name}", None
        )
        record = record_of(planned, examine(path, 10**8))
        films[side] = [LabelledFilm(path.name, path, "NORMAL", path.name, "", record)]
    return HomeFilms(films)


def table(path: Path, *rows: str) -> LabelTable:
    path.write_text("\n".join(["path,label", *rows]))
    return LabelTable.read(path)


def test_class_folders_mean_the_classes_that_they_mean_for_ingest(hospital: Path) -> None:
    films = found(hospital)
    assert Counter(films.labels) == {"NORMAL": 3, "TUBERCULOSIS": 3}
    assert films.names == sorted(films.names)
    assert all(films.file_of[name] == hospital / name for name in films.names)


def test_a_class_of_the_model_comes_before_the_synonym_of_another(tmp_path: Path) -> None:
    film(tmp_path / "Viral Pneumonia" / "a.png")
    film(tmp_path / "pneumonia" / "b.png", seed=1)
    folder = FolderElsewhere(tmp_path, None, Reading())
    films = evaluation_set(folder, ("NORMAL", "VIRAL_PNEUMONIA"), NO_HOME, readers=1)
    assert films.labels == ["VIRAL_PNEUMONIA"]
    assert left_out(films) == {"pneumonia/b.png": UNKNOWN_CLASS}


def test_other_classes_masks_and_loose_files_are_left_out(hospital: Path) -> None:
    for number, name in enumerate(("COVID/x.png", "TB/masks/m.png", "loose.png")):
        film(hospital / name, seed=900 + number)
    assert left_out(found(hospital)) == {
        "COVID/x.png": UNKNOWN_CLASS,
        "TB/masks/m.png": MASK,
        "loose.png": NO_LABEL,
    }


def test_equal_bytes_and_recoded_copies_of_films_at_home_are_left_out(
    hospital: Path, tmp_path: Path
) -> None:
    home = at_home(
        train=film(tmp_path / "home" / "a.png", seed=500, side=256),
        val=film(tmp_path / "home" / "b.png", seed=501, side=256),
        test=film(tmp_path / "home" / "c.png", seed=502, side=256),
    )
    shutil.copy(tmp_path / "home" / "a.png", hospital / "TB" / "a.png")
    shutil.copy(tmp_path / "home" / "c.png", hospital / "Healthy" / "c.png")
    with Image.open(tmp_path / "home" / "b.png") as image:
        image.resize((200, 200)).save(hospital / "TB" / "b.jpg", quality=60)
    films = found(hospital, home)
    assert left_out(films) == {
        "Healthy/c.png": COPY["test"],
        "TB/a.png": COPY["train"],
        "TB/b.jpg": COPY["val"],
    }
    assert films.elsewhere
    details = {one.path: one.detail for one in films.elsewhere.left_out}
    assert details["TB/a.png"] == "same bytes as train/NORMAL/a.png"
    assert details["TB/b.jpg"] == "near-duplicate of val/NORMAL/b.png"
    assert len(films.films) == 6
    assert films.training == home.films["train"]


def test_a_blank_film_is_no_near_duplicate_of_a_blank_film_at_home(
    hospital: Path, tmp_path: Path
) -> None:
    for path, side in ((tmp_path / "blank.png", 64), (hospital / "TB" / "blank.png", 80)):
        Image.new("L", (side, side)).save(path)
    assert left_out(found(hospital, at_home(train=tmp_path / "blank.png"))) == {}


def test_films_under_two_labels_are_left_out_with_all_their_copies(hospital: Path) -> None:
    shutil.copy(hospital / "Healthy" / "h0.png", hospital / "TB" / "copy.png")
    shutil.copy(hospital / "Healthy" / "h0.png", hospital / "Healthy" / "twice.png")
    with Image.open(hospital / "Healthy" / "h1.png") as image:
        image.resize((300, 300)).save(hospital / "TB" / "larger.png")
    shutil.copy(hospital / "Healthy" / "h2.png", hospital / "Healthy" / "same label.png")
    films = found(hospital)
    names = {"Healthy/h0.png", "Healthy/twice.png", "TB/copy.png"}
    assert set(left_out(films)) == names | {"Healthy/h1.png", "TB/larger.png"}
    assert set(left_out(films).values()) == {"under two labels"}
    groups = {film.name: film.group for film in films.films}
    assert groups["Healthy/h2.png"] == groups["Healthy/same label.png"]


def test_a_folder_without_a_film_to_score_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty" / "tb").mkdir(parents=True)
    with pytest.raises(JobError, match="there is no file in this folder"):
        found(tmp_path / "empty")
    film(tmp_path / "strange" / "COVID" / "x.png")
    with pytest.raises(JobError, match=r"its 1 entries have COVID \(1\)"):
        found(tmp_path / "strange")
    path = film(tmp_path / "copied" / "normal" / "a.png")
    with pytest.raises(JobError, match="no film is left to score: 1 copy of a training film"):
        found(tmp_path / "copied", at_home(train=path))


def test_every_format_is_read_and_an_unreadable_film_stays_with_its_problem(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "films" / "normal"
    folder.mkdir(parents=True)
    formats = write_every_format(folder)
    (folder / "broken.png").write_bytes(b"no film")
    films = found(tmp_path / "films")
    problems = {film.name: film.record.problem for film in films.films}
    assert len(problems) == len(formats) + 1
    assert [name for name, problem in problems.items() if problem] == ["normal/broken.png"]


def test_silent_dicom_headers_are_read_on_request_alone(hospital: Path) -> None:
    with Image.open(film(hospital.parent / "film.png", seed=7)) as image:
        dicom(hospital / "TB" / "silent.dcm", image, **SILENT)
    for trust, is_refused in ((False, True), (True, False)):
        films = {film.name: film for film in found(hospital, trust_headers=trust).films}
        assert bool(films["TB/silent.dcm"].record.problem) is is_refused


def test_links_are_followed_on_request_alone(hospital: Path, tmp_path: Path) -> None:
    (hospital / "TB").rename(tmp_path / "elsewhere")
    (hospital / "TB").symlink_to(tmp_path / "elsewhere")
    outside = film(tmp_path / "outside.png", seed=8)
    (hospital / "Healthy" / "linked.png").symlink_to(outside)
    films = found(hospital)
    assert left_out(films) == {"TB": LINK}
    problems = {film.name: film.record.problem for film in films.films}
    assert "link leads out of the folder" in problems["Healthy/linked.png"]
    followed = found(hospital, follow_links=True)
    assert len(followed.films) == 7
    assert not any(film.record.problem for film in followed.films)


def test_films_of_one_patient_form_a_group(hospital: Path) -> None:
    films = found(hospital, group_by=r"([ht])\d")
    assert len({film.group for film in films.films}) == 2
    assert len({film.group for film in found(hospital).films}) == 6
    with pytest.raises(UsageError, match="matches no file"):
        found(hospital, group_by="nobody")


def test_a_table_gives_labels_and_names_what_has_no_partner(hospital: Path, tmp_path: Path) -> None:
    rows = ["./Healthy/h0.png,tb", r"TB\t0.png,No Finding", "gone.png,tb", "TB/t1.png,COVID"]
    films = found(hospital, table=table(tmp_path / "labels.csv", *rows))
    assert dict(zip(films.names, films.labels, strict=True)) == {
        "Healthy/h0.png": "TUBERCULOSIS",
        "TB/t0.png": "NORMAL",
    }
    assert left_out(films) == {
        "gone.png": NO_FILE,
        "TB/t1.png": UNKNOWN_CLASS,
        **dict.fromkeys(("Healthy/h1.png", "Healthy/h2.png", "TB/t2.png"), NO_ROW),
    }


def test_a_path_may_stand_in_a_table_as_our_own_tables_write_it(tmp_path: Path) -> None:
    film(tmp_path / "films" / "=a\nb.png")
    labels = table(tmp_path / "labels.csv", r"'=a\nb.png,tb")
    films = found(tmp_path / "films", table=labels)
    assert (films.names, films.labels) == ([r"'=a\nb.png"], ["TUBERCULOSIS"])


def test_the_table_itself_is_no_film_and_a_patient_column_groups_films(hospital: Path) -> None:
    rows = ["label,patient,path", "tb,p1,TB/t0.png", "tb,p1,TB/t1.png", "tb,,TB/t2.png"]
    (hospital / "labels.csv").write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    films = found(hospital, table=LabelTable.read(hospital / "labels.csv"))
    assert "labels.csv" not in left_out(films)
    groups = [film.group for film in films.films]
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no column path"),
        ("path;label\na.png;tb\n", "its first line is 'path;label'"),
        ("path,class\na.png,tb\n", "has no column label"),
        ("path,label\n", "has no row"),
        ("path,label\na.png,\n", "line 2 needs a path and a label"),
        ("path,label\na.png\n", "line 2 needs a path and a label"),
        ("path,label\na.png,tb,more\n", "line 2 has too many cells"),
        ('path,label\n"a.png,tb\n', "is no CSV"),
        (b"path,label\n\xff\xfe,tb\n", "is not UTF-8"),
    ],
)
def test_a_damaged_table_is_an_error_that_names_the_line(
    tmp_path: Path, content: Any, said: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(JobError, match=said):
        LabelTable.read(path)


def test_two_labels_of_one_film_in_a_table_are_an_error(hospital: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "labels.csv", "TB/t0.png,tb", "TB/t0.png,normal")
    with pytest.raises(JobError, match=r"line 3 gives TB/t0\.png the label NORMAL, line 2"):
        found(hospital, table=labels)
