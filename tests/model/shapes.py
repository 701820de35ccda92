"""Depthwise convolutions that fast twins must agree with: kernel, stride, padding, rows and columns of the input."""

from __future__ import annotations

NAMES = ("kernel", "stride", "pad", "rows", "cols")
SHAPES = [
    (3, 1, 1, 8, 8),
    (3, 1, 1, 7, 9),
    (3, 2, 1, 8, 8),
    (3, 2, 1, 7, 9),
    (3, 2, 0, 8, 7),
    (5, 1, 2, 9, 7),
    (5, 2, 2, 11, 8),
    (5, 2, 0, 12, 11),
    (5, 3, 4, 10, 7),
    (7, 1, 3, 9, 9),
    (1, 1, 0, 5, 6),
]
