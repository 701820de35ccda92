"""Encoder and decoder: dense convolutions, batch norm while training, ReLU; no layer that is slow on weak processors.

The encoder starts as the teacher's own first layers (the stem) and thins out into the latent; the decoder may be large,
since the edge is strong. Batch norm is folded away at export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from splitcodec.model.film import Film
from splitcodec.model.parts import FeatureDecoder


def conv(below: int, above: int, kernel: int, *, stride: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, batch norm and (unless told otherwise) ReLU; pads by half the kernel."""
    layers: list[nn.Module] = [
        nn.Conv2d(below, above, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(above),
    ]
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


@final
class PerColour(nn.Module):
    """(x - mean) / std, each colour its own: for teachers that were trained so."""

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            each = [values] * 3 if isinstance(values, float | int) else list(values)
            self.register_buffer(name, torch.tensor(each).view(1, 3, 1, 1))

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Map colours in [0, 1] to what the teacher takes."""
        return (image_bchw - self.get_buffer("mean")) / self.get_buffer("std")


@final
class Residual(nn.Module):
    """x + two 3 x 3 convolutions of it; with `inner`, one 3 x 3 convolution of that width between two of 1 x 1.

    He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (CVPR 2016): basic and bottleneck block.
    """

    def __init__(self, width: int, *, inner: int | None = None) -> None:
        super().__init__()
        if inner is None:
            self.body = nn.Sequential(conv(width, width, 3), conv(width, width, 3, act=False))
        else:
            self.body = nn.Sequential(conv(width, inner, 1), conv(inner, inner, 3), conv(inner, width, 1, act=False))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        out: Tensor = self.act(x + self.body(x))
        return out


@final
class Squeeze(nn.Module):
    """The encoder above its stem: stem features (B, below, h, w) to the latent (B, channels, h / 2^k, w / 2^k).

    One 3 x 3 convolution per entry of `widths`; the first `halvings` of them have stride 2. With `linear`, a linear
    path runs beside them; see `model.linear`. Without widths both would be the same: one 1 x 1 convolution.
    """

    def __init__(
        self, below: int, channels: int, *, widths: tuple[int, ...], halvings: int, linear: bool = False
    ) -> None:
        super().__init__()
        self.down = 1 << halvings
        beside = linear and bool(widths)
        self.linear = nn.Conv2d(below, channels, self.down, stride=self.down) if beside else None
        layers: list[nn.Module] = []
        for place, width in enumerate(widths):
            layers.append(conv(below, width, 3, stride=2 if place < halvings else 1))
            below = width
        last = nn.Conv2d(below, channels, 1)
        self.layers = nn.Sequential(*layers, last)
        if beside:
            _silence(last)

    def straight(self) -> nn.Conv2d | None:
        """Return the convolution that goes from stem features to the latent in one step."""
        last = self.layers[-1]
        return last if len(self.layers) == 1 and isinstance(last, nn.Conv2d) else self.linear

    def forward(self, x: Tensor) -> Tensor:
        """Map stem features to the latent before gain."""
        out: Tensor = self.layers(x)
        return out if self.linear is None else out + self.linear(x)


@final
class Decoder(FeatureDecoder):
    """Latent (B, channels, h, w) to the teacher's feature (B, out, h * up, w * up), up = 1, 2, 4 ...

    Residual blocks at latent resolution (cheap there), then a pixel shuffle per doubling with its own residual blocks.
    With `linear`, a linear path runs beside them; see `model.linear`. With `adapt`, the first convolution and the
    blocks behind it heed how coarsely the latent was rounded; see `model.film`.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        *,
        width: int,
        blocks: int,
        up: int,
        up_width: int,
        up_blocks: int,
        linear: bool = False,
        adapt: bool = False,
    ) -> None:
        super().__init__()
        self.up = up
        self.film = Film(channels, [width] * (blocks + 1)) if adapt else None
        self.linear = nn.Conv2d(channels, out * up * up, 1, bias=False) if linear else None
        layers: list[nn.Module] = [conv(channels, width, 3), *(Residual(width) for _ in range(blocks))]
        below = width
        while up > 1:
            layers += [conv(below, up_width * 4, 1), nn.PixelShuffle(2), conv(up_width, up_width, 3)]
            layers += [Residual(up_width) for _ in range(up_blocks)]
            below, up = up_width, up // 2
        last = nn.Conv2d(below, out, 1)
        self.layers = nn.Sequential(*layers, last)
        if linear:
            _silence(last)
        self.register_buffer("mean", torch.zeros(1, out, 1, 1))
        self.register_buffer("spread", torch.ones(1, out, 1, 1))

    def aim_at(self, feature_bchw: Tensor) -> None:
        """Set the last layer's scale to that of some of the teacher's features, channel by channel."""
        self.get_buffer("mean").copy_(feature_bchw.float().mean(dim=(0, 2, 3), keepdim=True))
        self.get_buffer("spread").copy_(feature_bchw.float().std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-3))

    def forward(self, latent_bchw: Tensor) -> Tensor:
        """Map a latent, after division by the gain, to the feature at the teacher's cut."""
        out = latent_bchw
        told = [] if self.film is None else self.film(latent_bchw)
        for place, layer in enumerate(self.layers):
            out = layer(out)
            if place < len(told):
                factor, shift = told[place]
                out = out * factor + shift
        if self.linear is not None:
            out = out + nnf.pixel_shuffle(self.linear(latent_bchw), self.up)
        return out * self.get_buffer("spread") + self.get_buffer("mean")

    def normalised(self, feature_bchw: Tensor) -> Tensor:
        """Return features with the mean and spread that `aim_at` found taken out."""
        return (feature_bchw.float() - self.get_buffer("mean")) / self.get_buffer("spread")


def _silence(last: nn.Conv2d) -> None:
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
