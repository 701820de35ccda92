"""The networks of coding id 2 while they learn (wire/contexts.py computes them).   asked by: contexts.py

All numbers are rounded as they will be, gradients straight through (Bengio, Leonard, Courville 2013). Distributions are
mixtures of two logistics of one mean, one mixture for every width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from splitcodec.wire.contexts import EIGHTHS, FARTHEST, HIGHEST, LARGEST, SHIFTS, TAPS, Contexts, Step

HIDDEN: Final = 48
WIDTHS: Final = 24
NARROWEST: Final = 0.04  # of a symbol, the first width
RATIO: Final = 2**0.5  # of a width to the one before: finer ones save half a per cent, and make a coder slower
REACH: Final = 64  # columns to either side of a row's middle
_INTO, _MEAN, _WIDTH = 5, 6, 4  # bits behind the point of the weights


class Told(NamedTuple):
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
class Network(nn.Module):
    """What is known of all channels' symbols, step by step; `spread_c` their standard deviations at first."""

    def __init__(self, steps: list[Step], spread_c: Tensor) -> None:
        super().__init__()
        groups = [[step for step in steps if step.group == group] for group in range(steps[-1].group + 1)]
        self.groups = nn.ModuleList(_Group(group) for group in groups)
        self.mean = nn.Parameter(torch.zeros(steps[-1].last))
        self.width = nn.Parameter(torch.log(spread_c.clamp(min=0.05) / NARROWEST) / math.log(RATIO))
        self.share = nn.Parameter(torch.zeros(WIDTHS))
        self.narrow = nn.Parameter(torch.full((WIDTHS,), -1.0))

    def _each(self) -> list[_Group]:
        return [group for group in self.groups if isinstance(group, _Group)]

    def told(self, symbols_bchw: Tensor) -> Iterator[Told]:
        """Yield means and widths of all symbols, in the order in which they are coded."""
        bordered = functional.pad(symbols_bchw, (1, 1, 1, 1))
        base_mean, base_width = _rounded(self.mean * EIGHTHS)[:, None, None], _rounded(self.width)[:, None, None]
        for group in self._each():
            for step, phase, *added in group(bordered):
                mean = added[0] + base_mean[step.first : step.last]
                width = added[1] + base_width[step.first : step.last]
                yield Told(step, phase, mean.clamp(-FARTHEST, FARTHEST) / EIGHTHS, width.clamp(0, WIDTHS - 1))

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
    def widen(self, symbols_bchw: Tensor) -> None:
        """Take the widths of these symbols: the network may come from another level's."""
        spread_c = symbols_bchw.std(dim=(0, 2, 3)).clamp(min=0.05)
        self.width.copy_(torch.log(spread_c / NARROWEST) / math.log(RATIO))

    @torch.no_grad()
    def adopt(self, contexts: Contexts, level: int, *, first: int) -> None:
        """Begin as the network of that level; what the mixtures were is found again from the rows.

        `first` is where its rows begin among the widths.
        """
        bits_k = torch.tensor([_MEAN, _WIDTH])
        base_kc = _float(contexts.base_lkc[level])
        into = _float(contexts.into_lha[level]) / 2**_INTO
        into_bias = _float(contexts.into_bias_lsh[level]) / 2**_INTO
        out = _float(contexts.out_lkcht[level]) / 2 ** bits_k[:, None, None, None]
        out_bias = _float(contexts.out_bias_lkc[level])
        base_kc[1] -= first
        out_bias[1] -= first * SHIFTS[1]
        blind = base_kc.shape[1]
        self.mean.zero_()
        self.width.zero_()
        self.mean[:blind], self.width[:blind] = base_kc[0] / EIGHTHS, base_kc[1]
        steps, channels = iter(into_bias), (iter(out.unbind(1)), iter(out_bias.unbind(1)))
        for group, (begin, width) in zip(self._each(), contexts.columns(), strict=True):
            group.into.copy_(into[:, begin : begin + width, None, None])
            for at in range(len(group.into_bias)):
                count = group.last - group.first
                group.into_bias[at] = next(steps)
                group.out[at] = torch.stack([next(channels[0]) for _ in range(count)], 1)
                bias_kc = torch.stack([next(channels[1]) for _ in range(count)], 1)
                if group.first == 0:  # all others' bases are nought
                    bias_kc = bias_kc - base_kc * torch.tensor(SHIFTS)[:, None]
                group.out_bias[at] = bias_kc / 2 ** (bits_k[:, None] + _INTO)
        self._mix_as(contexts.freq_ks[EIGHTHS * first : EIGHTHS * (first + WIDTHS)])

    @torch.enable_grad()
    def _mix_as(self, freq_ks: NDArray[np.uint32]) -> None:
        """Bring the mixtures near rows of frequencies."""
        wanted = torch.from_numpy(freq_ks.astype(np.float32))
        wanted = wanted / wanted.sum(dim=1, keepdim=True)
        optimizer = torch.optim.Adam([self.share, self.narrow], lr=0.05)
        for _ in range(400):
            loss = -(wanted * torch.log(self._rows(self.share, self.narrow).clamp(min=1e-7))).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def priors(self) -> NDArray[np.float64]:
        """Return the mixture of every row, float64 (rows, columns)."""
        return self._rows(self.share.double(), self.narrow.double()).numpy()

    @staticmethod
    def _rows(share: Tensor, narrow: Tensor) -> Tensor:
        """Return the mixture of every row, (rows, columns)."""
        off = torch.arange(-REACH, REACH + 1, dtype=share.dtype)
        middle = (torch.arange(EIGHTHS, dtype=share.dtype) - EIGHTHS // 2) / EIGHTHS
        scale = NARROWEST * RATIO ** torch.arange(WIDTHS, dtype=share.dtype)
        mass = _mixture(
            off[None, None, :] - middle[None, :, None],
            scale[:, None, None],
            torch.sigmoid(share)[:, None, None],
            torch.exp(narrow)[:, None, None],
        )
        return mass.reshape(WIDTHS * EIGHTHS, -1)

    @torch.no_grad()
    def whole(self) -> dict[str, NDArray[Any]]:
        """Return a level's arrays; what is added to all means and widths goes into the biases."""
        base_kc = torch.stack([torch.round(self.mean * EIGHTHS), torch.round(self.width)])
        into, into_bias, out, out_bias = [], [], [], []
        for group in self._each():
            ints = group.whole()
            added_kc = base_kc[:, group.first : group.last] * torch.tensor(SHIFTS)[:, None]
            into.append(ints["into"][:, :, 0, 0])
            into_bias.append(ints["into_bias"])
            out += list(ints["out"])
            out_bias += list(ints["out_bias"] + added_kc)
        first = self._each()[0].last
        none = torch.zeros(2, 0, HIDDEN, TAPS)
        return {
            "base_lkc": base_kc[:, :first].numpy().astype(np.int32),
            "into_lha": torch.cat(into, 1).numpy().astype(np.int8),
            "into_bias_lsh": torch.cat(into_bias).numpy().astype(np.int32),
            "out_lkcht": torch.cat([none, *out], 1).numpy().astype(np.int8),
            "out_bias_lkc": torch.cat([none[:, :, 0, 0], *out_bias], 1).numpy().astype(np.int32),
        }


def _float(array: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


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
