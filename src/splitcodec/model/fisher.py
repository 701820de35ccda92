"""What each direction of the teacher's feature is worth to its answer: the Fisher information at the cut.

A linear code that is best in squares (principal components) spends bits on what varies, whether or not the classifier
looks at it. Measured by the Fisher information F = E[g g^T] of the answer, g the gradient of log p(class | feature) at
one place of the latent's grid and the class drawn from p, the same code loses the least of the answer: to second order
the KL divergence that an error e makes is e^T F e / 2. Martens, "New insights and perspectives on the natural gradient
method" (JMLR 2020), section 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

_FLOOR = 0.02  # share of a plain squared error: what the answer does not see is not quite free
_BATCH, _DRAWS = 16, 2


class Metric(NamedTuple):
    """A symmetric root of a metric, and its inverse: errors e are measured as |root e|^2. Both (D, D), float64."""

    root_dd: Tensor
    inverse_dd: Tensor


def fisher_metric(tail: nn.Module, feature_bchw: Tensor, spread_c: Tensor, *, up: int, seed: int = 0) -> Metric:
    """Return the metric of patches (C * up * up numbers) of the feature divided by `spread_c`, (C) or (1, C, 1, 1).

    `tail` maps features (B, C, H, W) to logits, or to (logits, *others). Scaled so that a feature of unit variance in
    every number and nothing else would lose 1 for each of them on average.
    """
    drawn = torch.Generator(device=feature_bchw.device).manual_seed(seed)
    size = feature_bchw.shape[1] * up * up
    total_dd = torch.zeros(size, size, dtype=torch.float64, device=feature_bchw.device)
    for part_bchw in torch.split(feature_bchw, _BATCH):
        for _ in range(_DRAWS):
            found = part_bchw.detach().float().requires_grad_()
            with torch.enable_grad():
                out = tail(found)
                log_bk = (out[0] if isinstance(out, tuple) else out).float().log_softmax(1)
                class_b1 = torch.multinomial(log_bk.detach().exp(), 1, generator=drawn)
                (slope,) = torch.autograd.grad(log_bk.gather(1, class_b1).sum(), found)
            patches = nnf.pixel_unshuffle(slope.double() * spread_c.double().view(1, -1, 1, 1), up)
            patches_nd = patches.flatten(2).permute(0, 2, 1).flatten(0, 1)
            total_dd += patches_nd.T @ patches_nd
    metric_dd = total_dd / total_dd.diagonal().mean().clamp_min(1e-30)
    metric_dd += _FLOOR * torch.eye(size, dtype=torch.float64, device=metric_dd.device)
    values, vectors = torch.linalg.eigh(metric_dd)
    root = values.clamp_min(1e-12).sqrt()
    return Metric((vectors * root) @ vectors.T, (vectors / root) @ vectors.T)
