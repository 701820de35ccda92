from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from splitcodec.edge.batch import Batcher
from splitcodec.errors import EdgeBusy, EdgeUnready, SettingsError


class Model:
    """Answers twice the question; each batch waits until it is let go (or at once if `open`)."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Semaphore(1000 if is_open else 0)

    def __call__(self, questions: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(questions))
        assert self.gate.acquire(timeout=10)
        return [ValueError(f"no {q}") if q < 0 else 2 * q for q in questions]


def batcher(model: Callable[[Sequence[int]], Sequence[int | Exception]], **options: Any) -> Batcher[int, int]:
    return Batcher(model, kind=options.pop("kind", lambda q: 0), **{"workers": 1, **options})


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


async def started(model: Model, count: int) -> None:
    while len(model.batches) < count:
        await asyncio.sleep(0.001)


def test_a_lone_question_goes_at_once_and_alone() -> None:
    async def main() -> None:
        model = Model(is_open=True)
        told: list[tuple[int, bool]] = []
        one = batcher(model, max_wait_ms=10_000, on_batch=lambda size, waited: told.append((size, waited < 1)))
        assert await one.answer(3) == 6
        assert await one.answer(4) == 8
        assert model.batches == [[3], [4]]
        assert told == [(1, True), (1, True)]
        await one.close()

    run(main)


def test_what_gathers_while_the_model_runs_is_one_batch() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, max_batch=4)
        asked = [asyncio.ensure_future(one.answer(0))]
        await started(model, 1)
        asked += [asyncio.ensure_future(one.answer(n)) for n in range(1, 8)]
        await asyncio.sleep(0)
        assert one.depth == 7
        assert one.running == 1
        model.gate.release(3)
        assert await asyncio.gather(*asked) == [2 * n for n in range(8)]
        assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
        await one.close()

    run(main)


def test_kinds_do_not_mix_and_the_longest_wait_goes_first() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, kind=lambda q: q % 2)
        asked = [asyncio.ensure_future(one.answer(n)) for n in (0, 1, 2, 3, 5)]
        await started(model, 1)
        model.gate.release(3)
        await asyncio.gather(*asked)
        assert model.batches == [[0], [1, 3, 5], [2]]
        await one.close()

    run(main)


def test_heavy_questions_make_small_batches() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, max_batch=4, weight=float)
        asked = [asyncio.ensure_future(one.answer(n)) for n in (1, 2, 2, 1, 90, 1)]
        await started(model, 1)
        model.gate.release(9)
        await asyncio.gather(*asked)
        assert model.batches == [[1], [2, 2], [1], [90], [1]]
        await one.close()

    run(main)


def test_company_is_waited_for_only_while_others_work() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, workers=2, max_wait_ms=30)
        first = asyncio.ensure_future(one.answer(0))
        await started(model, 1)
        others = [asyncio.ensure_future(one.answer(n)) for n in (1, 2)]
        await asyncio.sleep(0.005)
        assert model.batches == [[0]]
        await started(model, 2)
        assert model.batches == [[0], [1, 2]]
        model.gate.release(2)
        await asyncio.gather(first, *others)
        await one.close()

    run(main)


def test_a_full_batch_does_not_wait_for_another_kinds_company() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, workers=2, max_batch=2, max_wait_ms=60_000, kind=lambda q: q % 2)
        asked = [asyncio.ensure_future(one.answer(0))]
        await started(model, 1)
        asked += [asyncio.ensure_future(one.answer(n)) for n in (2, 1)]  # each waits for company, 2 the longest
        await asyncio.sleep(0.005)
        assert model.batches == [[0]]
        asked.append(asyncio.ensure_future(one.answer(3)))
        await asyncio.wait_for(started(model, 2), 5)
        assert model.batches == [[0], [1, 3]]
        model.gate.release(9)
        assert list(await asyncio.wait_for(asyncio.gather(*asked), 5)) == [0, 4, 2, 6]
        assert model.batches[2:] == [[2]]
        await one.close()

    run(main)


def test_a_batch_that_is_full_by_weight_does_not_wait() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, workers=2, max_batch=8, max_wait_ms=60_000, weight=lambda _: 3.0)
        asked = [asyncio.ensure_future(one.answer(n)) for n in (0, 1)]
        await started(model, 1)
        await asyncio.sleep(0.005)
        assert model.batches == [[0]]
        asked.append(asyncio.ensure_future(one.answer(2)))  # no third of 3 fits into 8
        await asyncio.wait_for(started(model, 2), 5)
        assert model.batches == [[0], [1, 2]]
        model.gate.release(9)
        await asyncio.gather(*asked)
        await one.close()

    run(main)


def test_each_kind_waits_no_longer_than_it_may() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, workers=3, max_wait_ms=30, kind=lambda q: q % 3)
        asked = [asyncio.ensure_future(one.answer(n)) for n in (0, 1)]
        await started(model, 1)
        asked.append(asyncio.ensure_future(one.answer(2)))
        await asyncio.wait_for(started(model, 3), 5)
        assert model.batches == [[0], [1], [2]]
        model.gate.release(9)
        await asyncio.gather(*asked)
        await one.close()

    run(main)


def test_a_full_queue_is_refused_with_a_time_to_come_again() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, max_queue=2)
        asked = [asyncio.ensure_future(one.answer(n)) for n in range(3)]
        await started(model, 1)
        with pytest.raises(EdgeBusy, match="2 packets wait") as caught:
            await one.answer(9)
        assert caught.value.retry_after_s == 1
        model.gate.release(9)
        assert await asyncio.gather(*asked) == [0, 2, 4]
        assert await one.answer(9) == 18
        await one.close()

    run(main)


def test_heavy_questions_fill_the_queue_sooner() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, max_queue=10, weight=float)
        asked = [asyncio.ensure_future(one.answer(n)) for n in (99, 99)]
        await started(model, 1)
        with pytest.raises(EdgeBusy):
            await one.answer(1)
        model.gate.release(1)
        await started(model, 2)
        asked += [asyncio.ensure_future(one.answer(n)) for n in (7, 3)]
        await asyncio.sleep(0)
        with pytest.raises(EdgeBusy):
            await one.answer(1)
        model.gate.release(9)
        assert list(await asyncio.gather(*asked)) == [198, 198, 14, 6]
        assert await one.answer(99) == 198
        await one.close()

    run(main)


def test_refusals_and_failures_reach_their_askers_alone() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model)
        asked = [asyncio.ensure_future(one.answer(n)) for n in (0, 1, -2, 3)]
        await started(model, 1)
        model.gate.release(2)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert outcomes[:2] == [0, 2]
        assert isinstance(outcomes[2], ValueError)
        assert outcomes[3] == 6
        await one.close()

        def broken(_: Sequence[int]) -> list[int]:
            raise MemoryError("all gone")

        two = batcher(broken)
        with pytest.raises(RuntimeError, match="MemoryError: all gone"):
            await two.answer(1)
        await two.close()

    run(main)


def test_who_has_gone_is_not_computed_for() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model)
        asked = [asyncio.ensure_future(one.answer(n)) for n in range(4)]
        await started(model, 1)
        asked[0].cancel()
        asked[2].cancel()
        model.gate.release(9)
        assert list(await asyncio.gather(asked[1], asked[3])) == [2, 6]
        assert model.batches == [[0], [1, 3]]
        await one.close()

    run(main)


def test_closing_answers_those_that_wait_and_refuses_the_rest() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, max_batch=1)
        asked = [asyncio.ensure_future(one.answer(n)) for n in range(3)]
        await started(model, 1)
        model.gate.release(2)
        closing = asyncio.ensure_future(one.close(within_s=0.2))
        await asyncio.sleep(0)
        with pytest.raises(EdgeUnready):
            await one.answer(5)
        assert list(await asyncio.gather(*asked[:2])) == [0, 2]
        await closing
        model.gate.release(9)
        assert await asked[2] == 4  # with a worker already when the time was up

    run(main)


def test_closing_gives_up_on_what_never_gets_its_turn() -> None:
    async def main() -> None:
        model = Model()
        one = batcher(model, max_batch=1)
        asked = [asyncio.ensure_future(one.answer(n)) for n in range(2)]
        await started(model, 1)
        await one.close(within_s=0.02)
        with pytest.raises(EdgeUnready):
            await asked[1]
        model.gate.release(9)
        assert await asked[0] == 0

    run(main)


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"max_queue": 0}, {"workers": 0}, {"max_wait_ms": -1}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        batcher(Model(), **wrong)
