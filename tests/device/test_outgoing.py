"""A request's head and body leave in one write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, final

import httpcore
import pytest

from splitcodec.device.link import http
from splitcodec.errors import LinkDown


@final
class Handler(BaseHTTPRequestHandler):
    """Returns what was posted."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # its own head and body in one write

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response_only(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that fills with what is written to sockets."""
    found = list[bytes]()
    connect = httpcore.SyncBackend.connect_tcp

    def watched(self: httpcore.SyncBackend, *args: Any, **options: Any) -> httpcore.NetworkStream:
        stream = connect(self, *args, **options)
        write = stream.write

        def noted(buffer: bytes, timeout: float | None = None) -> None:
            if buffer:
                found.append(buffer)
            write(buffer, timeout)

        monkeypatch.setattr(stream, "write", noted)
        return stream

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", watched)
    return found


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_head_and_body_are_one_write(url: str, writes: list[bytes]) -> None:
    packets = [b"SPC packet", bytes(5000), b"POST / HTTP/1.1\r\n\r\n", b""]
    with http(url) as link:
        assert [link(packet) for packet in packets] == packets
    assert len(writes) == len(packets)
    for written, packet in zip(writes, packets, strict=True):
        head, _, body = written.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/answer?brief=1 HTTP/1.1\r\n")
        assert body == packet


def test_beside_a_proxy_for_the_world_outside_too(
    url: str, writes: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with http(url) as link:
        link(b"packet")
    assert len(writes) == 1


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_is_still_asked(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, url)
    with http("http://far-away.example") as link:
        assert link(b"packet") == b"packet"


def test_threads_share_a_link(url: str, writes: list[bytes]) -> None:
    answers = dict[int, bytes]()
    with http(url) as link:

        def ask(number: int) -> None:
            answers[number] = link(b"%d" % number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: b"%d" % number for number in range(20)}
    assert sorted(one.rpartition(b"\r\n")[2] for one in writes) == sorted(answers.values())


def test_errors_are_the_link_s_own(writes: list[bytes]) -> None:
    with http("http://127.0.0.1:9", retries=0) as link, pytest.raises(LinkDown, match=r"refused|Errno"):
        link(b"packet")
    assert writes == []
