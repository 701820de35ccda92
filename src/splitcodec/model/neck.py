"""What task heads share: a feature pyramid (Lin et al., CVPR 2017) in few dense convolutions.   used by: fcos.py"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch.nn.functional as nnf
from torch import Tensor, nn

from splitcodec.model.pyramid import Level
from splitcodec.model.transforms import conv


def doubled_to(small: Tensor, like: Tensor) -> Tensor:
    """Double a map, nearest neighbour, and cut it to the size of `like`, which is at most a row or column less."""
    return nnf.interpolate(small, scale_factor=2.0, mode="nearest")[..., : like.shape[-2], : like.shape[-1]]


@final
class Pyramid(nn.Module):
    """Maps of several widths -> as many maps of one width, each with what the coarser ones know."""

    def __init__(self, levels: Sequence[Level], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv(level.width, width, 1) for level in levels)
        self.smooth = nn.ModuleList(conv(width, width, 3) for _ in levels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map (B, width_l, H_l, W_l), fine to coarse, to (B, width, H_l, W_l)."""
        found = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        for place in range(len(found) - 2, -1, -1):
            found[place] = found[place] + doubled_to(found[place + 1], found[place])
        return [layer(one) for layer, one in zip(self.smooth, found, strict=True)]
