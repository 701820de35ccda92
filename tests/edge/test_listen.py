"""Sockets, time-outs, TLS and signals."""

from __future__ import annotations

import asyncio
import json
import logging
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from splitcodec import Device, Edge
from splitcodec.device.link import http, page
from splitcodec.edge import listen
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.errors import LinkDown, SettingsError
from splitcodec.wire.bundle import Bundle, derive, write_folder


@pytest.fixture(scope="module")
def packet(tiny: Bundle) -> bytes:
    return Device(tiny, threads=1).encode(Image.new("RGB", (90, 70), (200, 30, 30)))


@pytest.fixture(scope="module")
def impatient(tiny: Bundle) -> Iterator[BackgroundServer]:
    settings = read_settings({"head_timeout_s": 0.3, "body_timeout_s": 0.3, "keep_alive_s": 2})
    with BackgroundServer(create_app(Edge(tiny, threads=1), settings)) as running:
        yield running


def told(connection: socket.socket) -> bytes:
    """Read until the server hangs up."""
    connection.settimeout(60)
    data = b""
    while chunk := connection.recv(4096):
        data += chunk
    return data


def begin(server: BackgroundServer, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(data)
    return connection


def test_who_sends_no_head_is_cut_off(impatient: BackgroundServer) -> None:
    for data in (b"", b"POST /v1/ans", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "):
        since = time.monotonic()
        with begin(impatient, data) as connection:
            assert told(connection).startswith(b"HTTP/1.1 408 ")
        assert 0.2 < time.monotonic() - since < 10


def test_dripping_does_not_help(impatient: BackgroundServer) -> None:
    with begin(impatient, b"GET / HTTP/1.1\r\n") as connection:
        since, reply = time.monotonic(), b""
        connection.settimeout(0.02)
        while not reply and time.monotonic() - since < 10:
            try:
                connection.sendall(b"a: b\r\n")
                reply = connection.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - since < 9
    assert httpx.get(f"{impatient.url}/healthz", trust_env=False).status_code == 200


def test_who_sends_no_body_is_cut_off(impatient: BackgroundServer) -> None:
    head = b"POST /v1/answer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    with begin(impatient, head + b"some") as connection:
        reply = told(connection)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in reply


def test_a_connection_serves_many_requests_and_waits_between(impatient: BackgroundServer, packet: bytes) -> None:
    with httpx.Client(base_url=impatient.url, trust_env=False) as client:
        for _ in range(3):
            assert client.post("/v1/answer", content=packet).status_code == 200
            time.sleep(0.4)  # longer than a head may take, shorter than a connection is kept


def test_a_client_that_stops_sending_but_listens_is_no_trouble(impatient: BackgroundServer, packet: bytes) -> None:
    head = f"POST /v1/answer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(packet)}\r\n\r\n".encode()
    for data in (head + packet, head + packet[:5], head[:9]):
        with begin(impatient, data) as connection:
            connection.shutdown(socket.SHUT_WR)
            told(connection)
    assert httpx.get(f"{impatient.url}/healthz", trust_env=False).status_code == 200


@pytest.mark.parametrize("reads", [False, True])
def test_who_asks_and_never_reads_is_cut_off(tiny: Bundle, reads: bool) -> None:
    """1,000 of them took all connections for as long as they liked; who reads slowly gets all that was asked for."""
    server = BackgroundServer(create_app(Edge(tiny, threads=1), read_settings({"keep_alive_s": 1})))
    server._listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(20 * b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        held: Any = server._server.server_state.connections
        came, until = b"", time.monotonic() + 20
        while not any(one.flow and one.flow.write_paused for one in list(held)):
            time.sleep(0.01)
        while reads and came.count(b"splitcodec_info{") < 20 and time.monotonic() < until:
            time.sleep(0.02)
            came += connection.recv(4096)
        assert came.count(b"HTTP/1.1 200") == 20 * reads
        while held and time.monotonic() < until:
            time.sleep(0.05)
        assert not held


def test_too_many_open_files_are_told_in_one_line(tiny_folder: Path) -> None:
    """They were told 2,048 times a second, each time in 15 lines, not one of them JSON."""
    command = [sys.executable, "-m", "splitcodec.cli", "serve", "-b", tiny_folder, "--port", "0", "--log", "json"]
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *map(str, command)]
    with subprocess.Popen(limited, stderr=subprocess.PIPE, text=True) as process, ExitStack() as leaving:
        leaving.callback(process.kill)
        assert process.stderr is not None
        while " at http" not in (line := process.stderr.readline()):
            assert line
        url = json.loads(line)["message"].rsplit(" ", 1)[1]
        port = int(url.rsplit(":", 1)[1])
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        time.sleep(1.5)
        for one in held:
            one.close()
        time.sleep(1.5)  # until asyncio tries again
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        process.terminate()
        lines = process.stderr.read().splitlines()
    told = [json.loads(line) for line in lines]
    assert ["Too many open files" in one["message"] for one in told].count(True) == 1


def test_answers_do_not_wait_for_acknowledgements(tiny: Bundle, packet: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = listen._Connection.connection_made

    def made(self: listen._Connection, transport: asyncio.Transport) -> None:
        real(self, transport)
        seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(listen._Connection, "connection_made", made)
    with BackgroundServer(create_app(Edge(tiny, threads=1), read_settings())) as server:
        assert httpx.post(f"{server.url}/v1/answer", content=packet, trust_env=False).status_code == 200
    assert seen
    assert all(seen)


def test_connections_are_bounded(tiny: Bundle) -> None:
    settings = read_settings({"max_connections": 3})
    with BackgroundServer(create_app(Edge(tiny, threads=1), settings)) as server:
        held = [begin(server) for _ in range(3)]
        with begin(server) as one_more:
            reply = told(one_more)
        assert reply.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in reply
        for connection in held:
            connection.close()
        while httpx.get(f"{server.url}/healthz", trust_env=False).status_code != 200:
            time.sleep(0.01)


def test_connections_that_are_refused_are_counted_and_logged_with_their_client(
    tiny: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody saw that connections were turned away; what is no HTTP had no address."""
    caplog.set_level(logging.INFO)
    with BackgroundServer(create_app(Edge(tiny, threads=1), read_settings({"max_connections": 1}))) as server:
        with begin(server, b"no http\r\n\r\n") as connection:
            told(connection)
        with begin(server), begin(server) as one_more:
            told(one_more)
        upgrade = {"connection": "upgrade", "upgrade": "h2c"}
        while (found := httpx.get(f"{server.url}/metrics", headers=upgrade, trust_env=False)).status_code != 200:
            time.sleep(0.01)
    assert 'splitcodec_refusals_total{reason="http_400"} 1.0' in found.text
    assert 'splitcodec_refusals_total{reason="http_503"}' in found.text
    lines = [one for one in caplog.records if one.getMessage().startswith("no request: ")]
    assert [one.splitcodec["status"] for one in lines[:2]] == [400, 503]  # type: ignore[attr-defined]
    assert {one.splitcodec["client"] for one in lines} == {"127.0.0.1"}  # type: ignore[attr-defined]
    assert "uvicorn[standard]" not in caplog.text


def test_what_is_no_http_is_a_400_problem(impatient: BackgroundServer) -> None:
    with begin(impatient, b"\x16\x03\x01 not http\r\n\r\n") as connection:
        reply = told(connection)
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["status"] == 400
    with begin(impatient, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000) as connection:
        try:
            reply = told(connection)
        except ConnectionResetError:
            return
    assert reply.startswith(b"HTTP/1.1 400 ")


@contextmanager
def served(tiny_folder: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Run `splitcodec serve` and wait until it is ready; yields process, URL and the lines it logs."""
    command = [sys.executable, "-m", "splitcodec.cli", "serve", "-b", str(tiny_folder), "--port", "0", "--threads", "1"]
    with subprocess.Popen([*command, *map(str, options)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not lines or " at http" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        url = lines[-1].rsplit(" ", 1)[1].rstrip('"}\n')
        reader = threading.Thread(target=lambda stream=process.stderr: lines.extend(stream))
        reader.start()
        try:
            while httpx.get(f"{url}/readyz", trust_env=False, verify=False).status_code != 200:
                time.sleep(0.02)
            yield process, url, lines
        finally:
            process.kill()
            process.wait()
            reader.join()


def test_sigterm_drains_and_ends_with_0(tiny_folder: Path, packet: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITCODEC_LINGER_S", "4")  # in which all that follows is asked, on a busy machine too
    monkeypatch.setenv("SPLITCODEC_DRAIN_S", "5")
    monkeypatch.setenv("SPLITCODEC_WORKRES", "5")
    with served(tiny_folder, "--log", "json") as (process, url, lines):
        port = int(url.rsplit(":", 1)[1])
        late = socket.create_connection(("127.0.0.1", port))
        late.sendall(b"POST /v1/answer HTTP/1.1\r\nhost: x\r\n")
        head = f"POST /v1/answer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(packet)}\r\n\r\n".encode()
        under_way = socket.create_connection(("127.0.0.1", port))
        under_way.sendall(head + packet[:-1])
        assert httpx.post(f"{url}/v1/answer", content=packet, trust_env=False).status_code == 200
        since = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while (ready := httpx.get(f"{url}/readyz", trust_env=False)).status_code == 200:
            time.sleep(0.01)
        assert ready.status_code == 503
        refused = httpx.post(f"{url}/v1/answer", content=packet, trust_env=False)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert refused.json()["type"] == "urn:splitcodec:EdgeUnready"
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        under_way.sendall(packet[-1:])
        with under_way, late:
            assert told(under_way).startswith(b"HTTP/1.1 200 ")
            assert process.wait(20) == 0
        assert time.monotonic() - since < 4 + 5 + 3
    logged = [json.loads(line) for line in lines]  # from the first on: what is wrong with a setting, where it serves
    assert len(logged) >= 5
    assert all({"time", "level", "message"} <= set(one) for one in logged)
    for what in ("SPLITCODEC_WORKRES", "serving tiny@1 ", "draining"):
        assert any(what in one["message"] for one in logged)
    assert not any("Traceback" in line for line in lines)


STUCK = """
import sys, time
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import read_settings, serve

edge = Edge(sys.argv[1], threads=1)
edge.answer_all = lambda questions: time.sleep(60)
settings = read_settings({"port": 0, "linger_s": 0, "drain_s": 1})
serve(edge, settings, announce=lambda url: print(url, flush=True), ends_process=True)
"""


@pytest.mark.parametrize(
    ("signals", "code", "within_s"),
    [([signal.SIGTERM], 0, 1 + 3), ([signal.SIGINT], 130, 1 + 3), ([signal.SIGTERM, signal.SIGTERM], 0, 1)],
)
def test_a_batch_that_never_ends_holds_nobody(
    tiny_folder: Path, packet: bytes, signals: list[signal.Signals], code: int, within_s: float
) -> None:
    command = [sys.executable, "-c", STUCK, str(tiny_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as asking:
            asking.sendall(f"POST /v1/answer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(packet)}\r\n\r\n".encode())
            asking.sendall(packet)
            while "batches_running 1.0" not in httpx.get(f"{url}/metrics", trust_env=False).text:
                time.sleep(0.01)
            for one in signals:
                since = time.monotonic()
                process.send_signal(one)
                time.sleep(0.3)
            try:
                assert process.wait(20) == code
            finally:
                process.kill()
            assert time.monotonic() - since < within_s + 2  # of Python's own, on a busy machine


STARTING = """
import time
from splitcodec.edge.server import read_settings, serve

settings = read_settings({"port": 0, "linger_s": 0, "drain_s": 1})
serve(lambda: time.sleep(60), settings, ends_process=True)
"""


@pytest.mark.parametrize(("one", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_bundles_that_take_long_to_open_hold_nobody(one: signal.Signals, code: int) -> None:
    """The process went on until they were open, and systemd killed it."""
    command = [sys.executable, "-c", STARTING]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "startup complete" not in process.stderr.readline():
            assert process.poll() is None
        since = time.monotonic()
        process.send_signal(one)
        try:
            assert process.wait(20) == code
        finally:
            process.kill()
        assert time.monotonic() - since < 1 + 3 + 2  # of Python's own, on a busy machine


def test_tokens_turn_over_on_sighup_and_are_never_in_a_log(tiny_folder: Path, packet: bytes, tmp_path: Path) -> None:
    file, old, new = tmp_path / "tokens", "old-token-0123456789", "new-token-0123456789"
    file.write_text(f"{old}\n")

    def status(token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.post(f"{url}/v1/answer", content=packet, headers=headers, trust_env=False).status_code

    with served(tiny_folder, "--tokens-file", file, "--host", "0.0.0.0") as (process, place, lines):
        url = place.replace("0.0.0.0", "127.0.0.1")
        assert (status(old), status(new)) == (200, 401)
        file.write_text(f"{new}\n")
        process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 5
        while status(new) != 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert (status(old), status(new)) == (401, 200)
        process.terminate()
        assert process.wait(10) == 0
    assert not any(token in line for line in lines for token in (old, new))
    assert any("clear text" in line for line in lines)


def versioned(tiny: Bundle, version: int, folder: Path, *, offset: float = 0.0) -> Bundle:
    """Write a bundle that names its version in the classes that it answers with."""
    manifest, classes = tiny.manifest, tuple(f"{version}-{n}" for n in range(len(tiny.manifest.classes)))
    colour = replace(manifest.colour, offset=manifest.colour.offset + offset)
    return write_folder(
        derive(tiny, replace(manifest, version=version, classes=classes, colour=colour), files={}), folder
    )


def test_bundles_are_swapped_at_sighup_and_no_request_is_lost_or_answered_by_two(
    tiny: Bundle, packet: bytes, tmp_path: Path
) -> None:
    """A server had to be started again for another bundle."""
    live, came, over = tmp_path / "live", list[tuple[int, str, str]](), threading.Event()
    versioned(tiny, 1, live)

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not over.is_set():
                response = client.post(f"{url}/v1/answer", content=packet)
                told = response.json()
                label = told["answers"]["classify"][0]["label"] if response.status_code == 200 else told["title"]
                came.append((response.status_code, told.get("bundle", ""), label.partition("-")[0]))

    with served(live) as (process, url, lines):
        asking = [threading.Thread(target=ask) for _ in range(3)]
        for one in asking:
            one.start()

        def hang_up(said: str) -> None:
            before = sum(said in line for line in lines)
            process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 30
            while sum(said in line for line in lines) == before:
                assert time.monotonic() < end, lines
                time.sleep(0.01)

        try:
            hang_up("bundles are as they were: tiny@1")
            for version in (2, 3):
                shutil.rmtree(live)
                hang_up("bundles not opened again, the old ones stay in use: BundleNotFound")
                versioned(tiny, version, tmp_path / "next")
                shutil.copytree(tmp_path / "next", live, ignore=shutil.ignore_patterns("tail_*"))
                hang_up("bundles not opened again, the old ones stay in use: BundlePart")
                (tmp_path / "next" / "tail_classify.onnx").rename(live / "tail_classify.onnx")
                hang_up(f"s: tiny@{version}")
                shutil.rmtree(tmp_path / "next")
            shutil.rmtree(live)
            versioned(tiny, 4, live, offset=0.25)
            hang_up("s: tiny@4")
        finally:
            over.set()
            for one in asking:
                one.join()
        assert httpx.get(f"{url}/v1/bundle", trust_env=False).json()[0]["bundle"] == "tiny@4"
    assert set(came) <= {*((200, f"tiny@{n}", str(n)) for n in (1, 2, 3)), (400, "", "PacketBundle")}
    assert (200, "tiny@3", "3") in came
    assert not any("tokens read again" in line for line in lines), "there are none"


def test_a_bundle_more_is_served_after_sighup(tiny: Bundle, packet: bytes, tmp_path: Path) -> None:
    """It took a restart."""
    shelf = tmp_path / "shelf"
    versioned(tiny, 1, shelf / "tiny@1")

    def loaded() -> list[str]:
        return [one["bundle"] for one in httpx.get(f"{url}/v1/bundle", trust_env=False).json()]

    with served(shelf) as (process, url, _):
        assert loaded() == ["tiny@1"]
        versioned(tiny, 2, shelf / "tiny@2")
        process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 30
        while loaded() != ["tiny@1", "tiny@2"]:
            assert time.monotonic() < end, loaded()
            time.sleep(0.01)
        answer = httpx.post(f"{url}/v1/answer", content=packet, trust_env=False).json()
        assert answer["bundle"] == "tiny@2"


@pytest.fixture
def own_certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Return a key and the certificate that it has signed itself, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    certify(key, cert)
    return key, cert


def certify(key: Path, cert: Path) -> None:
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make.split(), *names, "-keyout", key, "-out", cert], check=True, capture_output=True)


def test_a_renewed_certificate_is_read_at_sighup(tiny_folder: Path, own_certificate: tuple[Path, Path]) -> None:
    """It wanted a restart; files that do not fit leave the old ones in use."""
    key, cert = own_certificate
    with served(tiny_folder, "--tls-cert", cert, "--tls-key", key) as (process, url, lines):
        certify(key, cert)
        trust = ssl.create_default_context(cafile=str(cert))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz", trust_env=False, verify=trust)
        for content, said in ((cert.read_text(), "TLS files read again"), ("torn", "the old ones stay in use")):
            cert.write_text(content)
            process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 20
            while not any(said in line for line in lines):
                assert time.monotonic() < end, lines
                time.sleep(0.01)
            assert httpx.get(f"{url}/healthz", trust_env=False, verify=trust).status_code == 200


def test_tls(tiny_folder: Path, packet: bytes, own_certificate: tuple[Path, Path]) -> None:
    key, cert = own_certificate
    with served(tiny_folder, "--tls-cert", cert, "--tls-key", key) as (process, url, _):
        assert url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(cert))
        response = httpx.post(f"{url}/v1/answer", content=packet, trust_env=False, verify=trust)
        assert response.status_code == 200
        assert "max-age" in response.headers["strict-transport-security"]
        process.terminate()
        assert process.wait(10) == 0


def test_who_never_ends_a_handshake_is_cut_off_and_bounded(
    tiny_folder: Path, own_certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handshakes counted towards nothing, and took a minute."""
    key, cert = own_certificate
    monkeypatch.setenv("SPLITCODEC_HEAD_TIMEOUT_S", "8")
    monkeypatch.setenv("SPLITCODEC_MAX_CONNECTIONS", "3")
    with served(tiny_folder, "--tls-cert", cert, "--tls-key", key) as (process, url, lines), ExitStack() as leaving:
        port = int(url.rsplit(":", 1)[1])
        before, since = len(lines), time.monotonic()
        opened = [leaving.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(20)]
        opened[0].sendall(b"\x16\x03\x01")  # the first bytes of a handshake
        ended = set[socket.socket]()
        while len(ended) < 14:  # at once; six may be open
            assert time.monotonic() - since < 30
            ended |= set(select.select([one for one in opened if one not in ended], [], [], 1)[0])
        assert time.monotonic() - since < 6
        for one in opened:
            assert told(one) == b""
        assert 7 < time.monotonic() - since < 40  # asyncio's own patience is 60 s
        trust = ssl.create_default_context(cafile=str(cert))
        assert httpx.get(f"{url}/healthz", trust_env=False, verify=trust).status_code == 200
        process.terminate()
        assert process.wait(10) == 0
        assert not any("Traceback" in line or "handshake" in line for line in lines[before:])


def test_a_certificate_of_ones_own(
    tiny_folder: Path, packet: bytes, own_certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals said to look whether the server runs, and `splitcodec top` took no word of whom to trust."""
    key, cert = own_certificate
    with served(tiny_folder, "--tls-cert", cert, "--tls-key", key) as (_, url, _):
        for ask in (lambda: http(url, retries=0)(packet), page(f"{url}/metrics")):
            with pytest.raises(LinkDown, match="SSL_CERT_FILE"):
                ask()
        with pytest.raises(LinkDown, match="does the edge want https"):
            http(url.replace("https:", "http:"), retries=0)(packet)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert b"answers" in http(url, retries=0)(packet)
        assert "splitcodec_ready" in page(f"{url}/metrics")()
        monkeypatch.setenv("SSL_CERT_FILE", str(key.with_name("none.pem")))
        for make in (http, page):
            with pytest.raises(SettingsError, match=r"SSL_CERT_FILE.*No such file"):
                make(url)
