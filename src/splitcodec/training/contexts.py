"""A bundle's latents -> the networks and rows of coding id 2 (wire/contexts.py).   asked by: cli/contexts.py

One network a level, each trained on ideal code lengths; it begins with the network of the level before, or with what
an earlier bundle has. Rows are then counted on the same photographs, with the networks' mixtures as a prior, as tables
are; two levels share a set of them, and the highest has one of its own. Sets lie one after another, and what is added
to a level's widths leads to its own. Between two sets the widest rows of the one and the narrowest of the other are
repeated, for what comes out beyond them: it would be coded by another level's rows, at any price.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitcodec.errors import SettingsError
from splitcodec.training.context_memory import Learned, Memory
from splitcodec.training.context_network import HIDDEN, REACH, WIDTHS, Network
from splitcodec.wire.contexts import EIGHTHS, SHIFTS, Contexts, steps_of
from splitcodec.wire.tables import quantise_mass

STEPS: Final = 1500
BATCH: Final = 16
STRENGTH: Final = 50.0  # symbols that the mixture counts as much as
_GROWTH: Final = ((2, 4), (3, 4), (5, 4), (8, 2), (12, 2), (20, 2))  # channels and passes of each group
_LAST_PASSES: Final = 2
_SPARE: Final = 24  # widths that are repeated at either end of a set
_FEW: Final = 11  # levels, of which two share a set of rows; of more, three
_SEED: Final = 0
_LEARNING_RATE: Final = 5e-3
_LATER_RATE: Final = 3e-3  # of networks that have learned before

Progress = Callable[[int, int], None]


def fit(
    latent_nchw: NDArray[np.floating],
    gain_lc: NDArray[np.float32],
    *,
    steps: int = STEPS,
    start: Contexts | None = None,
    memory: Path | None = None,
    progress: Progress | None = None,
) -> Contexts:
    """Return contexts learned from latents before gain, (N, C, H, W), for every level's gains (L, C).

    `start` are earlier contexts with which each level begins, instead of with the level before; it says the order of
    channels, and must have as many levels, channels and groups. `memory` is a file that keeps the levels done: the same
    call goes on behind them, with the same result; it stays until the caller has put that away. `progress` is told
    (steps done, of all). Raises SettingsError for fewer latents than a batch, no steps, another kind of start;
    OutputError.
    """
    if steps < 1 or len(latent_nchw) < BATCH:
        raise SettingsError(f"{steps} steps, {len(latent_nchw)} photographs; expected at least 1 and {BATCH}")
    levels, channels = gain_lc.shape
    spread_c = (latent_nchw.astype(np.float32) * gain_lc[levels // 2][:, None, None]).std(axis=(0, 2, 3))
    order_c = np.argsort(-spread_c, kind="stable").astype(np.int32)
    group_g, passes_g = _groups(channels)
    if start is not None:
        check_start(start, levels=levels, channels=channels)
        order_c = start.order_c
    told = (latent_nchw, gain_lc, np.array([steps, _SEED]))
    begun = b"" if start is None else start.shared_bytes()
    kept = Memory(memory, [*(array.tobytes() for array in told), begun])
    torch.manual_seed(_SEED)
    network = Network(steps_of(group_g, passes_g), torch.from_numpy(spread_c[order_c]))
    done = _resumed(kept.load(), network)
    for level in range(len(done.parts), levels):
        scaled = latent_nchw[:, order_c].astype(np.float32) * gain_lc[level][order_c][:, None, None]
        symbols_nchw = torch.from_numpy(np.rint(scaled))
        if start is None:
            network.widen(symbols_nchw)
        else:
            network.adopt(start, level, first=_first_width(level, levels))
        _train(
            network,
            symbols_nchw,
            steps=steps,
            rate=_LEARNING_RATE if start is None else _LATER_RATE,
            tell=lambda step, level=level: progress and progress(level * steps + step, levels * steps),  # type: ignore[misc]  # of a lambda mypy infers none
        )
        done.parts.append(network.whole())
        done.priors.append(network.priors())
        done.counts.append(_counted(network, symbols_nchw))
        done.network, done.random = network.state_dict(), torch.get_rng_state()
        kept.save(done)
    freq_ks = _rows(done)
    for level, part in enumerate(done.parts):
        first = _first_width(level, levels)
        part["base_lkc"][1] = part["base_lkc"][1].clip(0, WIDTHS - 1) + first
        part["out_bias_lkc"][1] += first * SHIFTS[1]
    return Contexts(
        order_c=order_c,
        group_g=np.array(group_g, np.int32),
        passes_g=np.array(passes_g, np.int32),
        freq_ks=freq_ks,
        size_k=np.full(len(freq_ks), 2 * REACH + 1, np.int32),
        offset_k=np.full(len(freq_ks), -REACH, np.int32),
        **{name: np.stack([part[name] for part in done.parts]) for name in done.parts[0]},
    )


def _resumed(found: Learned | None, network: Network) -> Learned:
    """Return what was learned before, network and chance as they were then; or nothing."""
    if found is None or found.random is None:
        return Learned()
    network.load_state_dict(found.network)
    torch.set_rng_state(found.random)
    return found


def _set_of(level: int, levels: int) -> int:
    """Return the set of rows of a level: the highest has the last one, some below it the one before, and so on."""
    together = 2 if levels <= _FEW else 3
    last = (levels + together - 2) // together
    return last - (levels - level + together - 2) // together


def _first_width(level: int, levels: int) -> int:
    """Return what is added to the widths of a level, so that they lead to its rows."""
    return _set_of(level, levels) * (WIDTHS + 2 * _SPARE)


def _rows(learned: Learned) -> NDArray[np.uint32]:
    """Return the frequencies of all sets' rows, (rows, columns)."""
    levels, found = len(learned.counts), list[NDArray[np.uint32]]()
    sets = [_set_of(level, levels) for level in range(levels)]
    for one in sorted(set(sets)):
        mine = [level for level in range(levels) if sets[level] == one]
        prior = np.mean([learned.priors[level] for level in mine], axis=0) + 1e-7
        counts = np.sum([learned.counts[level] for level in mine], axis=0)
        mass = counts + STRENGTH * prior / prior.sum(axis=1, keepdims=True)
        found.append(np.stack([quantise_mass(row) for row in mass]))
    return _apart(found)


