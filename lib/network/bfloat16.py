"""A graph prepared for bfloat16, so that it predicts what the fp32 graph predicts.

Plain bfloat16 changes more predictions than its speed is worth. Two measures bring it close to fp32
at the same speed. The first layers, where most rounding errors arise, and the head stay in fp32.
The mean effect of rounding the other weights is compensated in the biases. Source: M. Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019; here the effect
is measured on films.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.network.numerics import Grey
from lib.network.openvino import core, opset, ov

CONVOLUTIONS_IN_FP32 = 2  # the stem and its successor: 7 % of the time, most of the error
_CONVOLUTIONS = ("Convolution", "GroupConvolution")


def convolutions_of(graph: Any) -> list[Any]:
    """The convolutions of a graph, in the order of computation."""
    return [
        operation
        for operation in graph.get_ordered_ops()
        if operation.get_type_name() in _CONVOLUTIONS
    ]


def correct_biases(graph: Any, layers: Sequence[Any], calibration: Sequence[Grey]) -> None:
    """Compensate in each layer's bias the mean effect of rounding its weights to bfloat16.

    The mean is taken over the films of `calibration` and all positions.
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
        outputs = compiled(film[None, None])
        for total, output in zip(sums, compiled.outputs, strict=True):
            total += outputs[output]
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
    attributes = layer.get_attributes()
    arguments = [
        attributes[name] for name in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")
    ]
    build = opset.convolution if layer.get_type_name() == "Convolution" else opset.group_convolution
    error = build(layer.input_value(0), opset.constant(weights - rounded), *arguments)
    return opset.reduce_mean(error, opset.constant(np.array([0, 2, 3])), keep_dims=False)


def keep_in_fp32(file: Path) -> None:
    """Mark the operations before the third convolution and behind the last one as precise.

    The CPU plugin of OpenVINO reads this mark from the file only, not from a node's attributes.
    """
    order = core().read_model(file).get_ordered_ops()
    kinds = [operation.get_type_name() for operation in order]
    convolutions = [index for index, kind in enumerate(kinds) if kind in _CONVOLUTIONS]
    pooling = max(
        (index for index, kind in enumerate(kinds) if kind == "ReduceMean"), default=len(order)
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
        for index, operation in enumerate(order)
        if (index < begin or index >= end) and kinds[index] not in plain
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
