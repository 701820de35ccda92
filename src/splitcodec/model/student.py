"""The student: an encoder on the device, the bottleneck, a decoder at the edge.

`student(stem_feature)` trains; `student.symbols(stem_feature, level)` codes. What the encoder takes is the output of
the teacher's stem, which stays as it is, so training computes it once for teacher and student; encoders with layers of
their own from the first on take the scaled image itself.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from splitcodec.model.fisher import fisher_metric
from splitcodec.model.linear import reduced_rank
from splitcodec.model.parts import AbstractBottleneck, FeatureDecoder, Quantise, TableBottleneck
from splitcodec.model.thinned import Thinned
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
        self,
        squeeze: nn.Module,
        bottleneck: AbstractBottleneck,
        decoder: FeatureDecoder,
        *,
        tail: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.squeeze, self.bottleneck, self.decoder, self.tail = squeeze, bottleneck, decoder, tail

    def forward(self, stem_bchw: Tensor, *, quantise: Quantise = "noise", answer: bool = False) -> Reproduced:
        """Train: the picture i of B has level `i // (B / levels)`; see `AbstractBottleneck.forward`.

        `answer`: by its own tail.
        """
        coded = self.bottleneck(self.squeeze(stem_bchw), quantise=quantise)
        feature = self.decoder(coded.latent_bchw)
        if not answer or self.tail is None:
            return Reproduced(feature, coded.bits_b)
        out = self.tail(feature)
        return Reproduced(feature, coded.bits_b, out if isinstance(out, tuple) else (out,))

    @torch.no_grad()
    def aim_at(self, stem_bchw: Tensor, feature_bchw: Tensor, *, tail: nn.Module | None = None) -> float | None:
        """Begin near the teacher: some of its features, and what the encoder takes of the same pictures.

        With the teacher's `tail`, errors count by what they do to its answer. Returns the share of the feature's
        variance that the linear start loses, so measured; None without linear paths.
        """
        self.decoder.aim_at(feature_bchw)
        linear, decoder = self._linear(), self.decoder
        if linear is None or not isinstance(decoder, Decoder) or decoder.linear is None:
            return None
        wanted, source_bchw = decoder.normalised(feature_bchw), self._taken(stem_bchw)
        rank, down = self.bottleneck.channels, linear.stride[0]
        spread_c = decoder.get_buffer("spread").flatten()
        metric = None if tail is None else fisher_metric(tail, feature_bchw, spread_c, up=decoder.up)
        found = reduced_rank(source_bchw, wanted, rank=rank, down=down, up=decoder.up, metric=metric)
        _set(linear, found.encode_kcrs, found.bias_k)
        decoder.linear.weight.copy_(found.decode_ok[:, :, None, None])
        return found.residual

    @torch.no_grad()
    def follow(self, stem_bchw: Tensor, latent_bchw: Tensor) -> float | None:
        """Begin near another student's latent of the same pictures: the encoder's linear path is regressed on it.

        Returns the share of the latent's variance that this loses; None without a linear path.
        """
        linear = self._linear()
        if linear is None:
            return None
        mean_c = latent_bchw.mean(dim=(0, 2, 3))
        wanted = latent_bchw - mean_c[:, None, None]
        source_bchw = self._taken(stem_bchw)
        found = reduced_rank(source_bchw, wanted, rank=len(mean_c), down=linear.stride[0], up=1)
        weight = torch.einsum("ok,kcrs->ocrs", found.decode_ok, found.encode_kcrs)
        _set(linear, weight, found.decode_ok @ found.bias_k + mean_c)
        return found.residual

    @torch.no_grad()
    def turn(self, stem_bchw: Tensor, latent_bchw: Tensor) -> float | None:
        """Begin near another student's latent of the same pictures with an encoder that has learned already.

        What its last layers give is multiplied by the matrix that brings it nearest. Returns the share of the latent's
        variance that this loses; None, with nothing changed, for an encoder without a squeeze.
        """
        squeeze = self._squeeze()
        if squeeze is None:
            return None
        self.squeeze.eval()
        own, mean_c = self.latent(stem_bchw), latent_bchw.mean(dim=(0, 2, 3))
        found = reduced_rank(own, latent_bchw - mean_c[:, None, None], rank=len(mean_c), down=1, up=1)
        matrix = found.decode_ok @ found.encode_kcrs[:, :, 0, 0]
        shift = found.decode_ok @ found.bias_k + mean_c
        last = squeeze.layers[-1]
        for path in (last, squeeze.linear):
            if isinstance(path, nn.Conv2d):
                path.weight.copy_(torch.einsum("ok,kcrs->ocrs", matrix, path.weight))
                if path.bias is not None:
                    path.bias.copy_(matrix @ path.bias + (shift if path is last else 0.0))
        return found.residual

    def _squeeze(self) -> Squeeze | None:
        """Return the encoder's layers above its stem."""
        squeeze = self.squeeze.squeeze if isinstance(self.squeeze, Thinned) else self.squeeze
        return squeeze if isinstance(squeeze, Squeeze) else None

    def _linear(self) -> nn.Conv2d | None:
        """Return the encoder's linear path."""
        squeeze = self._squeeze()
        return None if squeeze is None else squeeze.straight()

    def _taken(self, stem_bchw: Tensor) -> Tensor:
        """Return what the linear path takes."""
        return self.squeeze.features(stem_bchw) if isinstance(self.squeeze, Thinned) else stem_bchw

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

    def tabled(self) -> TableBottleneck:
        """Return the bottleneck where packets can carry its symbols. Raises TypeError elsewhere."""
        if not isinstance(self.bottleneck, TableBottleneck):
            raise TypeError(f"the symbols of a {type(self.bottleneck).__name__} go into no packet")
        return self.bottleneck


def _set(path: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    path.weight.copy_(weight)
    if path.bias is not None:
        path.bias.copy_(bias)
