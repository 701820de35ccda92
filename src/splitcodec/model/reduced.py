"""CR+BQ: channel reduction and bottleneck quantisation, a rival without any learned prior.

Matsubara, Callegaro, Baidya, Levorato, Singh, "Head network distillation" (IEEE Access 2020), layers as published by
its authors: `larger_resnet_bottleneck` in github.com/yoshitomo-matsubara/sc2-benchmark, sc2bench/models/layer.py, split
after seven layers; its last width is the teacher's. The latent keeps few channels (2, 3, 6, 9 or 12 in the paper) and
is quantised to 8 bits over its whole range, uniformly, zero being exact (Jacob et al., CVPR 2018). Theirs is quantised
after training; here training already sees it, with the range tracked as Jacob et al. do, which can only help.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitcodec.model.parts import Coded, FeatureDecoder, Quantise, TableBottleneck

STRIDE: Final = 8
EXTRA: Final = 1
"""Rows and columns of the latent beyond height and width over the stride."""
_STEPS: Final = 255
_KEEP: Final = 0.99  # of the range, from batch to batch


@final
class ReducedEncoder(nn.Module):
    """Image (B, 3, H, W) to the latent (B, channels, H/8 + 1, W/8 + 1); the first layers are those of a ResNet."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 2, stride=2, padding=1, bias=False),
        )

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Map scaled images to the latent before quantisation."""
        out: Tensor = self.layers(image_bchw)
        return out


@final
class ReducedDecoder(FeatureDecoder):
    """Latent (B, channels, h, w) to the teacher's feature (B, out, h - 1, w - 1)."""

    def __init__(self, channels: int, out: int, *, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        below = channels
        for above, pad in ((width, 1), (width, 1), (width, 0), (out, 0)):
            layers += [nn.BatchNorm2d(below), nn.ReLU(), nn.Conv2d(below, above, 2, padding=pad, bias=False)]
            below = above
        self.layers = nn.Sequential(*layers, nn.AvgPool2d(2, stride=1))

    def aim_at(self, feature_bchw: Tensor) -> None:
        """Leave everything as it is: the published decoder knows nothing of the feature's scale."""

    def forward(self, latent_bchw: Tensor) -> Tensor:
        """Map a latent to the feature."""
        out: Tensor = self.layers(latent_bchw)
        return out


@final
class EightBit(TableBottleneck):
    """One level, one step for all channels, 256 symbols; every symbol costs 8 bits while training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels, self.channels = 1, channels
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def _gain(self) -> Tensor:
        spread = self.get_buffer("high") - self.get_buffer("low")
        return _STEPS / spread.clamp_min(1e-6)

    def _first(self) -> Tensor:
        return torch.round(self.get_buffer("low") * self._gain())

    @torch.no_grad()
    def _track(self, latent_bchw: Tensor) -> None:
        for name, found in (("low", latent_bchw.amin()), ("high", latent_bchw.amax())):
            buffer, seen = self.get_buffer(name), found.float()
            seen = seen.clamp_max(0.0) if name == "low" else seen.clamp_min(0.0)  # zero must lie within
            buffer.copy_(torch.where(buffer == 0, seen, _KEEP * buffer + (1 - _KEEP) * seen))

    def forward(self, latent_bchw: Tensor, *, quantise: Quantise = "round") -> Coded:
        """Quantise a batch; gradients pass straight through."""
        if self.training:
            self._track(latent_bchw)
        exact = latent_bchw.float()
        coarse = self.latent(self.symbols(exact, 0), 0)
        bits = 8.0 * latent_bchw[0].numel()
        return Coded(exact + (coarse - exact).detach(), exact.new_full((len(exact),), bits))

    def symbols(self, latent_bchw: Tensor, level: int) -> Tensor:
        """Return symbols within the 256 of the range."""
        first = self._first()
        return torch.round(latent_bchw.float() * self._gain()).clamp(first, first + _STEPS)

    def latent(self, symbols_bchw: Tensor, level: int) -> Tensor:
        """Return symbols divided by the gain."""
        return symbols_bchw / self._gain()

    def gains(self) -> NDArray[np.float32]:
        """Return the gain for each channel, all the same: (1, channels)."""
        return np.full((1, self.channels), self._gain().item(), np.float32)

    def masses(self, low: int, high: int) -> NDArray[np.float64]:
        """Return 1/256 for the symbols of the range, nothing beyond: (1, channels, high - low + 1)."""
        first = int(self._first())
        grid = np.arange(low, high + 1)
        flat = np.where((grid >= first) & (grid <= first + _STEPS), 1 / (_STEPS + 1), 0.0)
        return np.broadcast_to(flat, (1, self.channels, len(grid))).copy()

    def prior_parameters(self) -> Iterable[nn.Parameter]:
        """Return nothing."""
        return ()

    def gain_parameters(self) -> Iterable[nn.Parameter]:
        """Return nothing: the range is tracked, not learned."""
        return ()
