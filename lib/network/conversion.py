"""PyTorch modules converted to OpenVINO graphs that take grey films as bytes."""

import copy
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib.network.backbones import Backbone
from lib.network.bfloat16 import keep_in_fp32
from lib.network.openvino import ov, simplify


class GreyStem(nn.Module):
    """The first convolution, with its weights summed over three equal channels.

    Takes `(B, 1, side, side) uint8`. The scale of the normalisation is part of the weights; the
    mean over the channels is subtracted before the convolution. Where the means differ by channel,
    the rest is a constant per channel: its convolution, with zero padding, is a constant map.
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
        output: Tensor = self.stem(grey.to(torch.float32) - self.grey_mean)
        return output if self.constant is None else output + self.constant


def with_grey_input(module: nn.Module, backbone: Backbone) -> Any:
    """The graph of `module`, taking films `(1, 1, side, side) uint8` without normalisation."""
    grey = copy.deepcopy(module).eval().requires_grad_(False)
    name = next(name for name, part in grey.named_modules() if isinstance(part, nn.Conv2d))
    parent, _, child = name.rpartition(".")
    stem = grey.get_submodule(name)
    assert isinstance(stem, nn.Conv2d)
    setattr(grey.get_submodule(parent), child, GreyStem(stem, backbone))
    return convert(
        grey, torch.zeros((1, 1, backbone.input_side, backbone.input_side), dtype=torch.uint8)
    )


def convert(module: nn.Module, example: Tensor) -> Any:
    """The graph of `module` for inputs of the shape and type of `example`."""
    module = copy.deepcopy(module).eval().requires_grad_(False)
    graph = ov.convert_model(
        module, example_input=example, input=[ov.PartialShape(list(example.shape))]
    )
    # folds BatchNorm and padding into the convolutions, where the quantisation to int8 expects them
    simplify(graph, cf=True)
    return graph


def save_graph(model: Any, path: Path) -> None:
    """Call ov.save_model, whose error does not name a full disk.

    Raises:
        OSError: no space left on the device.
    """
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free < 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def write_graphs(folder: Path, graph: Any) -> None:
    """Write `graph` as fp32.xml, and as bf16.xml with the marks for bfloat16."""
    for precision in ("fp32", "bf16"):
        save_graph(graph, folder / f"{precision}.xml")
    keep_in_fp32(folder / "bf16.xml")
