"""Problem documents of the server: their status is that of every other carrier."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi")

from splitcodec import errors
from splitcodec.edge.problems import refusal
from splitcodec.errors import EdgeRefusal, LinkError, SplitcodecError
from splitcodec.wire.problem import dump_problem

KINDS = sorted(
    (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, SplitcodecError)),
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("kind", [one for one in KINDS if not issubclass(one, EdgeRefusal | LinkError)])
def test_a_refusal_has_the_status_that_a_bridge_gives_it(kind: type[SplitcodecError]) -> None:
    assert refusal(kind("so it is")).status_code == json.loads(dump_problem(kind("so it is")))["status"]


@pytest.mark.parametrize("kind", [one for one in KINDS if issubclass(one, EdgeRefusal) and one is not EdgeRefusal])
def test_what_is_refused_for_the_servers_own_sake_is_no_failure(kind: type[EdgeRefusal]) -> None:
    assert 400 <= refusal(kind("come again", retry_after_s=3)).status_code < 600
    assert refusal(kind("come again")).status_code != 500