def _apart(sets: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """Lay sets of rows one after another, what lies at their ends repeated between them."""
    found = sets[:1]
    for before, after in pairwise(sets):
        found += [np.tile(before[-EIGHTHS:], (_SPARE, 1)), np.tile(after[:EIGHTHS], (_SPARE, 1)), after]
    return np.concatenate(found)


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


def check_start(start: Contexts, *, levels: int, channels: int) -> None:
    """Refuse earlier contexts of another shape. Raises SettingsError."""
    groups = _groups(channels)
    theirs = (start.group_g.tolist(), start.passes_g.tolist())
    hidden = start.into_lha.shape[1]
    widths = WIDTHS + _first_width(levels - 1, levels)
    if (start.levels, theirs, hidden, start.widths) != (levels, groups, HIDDEN, widths):
        raise SettingsError(
            f"contexts to begin with: {start.levels} levels, groups of {theirs[0]} channels, {hidden} hidden numbers, "
            f"{start.widths} widths; expected {levels}, {groups[0]}, {HIDDEN}, {widths}"
        )


def _train(network: Network, symbols_nchw: Tensor, *, steps: int, rate: float, tell: Callable[[int], object]) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    for step in range(steps):
        picked = symbols_nchw[torch.randint(0, len(symbols_nchw), (BATCH,))]
        loss = network.bits(picked.flip(3) if torch.rand(()) < 0.5 else picked)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        nn.utils.clip_grad_norm_(network.parameters(), 400.0)
        optimizer.step()
        schedule.step()
        tell(step + 1)


@torch.no_grad()
def _counted(network: Network, symbols_nchw: Tensor) -> NDArray[np.float64]:
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
