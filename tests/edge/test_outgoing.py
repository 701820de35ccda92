"""An answer's head and body leave in one write."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import httpx
import pytest

pytest.importorskip("fastapi")

from splitcodec import Edge
from splitcodec.edge.outgoing import OneWrite
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.wire.bundle import Bundle


class Sent(list[bytes]):
    """Stands for a transport."""

    closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.append(data)

    def close(self) -> None:
        self.closed = True


def test_what_one_turn_of_the_loop_writes_is_one_write() -> None:
    sent = Sent()

    async def talk() -> None:
        together = OneWrite(cast(asyncio.Transport, sent), asyncio.get_running_loop())
        together.write(b"head, ")
        together.write(b"body")
        together.write(b"")
        await asyncio.sleep(0)
        assert sent == [b"head, body"]
        together.write(b"")
        await asyncio.sleep(0)
        together.write(b"last")
        together.close()
        assert sent.closed
        await asyncio.sleep(0)

    asyncio.run(talk())
    assert sent == [b"head, body", b"last"]


def test_an_answer_of_the_server_is_one(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = list[bytes]()
    send = socket.socket.send

    def noted(self: socket.socket, data: Any, *flags: int) -> int:
        sent.append(bytes(data))
        return send(self, data, *flags)

    monkeypatch.setattr(socket.socket, "send", noted)
    with BackgroundServer(create_app(Edge(tiny, threads=1), read_settings({}))) as server:
        found = httpx.get(f"{server.url}/v1/bundle")
    answers = [one for one in sent if one.startswith(b"HTTP/1.1 ")]
    assert [one.partition(b"\r\n\r\n")[2] for one in answers] == [found.content]
