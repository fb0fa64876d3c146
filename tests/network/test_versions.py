"""Promoted versions: which one answers, what is kept, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from jobs import promote
from lib.network.artifact import ModelManifest
from lib.network.versions import Versions, answering_model
from lib.run.errors import JobError
from lib.storage.atomic import sha256_of
from tests.conftest import run


def train(runs: Path, weights: str, calibration: float = 1.0) -> str:
    """A model folder in runs/model in place of the one that is there; its name."""
    new = runs / "new"
    new.mkdir(parents=True)
    (new / "fp32.bin").write_text(weights)
    digest = sha256_of(new / "fp32.bin")
    manifest = ModelManifest(
        *("resnet18", ("A", "B"), 224, "b", 1, digest, "0" * 64, None),
        files={"fp32.bin": digest},
        made_with={},
        calibration={"temperature": calibration},
    )
    manifest.write(new)
    shutil.rmtree(runs / "model", ignore_errors=True)
    new.rename(runs / "model")
    return manifest.name


def test_without_a_promoted_version_the_trained_model_answers(tmp_path: Path) -> None:
    assert answering_model(tmp_path) == tmp_path / "model"


def test_a_training_changes_nothing_until_its_model_is_promoted(tmp_path: Path) -> None:
    first = train(tmp_path, "first")
    assert run(promote, "--runs_dir", tmp_path) == 0
    second = train(tmp_path, "second")
    assert answering_model(tmp_path) == tmp_path / "models" / first
    assert run(promote, "--runs_dir", tmp_path) == 0
    assert answering_model(tmp_path) == tmp_path / "models" / second
    assert {path.name for path in (tmp_path / "models").glob("*@*")} == {first, second}
    assert run(promote, "--rollback", "--runs_dir", tmp_path) == 0
    assert answering_model(tmp_path) == tmp_path / "models" / first
    assert ModelManifest.read(tmp_path / "models" / second).name == second
    assert run(promote, "--model", tmp_path / "models" / second, "--runs_dir", tmp_path) == 0
    assert Versions.read(tmp_path).promoted == (first, second)


def test_a_second_promotion_of_the_same_model_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = train(tmp_path, "first")
    assert [run(promote, "--runs_dir", tmp_path) for _ in range(2)] == [0, 0]
    assert f"{name} answers already" in capsys.readouterr().out
    assert Versions.read(tmp_path).promoted == (name,)


def test_there_must_be_a_version_to_go_back_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(promote, "--rollback", "--runs_dir", tmp_path) == 1
    train(tmp_path, "first")
    assert run(promote, "--runs_dir", tmp_path) == 0
    assert run(promote, "--rollback", "--runs_dir", tmp_path) == 1
    assert "nothing to go back to" in capsys.readouterr().err
    assert run(promote, "--rollback", "--model", "x", "--runs_dir", tmp_path) == 2


def test_a_damaged_model_is_neither_promoted_nor_gone_back_to(tmp_path: Path) -> None:
    first = train(tmp_path, "first")
    Versions.read(tmp_path).promote(tmp_path / "model")
    second = train(tmp_path, "second")
    versions = Versions.read(tmp_path).promote(tmp_path / "model")
    (tmp_path / "models" / first / "fp32.bin").unlink()
    with pytest.raises(JobError, match="missing or damaged"):
        versions.rollback()
    train(tmp_path, "third")
    (tmp_path / "model" / "fp32.bin").write_text("damaged")
    with pytest.raises(JobError, match="missing or damaged"):
        versions.promote(tmp_path / "model")
    assert Versions.read(tmp_path).current == second


def test_one_name_never_stands_for_two_models(tmp_path: Path) -> None:
    train(tmp_path, "first")
    versions = Versions.read(tmp_path).promote(tmp_path / "model")
    train(tmp_path, "first", calibration=2.0)
    with pytest.raises(JobError, match="tables name both alike"):
        versions.promote(tmp_path / "model")


def test_a_damaged_pointer_is_no_reason_to_answer_with_another_model(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for content in ("", "{}", json.dumps({"promoted": 3})):
        (tmp_path / "models" / "promoted.json").write_text(content)
        with pytest.raises(JobError, match="Restore it from a backup"):
            answering_model(tmp_path)
