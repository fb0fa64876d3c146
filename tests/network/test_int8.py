"""8-bit graphs: rounding, the guard that decides about their use, and an export that has one."""

import itertools
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lib.network import artifact, backbones, export, graph
from lib.network.artifact import Agreement, Int8, ModelManifest
from lib.network.backbones import BACKBONES
from lib.network.checkpoints import Checkpoint
from lib.network.conversion import convert, save_graph
from lib.network.graph import Graph
from lib.network.instructions import has_vnni, may_use_bf16
from lib.network.int8 import rounded_weights, write_int8
from lib.run.errors import JobError

GOOD = Int8(400, 0.9975, 0.003, 0.05, 2.4)
CPUINFO = "processor : 0\nflags : fpu avx2 avx512f {}\n"


def _manifest(int8: Int8 | None, bf16: Agreement | None = None) -> ModelManifest:
    return ModelManifest(
        "resnet18", ("A", "B"), 224, "b", 1, "w", "s", bf16=bf16, files={}, made_with={}, int8=int8
    )


def _cpu(monkeypatch: pytest.MonkeyPatch, vnni: bool, bf16: bool) -> None:
    monkeypatch.setattr(artifact, "has_vnni", lambda: vnni)
    monkeypatch.setattr(artifact, "native_precision", lambda: "bf16" if bf16 else "fp32")


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, True),
        ({"same_prediction": 0.994}, False),
        ({"mean_shift": 0.0051}, False),
        ({"speed": 1.4}, False),
        ({"same_prediction": 0.995, "mean_shift": 0.005, "speed": 1.5}, True),
    ],
)
def test_int8_is_usable_only_if_it_agrees_and_gains(change: dict[str, Any], usable: bool) -> None:
    assert replace(GOOD, **change).is_usable is usable


@pytest.mark.parametrize(
    ("int8", "vnni", "bf16", "expected"),
    [
        (GOOD, True, False, "int8"),
        (GOOD, False, False, "fp32"),
        (GOOD, True, True, "bf16"),
        (replace(GOOD, speed=1.2), True, False, "fp32"),
        (None, True, False, "fp32"),
    ],
)
def test_auto_takes_int8_only_where_model_and_cpu_allow_it_and_bf16_does_not(
    monkeypatch: pytest.MonkeyPatch, int8: Int8 | None, vnni: bool, bf16: bool, expected: str
) -> None:
    _cpu(monkeypatch, vnni, bf16)
    manifest = _manifest(int8, Agreement(400, 1.0, 0.001, 0.01))
    assert manifest.precision("auto") == expected


def test_int8_on_request_is_refused_where_its_answers_were_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _cpu(monkeypatch, vnni=True, bf16=True)
    assert _manifest(GOOD).precision("int8") == "int8"
    for model in (_manifest(None), _manifest(replace(GOOD, same_prediction=0.98))):
        with pytest.raises(JobError, match="this model cannot be used in int8"):
            model.precision("int8")
    _cpu(monkeypatch, vnni=False, bf16=False)
    with pytest.raises(JobError, match="VNNI"):
        _manifest(GOOD).precision("int8")


@pytest.mark.parametrize("int8", [GOOD, None])
def test_the_measurements_are_kept_in_the_model_folder(tmp_path: Path, int8: Int8 | None) -> None:
    _manifest(int8).write(tmp_path)
    assert ModelManifest.read(tmp_path).int8 == int8


@pytest.mark.parametrize(
    ("flags", "most", "vnni", "bf16"),
    [
        ("avx512_vnni", "", True, True),
        ("avx_vnni", "", True, True),
        ("avx512bw", "", False, True),
        ("avx512_vnni", "AVX512_CORE_VNNI", True, False),
        ("avx512_vnni", "avx512_core", False, False),
        ("avx512_vnni", "AVX2", False, False),
    ],
)
def test_instructions_count_only_if_the_engine_may_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, most: str, vnni: bool, bf16: bool
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags))
    assert (has_vnni(tmp_path / "cpuinfo"), may_use_bf16()) == (vnni, bf16)
    assert not has_vnni(tmp_path / "absent")


def test_rounded_weights_are_within_half_a_step_or_clipped_for_a_smaller_error() -> None:
    weights = np.random.default_rng(0).normal(size=(8, 32, 1, 1)).astype(np.float32)
    integers, scales = rounded_weights(weights)
    assert scales.shape == (8, 1, 1, 1)
    error = ((integers * scales - weights) ** 2).sum(axis=(1, 2, 3))
    step = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 127
    plain = ((np.round(weights / step) * step - weights) ** 2).sum(axis=(1, 2, 3))
    assert (error <= plain + 1e-6).all()


@pytest.mark.parametrize("usable", [True, False])
def test_a_model_has_a_quantised_graph_if_it_is_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    """The measurements are real; what they must reach depends neither on this CPU nor on noise."""
    monkeypatch.setattr(export, "has_vnni", lambda: True)
    monkeypatch.setattr(artifact, "LEAST_SAME", 0.0)
    monkeypatch.setattr(artifact, "LARGEST_SHIFT", 1.0)
    monkeypatch.setattr(artifact, "LEAST_SPEED", 0.0 if usable else 1e9)
    row = BACKBONES["efficientnet_lite0"]
    torch.manual_seed(0)
    network = backbones.build(row, 3)
    for module in network.modules():  # without statistics there would be no biases to correct
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    checkpoint = Checkpoint(row.name, ("A", "B", "C"), "b", 1, 0.5, 1.0, state, "digest")
    films = list(np.random.default_rng(0).integers(0, 256, (6, 224, 224), dtype=np.uint8))
    folder = tmp_path / "model"
    manifest = export.write_model(folder, checkpoint, network, films, 1)
    assert manifest.int8 is not None
    assert manifest.int8.films == 6
    assert manifest.int8.mean_shift < 0.02
    assert ModelManifest.read(folder) == manifest
    assert ("int8.xml" in manifest.files) == (folder / "int8.xml").exists() == usable
    if usable:
        assert (folder / "int8.bin").stat().st_size < 0.3 * (folder / "fp32.bin").stat().st_size
        exact, rounded = (
            np.stack([out[0] for _, out in Graph(folder, name, 1).stream(_numbered(films)) if out])
            for name in ("fp32", "int8")
        )
        assert 0 < np.abs(exact - rounded).max() < 0.2 * np.abs(exact).max()


class _Small(nn.Module):
    """Four convolutions, the last two of which can be quantised."""

    def __init__(self) -> None:
        super().__init__()
        sides = (1, 8, 64, 128, 128)
        self.layers = nn.Sequential()
        for inputs, outputs in itertools.pairwise(sides):
            self.layers += nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.layers(films.float()).mean((2, 3))
        return pooled


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    model = convert(_Small(), torch.zeros((1, 1, 16, 16), dtype=torch.uint8))
    save_graph(model, tmp_path / "fp32.xml")
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size + 100_000}", "tmpfs", str(small)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        for path in tmp_path.glob("fp32.*"):
            shutil.copy(path, small)
        films = list(np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8))
        with pytest.raises(OSError, match="No space left"):
            write_int8(small, films)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def _numbered(films: list[Any]) -> Any:
    return ((None, film) for film in films)


def test_bf16_is_not_native_where_its_instructions_are_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    assert graph.native_precision() == "fp32"
