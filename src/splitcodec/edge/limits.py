"""Beside server.py: how much one client may ask for.   asked by: guard.py (requests), service.py (symbols)

Token buckets, refilled as time passes. Memory is bounded: the client that was not seen for longest is forgotten.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import final

from splitcodec.errors import RateExceeded


@final
class Buckets:
    """One bucket a client: `per_s` flow in, two seconds' worth are held; 0 a second: no limit.

    A larger amount is given to a full bucket, which then owes the rest. `most` clients are remembered,
    `what` names the amount in refusals.
    """

    def __init__(
        self,
        per_s: float,
        *,
        what: str,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_s = per_s
        self._burst = 2 * per_s
        self._what = what
        self._most = most
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, client: str, amount: float = 1.0) -> None:
        """Take `amount` from the client's bucket. Raises RateExceeded, saying when there will be enough."""
        if not self._per_s:
            return
        now = self._clock()
        level, since = self._levels.pop(client, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._per_s)
        lacking = min(amount, self._burst) - level
        self._levels[client] = (level if lacking > 0 else level - amount, now)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        if lacking > 0:
            wait_s = min(3600, max(1, math.ceil(lacking / self._per_s)))
            raise RateExceeded(
                f"more than {self._per_s:,.10g} {self._what} a second from one client; ask again in {wait_s} s",
                retry_after_s=wait_s,
            )


def client_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, 64), strict=False))
    return str(found)
