"""Depthwise convolutions: the numbers and the gradients of PyTorch's own."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lib.network import backbones
from lib.network.backbones import BACKBONES
from lib.network.depthwise import DepthwiseConvolution, with_fast_gradients

CHANNELS = 24


def _depthwise(side: int, padding: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(CHANNELS, CHANNELS, side, padding=padding, groups=CHANNELS, bias=False)


def _gradients(module: nn.Module, images: Tensor, in_bf16: bool) -> tuple[Tensor, Tensor, Tensor]:
    images = images.clone(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        convolved = module(images)
    convolved.float().square().sum().backward()
    weight = module.get_parameter("weight")
    assert images.grad is not None
    assert weight.grad is not None
    return convolved, images.grad, weight.grad


@pytest.mark.parametrize("in_bf16", [False, True])
@pytest.mark.parametrize(("side", "padding"), [(5, 2), (5, 0), (7, 3)])
def test_values_and_gradients_are_those_of_pytorch(side: int, padding: int, in_bf16: bool) -> None:
    own = _depthwise(side, padding)
    fast = copy.deepcopy(own)
    with_fast_gradients(fast)
    assert isinstance(fast, DepthwiseConvolution)
    images = torch.randn(3, CHANNELS, 9, 8)
    tolerance = 1e-2 if in_bf16 else 1e-5  # bfloat16 has 8 bits
    for one, other in zip(
        _gradients(own, images, in_bf16), _gradients(fast, images, in_bf16), strict=True
    ):
        assert one.dtype == other.dtype
        assert (one - other).abs().max() <= tolerance * one.abs().max()


def test_small_kernels_strides_and_dense_convolutions_stay_as_they_are() -> None:
    network = nn.Sequential(
        _depthwise(3, 1),
        nn.Conv2d(CHANNELS, CHANNELS, 5, stride=2, groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, CHANNELS, 5, bias=False),
    )
    with_fast_gradients(network)
    assert not any(isinstance(module, DepthwiseConvolution) for module in network.modules())


def test_the_last_block_of_an_efficientnet_has_them() -> None:
    network = backbones.build(BACKBONES["efficientnet_lite0"], classes=3)
    last_block = network.get_submodule("last_block")
    assert sum(isinstance(module, DepthwiseConvolution) for module in last_block.modules()) == 3
