"""What task heads share: a feature pyramid (Lin et al., CVPR 2017) in few dense convolutions, and a finer map.

used by: fcos.py, segmenter.py
"""

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


def lateral(level: Level, width: int) -> nn.Module:
    """Return what brings a map of the pyramid to `width` channels at the level's stride."""
    return Doubled(level.width, width) if level.doubled else conv(level.width, width, 1)


@final
class Doubled(nn.Module):
    """A map of twice the sides out of a map's channels: a sub-pixel convolution (Shi et al., CVPR 2016).

    A cut whose stride is coarser than a head wants still holds what lies within its places, in its channels.
    """

    def __init__(self, below: int, above: int) -> None:
        super().__init__()
        self.spread = conv(below, 4 * above, 3)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, map_bchw: Tensor) -> Tensor:
        """Map (B, below, H, W) to (B, above, 2 H, 2 W)."""
        out: Tensor = self.shuffle(self.spread(map_bchw))
        return out


@final
class Pyramid(nn.Module):
    """Maps of several widths -> as many maps of one width, each with what the coarser ones know."""

    def __init__(self, levels: Sequence[Level], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(lateral(level, width) for level in levels)
        self.smooth = nn.ModuleList(conv(width, width, 3) for _ in levels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map (B, width_l, H_l, W_l), fine to coarse, to (B, width, H_l, W_l) (twice the sides for a doubled one)."""
        found = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        for place in range(len(found) - 2, -1, -1):
            found[place] = found[place] + doubled_to(found[place + 1], found[place])
        return [layer(one) for layer, one in zip(self.smooth, found, strict=True)]
