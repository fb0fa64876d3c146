"""A graph prepared for bfloat16, so that it predicts what the fp32 graph predicts.

Plain bfloat16 changes more predictions than its speed is worth. The first layers, where most
rounding errors arise, and the head stay in fp32, which brings it close to fp32 at the same speed.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

from lib.network.openvino import core

CONVOLUTIONS_IN_FP32 = 2  # the stem and its successor: 7 % of the time, most of the error
_CONVOLUTIONS = ("Convolution", "GroupConvolution")


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
