"""What training minimises beside the rate, and how far its step size has come."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


class Errors(NamedTuple):
    """What the decoded feature loses, before weights."""

    feature: Tensor
    later: Tensor
    logits: Tensor


def compare(tail: nn.Module, found: Tensor, feature: Tensor, *, behind: bool) -> Errors:
    """Compare a decoded feature with the teacher's: at the cut, and behind it where asked for."""
    spread = feature.float().var(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    at_cut = ((found.float() - feature.float()).square() / spread).mean()
    zero = at_cut.new_zeros(())
    if not behind:
        return Errors(at_cut, zero, zero)
    with torch.no_grad():
        wanted = tail(feature)
    got = tail(found)
    (logits, *later), (logits_t, *later_t) = (got, wanted) if isinstance(got, tuple) else ((got,), (wanted,))
    apart = [relative(a, b) for a, b in zip(later, later_t, strict=True)]
    kl = nnf.kl_div(
        nnf.log_softmax(logits.float(), 1), nnf.log_softmax(logits_t.float(), 1), log_target=True, reduction="none"
    )
    return Errors(at_cut, torch.stack(apart).sum() if apart else zero, kl.sum(1).mean())


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error relative to the variance of what is wanted."""
    wanted = wanted.float()
    return (found.float() - wanted).square().mean() / wanted.var().clamp_min(1e-6)


def schedule(done: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero; `done` and `warmup` are shares of the stage."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def ramp(done: float, share: float) -> float:
    """Rise from a fiftieth to 1 within the first `share` of a stage, by equal factors.

    A rate that counts in full from the start silences most latent channels before they have learned anything, and they
    never come back.
    """
    return 1.0 if done >= share else 0.02 ** (1 - done / share)
