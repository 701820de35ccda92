"""Two decoders in one: that of clean pictures, and where a packet looks disturbed (noisy, blurred, flat) another one.

What a decoder learns of disturbed pictures costs it some of what it could on clean ones, and a packet tells which it is
of: the share of symbols in each channel that are not zero, and their size. From these a switch makes a number from 0 to
1, and beside every convolution of the clean one stands, times that number, what the other one's does differently. Of
3 x 3 kernels little is lost where that is a product of two thin ones: Hu and others, "LoRA: low-rank adaptation of
large language models" (ICLR 2022). Layers keep the clean decoder's names.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Final, cast, final

import torch
from torch import Tensor, nn

from splitcodec.model.film import Film, seen_of
from splitcodec.model.transforms import Decoder, Residual

RANK: Final = 15  # and one more for the bias: processors take channels by eights
_WIDE: Final = 32
_SURE: Final = 2.0  # a logit: seven to one


@final
class Switch(nn.Module):
    """What `seen_of` tells (B, 2 * channels, 1, 1) -> 0 for a clean picture to 1 for a disturbed one, (B, 1, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look, self.say = nn.Conv2d(2 * channels, _WIDE, 1), nn.Conv2d(_WIDE, 1, 1)

    def logit(self, seen_bc11: Tensor) -> Tensor:
        """Return how likely it is that the picture is disturbed, as a logit (B, 1, 1, 1)."""
        out: Tensor = self.say(self.look(seen_bc11).relu())
        return out

    def forward(self, seen_bc11: Tensor) -> Tensor:
        """Return 0 for all that is more likely clean than disturbed, so that it is decoded as ever."""
        return (self.logit(seen_bc11) / _SURE).clamp(0.0, 1.0)


@final
class SwitchedDecoder(nn.Module):
    """A decoder's layers with the weights `clean`, and what `other` does differently where the switch says so.

    Both are weights by the names of the layers of `like`, batch norm folded into them.
    """

    def __init__(
        self, like: Decoder, clean: Mapping[str, Tensor], other: Mapping[str, Tensor], *, rank: int = RANK
    ) -> None:
        super().__init__()
        self.up = like.up
        self.layers = _without_norm(copy.deepcopy(like.layers))
        self.linear, self.film = copy.deepcopy(like.linear), copy.deepcopy(like.film)
        for name in ("mean", "spread"):
            self.register_buffer(name, like.get_buffer(name).clone())
        self.load_state_dict({name: clean[name] for name in self.state_dict()})
        self.other_film = copy.deepcopy(like.film)
        if self.other_film is not None:
            mine = self.other_film.state_dict()
            self.other_film.load_state_dict({name: other[f"film.{name}"] for name in mine})
        convolutions = [(name, one) for name, one in self.named_modules() if isinstance(one, nn.Conv2d)]
        self.beside = nn.ModuleDict(
            {
                name.replace(".", "_"): _difference(one, clean, other, name=name, rank=rank)
                for name, one in convolutions
                if name.partition(".")[0] in ("layers", "linear")
            }
        )
        self.switch = Switch(convolutions[0][1].in_channels)
        self.requires_grad_(requires_grad=False)

    def forward(self, latent_bchw: Tensor) -> Tensor:
        """Map a latent, after division by the gain, to the feature at the teacher's cut."""
        seen = seen_of(latent_bchw)
        share = self.switch(seen)
        told = self._told(latent_bchw, share)
        out = latent_bchw
        for place, layer in enumerate(self.layers):
            out = self._through(f"layers_{place}", layer, out, share)
            if place < len(told):
                factor, shift = told[place]
                out = out * factor + shift
        if self.linear is not None:
            out = out + nn.functional.pixel_shuffle(self._through("linear", self.linear, latent_bchw, share), self.up)
        return out * self.get_buffer("spread") + self.get_buffer("mean")

    def _told(self, latent_bchw: Tensor, share: Tensor) -> list[tuple[Tensor, Tensor]]:
        if not isinstance(self.film, Film) or not isinstance(self.other_film, Film):
            return []
        pairs = zip(self.film(latent_bchw), self.other_film(latent_bchw), strict=True)
        return [(f + share * (g - f), s + share * (t - s)) for (f, s), (g, t) in pairs]

    def _through(self, name: str, layer: nn.Module, x: Tensor, share: Tensor) -> Tensor:
        """Pass a layer, with what stands beside its convolutions."""
        if isinstance(layer, nn.Conv2d):
            out: Tensor = layer(x) + self.beside[name](x, share)
            return out
        if isinstance(layer, Residual):
            return cast(Tensor, layer.act(x + self._through(f"{name}_body", layer.body, x, share)))
        if isinstance(layer, nn.Sequential):
            for place, one in enumerate(layer):
                x = self._through(f"{name}_{place}", one, x, share)
            return x
        return cast(Tensor, layer(x))


def _without_norm(layers: nn.Sequential) -> nn.Sequential:
    """Give convolutions before a batch norm the bias that folding it leaves, and take it out."""
    for part in [one for one in layers.modules() if isinstance(one, nn.Sequential)]:
        for place, one in enumerate(part[1:], 1):
            before = part[place - 1]
            if isinstance(one, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                before.bias = nn.Parameter(torch.zeros(before.out_channels))
                part[place] = nn.Identity()
    for one in layers.modules():
        if isinstance(one, nn.ReLU):
            one.inplace = False
    return layers


@final
class _Whole(nn.Module):
    """A convolution, times the share."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """Map what the layer takes to what is added to what it gives."""
        out: Tensor = share * self.conv(x)
        return out


@final
class _Thin(nn.Module):
    """Two convolutions with few channels between them, of which the last is always 1, for the bias.

    The share multiplies these few, which costs an edge a third of what it would behind them.
    """

    def __init__(self, down: nn.Conv2d, up: nn.Conv2d) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """Map what the layer takes to what is added to what it gives."""
        out: Tensor = self.up(share * self.down(x))
        return out


@torch.no_grad()
def _difference(
    like: nn.Conv2d, clean: Mapping[str, Tensor], other: Mapping[str, Tensor], *, name: str, rank: int
) -> nn.Module:
    """Return what gives what `other` gives beyond `clean`."""
    names = [f"{name}.{of}" for of in ("weight", "bias") if getattr(like, of) is not None]
    weight_ochw, *bias_o = [other[one].float() - clean[one].float() for one in names]
    if like.kernel_size == (1, 1):
        whole = copy.deepcopy(like)
        whole.weight.copy_(weight_ochw)
        for bias in bias_o:
            cast(Tensor, whole.bias).copy_(bias)
        return _Whole(whole)
    u, s, v = torch.linalg.svd(weight_ochw.flatten(1).double(), full_matrices=False)
    kept, side = min(rank, len(s)), like.kernel_size[0]
    root = s[:kept].sqrt()
    down = nn.Conv2d(like.in_channels, kept + 1, side, padding=side // 2)
    up = nn.Conv2d(kept + 1, like.out_channels, 1, bias=False)
    down.weight[:kept] = (root[:, None] * v[:kept]).view(kept, *weight_ochw.shape[1:])
    down.weight[kept] = 0.0
    cast(Tensor, down.bias).copy_(torch.eye(kept + 1)[kept])
    up.weight[:, :kept, 0, 0] = u[:, :kept] * root
    up.weight[:, kept, 0, 0] = bias_o[0] if bias_o else 0.0
    return _Thin(down, up)
