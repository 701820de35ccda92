"""The stochastic bottleneck: gains per rate level, uniform noise in training, and one factorized prior per level.

Prior: the non-parametric, fully factorized density of Balle, Minnen, Singh, Hwang, Johnston, "Variational image
compression with a scale hyperprior" (ICLR 2018), appendix 6.1, here for levels x channels densities side by side.
Gains: Cui, Wang, Gao, Guo, Feng, Bai, "Asymmetric gained deep image compression with continuous rate adaptation" (CVPR
2021), with the inverse gain tied to the gain. The cumulative only serves to build integer tables; it never meets the
coder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Final, final

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor, nn

from splitcodec.model.gdn import at_least
from splitcodec.model.parts import Coded, Quantise, TableBottleneck

WIDTHS: Final = (3, 3, 3)
_FLOOR: Final = 1e-9
_INIT_SCALE: Final = 10.0


@final
class FactorizedPrior(nn.Module):
    """`count` one-dimensional densities, each a small monotone network: 1, `widths`, 1."""

    def __init__(self, count: int, *, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        sizes = (1, *widths, 1)
        scale = _INIT_SCALE ** (1 / (len(widths) + 1))
        self.first_std = _INIT_SCALE * math.pi / math.sqrt(3)
        """Standard deviation of each density before it learns, a logistic one, nearly."""
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        for below, above in itertools.pairwise(sizes):
            start = math.log(math.expm1(1 / scale / above))
            self.matrices.append(nn.Parameter(torch.full((count, above, below), start)))
            self.biases.append(nn.Parameter(torch.rand(count, above, 1) - 0.5))
            if above != 1:
                self.factors.append(nn.Parameter(torch.zeros(count, above, 1)))

    def logits(self, x_kn: Tensor) -> Tensor:
        """Return the logits of the cumulative at `x_kn` (count, N): one row per density."""
        x = x_kn.unsqueeze(1)
        for place, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = torch.baddbmm(bias, nnf.softplus(matrix), x)
            if place < len(self.factors):
                x = x + torch.tanh(self.factors[place]) * torch.tanh(x)
        return x.squeeze(1)

    @torch.no_grad()
    def stretch(self, times_k: Tensor) -> None:
        """Make each density so many times as wide, about nought."""
        first = self.matrices[0]
        slope = nnf.softplus(first) / times_k[:, None, None]
        first.copy_(slope + torch.log(-torch.expm1(-slope)))  # softplus of this is the slope

    def likelihood(self, y_kn: Tensor) -> Tensor:
        """Return the mass of the unit interval around `y_kn` (count, N), at least 1e-9 so that its logarithm exists.

        As published, what lies below still learns to rise: a symbol far out and its prior find each other.
        """
        return at_least(self.mass(y_kn), _FLOOR)

    def mass(self, y_kn: Tensor) -> Tensor:
        """Return the mass of the unit interval around `y_kn` (count, N), as it is."""
        both = self.logits(torch.cat((y_kn - 0.5, y_kn + 0.5), dim=1))
        lower, upper = both.chunk(2, dim=1)
        sign = torch.where(lower + upper > 0, -1.0, 1.0)  # not 0 in the very middle, where nothing would be left
        return torch.abs(torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower))


@final
class Bottleneck(TableBottleneck):
    """Gains and priors of all levels; level 0 costs the fewest bytes."""

    def __init__(
        self,
        levels: int,
        channels: int,
        *,
        first_gain: float = 3.0,
        last_gain: float = 20.0,
        widths: tuple[int, ...] = WIDTHS,
    ) -> None:
        super().__init__()
        self.levels, self.channels, self._widths = levels, channels, widths
        start = torch.linspace(math.log(first_gain), math.log(last_gain), levels)
        self.log_gain_lc = nn.Parameter(start[:, None].repeat(1, channels))
        self.prior = FactorizedPrior(levels * channels, widths=widths)

    def forward(self, latent_bchw: Tensor, *, quantise: Quantise = "noise") -> Coded:
        """Code a batch whose picture i has level `i // (B / levels)`: equal shares of all levels, in order.

        B must be a multiple of the number of levels. Noise is uniform on (-0.5, 0.5) after the gain. `mixed` lets the
        decoder see rounded symbols, as in use, with gradients passing straight through, while the code length is still
        that of the noisy ones (Minnen and Singh, "Channel-wise autoregressive entropy models", ICIP 2020); `round`
        rounds for both.
        """
        batch, channels, rows, cols = latent_bchw.shape
        each = batch // self.levels
        gain = self.log_gain_lc.exp()[:, None, :, None]
        y_lecn = latent_bchw.float().view(self.levels, each, channels, rows * cols) * gain
        whole = y_lecn + (y_lecn.round() - y_lecn).detach() if quantise != "noise" else y_lecn
        noisy = y_lecn + torch.rand_like(y_lecn) - 0.5 if quantise != "round" else whole
        per_density = noisy.permute(0, 2, 1, 3).reshape(self.levels * channels, each * rows * cols)
        with torch.autocast(per_density.device.type, enabled=False):  # half precision is too coarse for differences
            nats = -torch.log(self.prior.likelihood(per_density)).view(self.levels, channels, each, -1)
        bits_b = nats.sum(dim=(1, 3)).reshape(batch) / math.log(2)
        seen = noisy if quantise == "noise" else whole
        return Coded((seen / gain).view_as(latent_bchw), bits_b)

    def symbols(self, latent_bchw: Tensor, level: int) -> Tensor:
        """Return the rounded latent of one level (not clipped to any table)."""
        gain = self.log_gain_lc[level].exp()[:, None, None]
        return torch.round(latent_bchw.float() * gain)

    def latent(self, symbols_bchw: Tensor, level: int) -> Tensor:
        """Return symbols divided by their gain."""
        return symbols_bchw / self.log_gain_lc[level].exp()[:, None, None]

    def prior_parameters(self) -> Iterable[nn.Parameter]:
        """Return what the priors of all levels learn."""
        return self.prior.parameters()

    def gain_parameters(self) -> Iterable[nn.Parameter]:
        """Return the logarithms of the gains."""
        return [self.log_gain_lc]

    @torch.no_grad()
    def move(self, places: Sequence[float]) -> None:
        """Put each level elsewhere among the present ones, 2.5 half-way between 2 and 3: gains are interpolated.

        In the exponent, that is; the prior becomes that of the nearest level.
        """
        if len(places) != self.levels or min(places) < 0 or max(places) > self.levels - 1:
            raise ValueError(f"places {list(places)}; expected {self.levels} numbers from 0 to {self.levels - 1}")
        old_lc = self.log_gain_lc.clone()
        nearest = []
        for level, place in enumerate(places):
            below = min(int(place), max(self.levels - 2, 0))
            above = min(below + 1, self.levels - 1)
            self.log_gain_lc[level] = old_lc[below] + (place - below) * (old_lc[above] - old_lc[below])
            nearest.append(round(place))
        for parameter in self.prior.parameters():
            by_level = parameter.view(self.levels, self.channels, *parameter.shape[1:])
            by_level.copy_(by_level[nearest].clone())

    def gains(self) -> NDArray[np.float32]:
        """Return the gains (levels, channels)."""
        return self.log_gain_lc.detach().exp().cpu().numpy().astype(np.float32)

    @torch.no_grad()
    def masses(self, low: int, high: int) -> NDArray[np.float64]:
        """Return the mass of every integer symbol from low to high: (levels, channels, high - low + 1)."""
        grid = torch.arange(low, high + 1, dtype=torch.float64, device=self.log_gain_lc.device)
        prior = FactorizedPrior(self.levels * self.channels, widths=self._widths).to(grid)
        prior.load_state_dict(self.prior.state_dict())
        mass = prior.mass(grid.expand(self.levels * self.channels, -1))
        return mass.view(self.levels, self.channels, -1).cpu().numpy()
