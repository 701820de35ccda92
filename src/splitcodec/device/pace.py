"""Beside budget.py: a stream's pictures encoded at an average rate, by the clock.   used by: `splitcodec watch`

Where the rate leaves too little for a picture, time mends that: the picture waits rather than being lost. Only what not
even a full window holds is refused, or forced to fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, final

from splitcodec.device.budget import RateKeeper
from splitcodec.device.client import Encoded
from splitcodec.device.image import Picture
from splitcodec.errors import BudgetTooSmall
from splitcodec.wire.packet import SMALLEST

_SHORTEST_WAIT_S = 0.01


class Encode(Protocol):
    """What `Device.encode_timed` does, all else settled."""

    def __call__(self, picture: Picture, *, max_bytes: int, force_fit: bool) -> Encoded:
        """Return the packet. Raises BudgetTooSmall."""
        ...


@final
class Pace:
    """Encodes one picture after another, each at the best level that the rate has bytes for by now. For one thread.

    `max_bytes` bounds every packet besides; `wait` waits that many seconds, and says whether to give up instead.
    """

    def __init__(
        self,
        encode: Encode,
        keeper: RateKeeper,
        *,
        wait: Callable[[float], bool],
        max_bytes: int | None = None,
        force_fit: bool = False,
    ) -> None:
        self._encode, self._keeper, self._wait, self._force = encode, keeper, wait, force_fit
        self._most = keeper.most if max_bytes is None else min(max_bytes, keeper.most)

    def __call__(self, picture: Any) -> Encoded | None:
        """Return a picture's packet once the rate allows it; None if `wait` gave up.

        Raises BudgetTooSmall for a picture that not even a full window has bytes for, and as `Device.encode_timed`.
        """
        wanted = SMALLEST
        while self._waited_for(wanted):
            free = min(self._most, self._keeper.allowance())
            try:
                encoded = self._encode(picture, max_bytes=free, force_fit=self._force and wanted == self._most)
            except BudgetTooSmall as error:
                if error.smallest > self._most and not self._force:
                    leave = "rate and window leave" if self._most == self._keeper.most else "--max-bytes leaves"
                    raise BudgetTooSmall(
                        f"{self._most} bytes is the most that {leave} for a packet, the smallest one of this picture "
                        f"has {error.smallest} (level 0); raise that, or force a fit (--force-fit)",
                        smallest=error.smallest,
                    ) from None
                if wanted == self._most:
                    raise
                wanted = min(error.smallest, self._most)
            else:
                self._keeper.spend(len(encoded.packet))
                return encoded
        return None

    def _waited_for(self, n_bytes: int) -> bool:
        """Wait until that many bytes may be sent; returns whether they may."""
        while self._keeper.allowance() < n_bytes:
            if self._wait(max(self._keeper.wait_s(n_bytes), _SHORTEST_WAIT_S)):
                return False
        return True
