"""Bytes around packet and answer: HTTP's counted between the real link and the real server, on loopback."""

from __future__ import annotations

import socket
import threading
from typing import final

from splitcodec.device.link import http
from splitcodec.edge.answer import Edge
from splitcodec.edge.listen import BackgroundServer
from splitcodec.edge.server import create_app, read_settings
from splitcodec.evaluation.latency import Datagrams, Overhead
from splitcodec.wire.brief import shorten
from splitcodec.wire.request import dump_request


def overhead(edge: Edge, packet: bytes, *, top: int) -> Overhead:
    """Return the bytes of the heads of a request and its response, as sent after the connection's first.

    Raises SettingsError where no server can be started, LinkError where it does not answer.
    """
    settings = read_settings({"requests_per_s": 0, "symbols_per_s": 0})
    with (
        BackgroundServer(create_app(edge, settings)) as server,
        _Counter(server.port) as counter,
        http(f"http://127.0.0.1:{counter.port}", retries=0, top=top) as link,
    ):
        link(packet)
        sent, got = counter.up, counter.down
        answer = link(packet)
        return Overhead(counter.up - sent - len(packet), counter.down - got - len(shorten(answer)))


def datagrams(packet: bytes, *, top: int) -> Datagrams:
    """Return what says over UDP, in front of a packet, how many guesses are wanted."""
    return Datagrams(len(dump_request(packet, top=top, brief=True)) - len(packet))


@final
class _Counter:
    """Carries one connection to a port of this machine and counts the bytes each way."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.up = self.down = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Counter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        near, _ = self._listener.accept()
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            back = threading.Thread(target=self._carry_back, args=(far, near), daemon=True)
            back.start()
            while data := near.recv(65536):
                self.up += len(data)
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
            back.join()

    def _carry_back(self, far: socket.socket, near: socket.socket) -> None:
        while data := far.recv(65536):
            self.down += len(data)
            near.sendall(data)
