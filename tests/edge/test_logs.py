from __future__ import annotations

import json
import logging
import sys

import pytest

from splitcodec.edge.logs import REQUEST_ID, JsonLines, Rarely, TextLines, facts, request_id


def record(message: str, **values: object) -> logging.LogRecord:
    made = logging.LogRecord("splitcodec.edge", logging.INFO, __file__, 1, message, None, None)
    made.__dict__.update(facts(**values))
    return made


def test_json_lines_hold_the_facts_and_the_request_id() -> None:
    mark = REQUEST_ID.set("abc")
    line = json.loads(JsonLines().format(record('GET /"\n', status=200, ms=1.5, refusal=None)))
    REQUEST_ID.reset(mark)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "splitcodec.edge",
        "message": 'GET /"\n',
        "request_id": "abc",
        "status": 200,
        "ms": 1.5,
        "refusal": None,
    }


def test_nothing_of_a_client_breaks_a_line() -> None:
    evil = "GET /\r\n2026 INFO forged\x1b[2J\u2028"
    for formatter in (JsonLines(), TextLines()):
        text = formatter.format(record(evil, client="\n"))
        assert len(text.splitlines()) == 1
        assert "\x1b" not in text


def test_a_client_as_a_proxy_tells_it_adds_no_facts() -> None:
    line = TextLines().format(record("GET /", client="10.0.0.5 status=200", status=401))
    assert line.endswith('GET / client="10.0.0.5 status=200" status=401')


def test_what_asyncio_repeats_is_said_once_in_a_while() -> None:
    now = [0.0]
    rarely = Rarely(every_s=10, clock=lambda: now[0])
    said = []
    for now[0] in (0.0, 0.0, 5.0, 10.0):
        accept = logging.LogRecord(
            "asyncio", logging.ERROR, __file__, 1, "socket.accept() out of system resource", None, None
        )
        accept.exc_info = (OSError, OSError(24, "Too many open files"), None)
        other = record("another % thing")
        assert rarely.filter(other)
        if rarely.filter(accept):
            said.append(TextLines().format(accept).partition(" ERROR ")[2])
    assert len(said) == 2
    assert said[0].startswith("no more connections can be taken (Too many open files); ")
    assert "\n" not in said[0]


def test_tracebacks_are_in_both() -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    assert "RuntimeError: boom" in json.loads(JsonLines().format(made))["traceback"]
    assert "RuntimeError: boom" in TextLines().format(made)


@pytest.mark.parametrize("came", ["a", "A-b_c.9", "x" * 64])
def test_a_clients_own_id_is_kept(came: str) -> None:
    assert request_id(came) == came


@pytest.mark.parametrize("came", [None, "", "x" * 65, "a b", "a\n", "ä", '"'])
def test_other_ids_are_replaced(came: str | None) -> None:
    made = request_id(came)
    assert len(made) == 32
    assert made != request_id(came)
