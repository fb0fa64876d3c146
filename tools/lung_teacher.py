"""The network that teaches the lung segmenter: a U-Net on EfficientNet-Lite0, ImageNet weights."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.network.backbones import BACKBONES, build
from lib.network.weights import bring_weights
from tools.lung_net import ORIENTATIONS

BACKBONE = "efficientnet_lite0"
LEVELS = ((0, 16), (1, 24), (2, 40), (4, 112), (6, 320))  # last block and channels of each scale
DECODER = (96, 64, 48, 32)  # channels, from 8 x 8 to 64 x 64


class Teacher(nn.Module):
    """Takes and gives what `LungNet` does. It is never shipped: it has 15 times the weights.

    The encoder's weights are those of the Python package that the program installs.
    """

    def __init__(self) -> None:
        super().__init__()
        with tempfile.TemporaryDirectory() as cache:
            backbone = BACKBONES[BACKBONE]
            whole = build(backbone, 2, bring_weights(backbone, Path(cache)))
        trunk, last_block = whole.get_submodule("trunk"), whole.get_submodule("last_block")
        stem, norm, stages, begun = trunk.children()  # the cut goes through a stage
        ended, last, *_ = last_block.children()
        self.stem = nn.Sequential(stem, norm)
        cut = nn.Sequential(*begun.children(), *ended.children())
        self.blocks = nn.ModuleList([*stages.children(), cut, *last.children()])
        channels = [count for _, count in LEVELS]
        below = channels[-1]
        self.decoder = nn.ModuleList()
        for beside, width in zip(channels[-2::-1], DECODER, strict=True):
            self.decoder.append(nn.Sequential(_block(below + beside, width), _block(width, width)))
            below = width
        self.masks = nn.Conv2d(below, 2 * 4, 1)
        self.orientation = nn.Sequential(
            nn.Conv2d(channels[-1], 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 32),
            nn.ReLU(), nn.Linear(32, len(ORIENTATIONS)),
        )  # fmt: skip

    def encoder_parameters(self) -> list[nn.Parameter]:
        return [*self.stem.parameters(), *self.blocks.parameters()]

    def forward(self, films: Tensor) -> tuple[Tensor, Tensor]:
        centred = films - films.mean((1, 2, 3), keepdim=True)
        spread = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        features = self.stem((centred / (spread + 4.0)).expand(-1, 3, -1, -1))
        ends, scales = [block for block, _ in LEVELS], []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in ends:
                scales.append(features)
        up = scales[-1]
        for beside, block in zip(scales[-2::-1], self.decoder, strict=True):
            larger = functional.interpolate(up, scale_factor=2, mode="nearest")
            up = block(torch.cat([larger, beside], 1))
        masks = functional.pixel_shuffle(self.masks(up), 2)
        return masks.float(), self.orientation(scales[-1]).float()


def _block(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )
