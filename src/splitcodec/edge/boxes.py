"""Scores and distances to edges -> boxes: threshold, decoding, suppression class by class. All in NumPy, all bounded.

After tail.py of task detect. A picture yields at most MOST_BEFORE candidates and MOST boxes, whatever the graph says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitcodec.wire.answer import LEAST_SCORE

MOST_BEFORE: Final = 1000
MOST: Final = 100
OVERLAP: Final = 0.6


class Found(NamedTuple):
    """Boxes x0, y0, x1, y1 in pixels, best first: float32 (N, 4), scores float32 (N), classes int64 (N)."""

    box_n4: NDArray[np.float32]
    score_n: NDArray[np.float32]
    label_n: NDArray[np.int64]


def find_boxes(
    score_nk: NDArray[np.float32],
    edge_n4: NDArray[np.float32],
    *,
    size: tuple[int, int],
    strides: Sequence[int],
    least: float = LEAST_SCORE,
) -> Found:
    """Return the boxes of one picture of `size` (rows, cols) in pixels.

    `score_nk` (N, K) and `edge_n4` (left, top, right, bottom in pixels) belong to the N places of all `strides`, row by
    row. Boxes are cut to the picture. Raises ValueError if N is not the number of places.
    """
    place_n2 = places(size, strides)
    if len(place_n2) != len(score_nk):
        raise ValueError(f"{len(score_nk)} places, expected {len(place_n2)} for {size[0]} x {size[1]} pixels")
    flat = score_nk.ravel()
    (kept,) = np.nonzero(flat >= least)
    if len(kept) > MOST_BEFORE:
        kept = kept[np.argpartition(-flat[kept], MOST_BEFORE)[:MOST_BEFORE]]
    kept = kept[np.argsort(-flat[kept], kind="stable")]
    place, label_n = np.divmod(kept, score_nk.shape[1])
    middle, edges = place_n2[place], edge_n4[place]
    box_n4 = np.concatenate([middle - edges[:, :2], middle + edges[:, 2:]], axis=1)
    rows, cols = size
    box_n4 = np.clip(box_n4, 0, np.array([cols, rows, cols, rows], np.float32)).astype(np.float32)
    alive = suppress(box_n4, label_n, overlap=OVERLAP)[:MOST]
    return Found(box_n4[alive], flat[kept][alive], label_n[alive])


def places(size: tuple[int, int], strides: Sequence[int]) -> NDArray[np.float32]:
    """Return the middles of all places in pixels, float32 (N, 2) as x, y: stride by stride, row by row."""
    grids = []
    for stride in strides:
        rows, cols = (-(-side // stride) for side in size)
        y, x = np.mgrid[:rows, :cols].astype(np.float32)
        grids.append((np.stack([x.ravel(), y.ravel()], axis=1) + np.float32(0.5)) * stride)
    return np.concatenate(grids)


def suppress(box_n4: NDArray[np.float32], label_n: NDArray[np.int64], *, overlap: float) -> NDArray[np.int64]:
    """Return the places of the boxes that no better box of their class covers by more than `overlap`.

    Boxes come best first.
    """
    if len(box_n4) == 0:
        return np.zeros(0, np.int64)
    # not by moving each class to a plane of its own: far out float32 has too few digits for small boxes
    iou_nn = np.where(label_n[:, None] == label_n[None], overlaps(box_n4, box_n4), np.float32(0))
    alive = np.ones(len(box_n4), np.bool_)
    for place in range(len(box_n4)):
        if alive[place]:
            alive[place + 1 :] &= iou_nn[place, place + 1 :] <= overlap
    return np.nonzero(alive)[0]


def overlaps(one_n4: NDArray[np.float32], other_m4: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the intersection over union of all pairs of boxes: float32 (N, M)."""
    low = np.maximum(one_n4[:, None, :2], other_m4[None, :, :2])
    high = np.minimum(one_n4[:, None, 2:], other_m4[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one_n4, other_m4)]
    either = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(either, 1e-9), np.float32)
