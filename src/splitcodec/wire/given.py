"""What callers give where a number or a list of tasks is wanted: NumPy's integers are some, `True` and "3" are none."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import numpy as np


def whole(value: object) -> int | None:
    """Return a whole number as an int; None for what is none."""
    try:
        # NumPy 2.2's own True is an index, with a warning
        return None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]  # it refuses others
    except TypeError:
        return None


def within(value: object, low: float, high: float) -> bool:
    """Say whether a value is a number from `low` to `high`; NaN is not."""
    try:
        return bool(low <= value <= high)  # type: ignore[operator]  # as above
    except (TypeError, ValueError):  # of an array, say
        return False


def names(tasks: object) -> tuple[str, ...] | None:
    """Return a list of names without doubles; None for a text, or for what else is no list of them."""
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        return None
    found = tuple(tasks)
    return tuple(dict.fromkeys(found)) if all(isinstance(one, str) for one in found) else None
