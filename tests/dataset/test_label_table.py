"""Tables of labels: of the triage page, written by people, and exported by Label Studio."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.dataset.label_table import CANNOT_TELL, NOT_A_CHEST_FILM, LabelTable, Meanings
from lib.run.errors import JobError


def task(image: str, *choices: str, **more: Any) -> dict[str, Any]:
    """A task as Label Studio exports it, with one annotation per choice."""
    annotations = [
        {"completed_by": 1, "was_cancelled": False, "result": [_result(choice)]}
        for choice in choices
    ]
    return {"id": 7, "data": {"image": image, **more}, "annotations": annotations}


def _result(choice: str) -> dict[str, Any]:
    value = {"choices": [choice]}
    return {"from_name": "class", "to_name": "image", "type": "choices", "value": value}


def exported(path: Path, *tasks: dict[str, Any]) -> Path:
    path.write_text(json.dumps(tasks))
    return path


def test_the_table_of_the_triage_page_has_digests_and_its_paths_are_cells(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    columns = "path,sha256,label,reader,time,model"
    path.write_text(f"{columns}\n'=a.png,AB12,TUBERCULOSIS,Dr,2026-11-28T08:00:00Z,m@1\n")
    (row,) = LabelTable.read(path).rows
    assert (row.place, row.label, row.sha256) == ("line 2", "TUBERCULOSIS", "ab12")
    assert "=a.png" in row.spellings()


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("/data/local-files/?d=inbox/ward%202/a.png", "inbox/ward 2/a.png"),
        ("/data/upload/3/0a1b2c3d-a.png", "a.png"),
        ("s3://films/inbox/a.png", "inbox/a.png"),
        ("https://host/inbox/a.png?x=1", "inbox/a.png"),
        ("a.png", "a.png"),
    ],
)
def test_the_path_of_a_task_of_label_studio(tmp_path: Path, image: str, path: str) -> None:
    (row,) = LabelTable.read(exported(tmp_path / "x.json", task(image, "Normal"))).rows
    assert row.path == path
    assert Path(path).name in row.spellings()


def test_skipped_and_cancelled_annotations_are_no_labels(tmp_path: Path) -> None:
    cancelled = task("b.png", "Normal")
    cancelled["annotations"][0]["was_cancelled"] = True
    path = exported(tmp_path / "x.json", task("a.png"), cancelled, task("c.png", "TB", sha256="F"))
    (row,) = LabelTable.read(path).rows
    assert (row.place, row.path, row.label, row.sha256) == ("task 7", "c.png", "TB", "f")


def test_two_choices_and_other_json_are_refused(tmp_path: Path) -> None:
    both = task("a.png", "Normal")
    both["annotations"][0]["result"].append(_result("TB"))
    with pytest.raises(JobError, match="task 7 has the choices Normal, TB"):
        LabelTable.read(exported(tmp_path / "x.json", both))
    for content in ("{", "{}", '[{"image": "a.png", "class": "TB"}]', "[3]"):
        (tmp_path / "y.json").write_text(content)
        with pytest.raises(JobError, match=r"no export of Label Studio.*format JSON"):
            LabelTable.read(tmp_path / "y.json")
    with pytest.raises(JobError, match="no annotated task"):
        LabelTable.read(exported(tmp_path / "z.json"))


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("tb", "TUBERCULOSIS"),
        ("Not a chest film", NOT_A_CHEST_FILM),
        ("cannot tell", CANNOT_TELL),
        ("Covid-19", "COVID-19"),
    ],
)
def test_a_label_means_what_a_folder_of_its_name_means(
    tmp_path: Path, label: str, meaning: str
) -> None:
    (tmp_path / "x.csv").write_text(f"path,label\na.png,{label}\n")
    (row,) = LabelTable.read(tmp_path / "x.csv").rows
    assert Meanings.of(["NORMAL", "TUBERCULOSIS"]).label(row) == meaning
