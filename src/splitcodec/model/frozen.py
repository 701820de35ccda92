"""Frozen layers for training on CPUs: the same outputs as the layers they stand for, several times faster.

The gradient with respect to the input of a depthwise convolution is a depthwise convolution with the kernel turned by
180 degrees. PyTorch's CPU backward does not use its own fast forward kernel for that; this does (tail of
EfficientNet-Lite0, batch 32, bf16, two cores: 425 ms -> 158 ms forward and backward). ReLU6 in bf16 goes through the
integers that share its bits, which order the same way: PyTorch has a fast kernel for them and a slow one for bf16.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


def input_gradient(grad: Tensor, weight: Tensor, *, stride: int, pad: int, size: Sequence[int]) -> Tensor:
    """Return the gradient (B, C, H, W) of a depthwise convolution's input of `size` (H, W); grad (B, C, h, w)."""
    edge = weight.shape[-1] - 1
    if stride > 1:
        rows, cols = (side + 2 * pad - edge for side in size)
        shape = (*grad.shape[:2], rows, cols)
        spread = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last).zero_()
        spread[:, :, ::stride, ::stride] = grad
        grad = spread
    return nnf.conv2d(grad, weight.flip(2, 3), padding=edge - pad, groups=weight.shape[0])


@final
class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd functions take no keywords
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, pad: int
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.pad, ctx.size = stride, pad, x.shape[-2:]
        return nnf.conv2d(x, weight, bias, stride=stride, padding=pad, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        out = input_gradient(grads[0], weight, stride=ctx.stride, pad=ctx.pad, size=ctx.size)
        return out, None, None, None, None


@final
class FrozenDepthwise(nn.Module):
    """A square depthwise convolution with frozen weights; wraps the `nn.Conv2d` it stands for."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        bias = conv.bias if conv.bias is not None else torch.zeros(conv.out_channels)
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) as the wrapped convolution does; under autocast in its type."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        stride, pad = self.conv.stride[0], int(self.conv.padding[0])
        bias = self.get_buffer("bias")
        out: Tensor = _Depthwise.apply(x.to(dtype), self.conv.weight.to(dtype), bias.to(dtype), stride, pad)
        return out


_SIX_BF16 = 0x40C0  # the bits of 6.0; negative numbers have the sign bit set and so are negative integers


def _clamp_bf16(x: Tensor) -> Tensor:
    return x.view(torch.int16).clamp(0, _SIX_BF16).view(torch.bfloat16)


@final
class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = _clamp_bf16(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        grad: Tensor = torch.ops.aten.hardtanh_backward(grads[0], out, 0.0, 6.0)
        return grad


@final
class FastReLU6(nn.Module):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        if x.dtype != torch.bfloat16:
            return nnf.relu6(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return _clamp_bf16(x)
        out: Tensor = _ReLU6.apply(x)
        return out


Module = TypeVar("Module", bound=nn.Module)


def fast(module: Module) -> Module:
    """Return a copy of a frozen module with its slow layers replaced."""
    out = copy.deepcopy(module)
    _replace(out)
    return out


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and suits(child):
            setattr(module, name, FrozenDepthwise(child))
        elif isinstance(child, nn.ReLU6):
            setattr(module, name, FastReLU6())
        else:
            _replace(child)


def suits(conv: nn.Conv2d) -> bool:
    """Say whether a convolution is depthwise, square and without dilation."""
    square = len({*conv.kernel_size}) == len({*conv.stride}) == 1 and conv.dilation == (1, 1)
    pads = isinstance(conv.padding, tuple) and len({*conv.padding}) == 1 and conv.padding[0] < conv.kernel_size[0]
    return conv.groups == conv.in_channels == conv.out_channels > 1 and square and pads and conv.padding_mode == "zeros"
