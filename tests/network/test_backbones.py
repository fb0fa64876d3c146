"""The table of architectures, their cuts, and where pretrained weights come from."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib.network import backbones, weights
from lib.network.backbones import BACKBONES, Backbone
from lib.network.torchvision import torchvision
from lib.run.errors import JobError
from lib.storage.atomic import sha256_of
from tests.conftest import environment

LITE0 = BACKBONES["efficientnet_lite0"]


def _original(row: Backbone, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    if row.library == "timm":
        import timm

        return timm.create_model(row.architecture, pretrained=False)
    return torchvision.models.get_model(row.architecture, weights=None)


@pytest.mark.parametrize("row", BACKBONES.values(), ids=BACKBONES)
def test_the_parts_together_are_the_original_up_to_its_classifier(
    row: Backbone, tmp_path: Path
) -> None:
    """Trunk and last block, pooled, feed the original's own classifier: the logits must be the
    original's.
    """
    original = _original(row).eval()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network = backbones.build(row, classes=3, pretrained=tmp_path / "weights.pth").eval()
    classifier = [module for module in original.modules() if isinstance(module, torch.nn.Linear)][
        -1
    ]
    trunk, last_block = network.get_submodule("trunk"), network.get_submodule("last_block")
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        pooled = last_block(trunk(images)).mean((2, 3))
        assert torch.allclose(classifier(pooled), original(images), atol=1e-4)
        assert network(images).shape == (1, 3)
    parameters = {id(p) for part in (trunk, last_block) for p in part.parameters()}
    assert len(parameters) == len(list(original.parameters())) - len(list(classifier.parameters()))


def test_reading_the_table_needs_no_torch() -> None:
    code = "import sys; from lib import settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_the_packaged_weights_are_checked_and_cached(tmp_path: Path) -> None:
    file = weights.bring_weights(LITE0, tmp_path)
    assert weights.weights_file(LITE0, tmp_path) == file
    record = json.loads((tmp_path / "weights" / "efficientnet_lite0.json").read_text())
    assert record["sha256"] == LITE0.sha256


def test_pretrained_features_are_not_random(tmp_path: Path) -> None:
    """ImageNet's first layer has colour-opponent and edge filters: far larger weights than an
    initialisation has.
    """
    network = backbones.build(LITE0, 3, weights.bring_weights(LITE0, tmp_path))
    stem = next(network.get_submodule("trunk").parameters())
    assert float(stem.detach().abs().max()) > 1.0


def test_weights_of_ones_own_that_fit_are_taken_and_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = BACKBONES["resnet18"]
    torch.save(_original(row).state_dict(), tmp_path / "own.pth")
    file = weights.bring_weights(row, tmp_path / "cache", tmp_path / "own.pth")
    assert "not the published file" in capsys.readouterr().err
    assert file == weights.weights_file(row, tmp_path / "cache")


def test_a_published_file_brought_by_hand_is_taken_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = weights.bring_weights(LITE0, tmp_path / "first")
    weights.bring_weights(LITE0, tmp_path / "second", packaged)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["text", "resnet34"])
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, content: str) -> None:
    given = tmp_path / "given.pth"
    if content == "text":
        given.write_text("not weights")
    else:
        torch.save(_original(BACKBONES[content]).state_dict(), given)
    with pytest.raises(JobError, match="resnet50"):
        weights.bring_weights(BACKBONES["resnet50"], tmp_path / "cache", given)
    assert not (tmp_path / "cache" / "weights" / "resnet50.json").exists()


def test_cached_weights_that_changed_are_refused(tmp_path: Path) -> None:
    file = weights.bring_weights(LITE0, tmp_path)
    with open(file, "ab") as out:
        out.write(b"x")
    with pytest.raises(JobError, match="was changed after"):
        weights.weights_file(LITE0, tmp_path)


def test_missing_weights_name_the_job_that_brings_them(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="make ingest BACKBONE=resnet18"):
        weights.weights_file(BACKBONES["resnet18"], tmp_path)


def test_a_download_is_taken_only_with_the_published_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = dataclasses.replace(BACKBONES["resnet18"], sha256="0" * 8)
    torch.save(_original(row).state_dict(), tmp_path / "served.pth")
    monkeypatch.setattr(weights, "_published_url", lambda _: (tmp_path / "served.pth").as_uri())
    with pytest.raises(JobError, match="invalid hash value"):
        weights.bring_weights(row, tmp_path / "cache")
    assert list((tmp_path / "cache" / "weights").iterdir()) == []
    right = dataclasses.replace(row, sha256=sha256_of(tmp_path / "served.pth")[:8])
    assert weights.bring_weights(right, tmp_path / "cache").exists()


def test_no_network_names_the_ways_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        weights, "_published_url", lambda _: "http://127.0.0.1:9/resnet18-f37072fd.pth"
    )
    with pytest.raises(JobError, match=r"--weights FILE[\s\S]*efficientnet_lite0"):
        weights.bring_weights(BACKBONES["resnet18"], tmp_path)
