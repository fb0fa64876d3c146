"""A graph quantised to 8-bit integers, so that it predicts nearly what the fp32 graph predicts.

The input of a convolution is quantised channel by channel: each channel has its own range, and the
step of its range is part of the following weights. So a channel with small values keeps its
resolution, and the engine still sees one scale per tensor. Weights have one scale per output
channel. The mean effect of both roundings is compensated in the biases. The first layers and
the head stay in fp32.

Sources: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; M. Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, here with ranges and effects measured on films.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.network.conversion import save_graph
from lib.network.graph import FILMS_PER_REQUEST
from lib.network.numerics import Grey
from lib.network.openvino import core, opset, ov

CONVOLUTIONS_IN_FP32 = 2  # the stem and its successor; 3, 5 or 9 answer no better and cost speed
MARGIN = 1.15  # of a channel's range beyond the calibration films: clipping costs more than steps
FILMS_FOR_BIASES = 16  # of the calibration films; more change nothing
_LARGEST_WEIGHT = 127
_SHRINKS = np.linspace(
    0.7, 1, 13
)  # scales of weights that are tried, of the scale without clipping
_SPATIAL = np.array([0, 2, 3])

Values = NDArray[np.float32]


@dataclass(frozen=True)
class _Layer:
    """A convolution that can be quantised, with its weights and the addition of its bias."""

    node: Any
    weights: Values
    add: Any

    @property
    def by_channel(self) -> bool:
        """Whether each output channel sees one input channel."""
        return bool(self.node.get_type_name() == "GroupConvolution")

    def convolve(self, values: Any, weights: Any) -> Any:
        names = ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")
        attributes = self.node.get_attributes()
        build = opset.group_convolution if self.by_channel else opset.convolution
        return build(values, weights, *[attributes[name] for name in names])


def write_int8(folder: Path, films: Sequence[Grey]) -> bool:
    """Write int8.xml/.bin beside the fp32.xml of `folder`; `films` are calibration films.

    Returns False, and writes nothing, if no convolution can be quantised.

    Raises:
        OSError: no space left on the device.
    """
    graph = core().read_model(folder / "fp32.xml")
    layers = _layers_of(graph)
    ranges = _ranges(graph, layers, films)
    chosen = [
        (layer, low, high)
        for layer, (low, high) in zip(layers, ranges, strict=True)
        # zeros that pad a border must be exact
        if not low.any() or layer.weights.shape[-2:] == (1, 1)
    ]
    if not chosen:
        return False
    step = max(1, len(films) // FILMS_FOR_BIASES)
    rounded = [_quantised(*one) for one in chosen]
    _correct_biases(graph, [layer for layer, *_ in chosen], rounded, films[::step])
    for (layer, *_), new in zip(chosen, rounded, strict=True):
        for user in layer.node.output(0).get_target_inputs():
            user.replace_source_output(new.output(0))
    save_graph(graph, folder / "int8.xml")
    return True


def speed_of_int8(folder: Path) -> float:
    """How many times as fast int8.xml is as fp32.xml, on one thread of this CPU.

    The least CPU time of several alternating runs counts: others may use the CPU as well.
    """
    requests = [_request(folder / f"{name}.xml") for name in ("fp32", "int8")]
    best = [float("inf")] * 2
    for _ in range(12):
        for index, request in enumerate(requests):
            begin = time.process_time()
            request.infer()
            best[index] = min(best[index], time.process_time() - begin)
    return best[0] / best[1]


def _request(file: Path) -> Any:
    model = core().read_model(file)
    model.reshape([FILMS_PER_REQUEST, *list(model.inputs[0].shape)[1:]])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(model, "CPU", settings).create_infer_request()


def _layers_of(graph: Any) -> list[_Layer]:
    convolutions = [
        node
        for node in graph.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    layers = []
    for node in convolutions[CONVOLUTIONS_IN_FP32:]:
        weights = node.input_value(1).get_node()
        users = [user.get_node() for user in node.output(0).get_target_inputs()]
        if weights.get_type_name() != "Constant" or len(users) != 1:
            continue
        add = users[0]
        if (
            add.get_type_name() == "Add"
            and add.input_value(1).get_node().get_type_name() == "Constant"
        ):
            layers.append(_Layer(node, np.array(weights.get_data()), add))
    return [layer for layer in layers if not layer.by_channel or layer.weights.shape[1] == 1]


def _ranges(
    graph: Any, layers: Sequence[_Layer], films: Sequence[Grey]
) -> list[tuple[Values, Values]]:
    """Per layer the lowest and highest value of each input channel `(C,)`, with a margin."""
    outputs = []
    for layer in layers:
        for reduce in (opset.reduce_min, opset.reduce_max):
            outputs.append(reduce(layer.node.input_value(0), opset.constant(_SPATIAL), False))
    extremes = _outputs(graph, outputs, films)
    ranges = []
    for layer, lows, highs in zip(layers, extremes[::2], extremes[1::2], strict=True):
        low, high = np.minimum(lows.min(0), 0) * MARGIN, highs.max(0) * MARGIN
        source = layer.node.input_value(0).get_node()
        if source.get_type_name() == "Clamp":
            high = np.minimum(high, source.get_attributes()["max"])
        ranges.append((low, np.maximum(high, low + 1e-3)))
    return ranges


def _outputs(graph: Any, outputs: Sequence[Any], films: Sequence[Grey]) -> list[Values]:
    """Per output its values for all films, `(films, …)`, computed in fp32."""
    probe = ov.Model(list(outputs), graph.get_parameters(), "probe")
    compiled = core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values: list[list[Values]] = [[] for _ in outputs]
    for film in films:
        result = compiled(film[None, None])
        for rows, output in zip(values, compiled.outputs, strict=True):
            rows.append(result[output].copy())
    return [np.stack(rows) for rows in values]


def _quantised(layer: _Layer, low: Values, high: Values) -> Any:
    """The convolution of quantised input and weights.

    The input becomes (x - low) / (high - low) in 256 steps. What the offset `low` changes is the
    same everywhere: `_correct_biases` measures it with the roundings.
    """
    span = high - low
    bounds = [opset.constant(bound.reshape(1, -1, 1, 1)) for bound in (low, high)]
    unit = [opset.constant(np.float32(bound)) for bound in (0, 1)]
    values = opset.fake_quantize(layer.node.input_value(0), *bounds, *unit, 256)
    shape = [1] * layer.weights.ndim
    shape[0 if layer.by_channel else 1] = -1
    integers, scales = rounded_weights(layer.weights * span.reshape(shape))
    weights = opset.convert(opset.constant(integers), "f32")
    return layer.convolve(values, opset.multiply(weights, opset.constant(scales)))


def rounded_weights(weights: Values) -> tuple[NDArray[np.int8], Values]:
    """8-bit integers and a scale per output channel, the first axis, with the least squared error.

    Clipping the largest weights is tried as well.
    """
    rows = weights.reshape(len(weights), -1)
    widest = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-8) / _LARGEST_WEIGHT
    candidates = [(widest * shrink).astype(np.float32) for shrink in _SHRINKS]
    errors = [((_rounded(rows, scale) * scale - rows) ** 2).sum(1) for scale in candidates]
    best = np.argmin(errors, axis=0)
    scale = np.stack(candidates)[best, np.arange(len(rows))]
    shape = (-1, *[1] * (weights.ndim - 1))
    return _rounded(rows, scale).astype(np.int8).reshape(weights.shape), scale.reshape(shape)


def _rounded(rows: Values, scale: Values) -> Values:
    return np.clip(np.round(rows / scale), -_LARGEST_WEIGHT, _LARGEST_WEIGHT)


def _correct_biases(
    graph: Any, layers: Sequence[_Layer], rounded: Sequence[Any], films: Sequence[Grey]
) -> None:
    """Subtract from each layer's bias the mean effect of its quantisation over films and places."""
    errors = [
        opset.reduce_mean(
            opset.subtract(new, layer.node.output(0)), opset.constant(_SPATIAL), False
        )
        for layer, new in zip(layers, rounded, strict=True)
    ]
    for layer, error in zip(layers, _outputs(graph, errors, films), strict=True):
        bias = np.array(layer.add.input_value(1).get_node().get_data())
        corrected = bias - error.astype(np.float64).mean(0).reshape(1, -1, *[1] * (bias.ndim - 2))
        layer.add.input(1).replace_source_output(
            opset.constant(corrected.astype(np.float32)).output(0)
        )
