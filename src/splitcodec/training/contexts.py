"""A bundle's latents -> the networks and rows of coding id 1 (wire/contexts.py).   asked by: cli/contexts.py

One network a level, each trained on ideal code lengths with all its numbers rounded as they will be, gradients straight
through (Bengio, Leonard, Courville 2013). Distributions are mixtures of two logistics of one mean while it learns; rows
are then counted on the same photographs, with the mixtures as a prior, as tables are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from splitcodec.errors import SettingsError
from splitcodec.wire.contexts import EIGHTHS, FARTHEST, HIGHEST, LARGEST, SHIFTS, TAPS, Contexts
from splitcodec.wire.tables import quantise_mass

HIDDEN: Final = 64
STEPS: Final = 2000
BATCH: Final = 16
WIDTHS: Final = 48
NARROWEST: Final = 0.04  # of a symbol, the first width; each is a fifth wider than the one before
RATIO: Final = 2**0.25
REACH: Final = 64  # columns to either side of a row's middle
STRENGTH: Final = 50.0  # symbols that the mixture counts as much as
_GROWTH: Final = (2, 3, 5, 8, 12, 20, 30)  # channels in each group
_INTO, _TAPS, _MEAN, _WIDTH = 5, 6, 6, 4  # bits behind the point of the weights of each layer
_LEARNING_RATE: Final = 5e-3

Progress = Callable[[int, int], None]


class _Rows(NamedTuple):
    mean: Tensor  # in symbols
    width: Tensor


@final
class _Group(nn.Module):
    """What the channels before `first` say of those from it to `last`."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last
        count = last - first
        self.into = nn.Parameter(torch.randn(HIDDEN, 2 * first, 1, 1) * 0.7 / math.sqrt(2 * first))
        self.into_bias = nn.Parameter(torch.zeros(HIDDEN))
        taps = torch.randn(HIDDEN, 1, 3, 3) * 0.1
        taps[:, :, 1, 1] += 0.7
        self.taps = nn.Parameter(taps)
        self.taps_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.out = nn.Parameter(torch.zeros(2, count, HIDDEN))
        self.out_bias = nn.Parameter(torch.zeros(2, count))

    def whole(self) -> dict[str, Tensor]:
        """Return all numbers as the integers that they become."""
        bits = torch.tensor([_MEAN, _WIDTH])[:, None]
        return {
            "into": _rounded(self.into * 2**_INTO, most=127),
            "into_bias": _rounded(self.into_bias * 2**_INTO),
            "taps": _rounded(self.taps * 2**_TAPS, most=127),
            "taps_bias": _rounded(self.taps_bias * 2 ** (_TAPS + 4)),
            "out": _rounded(self.out * 2 ** bits[:, :, None], most=127),
            "out_bias": _rounded(self.out_bias * 2 ** (bits + 4)),
        }

    def forward(self, symbols_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return eighths of a symbol to add to means, and steps to add to widths, (B, count, H, W) each."""
        ints, count = self.whole(), self.last - self.first
        seen = symbols_bchw[:, : self.first].clamp(-LARGEST, LARGEST)
        sums = functional.conv2d(torch.cat([seen, seen.abs()], 1), ints["into"], ints["into_bias"])
        hidden = _shifted(sums, SHIFTS[0]).clamp(0, HIGHEST)
        sums = functional.conv2d(hidden, ints["taps"], ints["taps_bias"], padding=1, groups=HIDDEN)
        hidden = _shifted(sums, SHIFTS[1]).clamp(0, HIGHEST)
        out = ints["out"].reshape(2 * count, HIDDEN, 1, 1)
        sums = functional.conv2d(hidden, out, ints["out_bias"].reshape(-1))
        return _shifted(sums[:, :count], SHIFTS[2]), _shifted(sums[:, count:], SHIFTS[3])


@final
class _Network(nn.Module):
    def __init__(self, starts: Sequence[int], spread_c: Tensor) -> None:
        super().__init__()
        self.none = starts[1]
        self.groups = nn.ModuleList(_Group(a, b) for a, b in pairwise(starts[1:]))
        self.mean = nn.Parameter(torch.zeros(starts[-1]))
        self.width = nn.Parameter(torch.log(spread_c.clamp(min=0.05) / NARROWEST) / math.log(RATIO))
        self.share = nn.Parameter(torch.zeros(WIDTHS))
        self.narrow = nn.Parameter(torch.full((WIDTHS,), -1.0))

    def rows(self, symbols_bchw: Tensor) -> _Rows:
        """Return every symbol's mean and width, (B, C, H, W) each."""
        nothing = torch.zeros_like(symbols_bchw[:, : self.none])
        added = [(nothing, nothing), *(group(symbols_bchw) for group in self.groups)]
        mean = _rounded(self.mean * EIGHTHS)[:, None, None] + torch.cat([one for one, _ in added], 1)
        width = _rounded(self.width)[:, None, None] + torch.cat([one for _, one in added], 1)
        return _Rows(mean.clamp(-FARTHEST, FARTHEST) / EIGHTHS, width.clamp(0, WIDTHS - 1))

    def bits(self, symbols_bchw: Tensor) -> Tensor:
        """Return the ideal code length of a latent's symbols under the mixtures, on average over the batch."""
        mean, width = self.rows(symbols_bchw)
        step = width.detach().round().long()
        scale = NARROWEST * RATIO**width
        off = symbols_bchw - mean
        mass = _mixture(off, scale, torch.sigmoid(self.share)[step], torch.exp(self.narrow)[step])
        return -torch.log2(mass.clamp(min=1e-7)).sum() / len(symbols_bchw)

    @torch.no_grad()
    def priors(self) -> NDArray[np.float64]:
        """Return the mixture of every row, float64 (rows, columns)."""
        off = torch.arange(-REACH, REACH + 1, dtype=torch.float64) + 0.0
        middle = (torch.arange(EIGHTHS, dtype=torch.float64) - EIGHTHS // 2) / EIGHTHS
        scale = NARROWEST * RATIO ** torch.arange(WIDTHS, dtype=torch.float64)
        share, narrow = torch.sigmoid(self.share.double()), torch.exp(self.narrow.double())
        mass = _mixture(
            off[None, None, :] - middle[None, :, None],
            scale[:, None, None],
            share[:, None, None],
            narrow[:, None, None],
        )
        return mass.reshape(WIDTHS * EIGHTHS, -1).numpy()


def fit(
    latent_nchw: NDArray[np.floating],
    gain_lc: NDArray[np.float32],
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Contexts:
    """Return contexts learned from latents before gain, (N, C, H, W), for every level's gains (L, C).

    `progress` is told (steps done, of all). Raises SettingsError for fewer latents than a batch, or no steps.
    """
    if steps < 1 or len(latent_nchw) < BATCH:
        raise SettingsError(f"{steps} steps, {len(latent_nchw)} photographs; expected at least 1 and {BATCH}")
    levels, channels = gain_lc.shape
    spread_c = (latent_nchw.astype(np.float32) * gain_lc[levels // 2][:, None, None]).std(axis=(0, 2, 3))
    order_c = np.argsort(-spread_c, kind="stable").astype(np.int32)
    starts = _starts(channels)
    torch.manual_seed(seed)
    parts, counts, priors = [], np.zeros((WIDTHS * EIGHTHS, 2 * REACH + 1)), []
    for level in range(levels):
        scaled = latent_nchw[:, order_c].astype(np.float32) * gain_lc[level][order_c][:, None, None]
        symbols_nchw = torch.from_numpy(np.rint(scaled))
        done = level * steps
        network = _trained(
            symbols_nchw,
            starts,
            steps=steps,
            tell=lambda step, done=done: progress and progress(done + step, levels * steps),  # type: ignore[misc]
        )
        parts.append(_whole(network))
        priors.append(network.priors())
        counts += _counted(network, symbols_nchw)
    prior = np.mean(priors, axis=0) + 1e-7
    mass = counts + STRENGTH * prior / prior.sum(axis=1, keepdims=True)
    rows = len(mass)
    return Contexts(
        order_c=order_c,
        group_g=np.diff(starts).astype(np.int32),
        freq_ks=np.stack([quantise_mass(row) for row in mass]),
        size_k=np.full(rows, 2 * REACH + 1, np.int32),
        offset_k=np.full(rows, -REACH, np.int32),
        **{name: np.stack([part[name] for part in parts]) for name in parts[0]},
    )


def _starts(channels: int) -> list[int]:
    """Return where groups begin, and the end: growing groups, the last one what is left."""
    starts = [0]
    for size in _GROWTH:
        if starts[-1] + size >= channels:
            break
        starts.append(starts[-1] + size)
    return [*starts, channels]


def _trained(symbols_nchw: Tensor, starts: Sequence[int], *, steps: int, tell: Callable[[int], object]) -> _Network:
    network = _Network(starts, symbols_nchw.std(dim=(0, 2, 3)))
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps + 1)
    for step in range(steps):
        picked = symbols_nchw[torch.randint(0, len(symbols_nchw), (BATCH,))]
        loss = network.bits(picked.flip(3) if torch.rand(()) < 0.5 else picked)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 400.0)
        optimizer.step()
        schedule.step()
        tell(step + 1)
    return network


@torch.no_grad()
def _whole(network: _Network) -> dict[str, NDArray[np.generic]]:
    groups = [{name: value.numpy() for name, value in group.whole().items()} for group in network.groups]  # type: ignore[operator]
    channels = len(network.mean)

    def stacked(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.stack([one[name].reshape(shape) for one in groups]) if groups else np.zeros((0, *shape), np.float32)

    into = [one["into"][:, :, 0, 0] for one in groups]
    out = [one["out"] for one in groups]
    out_bias = [one["out_bias"] for one in groups]
    base = np.stack([np.round(network.mean.numpy() * EIGHTHS), np.round(network.width.numpy())])
    return {
        "base_lkc": base.reshape(2, channels).astype(np.int32),
        "into_lha": np.concatenate([np.zeros((HIDDEN, 0)), *into], axis=1).astype(np.int8),
        "into_bias_lgh": stacked("into_bias", (HIDDEN,)).astype(np.int32),
        "taps_lght": stacked("taps", (HIDDEN, TAPS)).astype(np.int8),
        "taps_bias_lgh": stacked("taps_bias", (HIDDEN,)).astype(np.int32),
        "out_lkch": np.concatenate([np.zeros((2, 0, HIDDEN)), *out], axis=1).astype(np.int8),
        "out_bias_lkc": np.concatenate([np.zeros((2, 0)), *out_bias], axis=1).astype(np.int32),
    }


@torch.no_grad()
def _counted(network: _Network, symbols_nchw: Tensor) -> NDArray[np.float64]:
    """Return how often each column of each row occurred."""
    columns, rows = 2 * REACH + 1, WIDTHS * EIGHTHS
    counts = torch.zeros(rows * columns)
    for some in torch.split(symbols_nchw, 256):
        mean, width = network.rows(some)
        eighths = torch.round(mean * EIGHTHS).long()
        whole = torch.div(eighths + EIGHTHS // 2, EIGHTHS, rounding_mode="floor")
        row = width.round().long() * EIGHTHS + eighths - EIGHTHS * whole + EIGHTHS // 2
        column = (some.long() - whole).clamp(-REACH, REACH) + REACH
        counts += torch.bincount((row * columns + column).reshape(-1), minlength=rows * columns)
    return counts.reshape(rows, columns).double().numpy()


def _mixture(off: Tensor, scale: Tensor, share: Tensor, narrow: Tensor) -> Tensor:
    """Return the mass of a unit around `off`, under two logistics of different widths."""
    masses = [
        torch.sigmoid((off + 0.5) / one) - torch.sigmoid((off - 0.5) / one) for one in (scale * narrow, scale * 0.9)
    ]
    return share * masses[0] + (1 - share) * masses[1]


def _rounded(value: Tensor, *, most: int | None = None) -> Tensor:
    whole = torch.round(value) if most is None else torch.round(value).clamp(-most, most)
    return value + (whole - value).detach()


def _shifted(sums: Tensor, shift: float) -> Tensor:
    value = (sums + shift / 2) / shift
    return value + (torch.floor(value) - value).detach()
