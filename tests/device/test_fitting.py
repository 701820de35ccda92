from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.device.fitting import SLACK, Offer, highest_fitting
from splitcodec.wire.packet import OVERHEAD


class Levels:
    """Packets of given sizes at given prices; counts what is made."""

    def __init__(self, sizes: list[int], prices: list[float]) -> None:
        self.sizes, self.prices, self.made = sizes, prices, list[int]()

    def offer(self, level: int) -> Offer:
        return Offer(self.prices[level], lambda: self._make(level))

    def _make(self, level: int) -> bytes:
        self.made.append(level)
        return bytes(self.sizes[level])


def best(sizes: list[int], max_bytes: int, highest: int) -> int | None:
    return max((level for level, size in enumerate(sizes[: highest + 1]) if size <= max_bytes), default=None)


@given(
    steps=st.lists(st.integers(1, 900), min_size=1, max_size=10),
    savings=st.lists(st.floats(-0.09, 0.09), min_size=10, max_size=10),
    first=st.floats(0.05, 0.7),
    max_bytes=st.integers(13, 6000),
)
def test_of_levels_that_rise_the_highest_that_fits_is_found(
    steps: list[int], savings: list[float], first: float, max_bytes: int
) -> None:
    sizes = [OVERHEAD + 20 + size for size in itertools.accumulate(steps)]
    saved = [min(max(one, 0.0), 0.75) for one in itertools.accumulate(savings, initial=first)]
    prices = [(size - OVERHEAD) / (1 - share) for size, share in zip(sizes, saved, strict=False)]
    levels = Levels(sizes, prices)
    found = highest_fitting(levels.offer, max_bytes, highest=len(sizes) - 1, saving=0.28)
    wanted = best(sizes, max_bytes, len(sizes) - 1)
    if wanted is None:
        assert (found.packet, found.smallest) == (None, (sizes[0], 0))
    else:
        assert (found.level, len(found.packet or b"")) == (wanted, sizes[wanted])


@given(
    steps=st.lists(st.integers(1, 900), min_size=1, max_size=10),
    off=st.integers(-SLACK, SLACK),
    max_bytes=st.integers(13, 6000),
    highest=st.integers(0, 9),
)
def test_where_nothing_is_saved_prices_settle_it(steps: list[int], off: int, max_bytes: int, highest: int) -> None:
    sizes = [OVERHEAD + SLACK + size for size in itertools.accumulate(steps)]
    levels = Levels(sizes, [size - OVERHEAD + off for size in sizes])
    highest = min(highest, len(sizes) - 1)
    found = highest_fitting(levels.offer, max_bytes, highest=highest, saving=0.0)
    assert (found.level if found.packet is not None else None) == best(sizes, max_bytes, highest)


def test_few_packets_are_made() -> None:
    sizes = [100, 140, 200, 280, 400, 560, 780, 1100, 1500, 2100]
    levels = Levels(sizes, [(size - OVERHEAD) / 0.72 for size in sizes])
    for size in sizes:
        levels.made.clear()
        assert highest_fitting(levels.offer, size, highest=9, saving=0.28).level == sizes.index(size)
        assert len(levels.made) <= 2
    assert highest_fitting(levels.offer, 5000, highest=3, saving=0.28).level == 3
    assert highest_fitting(levels.offer, 50, highest=9, saving=0.28).smallest == pytest.approx((100, 0))


@pytest.mark.parametrize(("saved", "most_made"), [(0.0, 3), (0.1, 3), (0.6, 6)])
def test_pictures_that_save_more_or_less_than_expected_get_the_highest_level_too(saved: float, most_made: int) -> None:
    sizes = [100, 140, 200, 280, 400, 560, 780, 1100, 1500, 2100]
    levels = Levels(sizes, [(size - OVERHEAD) / (1 - saved) for size in sizes])
    for size in sizes:
        levels.made.clear()
        found = highest_fitting(levels.offer, size, highest=9, saving=0.28)
        assert (found.level, len(found.packet or b"")) == (sizes.index(size), size)
        assert len(levels.made) <= most_made


def test_the_smallest_packet_is_told_where_none_fits() -> None:
    levels = Levels([101, 100, 103], [99.0, 99.0, 99.0])
    assert highest_fitting(levels.offer, 90, highest=2, saving=0.28).smallest == (100, 1)
