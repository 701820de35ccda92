"""An encoder that is the teacher's own first layers, thinned, and a squeeze.

Thinned in either way or both: with fewer hidden channels (model/pruning.py), on a smaller picture. What ImageNet taught
those layers is kept: with a linear code behind them they are worth more than an encoder of equal cost from random
weights (docs/LOG.md). All of it learns; batch norm is folded away from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as nnf
from torch import Tensor, fx, nn

from splitcodec.model.narrowing import narrow_to
from splitcodec.model.pruning import fitted
from splitcodec.model.transforms import Squeeze


@final
class Thinned(nn.Module):
    """Image (B, 3, H, W) -> sides times `share` -> `stem` -> features at (H, W) / stride -> the squeeze's latent.

    `share` is a fraction (numerator, denominator), at most 1. Both ways are bilinear.
    """

    def __init__(self, stem: nn.Module, squeeze: Squeeze, *, share: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.stem, self.squeeze = stem, squeeze
        self.share, self.stride = share, stride

    def features(self, image_bchw: Tensor) -> Tensor:
        """Return what the squeeze takes: the stem's features of the smaller picture, as many as of the whole one."""
        rows, cols = image_bchw.shape[2], image_bchw.shape[3]
        above, below = self.share
        if above == below:
            out: Tensor = self.stem(image_bchw)
            return out
        small = _resized(image_bchw, rows * above // below, cols * above // below)
        return _resized(self.stem(small), rows // self.stride, cols // self.stride)

    @torch.no_grad()
    def refit(
        self, whole: fx.GraphModule, hidden: Sequence[int], image_bchw: Tensor, *, between: Sequence[int] | None = None
    ) -> None:
        """Begin with the channels of the whole stem that matter most for some scaled images; see `ThinnedRecipe`."""
        above, below = self.share
        rows, cols = image_bchw.shape[2], image_bchw.shape[3]
        small = _resized(image_bchw, rows * above // below, cols * above // below) if above != below else image_bchw
        narrow = None if between is None else narrow_to(whole, between, small)
        self.stem.load_state_dict(fitted(whole, hidden, small, narrow=narrow).state_dict())

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Map scaled images to the latent before gain."""
        out: Tensor = self.squeeze(self.features(image_bchw))
        return out


def _resized(x_bchw: Tensor, rows: int, cols: int) -> Tensor:
    return nnf.interpolate(x_bchw, size=(rows, cols), mode="bilinear", align_corners=False)
