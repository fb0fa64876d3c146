"""Processed contents: recognised whatever their name, examined again when they change."""

import os
from pathlib import Path

import pytest

from lib.images.inputs import Folder
from lib.prediction.processed import Processed
from lib.run.errors import JobError


def _run(tmp_path: Path, *names: str) -> list[str]:
    processed = Processed(tmp_path / "seen.sqlite")
    films = Folder(tmp_path, names, 0, None)
    names = processed.new(films, 2)
    processed.record(films)
    return names


def test_a_content_is_processed_once_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    assert _run(tmp_path, "a", "b") == ["a", "b"]
    assert _run(tmp_path, "a", "b") == []
    (tmp_path / "c").write_text("one")
    (tmp_path / "b").write_text("three")
    assert _run(tmp_path, "a", "b", "c") == ["b"]


def test_what_cannot_be_read_is_never_recorded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for _ in range(2):
        assert _run(tmp_path, "gone", "pipe") == ["gone", "pipe"]


def test_a_file_that_changed_since_it_was_examined_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    processed = Processed(tmp_path / "seen.sqlite")
    films = Folder(tmp_path, ["a"], 0, None)
    processed.new(films, 1)
    (tmp_path / "a").write_text("grown")
    processed.record(films)
    assert _run(tmp_path, "a") == ["a"]


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("one")
    _run(tmp_path, "a")
    monkeypatch.setattr("lib.images.inputs.sha256_of", lambda path: pytest.fail(f"{path} was read"))
    assert _run(tmp_path, "a") == []


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff'\n")
    (tmp_path / name).write_text("one")
    assert _run(tmp_path, name) == [name]
    assert _run(tmp_path, name) == []


def test_a_file_that_is_no_such_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "seen.sqlite").write_text("no database" * 1000)
    with pytest.raises(JobError, match="Give a new file name"):
        Processed(tmp_path / "seen.sqlite")
    assert (tmp_path / "seen.sqlite").read_text() == "no database" * 1000


def test_a_sparse_file_of_terabytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    os.truncate(tmp_path / "in" / "a", 2**42)
    processed = Processed(tmp_path / "seen.sqlite")
    films = Folder(tmp_path / "in", ["a"], 0, None)
    assert processed.new(films, 1) == ["a"]
    processed.record(films)
    assert processed.new(films, 1) == ["a"]
