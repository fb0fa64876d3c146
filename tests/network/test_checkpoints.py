"""Checkpoints: the same bytes for the same content; a checkpoint that does not fit is refused."""

import pickle
from pathlib import Path

import pytest
import torch

from lib.network import checkpoints
from lib.network.checkpoints import Checkpoint
from lib.run.errors import JobError


def _checkpoint(value: float = 1.0) -> Checkpoint:
    state = {"weight": torch.full((2, 3), value), "count": torch.tensor(3)}
    return Checkpoint("resnet18", ("A", "B"), "a", 2, 0.5, 0.7, state, "data", "parent")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "a.pt", _checkpoint())
    loaded = checkpoints.load(tmp_path / "a.pt")
    assert loaded.classes == ("A", "B")
    assert loaded.digest == _checkpoint().digest
    assert loaded.parent_digest == "parent"


def test_the_same_content_gives_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "a.pt", _checkpoint())
    checkpoints.save(tmp_path / "b.pt", _checkpoint())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_the_digest_sees_a_single_bit() -> None:
    assert _checkpoint(1.0).digest != _checkpoint(1.0 + 2**-23).digest


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 / 0",)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(_Payload())])
def test_a_damaged_or_malicious_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(JobError, match="not a readable checkpoint"):
        checkpoints.load(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [torch.zeros(2), [1, 2], "text"])
def test_a_file_that_holds_no_dictionary_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(JobError, match="not a readable checkpoint: it holds a"):
        checkpoints.load(tmp_path / "a.pt")


def test_a_field_of_a_newer_version_and_a_missing_one_are_named(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "a.pt", _checkpoint())
    content = checkpoints.load_state(tmp_path / "a.pt")
    checkpoints.save_state(tmp_path / "newer.pt", {**content, "ensemble": 3})
    with pytest.raises(JobError, match=r"newer version .* has ensemble\. Use that version"):
        checkpoints.load(tmp_path / "newer.pt")
    del content["epoch"], content["classes"]
    checkpoints.save_state(tmp_path / "less.pt", content)
    with pytest.raises(JobError, match=r"lacks classes, epoch\."):
        checkpoints.load(tmp_path / "less.pt")


def test_a_checkpoint_of_another_version_says_how_to_train_again(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "a.pt", _checkpoint())
    content = checkpoints.load_state(tmp_path / "a.pt")
    checkpoints.save_state(tmp_path / "a.pt", {**content, "format": 1})
    with pytest.raises(JobError, match=r"another version .*make all TRAIN_A_ARGS=--restart"):
        checkpoints.load(tmp_path / "a.pt")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "a.pt", _checkpoint())
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JobError, match="not a readable checkpoint"):
        checkpoints.load(tmp_path / "a.pt")


def test_a_foreign_or_missing_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(JobError, match="not a checkpoint of this program"):
        checkpoints.load(tmp_path / "foreign.pt")
    with pytest.raises(JobError, match="make train-a"):
        checkpoints.load(tmp_path / "missing.pt")


def test_another_backbone_or_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="holds resnet18"):
        checkpoints.require_fit(tmp_path, _checkpoint(), "resnet50", ("A", "B"))
    with pytest.raises(JobError, match="trained on A, B"):
        checkpoints.require_fit(tmp_path, _checkpoint(), "resnet18", ("A", "C"))
