"""The mean-scale hyperprior: a second, smaller latent says how each symbol of the first is distributed.

Minnen, Balle, Toderici, "Joint autoregressive and hierarchical priors for learned image compression" (NeurIPS 2018),
the variant without context model; layers as in CompressAI's `mbt2018_mean`. Its decoder runs a float network before it
can decode a single symbol of the first latent, which does not work reliably across processors (CompressAI issues 279
and 309), so no packet of ours carries it: a rival whose bytes `benchmarks/learned_codecs.py` measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitcodec.model.bottleneck import FactorizedPrior
from splitcodec.model.gdn import at_least
from splitcodec.model.parts import AbstractBottleneck, Coded, Quantise

_FLOOR: Final = 1e-9
SCALES: Final = np.exp(np.linspace(math.log(0.11), math.log(256.0), 64))
"""Standard deviations for which an entropy coder keeps tables, as CompressAI does."""


class Symbols(NamedTuple):
    """What an entropy coder gets of some pictures, int64 each, and what the decoder sees."""

    first_bchw: Tensor
    """The latent less its expected value, rounded."""
    scale_bchw: Tensor
    """Which of `SCALES` each of these symbols is coded with."""
    second_bchw: Tensor
    """The hyper-latent, rounded: coded first, by channel."""
    latent_bchw: Tensor


@final
class Hyperprior(AbstractBottleneck):
    """One rate. The first latent has `channels`, the second `width`, at a quarter of its rows and columns."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.levels, self.channels = 1, channels
        self.analysis = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
        )
        wide = channels * 3 // 2
        self.synthesis = nn.Sequential(
            nn.ConvTranspose2d(width, channels, 5, stride=2, padding=2, output_padding=1),
            nn.LeakyReLU(inplace=True),
            nn.ConvTranspose2d(channels, wide, 5, stride=2, padding=2, output_padding=1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(wide, 2 * channels, 3, padding=1),
        )
        self.prior = FactorizedPrior(width)

    def forward(self, latent_bchw: Tensor, *, quantise: Quantise = "noise") -> Coded:
        """Code a batch of one level; see `Bottleneck.forward` for what stands in for rounding."""
        with torch.autocast(latent_bchw.device.type, enabled=False):  # half precision is too coarse for differences
            latent = latent_bchw.float()
            second = self.analysis(latent)
            noisy_second, seen_second = _both(second, torch.zeros_like(second), quantise)
            scale, mean = self._of(seen_second, latent)
            noisy, seen = _both(latent, mean, quantise)
            nats = -torch.log(_gaussian(noisy - mean, scale)).flatten(1).sum(1)
            per_density = noisy_second.permute(1, 0, 2, 3).flatten(1)
            likelihood = self.prior.likelihood(per_density).view(second.shape[1], len(second), -1)
            nats = nats - torch.log(likelihood).sum(dim=(0, 2))
        return Coded(seen, nats / math.log(2))

    @torch.no_grad()
    def symbols(self, latent_bchw: Tensor) -> Symbols:
        """Code with rounding: the integers that cross the wire, and by which tables."""
        latent = latent_bchw.float()
        second = torch.round(self.analysis(latent))
        scale, mean = self._of(second, latent)
        first = torch.round(latent - mean)
        above = torch.bucketize(scale, torch.tensor(SCALES, dtype=scale.dtype, device=scale.device))
        return Symbols(first.long(), above.clamp(max=len(SCALES) - 1), second.long(), first + mean)

    @torch.no_grad()
    def masses(self, low: int, high: int) -> NDArray[np.float64]:
        """Return the mass of each symbol of the hyper-latent from low to high: (width, high - low + 1)."""
        width = len(self.prior.biases[0])
        prior = FactorizedPrior(width).double()
        prior.load_state_dict(self.prior.state_dict())
        grid = torch.arange(low, high + 1, dtype=torch.float64)
        return prior.mass(grid.expand(width, -1)).numpy()

    def prior_parameters(self) -> Iterable[nn.Parameter]:
        """Return what the factorized prior of the hyper-latent learns."""
        return self.prior.parameters()

    def gain_parameters(self) -> Iterable[nn.Parameter]:
        """Return what is learned at another pace: nothing."""
        return ()

    def layer_parameters(self) -> Iterable[nn.Parameter]:
        """Return the hyper-transforms' weights."""
        return [*self.analysis.parameters(), *self.synthesis.parameters()]

    def _of(self, second: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and mean of each symbol; the last rows and columns that a picture has no use for are cut off."""
        rows, cols = latent.shape[-2:]
        scale, mean = self.synthesis(second)[:, :, :rows, :cols].chunk(2, dim=1)
        return at_least(scale, float(SCALES[0])), mean  # else places that begin below it would stay there


def _both(y: Tensor, mean: Tensor, quantise: Quantise) -> tuple[Tensor, Tensor]:
    """Return what the code length is taken of and what the decoder sees; gradients pass straight through rounding."""
    whole = y + (torch.round(y - mean) + mean - y).detach() if quantise != "noise" else y
    noisy = y + torch.rand_like(y) - 0.5 if quantise != "round" else whole
    return noisy, noisy if quantise == "noise" else whole


def _gaussian(y: Tensor, scale: Tensor) -> Tensor:
    """Return the mass of the unit interval around y under a normal distribution, at least 1e-9."""
    away = y.abs()
    upper, lower = ((edge - away) / scale for edge in (0.5, -0.5))
    return at_least(torch.special.ndtr(upper) - torch.special.ndtr(lower), _FLOOR)
