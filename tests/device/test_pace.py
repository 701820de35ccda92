"""An average rate by the clock: pictures wait, none is lost, no stretch of time carries more than it earns."""

from __future__ import annotations

import pytest
from PIL import Image

from splitcodec import Device
from splitcodec.device.budget import RateKeeper
from splitcodec.device.client import Encoded
from splitcodec.device.pace import Pace
from splitcodec.errors import BudgetTooSmall
from splitcodec.wire.bundle import Bundle


class Clock:
    """Seconds that pass by waiting."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


@pytest.fixture(scope="module")
def device(tiny: Bundle) -> Device:
    return Device(tiny, threads=1)


def sizes(device: Device, picture: Image.Image) -> list[int]:
    return device.prices(picture)


def test_pictures_wait_for_the_rate_and_none_is_lost(device: Device, pictures: list[Image.Image]) -> None:
    clock, stream = Clock(), pictures * 3
    level0 = max(min(sizes(device, picture)) for picture in pictures)
    keeper = RateKeeper(8 * 10 / 1000, window_s=(level0 + 5) / 10, clock=clock)  # 10 bytes a second
    pace = Pace(device.encode_timed, keeper, wait=clock.wait)
    sent: list[tuple[float, int]] = []
    for picture in stream:
        encoded = pace(picture)
        assert encoded is not None
        assert encoded.dropped == 0
        sent.append((clock.now, len(encoded.packet)))
    assert clock.now > 1
    for i, (since, _) in enumerate(sent):
        for j in range(i, len(sent)):
            assert sum(size for _, size in sent[i : j + 1]) <= 10 * (sent[j][0] - since) + keeper.most + 1


def test_time_between_captures_buys_a_better_level(device: Device, pictures: list[Image.Image]) -> None:
    clock, picture = Clock(), pictures[-1]
    low, _, high = sizes(device, picture)
    assert low < high
    keeper = RateKeeper(8 * 1 / 1000, window_s=high, clock=clock)  # a byte a second
    pace = Pace(device.encode_timed, keeper, wait=clock.wait)
    levels = []
    for pause in (0.0, float(low), float(high)):
        clock.now += pause
        encoded = pace(picture)
        assert encoded is not None
        levels.append(encoded.level)
    assert levels == [2, 0, 2]


def test_max_bytes_holds_as_well(device: Device, pictures: list[Image.Image]) -> None:
    clock, picture = Clock(), pictures[-1]
    most = sizes(device, picture)[1]
    pace = Pace(device.encode_timed, RateKeeper(100.0, window_s=10, clock=clock), wait=clock.wait, max_bytes=most)
    encoded = pace(picture)
    assert encoded is not None
    assert (len(encoded.packet), encoded.level) == (most, 1)


def test_what_a_full_window_does_not_hold_is_refused_at_once_or_forced(
    device: Device, pictures: list[Image.Image]
) -> None:
    clock, picture = Clock(), pictures[-1]
    least = min(sizes(device, picture))

    def pace(*, force_fit: bool) -> Encoded | None:
        keeper = RateKeeper(8 * 1 / 1000, window_s=least - 1, clock=clock)
        keeper.spend(keeper.most)
        return Pace(device.encode_timed, keeper, wait=clock.wait, force_fit=force_fit)(picture)

    with pytest.raises(BudgetTooSmall, match=f"{least - 1} bytes is the most that rate and window leave"):
        pace(force_fit=False)
    clock.now = 0.0
    forced = pace(force_fit=True)
    assert forced is not None
    assert len(forced.packet) <= least - 1
    assert forced.dropped > 0
    assert clock.now == pytest.approx(least - 1, abs=0.1)


def test_a_limit_of_its_own_is_not_put_down_to_the_rate(device: Device, pictures: list[Image.Image]) -> None:
    clock, picture = Clock(), pictures[-1]
    least = min(sizes(device, picture))
    pace = Pace(device.encode_timed, RateKeeper(100.0, clock=clock), wait=clock.wait, max_bytes=least - 1)
    with pytest.raises(BudgetTooSmall, match=f"{least - 1} bytes is the most that --max-bytes leaves"):
        pace(picture)


def test_a_wait_that_gives_up_leaves_the_picture(device: Device, pictures: list[Image.Image]) -> None:
    keeper = RateKeeper(1.0, window_s=10, clock=Clock())
    keeper.spend(keeper.most)
    assert Pace(device.encode_timed, keeper, wait=lambda _: True)(pictures[0]) is None


def test_what_just_fits_a_full_window_waits_for_it(device: Device, pictures: list[Image.Image]) -> None:
    clock, picture = Clock(), pictures[-1]
    least = min(sizes(device, picture))
    keeper = RateKeeper(8 * 1 / 1000, window_s=least, clock=clock)  # a byte a second
    keeper.spend(keeper.most)
    encoded = Pace(device.encode_timed, keeper, wait=clock.wait)(picture)
    assert encoded is not None
    assert len(encoded.packet) == least
    assert clock.now == pytest.approx(least, abs=0.1)


def test_what_not_even_a_forced_fit_brings_below_a_full_window_is_refused(pictures: list[Image.Image]) -> None:
    clock, forced = Clock(), list[bool]()

    def encode(picture: object, *, max_bytes: int, force_fit: bool) -> Encoded:
        forced.append(force_fit)
        assert len(forced) < 5, "tried without end"
        raise BudgetTooSmall(f"{max_bytes} bytes", smallest=999)

    pace = Pace(encode, RateKeeper(0.1, window_s=10, clock=clock), wait=clock.wait, force_fit=True)
    with pytest.raises(BudgetTooSmall, match="125 bytes"):
        pace(pictures[0])
    assert forced == [False, True]
