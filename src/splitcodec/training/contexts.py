"""A bundle's latents -> the networks and rows of coding id 2 (wire/contexts.py).   asked by: cli/contexts.py

One network a level, each trained on ideal code lengths with all its numbers rounded as they will be, gradients straight
through (Bengio, Leonard, Courville 2013); each level begins with the network of the one before. Distributions are
mixtures of two logistics of one mean while it learns; rows are then counted on the same photographs, with the mixtures
as a prior, as tables are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from splitcodec.errors import SettingsError
from splitcodec.wire.contexts import EIGHTHS, FARTHEST, HIGHEST, LARGEST, SHIFTS, TAPS, Contexts, Step, steps_of
from splitcodec.wire.tables import quantise_mass

HIDDEN: Final = 48
STEPS: Final = 1500
BATCH: Final = 16
WIDTHS: Final = 24
NARROWEST: Final = 0.04  # of a symbol, the first width
RATIO: Final = 2**0.5  # of a width to the one before: finer ones save half a per cent, and make a coder slower
REACH: Final = 64  # columns to either side of a row's middle
STRENGTH: Final = 50.0  # symbols that the mixture counts as much as
_GROWTH: Final = ((2, 4), (3, 4), (5, 4), (8, 2), (12, 2), (20, 2))  # channels and passes of each group
_LAST_PASSES: Final = 2
_INTO, _MEAN, _WIDTH = 5, 6, 4  # bits behind the point of the weights
_LEARNING_RATE: Final = 5e-3

Progress = Callable[[int, int], None]


class _Told(NamedTuple):
    """What a step knows of its symbols at the places of one phase, (B, channels, rows, columns) each."""

    step: Step
    phase: tuple[int, int]
    mean: Tensor  # in symbols
    width: Tensor

    def of(self, symbols_bchw: Tensor) -> Tensor:
        """Return these symbols."""
        down, right = self.phase
        return symbols_bchw[:, self.step.first : self.step.last, down::2, right::2]


@final
class _Group(nn.Module):
    """What is known of a group's symbols in each of its steps."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.first, self.last = steps[0].first, steps[0].last
        self.blind = steps[0].first == 0  # nothing is known in its first step
        count, told = self.last - self.first, len(steps) - self.blind
        width = 2 * (self.last if len(steps) > 1 else self.first)
        self.into = nn.Parameter(torch.randn(HIDDEN, width, 1, 1) * 0.7 / math.sqrt(max(width, 1)))
        self.into_bias = nn.Parameter(torch.zeros(told, HIDDEN))
        self.out = nn.Parameter(torch.zeros(told, 2, count, HIDDEN, TAPS))
        self.out_bias = nn.Parameter(torch.zeros(told, 2, count))

    def whole(self) -> dict[str, Tensor]:
        """Return all numbers as the integers that they become."""
        bits = torch.tensor([_MEAN, _WIDTH])[:, None]
        return {
            "into": _rounded(self.into * 2**_INTO, most=127),
            "into_bias": _rounded(self.into_bias * 2**_INTO),
            "out": _rounded(self.out * 2 ** bits[:, :, None, None], most=127),
            "out_bias": _rounded(self.out_bias * 2 ** (bits + _INTO)),
        }

    def forward(self, bordered_bchw: Tensor) -> Iterator[tuple[Step, tuple[int, int], Tensor, Tensor]]:
        """Yield eighths of a symbol to add to means, and what to add to widths, by step and phase."""
        ints, (first, last) = self.whole(), (self.first, self.last)
        seen = _seen(bordered_bchw[:, :first])
        sums = functional.conv2d(seen, ints["into"][:, : 2 * first]) if first else None
        mask = torch.zeros_like(bordered_bchw[:1, :1])
        for number, step in enumerate(self.steps):
            at = number - self.blind
            if at >= 0:
                known = sums
                if number:
                    own = functional.conv2d(_seen(bordered_bchw[:, first:last] * mask), ints["into"][:, 2 * first :])
                    known = own if sums is None else sums + own
                assert known is not None  # noqa: S101 - for the types: only the first step of all is blind
                hidden = (known + ints["into_bias"][at][:, None, None]).clamp(0, HIGHEST)
                out = ints["out"][at].reshape(2 * (last - first), HIDDEN, 3, 3)
            for down, right in step.phases:
                mask[:, :, 1 + down : -1 : 2, 1 + right : -1 : 2] = 1
                if at < 0:
                    nothing = torch.zeros_like(bordered_bchw[:, first:last, 1 + down : -1 : 2, 1 + right : -1 : 2])
                    yield step, (down, right), nothing, nothing
                    continue
                told = functional.conv2d(hidden[:, :, down:, right:], out, ints["out_bias"][at].reshape(-1), stride=2)
                mean, width = told[:, : last - first], told[:, last - first :]
                yield step, (down, right), _shifted(mean, SHIFTS[0]), _shifted(width, SHIFTS[1])


