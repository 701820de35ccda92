"""Work of threads: in order, no more of it begun than is told, none left behind."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from splitcodec.ahead import ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_made_comes_in_order(threads: int) -> None:
    assert list(ahead(lambda n: n * n, range(20), threads=threads)) == [n * n for n in range(20)]
    assert list(ahead(str, [], threads=threads)) == []


def test_no_more_is_begun_than_two_a_thread_and_the_rest_is_dropped() -> None:
    begun, held, items = list[int](), threading.Event(), iter(range(1000))

    def work(number: int) -> int:
        begun.append(number)
        if number:
            held.wait(10)
        return number

    made = ahead(work, items, threads=2)
    assert isinstance(made, Generator)
    assert next(made) == 0
    assert next(items) == 4
    closing = threading.Thread(target=made.close)
    closing.start()
    threading.Timer(1.0, held.set).start()
    closing.join(10)
    assert not closing.is_alive()
    assert set(begun) == {0, 1, 2}  # of the four that were told, one a thread: the last was dropped


def test_what_work_raises_is_raised_in_its_place() -> None:
    made = ahead(lambda n: 1 // n, [2, 1, 0, 5], threads=2)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)
