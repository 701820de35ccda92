"""Depthwise convolutions that learn on a CPU in a sixth of the time: the same numbers by other kernels.

PyTorch's CPU backward has slow kernels for depthwise convolutions in bf16: for a stride of two the gradient of the
input takes twenty times as long as the forward pass, for 5 x 5 the gradient of the weights thirty times. Here the
former is a depthwise convolution of the spread gradient with the turned kernel (as in `frozen.py`), the latter a sum of
products for each of the 25 places. A step of a thinned EfficientNet-Lite0 that learns a latent takes less than half the
time (docs/LOG.md).
"""

from __future__ import annotations

from typing import Any, Final, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from splitcodec.model.frozen import FastReLU6, input_gradient, suits

_FAST_BELOW: Final = 5
"""Kernels smaller than this have a fast gradient of their weights in PyTorch."""


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, *, stride: int, pad: int) -> Tensor:
    """Return the gradient (C, 1, k, k) of a depthwise convolution's weights; grad (B, C, h, w), x (B, C, H, W)."""
    size = weight.shape[-1]
    if size < _FAST_BELOW:
        by = [stride, stride], [pad, pad], [1, 1]
        ask = [False, True, False]
        found = torch.ops.aten.convolution_backward(grad, x, weight, None, *by, False, [0, 0], weight.shape[0], ask)
        out: Tensor = found[1]
        return out
    padded = nnf.pad(x, (pad, pad, pad, pad)) if pad else x
    rows, cols = (stride * (side - 1) + 1 for side in grad.shape[-2:])
    places = [
        (padded[:, :, top : top + rows : stride, left : left + cols : stride] * grad).sum((0, 2, 3))
        for top in range(size)
        for left in range(size)
    ]
    return torch.stack(places, 1).view_as(weight)


@final
class _Learning(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd functions take no keywords
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, pad: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.pad, ctx.biased = stride, pad, bias is not None
        return nnf.conv2d(x, weight, bias, stride=stride, padding=pad, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        below = None
        if ctx.needs_input_grad[0]:
            below = input_gradient(grad, weight, stride=ctx.stride, pad=ctx.pad, size=x.shape[-2:])
        by_weight = weight_gradient(grad, x, weight, stride=ctx.stride, pad=ctx.pad)
        return below, by_weight, grad.sum((0, 2, 3)) if ctx.biased else None, None, None


@final
class QuickDepthwise(nn.Conv2d):
    """A square depthwise convolution: an `nn.Conv2d` whose class was changed, so its weights keep their names."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) as `nn.Conv2d` does; under autocast in its type."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        stride, pad = self.stride[0], int(self.padding[0])
        out: Tensor = _Learning.apply(x.to(dtype), self.weight.to(dtype), bias, stride, pad)
        return out


def quicken(module: nn.Module) -> None:
    """Let a module's depthwise convolutions and ReLU6 be computed by the kernels above, in place; its state stays."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and suits(child):
            child.__class__ = QuickDepthwise
        elif isinstance(child, nn.ReLU6):
            setattr(module, name, FastReLU6())
        else:
            quicken(child)
