"""A decoder that sees how coarsely its latent was rounded, and decodes accordingly.

All levels share one decoder, yet what is best for a latent of three symbols in a hundred is not for one of fifty. The
level need not be told: the share of symbols in each channel that are not zero, and their size, give it away. From these
two, averaged over the picture, come a factor and a shift for each channel of each layer: Perez, Strub, de Vries,
Dumoulin, Courville, "FiLM: visual reasoning with a general conditioning layer" (AAAI 2018), with the pooling of Hu,
Shen, Sun, "Squeeze-and-excitation networks" (CVPR 2018). Bundle format and edge stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

_INNER = 64  # what is seen of a latent
_STEEP = 1e3  # a symbol of 1 is at least 1 / 1000 after division by its gain


def seen_of(latent_bchw: Tensor) -> Tensor:
    """Return what a latent gives away of itself: of each channel the mean size, and the share that is not zero.

    (B, channels, h, w), divided by its gain, to (B, 2 * channels, 1, 1).
    """
    size = latent_bchw.abs()
    return torch.cat((size, (size * _STEEP).clamp(max=1.0)), dim=1).mean(dim=(2, 3), keepdim=True)


@final
class Film(nn.Module):
    """Latent (B, channels, h, w) -> a factor and a shift (B, width, 1, 1) for each of `widths`; at first 1 and 0."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.look = nn.Conv2d(2 * channels, _INNER, 1)
        self.factors = nn.ModuleList(nn.Conv2d(_INNER, width, 1) for width in widths)
        self.shifts = nn.ModuleList(nn.Conv2d(_INNER, width, 1) for width in widths)
        for layer in (*self.factors, *self.shifts):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, latent_bchw: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Look at a latent after division by its gain."""
        told = self.look(seen_of(latent_bchw)).relu()
        return [(1 + factor(told), shift(told)) for factor, shift in zip(self.factors, self.shifts, strict=True)]
