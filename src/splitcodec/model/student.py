"""The student: the teacher's first layers (stem) and a squeeze on the device, the bottleneck, a decoder at the edge.

`student(stem_feature)` trains; `student.symbols(stem_feature, level)` codes. The stem is the teacher's own and stays as
it is, so training computes it once for teacher and student.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from splitcodec.model.bottleneck import Bottleneck, Quantise
from splitcodec.model.transforms import Decoder, Squeeze


class Reproduced(NamedTuple):
    """One training pass through the bottleneck."""

    feature_bchw: Tensor
    bits_b: Tensor


@final
class Student(nn.Module):
    """Squeeze, bottleneck and decoder around the teacher's stem."""

    def __init__(self, squeeze: Squeeze, bottleneck: Bottleneck, decoder: Decoder) -> None:
        super().__init__()
        self.squeeze, self.bottleneck, self.decoder = squeeze, bottleneck, decoder

    def forward(self, stem_bchw: Tensor, *, quantise: Quantise = "noise") -> Reproduced:
        """Train: the picture i of B has level `i // (B / levels)`; see `Bottleneck.forward`."""
        coded = self.bottleneck(self.squeeze(stem_bchw), quantise=quantise)
        return Reproduced(self.decoder(coded.latent_bchw), coded.bits_b)

    def latent(self, stem_bchw: Tensor) -> Tensor:
        """Return the latent before gain."""
        out: Tensor = self.squeeze(stem_bchw)
        return out

    def symbols(self, stem_bchw: Tensor, level: int) -> Tensor:
        """Code: rounded latent of one level (not clipped to any table)."""
        gain = self.bottleneck.log_gain_lc[level].exp()[:, None, None]
        return torch.round(self.latent(stem_bchw).float() * gain)

    def reproduce(self, symbols_bchw: Tensor, level: int) -> Tensor:
        """Decode: the feature at the teacher's cut."""
        gain = self.bottleneck.log_gain_lc[level].exp()[:, None, None]
        out: Tensor = self.decoder(symbols_bchw / gain)
        return out
