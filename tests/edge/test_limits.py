from __future__ import annotations

import pytest

from splitcodec.edge.limits import Buckets, client_of
from splitcodec.errors import RateExceeded


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def refusals(buckets: Buckets, client: str, tries: int, amount: float = 1.0) -> int:
    count = 0
    for _ in range(tries):
        try:
            buckets.take(client, amount)
        except RateExceeded:
            count += 1
    return count


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    buckets = Buckets(10, what="requests", clock=clock)
    assert refusals(buckets, "a", 25) == 5
    assert refusals(buckets, "b", 20) == 0
    clock.now = 0.5
    assert refusals(buckets, "a", 8) == 3
    clock.now = 1000.0
    assert refusals(buckets, "a", 25) == 5


def test_the_refusal_says_when() -> None:
    clock = Clock()
    buckets = Buckets(0.5, what="requests", clock=clock)
    buckets.take("a")
    with pytest.raises(RateExceeded, match=r"than 0\.5 requests a second .*; ask again in 2 s") as caught:
        buckets.take("a")
    assert caught.value.retry_after_s == 2
    clock.now = 2.0
    buckets.take("a")


def test_more_than_a_burst_goes_on_credit() -> None:
    clock = Clock()
    buckets = Buckets(100, what="symbols", clock=clock)
    buckets.take("a", 1000)
    with pytest.raises(RateExceeded) as caught:
        buckets.take("a", 1)
    assert caught.value.retry_after_s == 9
    clock.now = 8.0
    assert refusals(buckets, "a", 1) == 1
    clock.now = 10.0
    buckets.take("a", 200)
    assert refusals(buckets, "a", 1) == 1


def test_zero_is_no_limit_and_keeps_nothing() -> None:
    buckets = Buckets(0, what="requests")
    assert refusals(buckets, "a", 100_000 // 100, amount=1e12) == 0
    assert len(buckets) == 0


def test_memory_is_bounded() -> None:
    buckets = Buckets(10, what="requests", most=100, clock=Clock())
    for n in range(5000):
        buckets.take(f"client {n}")
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("", "unknown"),
        ("someone", "unknown"),
    ],
)
def test_what_counts_as_one_client(address: str, client: str) -> None:
    assert client_of(address) == client
