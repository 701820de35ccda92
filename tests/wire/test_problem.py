"""Problem documents there and back, and which of them are the packet's fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec import errors
from splitcodec.errors import (
    AnswerTooLarge,
    LinkDown,
    LinkError,
    LinkGarbled,
    LinkRefused,
    PacketBundle,
    PacketChecksum,
    PacketError,
    PacketVersion,
    SplitcodecError,
    TaskError,
)
from splitcodec.wire.problem import Told, dump_problem, may_pass, parse_problem, told_by


def came(error: SplitcodecError, *, brief: bool = False) -> LinkError:
    return parse_problem(dump_problem(error, brief=brief), place="edge")


@pytest.mark.parametrize("brief", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(PacketBundle("another"), 400), (PacketVersion("a later one"), 400), (TaskError("no such task"), 404)],
)
def test_what_the_setup_is_to_blame_for_may_pass(error: SplitcodecError, status: int, brief: bool) -> None:
    refused = came(error, brief=brief)
    assert isinstance(refused, LinkRefused)
    assert (refused.status, refused.reason) == (status, type(error).__name__)
    assert may_pass(refused)
    behind_a_bridge = came(refused, brief=brief)
    assert isinstance(behind_a_bridge, LinkRefused)
    assert (behind_a_bridge.status, behind_a_bridge.reason) == (refused.status, refused.reason)
    assert may_pass(behind_a_bridge)


def test_a_request_that_was_no_http_any_more_is_not_the_packets_fault() -> None:
    """`watch` set its backlog aside for good where a proxy spoilt the heads of requests."""
    document = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "Invalid HTTP request"}
    refused = parse_problem(json.dumps(document).encode(), place="edge")
    assert isinstance(refused, LinkRefused)
    assert refused.status == 400
    assert may_pass(refused)
    assert may_pass(came(refused))  # behind a bridge


@pytest.mark.parametrize("kind", [one for one in vars(errors).values() if isinstance(one, type)])
def test_every_other_refusal_of_a_packet_is_for_good(kind: type[SplitcodecError]) -> None:
    if issubclass(kind, PacketError) and kind not in (PacketBundle, PacketVersion):
        assert not may_pass(came(kind("broken")))
        assert not may_pass(came(came(kind("broken"))))


@pytest.mark.parametrize("brief", [False, True])
def test_an_answer_that_is_too_large_once_is_so_each_time(brief: bool) -> None:
    refused = came(AnswerTooLarge("ask for less"), brief=brief)
    assert isinstance(refused, LinkRefused)
    assert (refused.status, refused.reason) == (422, "AnswerTooLarge")
    assert "AnswerTooLarge" in str(refused) if brief else "ask for less" in str(refused)
    assert not may_pass(refused)


@pytest.mark.parametrize(("status", "passes"), [(400, False), (404, False), (413, False), (422, False), (429, True)])
def test_without_a_name_the_status_decides(status: int, passes: bool) -> None:
    refused = parse_problem(json.dumps({"status": status, "detail": "no"}).encode(), place="edge")
    assert isinstance(refused, LinkRefused)
    assert refused.reason == ""
    assert may_pass(refused) is passes


def test_a_path_that_no_edge_has_is_not_the_packets_fault() -> None:
    for status, title in ((404, "Not Found"), (405, "Method Not Allowed")):
        assert may_pass(parse_problem(json.dumps({"title": title, "status": status}).encode(), place="edge"))


def test_trouble_of_the_link_may_pass() -> None:
    assert all(
        may_pass(one) for one in (LinkDown("away"), LinkGarbled("a portal"), LinkRefused("?"), came(LinkDown("")))
    )


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"status": 400, "title": "A", "detail": "b\n c"}, Told(400, "b c", "A")),
        ({"status": 400, "title": "A"}, Told(400, "A", "A")),
        ({"status": 400, "title": 7, "detail": ["x"]}, Told(400)),
        ({"status": True, "detail": "x" * 600}, Told(None, "x" * 500)),
        ({"status": 200, "title": "y" * 600}, Told(None, "y" * 100, "y" * 100)),
        ([400], Told()),
    ],
)
def test_what_a_document_says(document: Any, told: Told) -> None:
    assert told_by(json.dumps(document).encode()) == told


@given(st.binary(max_size=60))
def test_no_bytes_raise(data: bytes) -> None:
    assert isinstance(parse_problem(data, place="edge"), LinkError)


def test_a_packet_that_is_damaged_is_told_by_name() -> None:
    assert str(came(PacketChecksum("damaged"), brief=True)) == "edge refused the packet (400): PacketChecksum"
