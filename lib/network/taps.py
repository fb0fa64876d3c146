"""The frozen backbone as a graph with two outputs, and the trained layers joined to it."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lib.network.backbones import Backbone
from lib.network.choices import TAPS
from lib.network.conversion import with_grey_input, write_graphs
from lib.network.openvino import core, ov
from lib.storage.atomic import write_json


class Taps(nn.Module):
    """The frozen backbone with two outputs.

    "cut" is the feature map below the last block, `(B, C, h, w)`. "pooled" is the mean over the
    feature map behind it, `(B, features, 1, 1)`.
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


def write_taps(folder: Path, network: nn.Sequential, backbone: Backbone) -> None:
    """Write the graphs of `Taps(network)`: fp32.xml/.bin, bf16.xml/.bin and shapes.json.

    They take films `(1, 1, side, side) uint8`; `Graph` reshapes the batch. The network is
    not changed.
    """
    graph = with_grey_input(Taps(network), backbone)
    write_graphs(folder, graph)
    shapes = [list(output.shape)[1:] for output in graph.outputs]
    write_json(folder / "shapes.json", dict(zip(TAPS, shapes, strict=True)))


def join(file: Path, output: int, tail: Any) -> Any:
    """Connect `tail` to an output of the graph in `file`; the outputs become (logits, cut)."""
    graph = core().read_model(file).clone()
    for user in tail.get_parameters()[0].output(0).get_target_inputs():
        user.replace_source_output(graph.results[output].input_value(0))
    outputs = [tail.results[0].input_value(0), graph.results[TAPS.index("cut")].input_value(0)]
    return ov.Model(outputs, graph.get_parameters(), "model")
