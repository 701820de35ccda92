"""The student: an encoder on the device, the bottleneck, a decoder at the edge.

`student(stem_feature)` trains; `student.symbols(stem_feature, level)` codes. What the encoder takes is the output of
the teacher's stem, which stays as it is, so training computes it once for teacher and student; encoders with layers of
their own from the first on take the scaled image itself.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from splitcodec.model.linear import reduced_rank
from splitcodec.model.parts import FeatureDecoder, Neck, Quantise, TableNeck
from splitcodec.model.transforms import Decoder, Squeeze


class Reproduced(NamedTuple):
    """One training pass through the bottleneck."""

    feature_bchw: Tensor
    bits_b: Tensor
    answer: tuple[Tensor, ...] | None = None
    """What the student's own tail makes of the feature: logits and later features, where asked for."""


@final
class Student(nn.Module):
    """Encoder (`squeeze`), bottleneck and decoder; a tail only where training changes the teacher's."""

    def __init__(
        self, squeeze: nn.Module, bottleneck: Neck, decoder: FeatureDecoder, *, tail: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.squeeze, self.bottleneck, self.decoder, self.tail = squeeze, bottleneck, decoder, tail

    def forward(self, stem_bchw: Tensor, *, quantise: Quantise = "noise", answer: bool = False) -> Reproduced:
        """Train: the picture i of B has level `i // (B / levels)`; see `Neck.forward`. `answer`: by its own tail."""
        coded = self.bottleneck(self.squeeze(stem_bchw), quantise=quantise)
        feature = self.decoder(coded.latent_bchw)
        if not answer or self.tail is None:
            return Reproduced(feature, coded.bits_b)
        out = self.tail(feature)
        return Reproduced(feature, coded.bits_b, out if isinstance(out, tuple) else (out,))

    @torch.no_grad()
    def aim_at(self, stem_bchw: Tensor, feature_bchw: Tensor) -> float | None:
        """Begin near the teacher: some of its features, and what the encoder takes of the same pictures.

        Returns the share of the feature's variance that the linear start loses; None without linear paths.
        """
        self.decoder.aim_at(feature_bchw)
        squeeze, decoder = self.squeeze, self.decoder
        if not (isinstance(squeeze, Squeeze) and isinstance(decoder, Decoder)):
            return None
        if squeeze.linear is None or squeeze.linear.bias is None or decoder.linear is None:
            return None
        wanted = decoder.normalised(feature_bchw)
        rank = self.bottleneck.channels
        found = reduced_rank(stem_bchw, wanted, rank=rank, down=squeeze.down, up=decoder.up)
        squeeze.linear.weight.copy_(found.encode_kcrs)
        squeeze.linear.bias.copy_(found.bias_k)
        decoder.linear.weight.copy_(found.decode_ok[:, :, None, None])
        return found.residual

    def latent(self, stem_bchw: Tensor) -> Tensor:
        """Return the latent before gain."""
        out: Tensor = self.squeeze(stem_bchw)
        return out

    def symbols(self, stem_bchw: Tensor, level: int) -> Tensor:
        """Code: integer symbols of one level (not clipped to any table)."""
        return self.tabled().symbols(self.latent(stem_bchw), level)

    def reproduce(self, symbols_bchw: Tensor, level: int) -> Tensor:
        """Decode: the feature at the teacher's cut."""
        out: Tensor = self.decoder(self.tabled().latent(symbols_bchw, level))
        return out

    def tabled(self) -> TableNeck:
        """Return the bottleneck where packets can carry its symbols. Raises TypeError elsewhere."""
        if not isinstance(self.bottleneck, TableNeck):
            raise TypeError(f"the symbols of a {type(self.bottleneck).__name__} go into no packet")
        return self.bottleneck
