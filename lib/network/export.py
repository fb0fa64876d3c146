"""A trained network compiled to a model folder: graphs in each precision, and model.json."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lib.network.artifact import LARGEST_SHIFT, Agreement, Int8, ModelManifest
from lib.network.backbones import Backbone, to_input
from lib.network.checkpoints import Checkpoint
from lib.network.choices import TAPS, Precision, Tap
from lib.network.conversion import convert, with_grey_input, write_graphs
from lib.network.graph import Graph, native_precision
from lib.network.instructions import has_vnni
from lib.network.int8 import speed_of_int8, write_int8
from lib.network.lungs import copy_segmenter
from lib.network.numerics import Floats, Grey, Probabilities, softmax
from lib.network.openvino import opset, ov
from lib.network.taps import join
from lib.run.errors import JobError
from lib.storage.atomic import PARTIAL, make_folder, sha256_of, swap_folder

Item = TypeVar("Item")
# Takes the unpublished folder, logits (N, classes) and features (N, F); may write files into it;
# returns the calibration for model.json.
Calibrate = Callable[[Path, Floats, Floats], dict[str, Any]]
CALIBRATION_FILMS = 64  # validation films that int8 is calibrated on
AGREEMENT_FILMS = 2048  # validation films that precision and calibration are measured on
LARGEST_DIFFERENCE = 1e-4  # in any probability, between PyTorch and the fp32 graph


class _WithCut(nn.Module):
    """A network with a second output: the feature map below its last block."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.trunk = network.get_submodule("trunk")
        self.rest = nn.Sequential(
            network.get_submodule("last_block"), network.get_submodule("head")
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        cut = self.trunk(images)
        return self.rest(cut), cut


def with_features_and_maps(graph: Any) -> Any:
    """Replace the outputs (logits, cut) of a graph by (logits, features, class maps).

    Features `(B, C)` are the means of the cut: for the detection of out-of-distribution films the
    general layers do better than the trained ones. Class maps are `(B, classes, h, w)`: behind the
    last feature map there are only pooling and a linear layer, so the mean of a class's map plus
    its bias is exactly its logit. Source: B. Zhou et al., "Learning Deep Features for
    Discriminative Localization", CVPR 2016.
    """
    logits, cut = graph.results[0].input_value(0), graph.results[1].input_value(0)
    linear = _last(logits.get_node(), lambda node: node.get_type_name() == "MatMul")
    weights = np.array(linear.input_value(1).get_node().get_data())
    weights = weights if linear.get_attributes()["transpose_b"] else weights.T
    pooling = _last(linear.input_value(0).get_node(), _is_pooling)
    feature_map = pooling.input_value(0)
    height, width = list(feature_map.get_shape())[2:]
    # a sum: OpenVINO would take a mean for the pooling before the head
    positions = float(np.prod(list(cut.get_shape())[2:]))
    total = opset.reduce_sum(cut, opset.constant(np.array([2, 3])), keep_dims=False)
    features = opset.multiply(total, opset.constant(np.float32(1 / positions)))
    flat = opset.reshape(feature_map, opset.constant(np.array([0, 0, -1])), special_zero=True)
    maps = opset.matmul(opset.constant(weights.astype(np.float32)), flat, False, False)
    maps = opset.reshape(maps, opset.constant(np.array([0, 0, height, width])), special_zero=True)
    return ov.Model([logits, features.output(0), maps.output(0)], graph.get_parameters(), "model")


def _last(node: Any, matches: Callable[[Any], bool]) -> Any:
    """`node` or the nearest one before it, along first inputs, that matches."""
    while not matches(node):
        node = node.input_value(0).get_node()
    return node


def _is_pooling(node: Any) -> bool:
    """Whether a node is the mean over a feature map larger than one position."""
    if node.get_type_name() != "ReduceMean":
        return False
    return bool(max(list(node.input_value(0).get_shape())[2:]) > 1)


def sample(items: Sequence[Item], at_most: int) -> list[Item]:
    """Evenly spaced items, since films are sorted by class."""
    count = min(at_most, len(items))
    indices = np.linspace(0, len(items) - 1, count).round().astype(int).tolist()
    return [items[index] for index in indices]


def write_model(
    folder: Path,
    checkpoint: Checkpoint,
    network: nn.Sequential,
    films: Sequence[Grey],
    cores: int,
    frozen_graphs: tuple[Path, Tap] | None = None,
    calibrate: Calibrate | None = None,
) -> ModelManifest:
    """Write `folder` whole: the graphs of `network`, which holds the checkpoint's weights, and
    model.json.

    `films` are validation films: they calibrate int8 and measure how bfloat16 and int8 agree with
    fp32. Without them bfloat16 is only used on request, and there is no int8. Phase A has none
    either: phase B replaces its model. `frozen_graphs` names the folder that
    `taps.write_taps` wrote and the output that was trained on: only the trained layers are
    converted then, which saves seconds. `calibrate` is called with the model's outputs for `films`.
    A checkpoint of cropped films brings a copy of the lung segmenter into the folder.

    Raises:
        JobError: the fp32 graph does not agree with PyTorch, or the checkpoint's films were cropped
            with another segmenter.
    """
    partial = folder.with_name(f".{folder.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    if checkpoint.segmenter:
        copy_segmenter(partial, checkpoint.segmenter)
    calibration_films = sample(films, CALIBRATION_FILMS)
    if frozen_graphs:
        graph = _joined(*frozen_graphs, network)
    else:
        graph = with_features_and_maps(with_grey_input(_WithCut(network), checkpoint.architecture))
    write_graphs(partial, graph)
    _require_agreement(partial, network, checkpoint.architecture, films, cores)
    agreement, int8, calibration = None, None, None
    if films:
        exact = outputs = _outputs(partial, "fp32", films, cores)
        if has_vnni() and checkpoint.phase == "b":
            int8, in_int8 = _measured_int8(partial, calibration_films, films, cores, exact)
            outputs = in_int8 if int8 and int8.is_usable else exact
        if native_precision() == "bf16":
            in_bf16 = _outputs(partial, "bf16", films, cores)
            agreement = _agreement(softmax(exact[0]), softmax(in_bf16[0]))
            if agreement.mean_shift <= LARGEST_SHIFT:
                outputs = in_bf16  # calibrated on the outputs that will be used
        calibration = calibrate(partial, *outputs) if calibrate else None
    manifest = ModelManifest(
        backbone=checkpoint.backbone,
        classes=checkpoint.classes,
        input_side=checkpoint.architecture.input_side,
        phase=checkpoint.phase,
        epoch=checkpoint.epoch,
        weights_sha256=checkpoint.digest,
        split_sha256=checkpoint.data_digest,
        bf16=agreement,
        files={path.name: sha256_of(path) for path in sorted(partial.iterdir())},
        made_with={name: version(name) for name in ("openvino", "torch")},
        calibration=calibration,
        crop="lungs" if checkpoint.segmenter else "none",
        even_exposure=checkpoint.even_exposure,
        film_side=checkpoint.film_side,
        int8=int8,
    )
    manifest.write(partial)
    swap_folder(partial, folder)
    return manifest


def _joined(frozen: Path, tap: Tap, network: nn.Sequential) -> Any:
    head = network.get_submodule("head")
    trained = head if tap == "pooled" else nn.Sequential(network.get_submodule("last_block"), head)
    shape = json.loads((frozen / "shapes.json").read_text())[tap]
    graph = convert(trained, torch.zeros(1, *shape))
    return with_features_and_maps(join(frozen / "fp32.xml", TAPS.index(tap), graph))


def _measured_int8(
    folder: Path,
    calibration: Sequence[Grey],
    films: Sequence[Grey],
    cores: int,
    exact: tuple[Floats, Floats],
) -> tuple[Int8 | None, tuple[Floats, Floats]]:
    """What int8 is worth, and its outputs; its graph stays in `folder` only if it is usable."""
    if not write_int8(folder, calibration):
        return None, exact
    outputs = _outputs(folder, "int8", films, cores)
    agreement = _agreement(softmax(exact[0]), softmax(outputs[0]))
    measured = Int8(**asdict(agreement), speed=speed_of_int8(folder))
    if not measured.is_usable:
        for file in folder.glob("int8.*"):
            file.unlink()
    return measured, outputs


def _outputs(
    folder: Path, precision: Precision, films: Sequence[Grey], cores: int
) -> tuple[Floats, Floats]:
    """Logits `(N, classes)` and pooled features `(N, F)`."""
    stream = Graph(folder, precision, cores).stream((None, film) for film in films)
    logits, features = zip(*[rows[:2] for _, rows in stream if rows is not None], strict=True)
    return np.stack(logits), np.stack(features)


def _agreement(exact: Probabilities, rounded: Probabilities) -> Agreement:
    shift = np.abs(rounded - exact)
    same = (rounded.argmax(1) == exact.argmax(1)).mean()
    return Agreement(len(exact), float(same), float(shift.mean()), float(shift.max()))


def _noise(side: int) -> Grey:
    return np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)


def _require_agreement(
    folder: Path, network: nn.Sequential, backbone: Backbone, films: Sequence[Grey], cores: int
) -> None:
    """Compare the fp32 graph with PyTorch on eight of `films`, or on noise where there are none."""
    some = sample(films, 8) or [_noise(backbone.input_side)]
    network.eval()
    with torch.inference_mode():
        expected = torch.softmax(network(to_input(some, backbone)).double(), dim=1).numpy()
    actual = softmax(_outputs(folder, "fp32", some, cores)[0])
    shift = float(np.abs(expected - actual).max())
    if not shift <= LARGEST_DIFFERENCE:
        raise JobError(
            f"the compiled model of {backbone.name} answers differently from PyTorch (up to "
            f"{shift:.2g} in a probability). The checkpoint is kept; this combination of package "
            "versions cannot be used: install requirements.lock."
        )