@final
class _Network(nn.Module):
    def __init__(self, steps: list[Step], spread_c: Tensor) -> None:
        super().__init__()
        groups = [[step for step in steps if step.group == group] for group in range(steps[-1].group + 1)]
        self.groups = nn.ModuleList(_Group(group) for group in groups)
        self.mean = nn.Parameter(torch.zeros(steps[-1].last))
        self.width = nn.Parameter(torch.log(spread_c.clamp(min=0.05) / NARROWEST) / math.log(RATIO))
        self.share = nn.Parameter(torch.zeros(WIDTHS))
        self.narrow = nn.Parameter(torch.full((WIDTHS,), -1.0))

    def told(self, symbols_bchw: Tensor) -> Iterator[_Told]:
        """Yield means and widths of all symbols, in the order in which they are coded."""
        bordered = functional.pad(symbols_bchw, (1, 1, 1, 1))
        base_mean, base_width = _rounded(self.mean * EIGHTHS)[:, None, None], _rounded(self.width)[:, None, None]
        for group in self.groups:
            for step, phase, *added in group(bordered):
                mean = added[0] + base_mean[step.first : step.last]
                width = added[1] + base_width[step.first : step.last]
                yield _Told(step, phase, mean.clamp(-FARTHEST, FARTHEST) / EIGHTHS, width.clamp(0, WIDTHS - 1))

    def bits(self, symbols_bchw: Tensor) -> Tensor:
        """Return the ideal code length of a latent's symbols under the mixtures, on average over the batch."""
        total = torch.zeros(())
        for told in self.told(symbols_bchw):
            step = told.width.detach().round().long()
            scale = NARROWEST * RATIO**told.width
            off = told.of(symbols_bchw) - told.mean
            mass = _mixture(off, scale, torch.sigmoid(self.share)[step], torch.exp(self.narrow)[step])
            total = total - torch.log2(mass.clamp(min=1e-7)).sum()
        return total / len(symbols_bchw)

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
    group_g, passes_g = _groups(channels)
    torch.manual_seed(seed)
    network = _Network(steps_of(group_g, passes_g), torch.from_numpy(spread_c[order_c]))
    parts, counts, priors = [], np.zeros((WIDTHS * EIGHTHS, 2 * REACH + 1)), []
    for level in range(levels):
        scaled = latent_nchw[:, order_c].astype(np.float32) * gain_lc[level][order_c][:, None, None]
        symbols_nchw, done = torch.from_numpy(np.rint(scaled)), level * steps
        _train(
            network,
            symbols_nchw,
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
        group_g=np.array(group_g, np.int32),
        passes_g=np.array(passes_g, np.int32),
        freq_ks=np.stack([quantise_mass(row) for row in mass]),
        size_k=np.full(rows, 2 * REACH + 1, np.int32),
        offset_k=np.full(rows, -REACH, np.int32),
        **{name: np.stack([part[name] for part in parts]) for name in parts[0]},
    )


def _groups(channels: int) -> tuple[list[int], list[int]]:
    """Return the channels and passes of growing groups, the last one what is left."""
    groups, left = list[tuple[int, int]](), channels
    for count, passes in _GROWTH:
        if count >= left:
            break
        groups.append((count, passes))
        left -= count
    groups.append((left, _LAST_PASSES))
    return [count for count, _ in groups], [passes for _, passes in groups]


def _train(network: _Network, symbols_nchw: Tensor, *, steps: int, tell: Callable[[int], object]) -> None:
    with torch.no_grad():  # widths of this level's symbols: the network may come from another's
        spread_c = symbols_nchw.std(dim=(0, 2, 3)).clamp(min=0.05)
        network.width.copy_(torch.log(spread_c / NARROWEST) / math.log(RATIO))
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


@torch.no_grad()
def _whole(network: _Network) -> dict[str, NDArray[Any]]:
    """Return a level's arrays; what is added to all means and widths goes into the biases."""
    base_kc = torch.stack([torch.round(network.mean * EIGHTHS), torch.round(network.width)])
    into, into_bias, out, out_bias = [], [], [], []
    for group in network.groups:
        ints: dict[str, Tensor] = group.whole()  # type: ignore[operator]
        added_kc = base_kc[:, group.first : group.last] * torch.tensor(SHIFTS)[:, None]
        into.append(ints["into"][:, :, 0, 0])
        into_bias.append(ints["into_bias"])
        out += list(ints["out"])
        out_bias += list(ints["out_bias"] + added_kc)
    first = int(network.groups[0].last)  # type: ignore[arg-type]
    none = torch.zeros(2, 0, HIDDEN, TAPS)
    return {
        "base_lkc": base_kc[:, :first].numpy().astype(np.int32),
        "into_lha": torch.cat(into, 1).numpy().astype(np.int8),
        "into_bias_lsh": torch.cat(into_bias).numpy().astype(np.int32),
        "out_lkcht": torch.cat([none, *out], 1).numpy().astype(np.int8),
        "out_bias_lkc": torch.cat([none[:, :, 0, 0], *out_bias], 1).numpy().astype(np.int32),
    }


@torch.no_grad()
def _counted(network: _Network, symbols_nchw: Tensor) -> NDArray[np.float64]:
    """Return how often each column of each row occurred."""
    columns, rows = 2 * REACH + 1, WIDTHS * EIGHTHS
    counts = torch.zeros(rows * columns)
    for some in torch.split(symbols_nchw, 256):
        for told in network.told(some):
            eighths = torch.round(told.mean * EIGHTHS).long()
            whole = torch.div(eighths + EIGHTHS // 2, EIGHTHS, rounding_mode="floor")
            row = told.width.round().long() * EIGHTHS + eighths - EIGHTHS * whole + EIGHTHS // 2
            column = (told.of(some).long() - whole).clamp(-REACH, REACH) + REACH
            counts += torch.bincount((row * columns + column).reshape(-1), minlength=rows * columns)
    return counts.reshape(rows, columns).double().numpy()


def _seen(symbols_bchw: Tensor) -> Tensor:
    """Return symbols and magnitudes, one behind the other for every channel."""
    near = symbols_bchw.clamp(-LARGEST, LARGEST)
    return torch.stack([near, near.abs()], dim=2).flatten(1, 2)


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
