"""From a PyTorch network to the graph files that lib/network/graph.py compiles: one in fp32, one
prepared for bfloat16.

Plain bfloat16 changes more answers than its speed is worth. Two measures bring it close to fp32 at
the same speed: the first layers, where rounding errors are born, and the head stay in fp32; and
what rounding the other weights shifts on average is taken out of the biases (bias correction, M.
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
here measured on films).
"""

import copy
import errno
import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lib.network.artifact import LARGEST_SHIFT, Agreement, ModelManifest
from lib.network.backbones import Backbone, to_input
from lib.network.checkpoints import Checkpoint
from lib.network.graph import Graph, native_precision
from lib.network.numerics import softmax
from lib.network.openvino import core, opset, ov, simplify
from lib.run.errors import JobError
from lib.storage.atomic import PARTIAL, make_folder, sha256_of, swap_folder, write_json

TAPS = ("cut", "pooled")  # outputs of Taps, in order
Item = TypeVar("Item")
# Takes the unpublished folder, logits (N, classes) and features (N, F); may write files; returns
# what model.json keeps.
Calibrate = Callable[[Path, np.ndarray, np.ndarray], dict[str, Any]]
CONVOLUTIONS_IN_FP32 = 2  # the stem and what follows it: 7 % of the time, most of bfloat16's error
CALIBRATION_FILMS = 64
AGREEMENT_FILMS = 2048  # that tell how far bfloat16 shifts answers, and what answers are worth
LARGEST_DIFFERENCE = 1e-4  # in any probability, between PyTorch and the fp32 graph
_CONVOLUTIONS = ("Convolution", "GroupConvolution")


class Taps(nn.Module):
    """The frozen backbone with two outputs: below the last block, `(B, C, h, w)`, and behind it,
    `(B, features, 1, 1)`.
    """

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.trunk, self.last_block = (
            network.get_submodule("trunk"),
            network.get_submodule("last_block"),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        cut = self.trunk(images)
        return cut, nn.functional.adaptive_avg_pool2d(self.last_block(cut), 1)


class _GreyStem(nn.Module):
    """The first convolution on one grey channel: three equal channels let its weights be summed
    beforehand.

    Takes `(B, 1, side, side) uint8`. Scaling is in the weights, a common offset is subtracted
    before the convolution. With statistics that differ by channel the normalised channels differ by
    a constant from each other: its convolution is a constant map, zero padding at the border
    included.
    """

    def __init__(self, stem: nn.Conv2d, backbone: Backbone) -> None:
        super().__init__()
        mean, std = (
            255 * torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std)
        )
        self.grey_mean = float(mean.mean())
        self.stem = copy.deepcopy(stem)
        self.stem.in_channels = 1
        self.stem.weight = nn.Parameter(
            (stem.weight / std).sum(1, keepdim=True), requires_grad=False
        )
        self.constant: Tensor | None = None
        offset = (self.grey_mean - mean) / std
        if bool(offset.any()):
            unbiased = copy.deepcopy(stem)
            unbiased.bias = None
            with torch.no_grad():
                self.constant = unbiased(
                    offset.expand(1, 3, backbone.input_side, backbone.input_side).contiguous()
                )

    def forward(self, grey: Tensor) -> Tensor:
        answer: Tensor = self.stem(grey.to(torch.float32) - self.grey_mean)
        return answer if self.constant is None else answer + self.constant


def write_taps(
    folder: Path, network: nn.Sequential, backbone: Backbone, calibration: Sequence[np.ndarray]
) -> None:
    """Write the graphs of `Taps(network)`: fp32.xml/.bin and bf16.xml/.bin. The network is not
    changed.

    They take `(1, 1, side, side) uint8` films; inference reshapes the batch. `calibration` are
    films `(side, side) uint8`.
    """
    graph = _with_grey_input(Taps(network), backbone)
    _write_graphs(folder, graph, graph, _convolutions(graph)[CONVOLUTIONS_IN_FP32:], calibration)
    shapes = [list(output.shape)[1:] for output in graph.outputs]
    write_json(folder / "shapes.json", dict(zip(TAPS, shapes, strict=True)))


