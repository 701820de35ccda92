"""Beside stage 5 of 7: a link that measures itself while it carries packets.   around: link.py

The time of a trip is taken as a + b x bytes: b is the rate, a the round trip with the answer's way back. What the edge
says that it needed is set apart. A radio changes, so only the latest trips count. Where rate and round trip are known,
the edge's time and the answer's bytes still are what the trips have shown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, final

import numpy as np

from splitcodec.device.budget import Deadline
from splitcodec.errors import LinkGarbled, SettingsError
from splitcodec.wire.answer import parse_answer
from splitcodec.wire.brief import shorten

FASTEST: Final = 1e6
"""kbit/s; above that, trips of a few kilobytes tell nothing."""
EDGE_MS: Final = 50.0
"""What an edge is taken to need before the first answer says it: four times a server core (reports/latency.json)."""
ANSWER_BYTES: Final = 210
"""What an answer is taken to have before the first one comes: five guesses, shortened; a label map takes kilobytes."""
_SPREAD = 2.0  # of the largest packet over the smallest, below which sizes cannot tell rate from round trip


@final
class LinkMeter:
    """A link around another one; calling it sends a packet and remembers bytes and time. For one thread.

    `last` is how many trips count, `clock` gives seconds. Answers are taken to cross the link shortened, as http, mqtt
    and udp ask for them. Calling it raises what the inner link raises.
    """

    def __init__(
        self, link: Callable[[bytes], bytes], *, last: int = 16, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if last < 2:
            raise SettingsError(f"the last {last} trips; expected at least 2")
        self._link, self._clock = link, clock
        self.tasks: tuple[str, ...] | None = getattr(link, "tasks", None)
        self._trips: deque[tuple[int, float, float]] = deque(maxlen=last)  # bytes, ms on the way, ms at the edge
        self._answers: deque[int] = deque(maxlen=last)  # their bytes on the link

    def __call__(self, packet: bytes) -> bytes:
        """Send one packet and return the body of the answer."""
        begin = self._clock()
        body = self._link(packet)
        spent_ms = 1000 * (self._clock() - begin)
        edge_ms = min(_edge_ms(body), spent_ms)
        self._trips.append((len(packet), spent_ms - edge_ms, edge_ms))
        self._answers.append(len(shorten(body)))
        return body

    @property
    def measured(self) -> bool:
        """Say whether any packet has been sent."""
        return bool(self._trips)

    def forget(self, trips: int) -> None:
        """Forget the oldest trips: the first one also opens a connection."""
        for _ in range(min(trips, len(self._trips))):
            self._trips.popleft()
            self._answers.popleft()

    def deadline(self, ms: float) -> Deadline:
        """Return a deadline of `ms` milliseconds over the link as it is now.

        While packets of one size alone were sent, all of the time is put down to their bytes, which promises too little
        rather than too much. Raises SettingsError before the first packet.
        """
        if not self._trips:
            raise SettingsError("no packet has been sent yet, so the link's rate is not known; send one, or say kbit/s")
        size_n, way_n, edge_n = np.array(self._trips, dtype=np.float64).T
        if size_n.max() >= _SPREAD * size_n.min():
            slope = float(np.polyfit(size_n, way_n, 1)[0])
            slope = max(min(slope, float((way_n / size_n).max())), 8 / FASTEST)
            rtt_ms = max(0.0, float((way_n - slope * size_n).mean()))
        else:
            slope, rtt_ms = max(float((way_n / size_n).mean()), 8 / FASTEST), 0.0
        return Deadline(ms, kbit_per_s=8 / slope, rtt_ms=rtt_ms, edge_ms=float(edge_n.mean()))

    def deadline_at(self, ms: float, *, kbit_per_s: float, rtt_ms: float, around: int = 0) -> Deadline:
        """Return a deadline of `ms` milliseconds over a link whose rate and round trip are known.

        The edge's time and the answer's bytes are the most of the latest trips, `EDGE_MS` and `ANSWER_BYTES` before the
        first; `around` is what the carrier adds to packet and answer (`links.around`). Raises SettingsError.
        """
        edge_ms = max((trip[2] for trip in self._trips), default=EDGE_MS)
        around += max(self._answers, default=ANSWER_BYTES)
        return Deadline(ms, kbit_per_s=kbit_per_s, rtt_ms=rtt_ms, edge_ms=edge_ms, around=around)


def _edge_ms(body: bytes) -> float:
    """Return the milliseconds that the edge says it needed for all stages, whatever the tasks.

    0 if this is no answer, which is for others to refuse.
    """
    try:
        ms = parse_answer(body)["ms"]
    except LinkGarbled:
        return 0.0
    return max(0.0, sum(ms.values()))
