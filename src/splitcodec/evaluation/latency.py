"""End-to-end latency and energy out of measured stages and a modelled link.   used by: benchmarks/latency.py

An answer costs what the device computes, the link, and what the edge computes. The link is a rate and a round trip:
half the round trip each way, and every byte at the rate (device/link.py's `airtime_ms`), those that a carrier adds
included: HTTP, TCP and IP, or frames, UDP and IP. A connection that stays open is assumed: no handshake, no slow start;
both would cost large files more. What is not waited for (TCP's acknowledgements, the thanks for an answer) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from splitcodec.device.link import airtime_ms
from splitcodec.errors import SettingsError
from splitcodec.wire.fragment import DATAGRAM, OVERHEAD, TRAILER

SEGMENT = 1448
"""Bytes of payload in a TCP segment: a frame of 1500 bytes less IPv4 and TCP with time stamps."""
SEGMENT_OVERHEAD = 52
"""Bytes of IPv4 and TCP with time stamps around each segment."""
DATAGRAM_OVERHEAD = 28
"""Bytes of IPv4 and UDP around each frame."""


@final
@dataclass(frozen=True, slots=True)
class Radio:
    """A link: its rate in kbit/s (1000 bits), round trip in ms, and what the device spends per byte, in microjoules.

    Raises SettingsError for what is no rate, round trip or cost.
    """

    kbit_per_s: float
    rtt_ms: float
    uj_per_byte: float

    def __post_init__(self) -> None:
        airtime_ms(0, kbit_per_s=self.kbit_per_s, rtt_ms=self.rtt_ms)
        if not (math.isfinite(self.uj_per_byte) and self.uj_per_byte >= 0):
            raise SettingsError(f"a radio of {self.uj_per_byte} uJ per byte; expected 0 or more")

    @property
    def name(self) -> str:
        """Return the rate in words."""
        if self.kbit_per_s >= 1000:
            return f"{self.kbit_per_s / 1000:g} Mbit/s"
        return f"{self.kbit_per_s:g} kbit/s"


@final
@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes of the head of an HTTP request and of its response; a head shares its segments with its body."""

    request: int
    response: int

    def up(self, body: int) -> int:
        """Return the bytes that a request with a body of that many bytes puts on the link."""
        return _on_wire(self.request + body)

    def down(self, body: int) -> int:
        """Return the bytes that a response with a body of that many bytes puts on the link."""
        return _on_wire(self.response + body)


@final
@dataclass(frozen=True, slots=True)
class Datagrams:
    """Frames of `wire/fragment.py` in datagrams; `request` bytes in front of a body say what is wanted."""

    request: int

    def up(self, body: int) -> int:
        """Return the bytes that a request with a body of that many bytes puts on the link."""
        return _in_datagrams(self.request + body)

    def down(self, body: int) -> int:
        """Return the bytes that an answer of that many bytes, shortened, puts on the link."""
        return _in_datagrams(body)


Carrier = Overhead | Datagrams


@final
@dataclass(frozen=True, slots=True)
class Trip:
    """What one answer takes: milliseconds per stage on the device and at the edge, and bytes on the link each way.

    A trip without bytes never leaves the device.
    """

    device_ms: Mapping[str, float]
    edge_ms: Mapping[str, float]
    up: int = 0
    down: int = 0

    def slower(self, factor: float) -> Trip:
        """Return the trip from a device that takes `factor` times as long. Raises SettingsError."""
        if not (math.isfinite(factor) and factor > 0):
            raise SettingsError(f"a device {factor} times as slow; expected more than 0")
        return Trip({name: factor * ms for name, ms in self.device_ms.items()}, self.edge_ms, self.up, self.down)

    @property
    def computing_ms(self) -> float:
        """Return the milliseconds on both shores."""
        return sum(self.device_ms.values()) + sum(self.edge_ms.values())

    def link_ms(self, radio: Radio) -> float:
        """Return the milliseconds on the link: the round trip, and all bytes at its rate."""
        if not self.up + self.down:
            return 0.0
        return airtime_ms(self.up + self.down, kbit_per_s=radio.kbit_per_s, rtt_ms=radio.rtt_ms)

    def total_ms(self, radio: Radio) -> float:
        """Return the milliseconds from the picture's file to the answer."""
        return self.computing_ms + self.link_ms(radio)

    def energy_mj(self, radio: Radio, *, watts: float) -> float:
        """Return the device's millijoules: its computing at that power, and its bytes both ways; waiting is free."""
        return sum(self.device_ms.values()) * watts + (self.up + self.down) * radio.uj_per_byte / 1000


def break_even_kbit_per_s(trip: Trip, alone: Trip, *, rtt_ms: float) -> float | None:
    """Return the rate at which `trip` takes as long as `alone`, which stays on the device: above it `trip` is faster.

    None where no rate is enough: the round trip and computing alone take as long.
    """
    left_ms = alone.computing_ms - trip.computing_ms - rtt_ms
    return None if left_ms <= 0 else (trip.up + trip.down) * 8 / left_ms


def _in_datagrams(size: int) -> int:
    whole = size + TRAILER
    return whole + (OVERHEAD + DATAGRAM_OVERHEAD) * math.ceil(whole / (DATAGRAM - OVERHEAD))


def _on_wire(size: int) -> int:
    return size + SEGMENT_OVERHEAD * math.ceil(size / SEGMENT)
