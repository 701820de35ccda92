"""Where a student begins: the best linear code of the teacher's feature, by reduced-rank regression.

Squeeze and decoder each have a linear path beside their layers, which start at zero. The student therefore begins as
the principal components of the feature (where the stem is the cut; else as the best approximation of that rank from the
stem's output) and learns what is nonlinear on top. From random weights, half of the latent channels never came to life.
Izenman, "Reduced-rank regression for the multivariate linear model", Journal of Multivariate Analysis 5 (1975).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from splitcodec.model.fisher import Metric

_RIDGE = 1e-4


class Projection(NamedTuple):
    """A linear code: z = conv(x, encode, stride=down) + bias; y is about pixel_shuffle(conv(z, decode), up)."""

    encode_kcrs: Tensor
    """(rank, channels of x, down, down)."""
    bias_k: Tensor
    decode_ok: Tensor
    """(channels of y times up squared, rank), with columns orthonormal in the metric: an error of the code is y's."""
    residual: float
    """Share of y's variance that the code loses, as the metric measures it."""


@torch.no_grad()
def reduced_rank(
    x_bchw: Tensor, y_bchw: Tensor, *, rank: int, down: int, up: int, metric: Metric | None = None
) -> Projection:
    """Return the linear code of `rank` channels from which y, with zero mean, is told best in squares.

    x has `down` times the code's rows and columns, y `up` times. Ranks beyond y's own are filled with zeros. `metric`
    says how errors of a patch of y count (none: all alike); see `model.fisher`.
    """
    x_np, y_np = _patches(x_bchw, down), _patches(y_bchw, up)
    if metric is not None:
        y_np = y_np @ metric.root_dd
    mean = x_np.mean(0)
    x_np = x_np - mean
    count, size = x_np.shape
    covariance = x_np.T @ x_np / count
    ridge = _RIDGE * covariance.diagonal().mean().clamp_min(1e-12)
    cross = x_np.T @ y_np / count
    slope = torch.linalg.solve(covariance + ridge * torch.eye(size, dtype=x_np.dtype, device=x_np.device), cross)
    values, vectors = torch.linalg.eigh(slope.T @ cross)  # covariance of the regression's guesses
    kept = min(rank, len(values))
    basis = vectors.flip(1)[:, :kept]
    encode = nnf.pad((slope @ basis).T, (0, 0, 0, rank - kept))
    total = y_np.square().sum() / count
    decode = basis if metric is None else metric.inverse_dd @ basis
    residual = 1 - values.flip(0)[:kept].sum() / total.clamp_min(1e-12)
    return Projection(
        encode.view(rank, x_bchw.shape[1], down, down).float(),
        -(encode @ mean).float(),
        nnf.pad(decode, (0, rank - kept)).float(),
        float(residual),
    )


def _patches(x_bchw: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (patches, C * side * side), float64."""
    flat = nnf.pixel_unshuffle(x_bchw.double(), side).flatten(2)
    return flat.permute(0, 2, 1).flatten(0, 1)