class _WithCut(nn.Module):
    """A network that also gives what it computed below its last block."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.trunk = network.get_submodule("trunk")
        self.rest = nn.Sequential(
            network.get_submodule("last_block"), network.get_submodule("head")
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        cut = self.trunk(images)
        return self.rest(cut), cut


def _explained(graph: Any) -> Any:
    """A graph with the outputs logits and cut, with the outputs logits, features and class maps
    instead.

    Features are the means of the cut `(B, C)`: what the general layers see tells a strange film
    from an ordinary one better than what the trained ones make of it. Class maps are `(B, classes,
    h, w)`: behind the last feature map there are only pooling and a linear layer, so the mean of a
    class's map plus its bias is its logit, and the map is an exact account of where the logit comes
    from. Source: B. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR
    2016.
    """
    linear = graph.results[0].input_value(0).get_node()
    while linear.get_type_name() != "MatMul":
        linear = linear.input_value(0).get_node()
    weights = np.array(linear.input_value(1).get_node().get_data())
    weights = weights if linear.get_attributes()["transpose_b"] else weights.T
    pooling = linear.input_value(0).get_node()
    while (
        pooling.get_type_name() != "ReduceMean"
        or max(list(pooling.input_value(0).get_shape())[2:]) == 1
    ):
        pooling = pooling.input_value(0).get_node()
    feature_map = pooling.input_value(0)
    height, width = list(feature_map.get_shape())[2:]
    cut = graph.results[1].input_value(0)
    positions = float(
        np.prod(list(cut.get_shape())[2:])
    )  # a sum: the mean would be taken for the pooling before the head
    total = opset.reduce_sum(cut, opset.constant(np.array([2, 3])), keep_dims=False)
    features = opset.multiply(total, opset.constant(np.float32(1 / positions)))
    flat = opset.reshape(feature_map, opset.constant(np.array([0, 0, -1])), special_zero=True)
    maps = opset.matmul(opset.constant(weights.astype(np.float32)), flat, False, False)
    maps = opset.reshape(maps, opset.constant(np.array([0, 0, height, width])), special_zero=True)
    outputs = [graph.results[0].input_value(0), features.output(0), maps.output(0)]
    return ov.Model(outputs, graph.get_parameters(), "model")


def _save(model: Any, path: Path) -> None:
    """ov.save_model, which says nothing of use when the disk is full."""
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free < 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _write_graphs(
    folder: Path, exact: Any, rounded: Any, layers: list[Any], calibration: Sequence[np.ndarray]
) -> None:
    """Write `exact` as the fp32 graph and `rounded`, with the biases of `layers` corrected, as the
    one for bfloat16.
    """
    _save(exact, folder / "fp32.xml")
    _correct_biases(rounded, layers, calibration)
    _save(rounded, folder / "bf16.xml")
    _keep_in_fp32(folder / "bf16.xml")


def _with_grey_input(module: nn.Module, backbone: Backbone) -> Any:
    grey = copy.deepcopy(module).eval().requires_grad_(False)
    name = next(name for name, part in grey.named_modules() if isinstance(part, nn.Conv2d))
    parent, _, child = name.rpartition(".")
    stem = grey.get_submodule(name)
    assert isinstance(stem, nn.Conv2d)
    setattr(grey.get_submodule(parent), child, _GreyStem(stem, backbone))
    return _convert(
        grey, torch.zeros((1, 1, backbone.input_side, backbone.input_side), dtype=torch.uint8)
    )


def _convert(module: nn.Module, example: Tensor) -> Any:
    module = copy.deepcopy(module).eval().requires_grad_(False)
    graph = ov.convert_model(
        module, example_input=example, input=[ov.PartialShape(list(example.shape))]
    )
    simplify(
        graph, cf=True
    )  # BatchNorm and padding go into the convolutions, where bias correction looks for them
    return graph


def _joined(file: Path, output: int, tail: Any) -> Any:
    """The graph of the taps' file with a copy of `tail` behind one of its outputs; its outputs are
    logits and cut.
    """
    graph = core().read_model(file).clone()
    for user in tail.get_parameters()[0].output(0).get_target_inputs():
        user.replace_source_output(graph.results[output].input_value(0))
    outputs = [tail.results[0].input_value(0), graph.results[TAPS.index("cut")].input_value(0)]
    return ov.Model(outputs, graph.get_parameters(), "model")


def _convolutions(graph: Any) -> list[Any]:
    return [
        operation
        for operation in graph.get_ordered_ops()
        if operation.get_type_name() in _CONVOLUTIONS
    ]


def _correct_biases(graph: Any, layers: Sequence[Any], calibration: Sequence[np.ndarray]) -> None:
    """Add to each bias what rounding its layer's weights to bfloat16 takes away, averaged over
    films and positions.
    """
    with_bias = [(layer, add) for layer in layers if (add := _bias_of(layer))]
    if not with_bias or not calibration:
        return
    probe = ov.Model(
        [_mean_rounding_error(layer) for layer, _ in with_bias], graph.get_parameters(), "probe"
    )
    compiled = core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    sums = [np.zeros(tuple(output.shape), np.float64) for output in compiled.outputs]
    for film in calibration:
        answers = compiled(film[None, None])
        for total, output in zip(sums, compiled.outputs, strict=True):
            total += answers[output]
    for (_, add), total in zip(with_bias, sums, strict=True):
        bias = np.array(add.input_value(1).get_node().get_data())
        correction = (total / len(calibration)).reshape(1, -1, *[1] * (bias.ndim - 2))
        add.input(1).replace_source_output(
            opset.constant((bias + correction).astype(np.float32)).output(0)
        )


def _bias_of(layer: Any) -> Any:
    """The operation that adds a constant bias to a convolution with constant weights, or None."""
    users = [user.get_node() for user in layer.output(0).get_target_inputs()]
    kinds = (
        layer.input_value(1).get_node().get_type_name(),
        *(user.get_type_name() for user in users),
    )
    if (
        kinds != ("Constant", "Add")
        or users[0].input_value(1).get_node().get_type_name() != "Constant"
    ):
        return None
    return users[0]


def _mean_rounding_error(layer: Any) -> Any:
    weights = np.array(layer.input_value(1).get_node().get_data())
    rounded = torch.from_numpy(weights).to(torch.bfloat16).to(torch.float32).numpy()
    chosen = layer.get_attributes()
    arguments = [
        chosen[name] for name in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")
    ]
    build = opset.convolution if layer.get_type_name() == "Convolution" else opset.group_convolution
    error = build(layer.input_value(0), opset.constant(weights - rounded), *arguments)
    return opset.reduce_mean(error, opset.constant(np.array([0, 2, 3])), keep_dims=False)


def _keep_in_fp32(file: Path) -> None:
    """Mark the operations up to the second convolution and those behind the last one as
    precision-sensitive.

    OpenVINO reads the mark from the file alone: what is set on a node in Python does not reach its
    CPU plugin.
    """
    order = core().read_model(file).get_ordered_ops()
    kinds = [operation.get_type_name() for operation in order]
    convolutions = [place for place, kind in enumerate(kinds) if kind in _CONVOLUTIONS]
    pooling = max(
        (place for place, kind in enumerate(kinds) if kind == "ReduceMean"), default=len(order)
    )
    begin = (
        convolutions[CONVOLUTIONS_IN_FP32]
        if len(convolutions) > CONVOLUTIONS_IN_FP32
        else len(order)
    )
    end = max(pooling, convolutions[-1] + 1)
    plain = ("Parameter", "Constant", "Result")
    marked = {
        operation.get_friendly_name()
        for place, operation in enumerate(order)
        if (place < begin or place >= end) and kinds[place] not in plain
    }
    tree = ET.parse(file)  # noqa: S314  # our own file, written a moment ago
    layers = tree.getroot().find("layers")
    assert layers is not None
    for layer in layers:
        if layer.get("name") in marked and layer.find("rt_info/attribute[@name='precise']") is None:
            info = layer.find("rt_info")
            info = ET.SubElement(layer, "rt_info") if info is None else info
            ET.SubElement(info, "attribute", name="precise", version="0")
    tree.write(file)


def sample(items: Sequence[Item], at_most: int) -> list[Item]:
    """Evenly spaced items: films come sorted by class."""
    places = np.linspace(0, len(items) - 1, min(at_most, len(items))).round().astype(int).tolist()
    return [items[place] for place in places]


def write_model(
    folder: Path,
    checkpoint: Checkpoint,
    network: nn.Sequential,
    films: Sequence[np.ndarray],
    cores: int,
    taps: tuple[Path, str] | None = None,
    calibrate: Calibrate | None = None,
) -> ModelManifest:
    """Write `folder` whole: the graphs of `network`, which holds the checkpoint's weights, and
    model.json.

    `films` are validation films, `(side, side) uint8`: they calibrate bfloat16 and tell how far it
    shifts the answers. Without them it is neither calibrated nor used, unless forced. `taps` names
    the folder with the graphs of the frozen layers and the tap that was trained on: only what was
    trained is converted then, which saves seconds. `calibrate` is given the answers to `films`.

    Raises:
        JobError: the fp32 graph does not answer as PyTorch does.
    """
    partial = folder.with_name(f".{folder.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    calibration = sample(films, CALIBRATION_FILMS)
    if taps:
        _write_joined(partial, taps[0], taps[1], network, calibration)
    else:
        graph = _explained(_with_grey_input(_WithCut(network), checkpoint.row))
        _write_graphs(
            partial, graph, graph, _convolutions(graph)[CONVOLUTIONS_IN_FP32:], calibration
        )
    some = sample(films, 8) or [_noise(checkpoint.row.input_side)]
    _require_agreement(
        network, checkpoint.row, some, softmax(_answers(partial, "fp32", some, cores)[0])
    )
    answers = _answers(partial, "fp32", films, cores) if films else None
    agreement = None
    if answers and native_precision() == "bf16":
        in_bf16 = _answers(partial, "bf16", films, cores)
        agreement = _agreement(softmax(answers[0]), softmax(in_bf16[0]))
        answers = (
            in_bf16 if agreement.mean_shift <= LARGEST_SHIFT else answers
        )  # as they will be used
    calibration_content = calibrate(partial, *answers) if answers and calibrate else None
    card = ModelManifest(
        backbone=checkpoint.backbone,
        classes=checkpoint.classes,
        input_side=checkpoint.row.input_side,
        phase=checkpoint.phase,
        epoch=checkpoint.epoch,
        weights_sha256=checkpoint.digest,
        split_sha256=checkpoint.data_digest,
        bf16=agreement,
        files={path.name: sha256_of(path) for path in sorted(partial.iterdir())},
        made_with={name: version(name) for name in ("openvino", "torch")},
        calibration=calibration_content,
    )
    card.write(partial)
    swap_folder(partial, folder)
    return card


def _write_joined(
    folder: Path, taps: Path, tap: str, network: nn.Sequential, calibration: Sequence[np.ndarray]
) -> None:
    head = network.get_submodule("head")
    tail = head if tap == "pooled" else nn.Sequential(network.get_submodule("last_block"), head)
    shape = json.loads((taps / "shapes.json").read_text())[tap]
    graph = _convert(tail, torch.zeros(1, *shape))
    rounded = graph.clone()
    layers = _convolutions(rounded)
    exact = _explained(_joined(taps / "fp32.xml", TAPS.index(tap), graph))
    joined = _explained(_joined(taps / "bf16.xml", TAPS.index(tap), rounded))
    _write_graphs(folder, exact, joined, layers, calibration)


def _answers(
    folder: Path, precision: str, films: Sequence[np.ndarray], cores: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(N, classes)` and pooled features `(N, F)`."""
    answers = Graph(folder, precision, cores).stream((None, film) for film in films)
    logits, features = zip(
        *[outputs[:2] for _, outputs in answers if outputs is not None], strict=True
    )
    return np.stack(logits), np.stack(features)


def _agreement(exact: np.ndarray, rounded: np.ndarray) -> Agreement:
    shift = np.abs(rounded - exact)
    same = (rounded.argmax(1) == exact.argmax(1)).mean()
    return Agreement(len(exact), float(same), float(shift.mean()), float(shift.max()))


def _noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)


def _require_agreement(
    network: nn.Sequential, backbone: Backbone, films: Sequence[np.ndarray], answers: np.ndarray
) -> None:
    network.eval()
    with torch.inference_mode():
        wanted = torch.softmax(network(to_input(films, backbone)).double(), dim=1).numpy()
    shift = float(np.abs(wanted - answers).max())
    if not shift <= LARGEST_DIFFERENCE:
        raise JobError(
            f"the compiled model of {backbone.name} answers differently from PyTorch (up to {shift:.2g} in a probability). "
            "The checkpoint is kept; this combination of package versions cannot be used: install requirements.lock."
        )
