from __future__ import annotations

import random
import re
from pathlib import Path
from string import ascii_letters

import pytest

from splitcodec.device.links import AROUND_HTTP, AROUND_UDP, around
from splitcodec.device.meter import ANSWER_BYTES, EDGE_MS, FASTEST, LinkMeter
from splitcodec.errors import LinkDown, SettingsError
from splitcodec.wire.answer import Answer, dump_answer
from splitcodec.wire.brief import shorten


class Radio:
    """A link with a clock of its own: 40 ms round trip, 10 ms at the edge, 0.2 ms a byte (40 kbit/s)."""

    def __init__(self, ms_per_byte: float = 0.2, *, answers: bool = True) -> None:
        self.now, self.ms_per_byte, self.answers = 0.0, ms_per_byte, answers

    def __call__(self, packet: bytes) -> bytes:
        self.now += (40 + 10 + self.ms_per_byte * len(packet)) / 1000
        ms = {"decode": 1.0, "decoder": 4.0, "tail": 5.0}
        return dump_answer(Answer(bundle="tiny@1", level=0, answers={}, ms=ms)) if self.answers else b"?"

    def clock(self) -> float:
        return self.now


def test_rate_round_trip_and_edge_are_told_apart() -> None:
    radio = Radio()
    meter = LinkMeter(radio, clock=radio.clock)
    assert not meter.measured
    for size in (200, 900, 400):
        meter(bytes(size))
    deadline = meter.deadline(500.0)
    assert deadline.kbit_per_s == pytest.approx(40.0)
    assert deadline.rtt_ms == pytest.approx(40.0)
    assert deadline.edge_ms == pytest.approx(10.0)
    assert deadline.bytes_left(50.0) == pytest.approx(2000, abs=1)


def test_one_size_promises_too_little_rather_than_too_much() -> None:
    radio = Radio()
    meter = LinkMeter(radio, clock=radio.clock)
    meter(bytes(1000))
    deadline = meter.deadline(500.0)
    assert deadline.rtt_ms == 0.0
    assert deadline.bytes_left(0.0) < (500 - 50) / 0.2


def test_over_a_known_link_edge_and_answer_are_what_trips_have_shown() -> None:
    radio = Radio()
    meter = LinkMeter(radio, clock=radio.clock)
    before = meter.deadline_at(500.0, kbit_per_s=40.0, rtt_ms=40.0, around=100)
    assert (before.edge_ms, before.around) == (EDGE_MS, 100 + ANSWER_BYTES)
    answer = shorten(meter(bytes(200)))
    after = meter.deadline_at(500.0, kbit_per_s=40.0, rtt_ms=40.0, around=100)
    assert after.edge_ms == pytest.approx(10.0)
    assert after.around == 100 + len(answer)
    assert after.bytes_left(50.0) == pytest.approx(2000 - 100 - len(answer), abs=1)
    assert after.bytes_left(449.0) == 0


def test_the_time_of_other_tasks_is_the_edges_too() -> None:
    def link(packet: bytes) -> bytes:
        ms = {"decode": 1.0, "decoder": 4.0, "backbone": 6.0, "detect": 160.0, "segment": 30.0}
        return dump_answer(Answer(bundle="tiny@1", level=0, answers={}, ms=ms))

    now = iter([0.0, 0.5])
    meter = LinkMeter(link, clock=lambda: next(now))
    meter(bytes(200))
    assert meter.deadline_at(500.0, kbit_per_s=40.0, rtt_ms=40.0).edge_ms == pytest.approx(201.0)


def test_what_carriers_put_around_a_packet_is_what_the_guide_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "field.md").read_text(encoding="utf-8")
    udp, http = re.search(r"UDP puts (\d+) bytes on the link.*?HTTP over TCP puts (\d+) there", text, re.S).groups()  # type: ignore[union-attr]
    assert (around("udp://host"), around("http://host:8080")) == (AROUND_UDP, AROUND_HTTP)
    assert abs(AROUND_UDP - (int(udp) - 57)) < 10
    assert abs(AROUND_HTTP - (int(http) - 57)) < 10


