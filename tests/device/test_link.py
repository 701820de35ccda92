from __future__ import annotations

import gc
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from splitcodec.device.link import LONGEST_WAIT_S, airtime_ms, http, page, slow
from splitcodec.errors import LinkDown, LinkGarbled, LinkRefused, SettingsError
from splitcodec.wire.answer import MAX_BYTES
from splitcodec.wire.brief import MEDIA_TYPE, shorten

Reply = tuple[int, dict[str, str], bytes]


class Edge(ThreadingHTTPServer):
    """A real server on loopback that gives the next of its replies; the last one for ever."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Reply] = [(200, {}, b"{}")]
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.before_reply: Callable[[], object] = bool
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Edge

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, headers, reply = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        self.server.before_reply()
        self.send_response(status)
        for name, value in {"content-length": str(len(reply)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def edge() -> Iterator[Edge]:
    with Edge() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def no_sleep(_: float) -> None: ...


def dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def problem(status: int, detail: object) -> Reply:
    return status, {"content-type": "application/problem+json"}, json.dumps({"detail": detail}).encode()


def test_sends_the_packet_as_it_is_and_returns_the_body(edge: Edge) -> None:
    packet = bytes(range(256))
    with http(edge.url + "/", tasks=("classify", "detect"), token="s3cret") as link:
        assert link(packet) == b"{}"
    path, headers, body = edge.seen[0]
    assert path == "/v1/answer?tasks=classify%2Cdetect&brief=1"
    assert body == packet
    assert headers["authorization"] == "Bearer s3cret"
    assert headers.keys() == {"host", "user-agent", "authorization", "content-length"}  # others say nothing, and cost


def test_a_number_of_guesses_is_asked_for(edge: Edge) -> None:
    with http(edge.url, top=1) as link:
        link(b"packet")
    assert edge.seen[0][0] == "/v1/answer?top=1&brief=1"


@pytest.mark.parametrize("top", [0, -1, 1001])
def test_a_number_of_guesses_that_no_edge_gives(top: int) -> None:
    with pytest.raises(SettingsError, match="expected 1 to 1000 guesses"):
        http("http://127.0.0.1:9", top=top)


def test_a_least_score_of_boxes_is_asked_for(edge: Edge) -> None:
    with http(edge.url, tasks=["detect"], top=1, score=0.3) as link:
        link(b"packet")
    assert edge.seen[0][0] == "/v1/answer?tasks=detect&top=1&score=0.3&brief=1"


@pytest.mark.parametrize("score", [-0.1, 1.01, float("nan")])
def test_a_least_score_that_no_box_has(score: float) -> None:
    with pytest.raises(SettingsError, match="expected a least score of boxes from 0 to 1"):
        http("http://127.0.0.1:9", score=score)


def test_no_tasks_no_token(edge: Edge) -> None:
    with http(edge.url, brief=False) as link:
        link(b"x")
    assert edge.seen[0][0] == "/v1/answer"
    assert "authorization" not in edge.seen[0][1]


def test_a_shortened_answer_is_restored(edge: Edge) -> None:
    answer = b'{"bundle":"tiny@1","level":0,"answers":{},"ms":{}}'
    edge.replies = [
        (200, {"content-type": MEDIA_TYPE}, shorten(answer)),
        (200, {"content-type": "application/json"}, answer),  # an edge of an earlier version
        (200, {"content-type": MEDIA_TYPE}, answer),
    ]
    with http(edge.url) as link:
        assert link(b"x") == link(b"x") == answer
        with pytest.raises(LinkGarbled, match="shortened answer"):
            link(b"x")


def test_an_answer_that_a_proxy_coded_is_refused(edge: Edge) -> None:
    edge.replies = [(200, {"content-encoding": "identity"}, b"{}"), (200, {"content-encoding": "gzip"}, b"\x1f\x8b")]
    with http(edge.url) as link:
        assert link(b"x") == b"{}"
        with pytest.raises(LinkGarbled, match="'gzip', which nobody asked for"):
            link(b"x")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_flaky_edge_is_asked_again(edge: Edge, status: int) -> None:
    edge.replies = [(status, {}, b""), (status, {}, b""), (200, {}, b"answer")]
    waits: list[float] = []
    with http(edge.url, retries=2, sleep=waits.append) as link:
        assert link(b"x") == b"answer"
    assert 0.2 <= waits[0] <= 0.4 <= waits[1] <= 0.8


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
def test_cookies_are_not_kept(edge: Edge, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Those of a captive portal went to the edge with every packet; large ones made it refuse them all for good."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    edge.replies = [(503, {"set-cookie": f"portal={'x' * 4000}; Path=/"}, b""), (200, {}, b"{}")]
    with http(edge.url, retries=1, sleep=no_sleep) as link:
        for _ in range(2):
            link(b"x")
    look = page(edge.url)
    edge.replies = [(200, {"set-cookie": "a=b"}, b"")]
    for _ in range(2):
        look()
    assert len(edge.seen) == 5
    assert not any("cookie" in headers for _, headers, _ in edge.seen)


def test_an_idempotency_key_goes_with_every_try(edge: Edge) -> None:
    edge.replies = [(429, {"retry-after": "1"}, b""), (200, {}, b"answer")]
    with http(edge.url, sleep=no_sleep) as link:
        assert link(b"x", idempotency_key="A-b_9") == b"answer"
        assert [headers["idempotency-key"] for _, headers, _ in edge.seen] == ["A-b_9"] * 2
        link(b"x")
        assert "idempotency-key" not in edge.seen[-1][1]
        for bad in ("", "x" * 129, "a b", "a\n"):
            with pytest.raises(SettingsError, match="1 to 128"):
                link(b"x", idempotency_key=bad)


def test_retry_after_is_honoured_within_reason(edge: Edge) -> None:
    edge.replies = [
        (503, {"retry-after": "3"}, b""),
        (503, {"retry-after": "9" * 400}, b""),
        (503, {"retry-after": "Wed, 21 Oct 2037 07:28:00 GMT"}, b""),
        (200, {}, b""),
    ]
    waits: list[float] = []
    with http(edge.url, retries=3, sleep=waits.append) as link:
        link(b"x")
    assert waits[:2] == [3.0, LONGEST_WAIT_S]
    assert waits[2] < LONGEST_WAIT_S


def test_waits_between_many_tries_stay_short() -> None:
    """They doubled without end: hours before the 18th try, and beyond 1,024 no number holds them."""
    waits: list[float] = []
    with http("http://127.0.0.1:9", retries=1100, sleep=waits.append) as link, pytest.raises(LinkDown, match="1101"):
        link(b"x")
    assert len(waits) == 1100
    assert 0.2 <= waits[0] < 0.4
    assert max(waits) <= LONGEST_WAIT_S


def test_retries_used_up_is_link_down_with_the_reason(edge: Edge) -> None:
    edge.replies = [problem(503, "overloaded")]
    with (
        http(edge.url, retries=1, sleep=no_sleep) as link,
        pytest.raises(LinkDown, match=r"2 tries \(status 503, overl"),
    ):
        link(b"x")
    assert len(edge.seen) == 2


def test_dead_port_is_link_down_with_url_and_remedy() -> None:
    url = dead_url()
    waits: list[float] = []
    with http(url, retries=2, sleep=waits.append) as link, pytest.raises(LinkDown, match="splitcodec serve") as caught:
        link(b"x")
    assert url in str(caught.value)
    assert len(waits) == 2


def test_hanging_edge_is_link_down_after_the_time_out(edge: Edge) -> None:
    over = threading.Event()
    edge.before_reply = lambda: over.wait(60)
    begin = time.monotonic()
    with http(edge.url, timeout_s=0.1, retries=1, sleep=no_sleep) as link:
        with pytest.raises(LinkDown, match=r"within 0\.1 s"):
            link(b"x")
        assert time.monotonic() - begin < 20
        over.set()


def test_dripping_edge_is_link_down(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.replies = [(200, {"content-length": "1000"}, b"")]
    stop = threading.Event()

    def drip(handler: Handler) -> None:
        handler.server.seen.append(("", {}, b""))
        handler.send_response(200)
        handler.send_header("content-length", "100000")
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b" ")

    monkeypatch.setattr(Handler, "do_POST", drip)
    with http(edge.url, timeout_s=0.1, retries=0) as link:
        with pytest.raises(LinkDown, match="1 try"):
            link(b"x")
        stop.set()


def test_a_lost_connection_is_tried_again(edge: Edge) -> None:
    edge.replies = [(200, {"content-length": "50"}, b"cut"), (200, {}, b"whole")]
    with http(edge.url, retries=1, sleep=no_sleep) as link:
        assert link(b"x") == b"whole"


@pytest.mark.parametrize("status", [400, 404, 413, 500])
def test_problem_documents_are_refusals_and_not_tried_again(edge: Edge, status: int) -> None:
    edge.replies = [problem(status, "level 9,\nexpected 0 to 5")]
    with http(edge.url) as link, pytest.raises(LinkRefused, match=f"{status}.: level 9, expected 0 to 5") as caught:
        link(b"x")
    assert len(edge.seen) == 1
    assert (caught.value.status, caught.value.reason) == (status, "")


def test_a_refusal_bears_the_name_that_the_edge_gives_it(edge: Edge) -> None:
    document = {"type": "urn:splitcodec:TaskError", "title": "TaskError", "status": 404, "detail": "no such task"}
    edge.replies = [(404, {"content-type": "application/problem+json"}, json.dumps(document).encode())]
    with http(edge.url) as link, pytest.raises(LinkRefused, match="no such task") as caught:
        link(b"x")
    assert caught.value.reason == "TaskError"
    assert "path" not in str(caught.value)


@pytest.mark.parametrize("status", [404, 405])
def test_a_wrong_path_is_told_as_one(edge: Edge, status: int) -> None:
    """It said "Not Found" and nothing else."""
    edge.replies = [problem(status, "Not Found")]
    for ask in (lambda: http(edge.url + "/v1")(b"x"), page(edge.url + "/metrics/metrics")):
        with pytest.raises(LinkRefused, match="check the path in the address"):
            ask()


def test_an_edge_without_tls_is_told_as_one(edge: Edge) -> None:
    with http(edge.url.replace("http:", "https:"), retries=0) as link, pytest.raises(LinkDown, match="try http://"):
        link(b"x")


@pytest.mark.parametrize(
    "reply",
    [
        (404, {"content-type": "text/html"}, b"<html>"),
        (500, {"content-type": "application/problem+json"}, b"not json"),
        (500, {"content-type": "application/problem+json"}, b"[" * 100_000),
        (400, {"content-type": "application/problem+json"}, b"[]"),
        problem(400, 7),
        (307, {"location": "http://elsewhere.example"}, b""),
        (200, {}, b" " * (MAX_BYTES + 1)),
    ],
)
def test_garbage_is_link_garbled(edge: Edge, reply: Reply) -> None:
    edge.replies = [reply]
    with http(edge.url) as link, pytest.raises(LinkGarbled, match=r"address|edge"):
        link(b"x")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "ftp://a",
        "http://",
        "http://a/?q=1",
        "http://a:port",
        "http://a:73616",
        "http://\0",
        "http://a..b",
        f"http://{'x' * 70}",
    ],
)
def test_urls_that_are_none_are_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="http://host:8080"):
        http(url)


def test_options_that_make_no_sense_are_refused_at_once() -> None:
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="time-out"):
            http("http://a", timeout_s=bad)
        with pytest.raises(SettingsError, match="rate"):
            slow(bytes, kbit_per_s=bad, rtt_ms=1)
    with pytest.raises(SettingsError, match="retries"):
        http("http://a", retries=-1)
    with pytest.raises(SettingsError, match="token"):
        http("http://a", token="a\nb")
    with pytest.raises(SettingsError, match="round trip"):
        airtime_ms(1, kbit_per_s=1, rtt_ms=-1)


def test_slow_waits_for_bytes_both_ways_and_the_round_trip() -> None:
    waits: list[float] = []
    link = slow(lambda packet: packet * 3, kbit_per_s=37.5, rtt_ms=40, sleep=waits.append)
    assert link(b"x" * 750) == b"x" * 2250
    assert waits == pytest.approx([0.160 + 0.020, 0.480 + 0.020])


def test_airtime_arithmetic() -> None:
    assert airtime_ms(750, kbit_per_s=37.5, rtt_ms=0) == pytest.approx(160)
    assert airtime_ms(0, kbit_per_s=1, rtt_ms=25) == 25


def test_proxies_of_the_environment_are_not_for_loopback(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", dead_url())
    monkeypatch.delenv("NO_PROXY", raising=False)
    with http(edge.url, retries=0) as link:
        assert link(b"x") == b"{}"


def test_a_link_that_was_closed_opens_another_connection(edge: Edge) -> None:
    """As over UDP and MQTT; it was a RuntimeError of httpx."""
    link = http(edge.url, retries=0)
    for _ in range(2):
        assert link(b"packet") == b"{}"
        link.close()
        link.close()


def test_a_link_that_is_dropped_closes_its_connection(edge: Edge) -> None:
    http(edge.url)(b"x")
    gc.collect()  # an open socket would be a ResourceWarning, and so an error


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_process_that_forks_off_asks_over_a_connection_of_its_own() -> None:
    """Two processes in one connection read each other's answers, and nothing tells them apart."""
    script = (
        "import os, sys; from splitcodec.device.link import http\n"
        "link = http(sys.argv[1]); link(b'before')\n"
        "if (child := os.fork()) == 0:\n    link(b'child'); link(b'child'); link.close(); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0; link(b'after'); link.close()"
    )
    ports: dict[bytes, set[int]] = {}

    class Keeping(Handler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            super().do_POST()
            ports.setdefault(self.server.seen[-1][2], set()).add(self.client_address[1])

    with Edge() as edge:
        edge.RequestHandlerClass = Keeping
        thread = threading.Thread(target=edge.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            subprocess.run([sys.executable, "-W", "ignore", "-c", script, edge.url], check=True, timeout=60)
        finally:
            edge.shutdown()
            thread.join()
    assert len(ports[b"before"]) == len(ports[b"child"]) == 1
    assert ports[b"before"] == ports[b"after"] != ports[b"child"]


def test_a_host_that_cannot_be_resolved_is_link_down() -> None:
    with http("http://no-such-host.invalid", retries=0) as link, pytest.raises(LinkDown, match="no-such-host"):
        link(b"x")


def test_a_page_is_got_anew_each_time(edge: Edge) -> None:
    edge.replies = [(200, {}, b"one"), (200, {}, b"two"), (401, {}, b""), (503, {}, b"")]
    get = page(edge.url + "/metrics", token="s3cret")
    assert (get(), get()) == ("one", "two")
    assert [(path, headers["authorization"]) for path, headers, _ in edge.seen] == [("/metrics", "Bearer s3cret")] * 2
    with pytest.raises(LinkRefused, match="answered 401; give --token-file") as refusal:
        get()
    assert refusal.value.status == 401
    with pytest.raises(LinkRefused, match=r"answered 503$"):
        get()


def test_a_page_has_an_end(edge: Edge) -> None:
    """`splitcodec top` took whatever came into memory, also what a small body unpacks to."""
    edge.replies = [(200, {}, bytes(MAX_BYTES)), (200, {}, bytes(MAX_BYTES + 1))]
    get = page(edge.url)
    assert len(get()) == MAX_BYTES
    with pytest.raises(LinkGarbled, match="more than 1048576 bytes; is this an edge"):
        get()
    edge.replies = [(200, {"content-encoding": "gzip"}, packed := gzip.compress(bytes(10 * MAX_BYTES)))]
    assert len(get()) <= len(packed)
    assert edge.seen[-1][1]["accept-encoding"] == "identity"


def test_a_page_that_nobody_serves_is_link_down() -> None:
    with pytest.raises(LinkDown, match="check the address"):
        page(dead_url())()
    for url, token in (("ftp://a", None), ("http://", None), ("http://a", "not\nprintable")):
        with pytest.raises(SettingsError):
            page(url, token=token)
