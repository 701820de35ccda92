"""What training minimises beside the rate, and how far its step size has come."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


class Errors(NamedTuple):
    """What each picture's decoded feature loses, before weights: (B,) each."""

    feature_b: Tensor
    later_b: Tensor
    logits_b: Tensor


def compare(
    tail: nn.Module, found: Tensor, feature: Tensor, *, behind: bool, answer: tuple[Tensor, ...] | None = None
) -> Errors:
    """Compare a decoded feature with the teacher's: at the cut, and behind it where asked for.

    `answer` is what another tail than the teacher's made of the decoded feature.
    """
    spread = feature.float().var(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    at_cut = ((found.float() - feature.float()).square() / spread).mean(dim=(1, 2, 3))
    zero = torch.zeros_like(at_cut)
    if not behind:
        return Errors(at_cut, zero, zero)
    with torch.no_grad():
        wanted = tail(feature)
    got = tail(found) if answer is None else answer
    (logits, *later), (logits_t, *later_t) = as_tuple(got), as_tuple(wanted)
    apart = [relative(a, b) for a, b in zip(later, later_t, strict=True)]
    kl = nnf.kl_div(
        nnf.log_softmax(logits.float(), 1), nnf.log_softmax(logits_t.float(), 1), log_target=True, reduction="none"
    )
    return Errors(at_cut, torch.stack(apart).sum(0) if apart else zero, kl.sum(1))


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of each picture (B,), relative to the variance of what is wanted of all of them."""
    wanted = wanted.float()
    return (found.float() - wanted).square().flatten(1).mean(1) / wanted.var().clamp_min(1e-6)


def squares(tail: nn.Module, found: Tensor, feature: Tensor, *, answer: tuple[Tensor, ...] | None = None) -> Tensor:
    """Sum of squared errors at the cut and at the later layers, for each picture: (B,).

    Matsubara et al. (WACV 2022), equation 4, sums them over the batch, here they are averaged; Adam does not notice.
    """
    with torch.no_grad():
        _, *wanted = as_tuple(tail(feature))
    _, *got = as_tuple(tail(found)) if answer is None else answer
    pairs = zip((found, *got), (feature, *wanted), strict=True)
    return torch.stack([(a.float() - b.float()).square().flatten(1).sum(1) for a, b in pairs]).sum(0)


def answers(logits: Tensor, logits_t: Tensor, label_b: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy with the labels, and the KL divergence from the softened teacher times temperature^2.

    Both (B,). Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network" (2015). Where a label is negative,
    there is none, and the teacher's own answer stands in for it.
    """
    label_b = torch.where(label_b < 0, logits_t.argmax(1), label_b)
    hard_b = nnf.cross_entropy(logits.float(), label_b, reduction="none")
    soft, soft_t = (nnf.log_softmax(x.float() / temperature, 1) for x in (logits, logits_t))
    return hard_b, nnf.kl_div(soft, soft_t, log_target=True, reduction="none").sum(1) * temperature**2


def as_tuple(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return what a tail gives, (logits, *later features), also where it names no later layers."""
    return out if isinstance(out, tuple) else (out,)


def schedule(done: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero; `done` and `warmup` are shares of the stage."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def steps(done: float, warmup: float, *, at: tuple[float, ...], factor: float) -> float:
    """Linear warm-up, then times `factor` at each of the shares `at` of the stage."""
    if done < warmup:
        return done / warmup
    return float(factor ** sum(done >= share for share in at))


def ramp(done: float, share: float) -> float:
    """Rise from a fiftieth to 1 within the first `share` of a stage, by equal factors.

    A rate that counts in full from the start silences most latent channels before they have learned anything, and they
    never come back.
    """
    return 1.0 if done >= share else 0.02 ** (1 - done / share)
