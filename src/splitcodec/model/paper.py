"""The paper's Entropic Student, layer by layer.

Matsubara, Yang, Levorato, Mandt, "Supervised compression for resource-constrained edge computing systems" (WACV 2022),
section 4.2, with kernels, strides and padding as published by its authors: class `FPBasedResNetBottleneck` in
github.com/yoshitomo-matsubara/sc2-benchmark, sc2bench/models/layer.py (`BottleneckResNetHead` in custom/backbone.py of
github.com/yoshitomo-matsubara/supervised-compression). The encoder takes the scaled image; for 224 x 224 pixels the
latent is 24 x 55 x 55 (the last convolution loses a row and a column) and the feature 56 x 56, the stride of ResNet's
layer1. 588.4 M multiply-accumulates, those of the GDN included.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn

from splitcodec.model.gdn import GDN
from splitcodec.model.parts import FeatureDecoder

STRIDE: Final = 4
EXTRA: Final = -1
"""Rows and columns of the latent beyond height and width over the stride."""


@final
class PaperEncoder(nn.Module):
    """Image (B, 3, H, W) to the latent (B, channels, H/4 - 1, W/4 - 1).

    `centred`: the latent is counted from a number of each channel's own, its median where CompressAI has trained it.
    """

    def __init__(self, channels: int, *, widths: tuple[int, int], centred: bool = False) -> None:
        super().__init__()
        first, second = widths
        self.layers = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2, bias=False),
            GDN(first),
            nn.Conv2d(first, second, 5, stride=2, padding=2, bias=False),
            GDN(second),
            nn.Conv2d(second, channels, 2, bias=centred),
        )

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Map scaled images to the latent before gain."""
        out: Tensor = self.layers(image_bchw)
        return out


@final
class Centre(nn.Module):
    """Adds a number of its own to each channel. (A bias behind the convolution would miss the padding's zeros.)"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_c = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.of_c[:, None, None]


@final
class PaperDecoder(FeatureDecoder):
    """Latent (B, channels, h, w) to the teacher's feature (B, out, h + 1, w + 1); `centred` as the encoder's."""

    def __init__(self, channels: int, out: int, *, widths: tuple[int, int], centred: bool = False) -> None:
        super().__init__()
        first, second = widths
        self.centre = Centre(channels) if centred else nn.Identity()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, 2, padding=1, bias=False),
            GDN(first, inverse=True),
            nn.Conv2d(first, second, 2, bias=False),
            GDN(second, inverse=True),
            nn.Conv2d(second, out, 2, padding=1, bias=False),
        )

    def aim_at(self, feature_bchw: Tensor) -> None:
        """Leave everything as it is: the published decoder knows nothing of the feature's scale."""

    def forward(self, latent_bchw: Tensor) -> Tensor:
        """Map a latent to the feature."""
        out: Tensor = self.layers(self.centre(latent_bchw))
        return out
