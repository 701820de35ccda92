"""Beside budget.py: the highest level whose packet fits, found without making the packets of all levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from splitcodec.wire.packet import OVERHEAD

SLACK: Final = 8
"""Bytes by which a payload may differ from its ideal length: two words of 32 bits, less what is trimmed."""
MOST_SAVED: Final = 0.85
"""Share of its price that a packet by context may save: that of a flat picture."""
_ABOVE: Final = 0.1  # of the price: what the next level may save more than one that was tried


class Offer(NamedTuple):
    """A level's packet: its price in bytes by channel without head, and what makes it."""

    price: float
    make: Callable[[], bytes]


class Outcome(NamedTuple):
    """The packet of the highest level that fits (None: none), that level, and size and level of the smallest misfit."""

    packet: bytes | None
    level: int
    smallest: tuple[int, int] | None


def highest_fitting(offer: Callable[[int], Offer], max_bytes: int, *, highest: int, saving: float) -> Outcome:
    """Return the packet of the highest level, at most `highest`, that has at most `max_bytes` bytes.

    Level 0 is always tried. `saving` is the share of their price that packets are taken to save until one fits, from
    which on the next levels are told by it; 0 where none saves anything.
    """
    smallest: tuple[int, int] | None = None
    for level in range(highest, -1, -1):
        price, make = offer(level)
        if level and not may_fit(price, max_bytes, saving=saving):
            continue
        packet = make()
        if len(packet) <= max_bytes:
            best = _higher(offer, packet, level, max_bytes, highest=highest) if saving else (packet, level)
            return Outcome(*best, smallest)
        smallest = min(smallest or (len(packet), level), (len(packet), level))
    return Outcome(None, 0, smallest)


def may_fit(price: float, max_bytes: int, *, saving: float) -> bool:
    """Say whether a packet of that price may have at most `max_bytes` bytes if it saves that share of it."""
    return (1 - saving) * price + OVERHEAD <= max_bytes + SLACK


def _higher(
    offer: Callable[[int], Offer], packet: bytes, level: int, max_bytes: int, *, highest: int
) -> tuple[bytes, int]:
    """Return the highest level's packet that fits from one on that does: pictures save more than expected, or less."""
    price = offer(level).price
    while level < highest:
        saving = min(_saved(packet, price) + _ABOVE, MOST_SAVED)
        price, make = offer(level + 1)
        if not may_fit(price, max_bytes, saving=saving):
            break
        if len(larger := make()) > max_bytes:
            break
        packet, level = larger, level + 1
    return packet, level


def _saved(packet: bytes, price: float) -> float:
    """Return the share of its price that a packet turned out to save."""
    return max(1 - (len(packet) - OVERHEAD) / max(price, 1.0), 0.0)
