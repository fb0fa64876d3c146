"""Global average pooling whose gradient keeps the memory format of the layers before it."""

from typing import Any

import torch
from torch import Tensor, nn


class GlobalPooling(nn.AdaptiveAvgPool2d):
    """`(B, C, h, w)` → `(B, C, 1, 1)`, the same numbers as `nn.AdaptiveAvgPool2d(1)`.

    The gradient of PyTorch's own pooling comes in the order of NCHW. The layers before it hold
    their values in channels-last order, and the backward pass of a BatchNorm is ten times slower
    where the two differ.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        if not features.requires_grad:  # no gradient; a conversion to a graph knows PyTorch's own
            return super().forward(features)
        pooled: Tensor = _ChannelsLast.apply(features)  # type: ignore[no-untyped-call]
        return pooled


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor) -> Tensor:
        context.shape = features.shape
        return nn.functional.adaptive_avg_pool2d(features, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        height, width = context.shape[2:]
        share = (gradients[0] / (height * width)).expand(context.shape)
        spread: Tensor = share.contiguous(memory_format=torch.channels_last)
        return spread
