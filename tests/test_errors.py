"""The tree of refusals, and the words of other people's errors."""

from __future__ import annotations

import inspect

import pytest

from splitcodec import errors
from splitcodec.errors import SplitcodecError, one_line


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    drawn = {line.lstrip("|`- ").split()[0] for line in (errors.__doc__ or "").splitlines() if "-- " in line}
    there = {name for name, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__}
    assert drawn | {SplitcodecError.__name__} == there


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("no\n  room"), "no room"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (RuntimeError("x" * 300), "x" * 200),
    ],
)
def test_what_an_error_says_is_one_line(error: Exception, told: str) -> None:
    assert one_line(error) == told


def test_the_line_is_as_long_as_it_may_be() -> None:
    assert one_line(ValueError("a b c"), most=3) == "a b"
