"""Graphs that answer as PyTorch does, for every backbone's kind of input, and model folders that
are whole.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib.network import backbones, checkpoints, conversion, export, weights
from lib.network.artifact import ModelManifest
from lib.network.backbones import BACKBONES, to_input
from lib.network.checkpoints import Checkpoint
from lib.network.choices import Tap
from lib.network.graph import Graph, native_precision
from lib.network.numerics import softmax
from lib.network.openvino import ov
from lib.network.taps import write_taps
from lib.run.errors import JobError

LITE0 = BACKBONES["efficientnet_lite0"]


def _films(count: int, side: int) -> list[np.ndarray]:
    return [
        np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
        for seed in range(count)
    ]


def _stream(graph: Graph, films: list[np.ndarray], output: int = 0) -> np.ndarray:
    return np.stack(
        [outputs[output] for _, outputs in graph.stream((None, film) for film in films) if outputs]
    )


def _checkpoint(network: nn.Module, row: backbones.Backbone) -> Checkpoint:
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return Checkpoint(row.name, ("A", "B", "C"), "a", 1, 0.5, 1.0, state, "digest")


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "efficientnet_b0", "efficientnet_v2_s", "resnet18", "resnet50"]
)
def test_grey_films_get_the_answers_of_pytorch_whatever_the_statistics(
    name: str, tmp_path: Path
) -> None:
    row = BACKBONES[name]
    torch.manual_seed(0)
    network = backbones.build(row, 3).eval()
    for module in network.modules():  # statistics of a network that has seen something
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    films = _films(3, row.input_side)
    export.write_model(tmp_path / "model", _checkpoint(network, row), network, [], cores=1)
    with torch.inference_mode():
        wanted = torch.softmax(network(to_input(films, row)).double(), 1).numpy()
    graph = Graph(tmp_path / "model", "fp32", 1)
    logits, features, maps = (_stream(graph, films, output) for output in range(3))
    assert np.abs(softmax(logits) - wanted).max() <= 1e-4
    bias = network.get_submodule("head")[-1].bias.detach().numpy()  # type: ignore[index]
    with torch.inference_mode():
        cut = network.get_submodule("trunk")(to_input(films, row)).mean(dim=(2, 3)).numpy()
    assert np.abs(features - cut).max() <= 1e-4 * np.abs(cut).max()
    assert (
        np.abs(maps.mean(axis=(2, 3)) + bias - logits).max() <= 1e-4 * np.abs(logits).max()
    )  # an exact account


@pytest.fixture(scope="module")
def taps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Sequential]:
    torch.manual_seed(0)
    network = backbones.build(LITE0, 3, weights._packaged_file(LITE0)).eval()
    folder = tmp_path_factory.mktemp("taps")
    write_taps(folder, network, LITE0)
    return folder, network


def test_the_taps_are_what_the_frozen_layers_give(taps: tuple[Path, nn.Sequential]) -> None:
    folder, network = taps
    films = _films(5, 224)
    with torch.inference_mode():
        cut = network.get_submodule("trunk")(to_input(films, LITE0))
        pooled = network.get_submodule("last_block")(cut).mean((2, 3), keepdim=True)
    graph = Graph(folder, "fp32", 2)
    assert [tuple(outputs.shape) for outputs in (cut, pooled)] == [(5, 192, 7, 7), (5, 1280, 1, 1)]
    assert _stream(graph, films, 0) == pytest.approx(cut.numpy(), abs=1e-3)
    assert _stream(graph, films, 1) == pytest.approx(pooled.numpy(), abs=1e-3)


@pytest.mark.parametrize("tap", ["cut", "pooled"])
def test_what_was_trained_joined_to_the_frozen_graph_is_the_whole_network(
    taps: tuple[Path, nn.Sequential], tap: Tap, tmp_path: Path
) -> None:
    folder, network = taps
    films = _films(6, 224)
    card = export.write_model(
        tmp_path / "model", _checkpoint(network, LITE0), network, films, 1, (folder, tap)
    )
    with torch.inference_mode():
        wanted = torch.softmax(network(to_input(films, LITE0)).double(), 1).numpy()
    graph = Graph(tmp_path / "model", "fp32", 1)
    logits, features, maps = (_stream(graph, films, output) for output in range(3))
    assert np.abs(softmax(logits) - wanted).max() <= 1e-4
    bias = network.get_submodule("head")[-1].bias.detach().numpy()  # type: ignore[index]
    with torch.inference_mode():
        cut = network.get_submodule("trunk")(to_input(films, LITE0)).mean(dim=(2, 3)).numpy()
    assert np.abs(features - cut).max() <= 1e-4 * np.abs(cut).max()
    assert (
        np.abs(maps.mean(axis=(2, 3)) + bias - logits).max() <= 1e-4 * np.abs(logits).max()
    )  # an exact account
    if native_precision() == "bf16":
        assert card.bf16 is not None
        assert card.bf16.films == 6


def test_a_graph_that_answers_differently_is_not_published(
    taps: tuple[Path, nn.Sequential], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = taps
    monkeypatch.setattr(export, "_outputs", lambda *_: (np.zeros((1, 3)), np.zeros((1, 1280))))
    with pytest.raises(JobError, match="differently from PyTorch"):
        export.write_model(
            tmp_path / "model",
            _checkpoint(network, LITE0),
            network,
            _films(1, 224),
            1,
            (folder, "pooled"),
        )
    assert not (tmp_path / "model").exists()


def test_an_unfinished_model_does_not_replace_the_one_that_is_there(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(chain / "runs" / "model", tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    content = checkpoints.load(chain / "runs" / "best_efficientnet_lite0.pt")
    network = backbones.build(LITE0, 3)
    network.load_state_dict(content.state)
    monkeypatch.setattr(
        ModelManifest, "write", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        export.write_model(tmp_path / "model", content, network, [], 1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_a_sample_is_spread_over_the_sorted_films() -> None:
    assert export.sample(range(10), 4) == [0, 3, 6, 9]
    assert export.sample(range(3), 10) == [0, 1, 2]
    assert export.sample([], 10) == []


def test_a_full_disk_is_named_and_not_a_stream_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(ov, "save_model", fail)
    with pytest.raises(RuntimeError, match="iostream"):
        conversion.save_graph(None, tmp_path / "fp32.xml")
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match="No space left"):
        conversion.save_graph(None, tmp_path / "fp32.xml")
