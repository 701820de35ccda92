"""Generalised divisive normalisation, as the paper's published code uses it.

Balle, Laparra, Simoncelli, "Density modeling of images using a generalized normalization transformation" (ICLR 2016),
in the form of Johnston, Eban, Gordon, Balle, "Computationally efficient neural image compression" (2019), equation 3:
magnitudes instead of squares and no root; or, `squared`, as the first paper has it. The inverse multiplies. beta and
gamma stay non-negative by the reparametrisation of the first paper: they are squares of what is learned, which is held
above a small bound.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Final, TypeVar, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

_PEDESTAL: Final = 2.0**-36
_LEAST_BETA: Final = 1e-6
_GAMMA: Final = 0.1  # of a channel's own magnitude, at the start


@final
class _AtLeast(torch.autograd.Function):
    """max(x, bound), whose gradient still pulls values below the bound upwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ((x >= ctx.bound) | (grads[0] < 0)), None


def at_least(x: Tensor, bound: float) -> Tensor:
    """Return max(x, bound); a gradient that would bring a value below the bound up to it still passes."""
    held: Tensor = _AtLeast.apply(x, bound)
    return held


def _positive(root: Tensor, least: float) -> Tensor:
    return at_least(root, math.sqrt(least + _PEDESTAL)).square() - _PEDESTAL


@final
class GDN(nn.Module):
    """x / (beta + gamma |x|) with the magnitudes of all channels; `inverse` multiplies instead.

    `squared`: x / sqrt(beta + gamma x^2).
    """

    def __init__(self, channels: int, *, inverse: bool = False, squared: bool = False) -> None:
        super().__init__()
        self.inverse, self.squared = inverse, squared
        self.beta_root = nn.Parameter((torch.ones(channels) + _PEDESTAL).sqrt())
        self.gamma_root = nn.Parameter((_GAMMA * torch.eye(channels) + _PEDESTAL).sqrt())

    def beta(self) -> Tensor:
        """Return beta (C), at least 1e-6."""
        return _positive(self.beta_root, _LEAST_BETA)

    def gamma(self) -> Tensor:
        """Return gamma (C, C), at least 0."""
        return _positive(self.gamma_root, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        norm = nnf.conv2d(x.square() if self.squared else x.abs(), self.gamma()[:, :, None, None], self.beta())
        return _normed(x, norm.sqrt() if self.squared else norm, inverse=self.inverse)


@final
class _Settled(nn.Module):
    """A trained GDN as an ordinary 1 x 1 convolution between a magnitude and a quotient."""

    def __init__(self, gdn: GDN) -> None:
        super().__init__()
        self.inverse, self.squared = gdn.inverse, gdn.squared
        channels = len(gdn.beta_root)
        self.norm = nn.Conv2d(channels, channels, 1)
        with torch.no_grad():
            self.norm.weight.copy_(gdn.gamma()[:, :, None, None])
            assert self.norm.bias is not None  # noqa: S101  # for the type checker
            self.norm.bias.copy_(gdn.beta())

    def forward(self, x: Tensor) -> Tensor:
        norm: Tensor = self.norm(x.square() if self.squared else x.abs())
        return _normed(x, norm.sqrt() if self.squared else norm, inverse=self.inverse)


def _normed(x: Tensor, norm: Tensor, *, inverse: bool) -> Tensor:
    return x * norm if inverse else x / norm


Module = TypeVar("Module", bound=nn.Module)


def settled(module: Module) -> Module:
    """Return a copy for export, in which every GDN has become an ordinary convolution."""
    out = copy.deepcopy(module)
    for parent in list(out.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GDN):
                setattr(parent, name, _Settled(child).eval())
    return out
