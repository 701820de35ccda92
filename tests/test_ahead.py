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
    begun, held = list[int](), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            held.wait(10)
        return number

    made = ahead(work, range(1000), threads=2)
    assert isinstance(made, Generator)
    assert next(made) == 0
    closing = threading.Thread(target=made.close)
    threading.Timer(0.2, held.set).start()
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert set(begun) <= {0, 1, 2, 3}


def test_what_work_raises_is_raised_in_its_place() -> None:
    made = ahead(lambda n: 1 // n, [2, 1, 0, 5], threads=2)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)
