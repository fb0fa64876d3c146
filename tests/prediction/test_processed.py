"""Processed contents: recognised whatever their name, examined again when they change."""

import errno
import os
import time
from pathlib import Path

import pytest

from lib.images.inputs import Folder
from lib.prediction.processed import ATTEMPTS, Processed, may_pass
from lib.run.errors import JobError
from lib.workers.processes import map_isolated
from tests.conftest import film


def _run(tmp_path: Path, *names: str) -> list[str]:
    processed = Processed(tmp_path / "seen.sqlite")
    films = Folder(tmp_path, names, 0, None)
    new = processed.new(films, 2)
    processed.record(films)
    return new


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


def _lost(_: float, reason: str) -> str:
    return reason


def test_a_content_whose_failure_may_pass_is_tried_again_and_not_for_ever(tmp_path: Path) -> None:
    film(tmp_path / "in/a.png", seed=1)
    film(tmp_path / "in/b.png", seed=2)
    films = Folder.of(tmp_path / "in", [])
    tries = []
    for _ in range(ATTEMPTS + 1):
        processed = Processed(tmp_path / "seen.sqlite")
        tries.append(processed.new(films, 1))
        processed.record(films, ["b.png"] if "b.png" in tries[-1] else [])
    assert tries == [["a.png", "b.png"], ["b.png"], ["b.png"], []]


def test_a_file_that_took_too_long_may_pass() -> None:
    (error,) = map_isolated(time.sleep, _lost, [30.0], 1, 0.2)
    assert may_pass(str(error))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (f"damaged or unreadable: {os.strerror(errno.EIO)}", True),
        ("reading it was killed, most likely because memory ran out", True),
        ("decoding it takes more memory than a film needs", True),
        ("damaged or unreadable: image file is truncated", False),
        ("file is empty", False),
        ("", False),
    ],
)
def test_only_time_memory_and_input_output_may_pass(error: str, passes: bool) -> None:
    assert may_pass(error) == passes
