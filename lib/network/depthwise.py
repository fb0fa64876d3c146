"""Depthwise convolutions whose gradient is computed by fast kernels."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


class DepthwiseConvolution(nn.Conv2d):
    """A convolution of each channel by itself, the same numbers as `nn.Conv2d`.

    PyTorch's own gradient of the weights of a 5 x 5 depthwise convolution in bfloat16 is 15 times
    slower on CPU than this one: the gradient of a channel's weights is the convolution of its
    input with the gradient of its output, so that a forward pass over films times channels gives
    it.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` can become one and gains: depthwise, larger than 3 x 3, no stride."""
        return (
            type(module) is nn.Conv2d
            and max(module.kernel_size) > 3
            and module.groups == module.in_channels == module.out_channels
            and (module.stride, module.dilation, module.bias) == ((1, 1), (1, 1), None)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )

    def forward(self, features: Tensor) -> Tensor:
        """`(B, C, h, w)` to the same shape, or smaller without padding."""
        if not self.training:  # no gradient; a conversion to a graph knows PyTorch's own
            return super().forward(features)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            features, weight = features.to(kind), weight.to(kind)
        convolved: Tensor = _Depthwise.apply(features, weight, self.padding)  # type: ignore[no-untyped-call]
        return convolved


def with_fast_gradients(network: nn.Module) -> None:
    """Turn the depthwise convolutions inside `network` into `DepthwiseConvolution`; weights and
    their names stay.
    """
    for module in network.modules():
        if DepthwiseConvolution.fits(module):
            module.__class__ = DepthwiseConvolution


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        context.save_for_backward(features, weight)
        context.padding = padding
        return nn.functional.conv2d(features, weight, padding=padding, groups=len(weight))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,), (features, weight) = gradients, context.saved_tensors
        films, channels = features.shape[:2]
        with torch.autocast("cpu", enabled=False):
            of_features = conv2d_input(  # type: ignore[no-untyped-call]
                features.shape, weight, gradient, padding=context.padding, groups=channels
            )
            of_weights = nn.functional.conv2d(
                features.reshape(1, films * channels, *features.shape[2:]),
                gradient.reshape(films * channels, 1, *gradient.shape[2:]),
                padding=context.padding,
                groups=films * channels,
            )
        of_weights = of_weights.view(films, *weight.shape).sum(0, dtype=torch.float32)
        return of_features, of_weights.to(weight.dtype), None
