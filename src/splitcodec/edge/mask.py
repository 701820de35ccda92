"""Coarse class logits -> a label map of the network's input: bilinear enlargement and the best class, in NumPy.

After tail.py of task segment. Done in bands of rows, so that memory stays bounded for large pictures.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BAND: Final = 64


def label_map(logit_khw: NDArray[np.float32], *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the best class at each of `size` (rows, cols) pixels, uint8, from logits (K, h, w), K at most 255."""
    rows, cols = size
    down_rh = weights(logit_khw.shape[1], rows)
    across_kwc = np.matmul(logit_khw, weights(logit_khw.shape[2], cols).T)  # (K, h, cols)
    out = np.empty(size, np.uint8)
    for top in range(0, rows, BAND):
        band_krc = np.matmul(down_rh[top : top + BAND], across_kwc)
        out[top : top + BAND] = band_krc.argmax(axis=0)
    return out


def weights(small: int, large: int) -> NDArray[np.float32]:
    """Return the matrix (large, small) that enlarges a line: linear, pixel middles aligned, ends repeated."""
    where = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    low = np.minimum(where.astype(np.int64), max(small - 2, 0))
    share = (where - low).astype(np.float32)
    out = np.zeros((large, small), np.float32)
    out[np.arange(large), low] += 1 - share
    out[np.arange(large), np.minimum(low + 1, small - 1)] += share
    return out