def test_the_latest_trips_count() -> None:
    radio = Radio()
    meter = LinkMeter(radio, last=4, clock=radio.clock)
    for size in (100, 800, 100, 800):
        meter(bytes(size))
    radio.ms_per_byte = 2.0
    for size in (100, 800, 100, 800):
        meter(bytes(size))
    assert meter.deadline(1e4).kbit_per_s == pytest.approx(4.0)


def test_what_is_no_answer_still_counts_as_a_trip_and_passes_through() -> None:
    radio = Radio(answers=False)
    meter = LinkMeter(radio, clock=radio.clock)
    assert meter(bytes(100)) == b"?"
    assert meter.measured


def test_a_fast_link_has_a_finite_rate() -> None:
    radio = Radio(ms_per_byte=0.0)
    meter = LinkMeter(radio, clock=radio.clock)
    meter(bytes(100))
    meter(bytes(900))
    assert meter.deadline(100.0).kbit_per_s <= 1e6


def test_an_edge_that_says_it_needed_longer_than_the_trip_leaves_a_finite_rate() -> None:
    meter = LinkMeter(lambda _: dump_answer(Answer(bundle="tiny@1", level=0, answers={}, ms={"decode": 1e9})))
    for size in (200, 900):
        meter(bytes(size))
    assert meter.deadline(1e3).kbit_per_s == pytest.approx(FASTEST)
    assert meter.deadline(1e3).edge_ms < 1e3


def meter_of(*trips: tuple[int, float, float, int]) -> LinkMeter:
    """Return a meter after trips of (bytes, seconds, ms that the edge says, length of the bundle's name)."""
    now, left = 0.0, list(trips)

    def link(_: bytes) -> bytes:
        nonlocal now
        _size, seconds, edge_ms, name = left.pop(0)
        now += seconds
        letters = "".join(random.Random(name).choices(ascii_letters, k=name))  # that nothing shortens
        return dump_answer(Answer(bundle=letters, level=0, answers={}, ms={"decode": edge_ms}))

    meter = LinkMeter(link, clock=lambda: now)
    for one in trips:
        meter(bytes(one[0]))
    return meter


def test_of_the_latest_trips_the_longest_at_the_edge_and_the_largest_answer_count() -> None:
    trips = [(200, 0.1, 5.0, 10), (200, 0.1, 60.0, 200), (200, 0.1, 20.0, 90)]
    meter = meter_of(*trips)
    known = meter.deadline_at(500.0, kbit_per_s=40.0, rtt_ms=40.0)
    assert known.edge_ms == pytest.approx(60.0)
    meter.forget(2)
    last = meter.deadline_at(500.0, kbit_per_s=40.0, rtt_ms=40.0)
    assert last.edge_ms == pytest.approx(20.0)
    assert known.around > last.around + 50
    meter.forget(9)
    assert not meter.measured
    assert meter.deadline_at(500.0, kbit_per_s=40.0, rtt_ms=40.0).around == ANSWER_BYTES


def test_trips_that_no_line_tells_are_put_down_to_their_bytes() -> None:
    one_size = meter_of((1000, 0.1, 0.0, 1), (1000, 0.3, 0.0, 1)).deadline(500.0)
    assert (one_size.kbit_per_s, one_size.rtt_ms) == pytest.approx((40.0, 0.0))  # 0.2 ms a byte on average
    steep = meter_of((200, 0.01, 0.0, 1), (900, 0.45, 0.0, 1)).deadline(500.0)  # its line begins below nothing
    assert (steep.kbit_per_s, steep.rtt_ms) == pytest.approx((16.0, 0.0))  # 0.5 ms a byte at worst


def test_an_edge_of_a_strange_clock_took_no_time() -> None:
    assert meter_of((200, 0.1, -5.0, 1)).deadline(500.0).edge_ms == 0.0


def test_refusals() -> None:
    meter = LinkMeter(Radio())
    with pytest.raises(SettingsError, match="no packet has been sent"):
        meter.deadline(100.0)
    with pytest.raises(SettingsError):
        LinkMeter(Radio(), last=1)

    def dead(_: bytes) -> bytes:
        raise LinkDown("nobody")

    with pytest.raises(LinkDown):
        LinkMeter(dead)(b"x")
