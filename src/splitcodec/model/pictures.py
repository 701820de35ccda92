"""Learned image codecs, rivals whose decoder reproduces the picture for the unmodified network to look at.

Transforms of Balle, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior" (ICLR
2018), figure 4 without the hyperprior: four convolutions of 5 x 5 with stride 2 and generalised divisive normalisation
between them, and their mirror image. N = 128 and M = 192 channels are theirs at low rates. Minnen et al. (NeurIPS 2018)
keep the transforms; their hyperprior is in `hyperprior.py`.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn

from splitcodec.model.gdn import GDN
from splitcodec.model.parts import FeatureDecoder

STRIDE: Final = 16


@final
class PictureEncoder(nn.Module):
    """Scaled image (B, 3, H, W) to the latent (B, channels, H/16, W/16)."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2),
            GDN(width, squared=True),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
            GDN(width, squared=True),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
            GDN(width, squared=True),
            nn.Conv2d(width, channels, 5, stride=2, padding=2),
        )

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Map scaled images to the latent before rounding."""
        out: Tensor = self.layers(image_bchw)
        return out


@final
class PictureDecoder(FeatureDecoder):
    """Latent (B, channels, h, w) to the scaled image (B, 3, 16h, 16w): the teacher is cut before its first layer."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _doubling(channels, width),
            GDN(width, inverse=True, squared=True),
            _doubling(width, width),
            GDN(width, inverse=True, squared=True),
            _doubling(width, width),
            GDN(width, inverse=True, squared=True),
            _doubling(width, 3),
        )

    def aim_at(self, feature_bchw: Tensor) -> None:
        """Leave everything as it is: pictures are of known scale."""

    def forward(self, latent_bchw: Tensor) -> Tensor:
        """Map a latent to a picture, whose colours may lie a little outside their range."""
        out: Tensor = self.layers(latent_bchw)
        return out


@final
class EightBitColours(nn.Module):
    """Round and clip scaled colours to those of an 8-bit picture, as a codec gives it: `step` * 0..255 + `offset`."""

    def __init__(self, step_c: Tensor, offset_c: Tensor) -> None:
        super().__init__()
        self.register_buffer("step", step_c.view(1, 3, 1, 1).clone())
        self.register_buffer("offset", offset_c.view(1, 3, 1, 1).clone())

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the same shape."""
        step, offset = self.get_buffer("step"), self.get_buffer("offset")
        pixels = torch.round((image_bchw - offset) / step).clamp(0.0, 255.0)
        return pixels * step + offset


def _doubling(below: int, above: int) -> nn.Module:
    return nn.ConvTranspose2d(below, above, 5, stride=2, padding=2, output_padding=1)
