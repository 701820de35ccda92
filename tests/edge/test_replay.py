from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from splitcodec.edge.replay import Replays
from splitcodec.errors import EdgeBusy, IdempotencyKey, IdempotencyMismatch


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Computes a new answer each time; `gate` holds it up, `error` makes it fail."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self) -> bytes:
        self.count += 1
        number = self.count
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return b"answer %d" % number


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def kept(**options: Any) -> Replays:
    return Replays(**{"answers": 100, "max_bytes": 1 << 20, "keep_s": 60, **options})


def test_the_first_answer_is_given_again() -> None:
    async def main() -> None:
        replays, work = kept(), Work()
        assert await replays.once("s", "k", b"d", work) == (b"answer 1", False)
        assert await replays.once("s", "k", b"d", work) == (b"answer 1", True)
        assert await replays.once("s", "other", b"d", work) == (b"answer 2", False)
        assert await replays.once("another", "k", b"d", work) == (b"answer 3", False)

    run(main)


def test_another_packet_under_the_same_key_is_refused_also_while_the_first_is_computed() -> None:
    async def main() -> None:
        replays, work = kept(), Work()
        work.gate.clear()
        first = asyncio.ensure_future(replays.once("s", "k", b"d", work))
        await asyncio.sleep(0)
        with pytest.raises(IdempotencyMismatch, match="another packet"):
            await replays.once("s", "k", b"e", work)
        work.gate.set()
        await first
        with pytest.raises(IdempotencyMismatch):
            await replays.once("s", "k", b"e", work)
        assert work.count == 1

    run(main)


def test_doubles_at_the_same_time_wait_for_the_first() -> None:
    async def main() -> None:
        replays, work = kept(answers=0), Work()
        work.gate.clear()
        asked = [asyncio.ensure_future(replays.once("s", "k", b"d", work)) for _ in range(5)]
        await asyncio.sleep(0.01)
        work.gate.set()
        assert sorted(await asyncio.gather(*asked)) == [(b"answer 1", False), *[(b"answer 1", True)] * 4]
        assert work.count == 1
        assert len(replays) == 0

    run(main)


def test_failures_are_not_kept_and_the_next_in_line_tries() -> None:
    async def main() -> None:
        replays, work = kept(), Work()
        work.gate.clear()
        work.error = EdgeBusy("full")
        asked = [asyncio.ensure_future(replays.once("s", "k", b"d", work)) for _ in range(3)]
        await asyncio.sleep(0.01)
        work.gate.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EdgeBusy] * 3
        assert work.count == 3
        work.error = None
        assert await replays.once("s", "k", b"another", work) == (b"answer 4", False)

    run(main)


def test_who_is_cancelled_leaves_the_place_to_the_next() -> None:
    async def main() -> None:
        replays, work = kept(), Work()
        work.gate.clear()
        asked = [asyncio.ensure_future(replays.once("s", "k", b"d", work)) for _ in range(2)]
        await asyncio.sleep(0.01)
        asked[0].cancel()
        await asyncio.sleep(0.01)
        work.gate.set()
        assert await asked[1] == (b"answer 2", False)

    run(main)


def test_answers_are_kept_for_a_while_and_only_so_many() -> None:
    async def main() -> None:
        clock, work = Clock(), Work()
        replays = kept(answers=3, clock=clock)
        for n in range(5):
            clock.now = float(n)
            await replays.once("s", f"k{n}", b"d", work)
        assert len(replays) == 3
        assert await replays.once("s", "k4", b"d", work) == (b"answer 5", True)
        assert await replays.once("s", "k0", b"d", work) == (b"answer 6", False)
        clock.now = 63.5
        assert await replays.once("s", "k3", b"d", work) == (b"answer 7", False)
        assert await replays.once("s", "k4", b"d", work) == (b"answer 5", True)
        small = kept(max_bytes=700)
        for n in range(5):
            await small.once("s", f"k{n}", b"d", work)
        assert len(small) == 2

    run(main)


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "ä", "a/b", "a\n"])
def test_malformed_keys_are_refused(key: str) -> None:
    async def main() -> None:
        with pytest.raises(IdempotencyKey, match="1 to 128"):
            await kept().once("s", key, b"d", Work())

    run(main)
