"""model.json: folders of earlier versions are read, those of newer ones refused with what to do."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.network.artifact import Agreement, ModelManifest
from lib.run.errors import JobError

GRAPH = b"<net/>"
# model.json as version 0.1.0 wrote it, without the digest of itself
WRITTEN_BEFORE: dict[str, Any] = {
    "format": 2,
    "backbone": "efficientnet_lite0",
    "classes": ["NORMAL", "PNEUMONIA", "TUBERCULOSIS"],
    "input_side": 224,
    "phase": "b",
    "epoch": 7,
    "weights_sha256": "c1e17bbfcb7afdceb116babd1ecc8c7721fb54d86b44a68cafd514105e80ff63",
    "split_sha256": "dd87d0e91767e5ca8f0efcff1b1f3b7a9ffbfa102a98bac67e322297c209a43f",
    "bf16": {
        "films": 133,
        "same_prediction": 1.0,
        "mean_shift": 0.001,
        "largest_shift": 0.02,
    },
    "files": {"fp32.xml": hashlib.sha256(GRAPH).hexdigest()},
    "made_with": {"openvino": "2026.4.1", "torch": "2.13.0"},
    "calibration": {"films": 133, "temperature": 0.8},
}


def _folder(path: Path, digest: bool = True, **changes: Any) -> Path:
    content = {**WRITTEN_BEFORE, **changes}
    if digest:
        text = json.dumps(content, sort_keys=True)
        content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "model.json").write_text(json.dumps(content, indent=2))
    (path / "fp32.xml").write_bytes(GRAPH)
    return path


@pytest.mark.parametrize("digest", [True, False])
def test_a_model_folder_of_the_version_before_is_read(tmp_path: Path, digest: bool) -> None:
    manifest = ModelManifest.read(_folder(tmp_path, digest))
    assert manifest.name == "efficientnet_lite0@c1e17bbfcb7a"
    assert manifest.classes == ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
    assert manifest.bf16 == Agreement(133, 1.0, 0.001, 0.02)
    assert manifest.calibration == {"films": 133, "temperature": 0.8}


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = ModelManifest.read(_folder(tmp_path))
    manifest.write(tmp_path)
    assert ModelManifest.read(tmp_path) == manifest


def test_an_optional_field_may_be_missing(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    content = {name: value for name, value in WRITTEN_BEFORE.items() if name != "calibration"}
    (folder / "model.json").write_text(json.dumps(content))
    assert ModelManifest.read(folder).calibration is None


def test_a_folder_of_before_takes_whole_films_and_is_written_as_it_was(tmp_path: Path) -> None:
    manifest = ModelManifest.read(_folder(tmp_path))
    assert manifest.crop == "none"
    manifest.write(tmp_path)
    assert set(json.loads((tmp_path / "model.json").read_text())) == {*WRITTEN_BEFORE, "sha256"}


def test_the_crop_of_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = replace(ModelManifest.read(_folder(tmp_path)), crop="lungs")
    manifest.write(tmp_path)
    assert ModelManifest.read(tmp_path) == manifest


def test_a_required_field_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    content = {name: value for name, value in WRITTEN_BEFORE.items() if name != "classes"}
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(JobError, match="lacks classes"):
        ModelManifest.read(folder)


def test_a_field_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    folder = _folder(tmp_path, ensemble=["a", "b"])
    with pytest.raises(JobError, match=r"newer version .* has ensemble\. Use that version"):
        ModelManifest.read(folder)


@pytest.mark.parametrize("format_number", [1, 3, None])
def test_another_format_is_refused(tmp_path: Path, format_number: int | None) -> None:
    with pytest.raises(JobError, match="not a model of this version"):
        ModelManifest.read(_folder(tmp_path, format=format_number))


def test_an_edited_manifest_and_a_damaged_graph_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"epoch": 7', '"epoch": 8'))
    with pytest.raises(JobError, match="was changed"):
        ModelManifest.read(folder)
    (folder / "model.json").write_text(text)
    (folder / "fp32.xml").write_bytes(b"other")
    with pytest.raises(JobError, match="missing or damaged"):
        ModelManifest.read(folder)


def test_a_manifest_knows_when_its_folder_holds_another_model(tmp_path: Path) -> None:
    manifest = ModelManifest.read(_folder(tmp_path))
    manifest.require_in(tmp_path)
    _folder(tmp_path, epoch=8)
    with pytest.raises(JobError, match="was replaced"):
        manifest.require_in(tmp_path)
    (tmp_path / "model.json").unlink()  # between the two renames of a training
    with pytest.raises(JobError, match="was replaced"):
        manifest.require_in(tmp_path)
