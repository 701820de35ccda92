from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from splitcodec import Device, Edge
from splitcodec.device.link import http
from splitcodec.edge.server import BackgroundServer, Settings, create_app, default_settings, read_settings
from splitcodec.errors import GraphError, LinkRefused, SettingsError
from splitcodec.wire.answer import Answer
from splitcodec.wire.brief import MEDIA_TYPE, restore
from splitcodec.wire.bundle import Bundle


@pytest.fixture(scope="module")
def edge(tiny: Bundle) -> Edge:
    return Edge(tiny, threads=1)


@pytest.fixture(scope="module")
def server(edge: Edge) -> Iterator[BackgroundServer]:
    with BackgroundServer(create_app(edge, Settings(max_body_bytes=4096))) as running:
        yield running


@pytest.fixture
def client(server: BackgroundServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as one:
        yield one


@pytest.fixture(scope="module")
def packet(tiny: Bundle) -> bytes:
    return Device(tiny, threads=1).encode(Image.new("RGB", (90, 70), (200, 30, 30)))


def problem_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == response.status_code
    return problem


def test_a_device_asks_and_gets_the_edges_answer(server: BackgroundServer, edge: Edge, tiny: Bundle) -> None:
    device = Device(tiny, threads=1)
    picture = Image.new("RGB", (90, 70), (20, 200, 60))
    with http(server.url, tasks=("classify",), retries=0) as link:
        for level in range(3):
            answer = device.ask(picture, link=link, level=level)
            assert answer["answers"] == edge.answer(device.encode(picture, level=level))["answers"]
        with pytest.raises(LinkRefused, match=r"400\): 9 bytes"):
            link(b"no packet")


@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "application/json", "text/plain", "x"])
def test_any_content_type_will_do(client: httpx.Client, packet: bytes, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = client.post("/v1/answer?tasks=classify&top=2", content=packet, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"bundle", "level", "answers", "ms"}
    assert len(response.json()["answers"]["classify"]) == 2


def test_answers_come_shortened_where_that_is_asked_for(client: httpx.Client, packet: bytes) -> None:
    plain = client.post("/v1/answer?tasks=classify&top=2", content=packet)
    brief = client.post("/v1/answer?tasks=classify&top=2&brief=1", content=packet)
    assert brief.headers["content-type"] == MEDIA_TYPE
    assert len(brief.content) < len(plain.content) / 2
    assert json.loads(restore(brief.content))["answers"] == plain.json()["answers"]
    assert client.post("/v1/answer?brief=perhaps", content=packet).status_code == 422
    assert client.post("/v1/answer?brief=1", content=b"none").headers["content-type"] == "application/problem+json"


def test_refused_packets_are_400_and_named(client: httpx.Client, packet: bytes) -> None:
    for body, name in ((b"", "PacketTooShort"), (packet[:-1] + b"\0", "PacketChecksum")):
        response = client.post("/v1/answer", content=body)
        assert response.status_code == 400
        problem = problem_of(response)
        assert problem["type"] == f"urn:splitcodec:{name}"
        assert problem["title"] == name


def test_an_unknown_task_is_404_and_named(client: httpx.Client, packet: bytes) -> None:
    response = client.post("/v1/answer", params={"tasks": "classify,detect"}, content=packet)
    assert response.status_code == 404
    assert problem_of(response)["type"] == "urn:splitcodec:TaskError"


@pytest.mark.parametrize("top", ["0", "-1", "many", "1001", "9" * 5000])
def test_a_wrong_top_is_422_and_named(client: httpx.Client, packet: bytes, top: str) -> None:
    response = client.post("/v1/answer", params={"top": top}, content=packet)
    assert response.status_code == 422
    problem = problem_of(response)
    assert "query.top" in problem["detail"]
    assert len(problem["detail"]) <= 500


@pytest.mark.parametrize("score", ["-0.1", "1.01", "nan", "inf", "many", ""])
def test_a_wrong_score_is_422_and_named(client: httpx.Client, packet: bytes, score: str) -> None:
    response = client.post("/v1/answer", params={"score": score}, content=packet)
    assert response.status_code == 422
    assert "query.score" in problem_of(response)["detail"]


def test_unknown_places_and_methods_are_problems_too(client: httpx.Client) -> None:
    assert problem_of(client.get("/nowhere"))["status"] == 404
    response = client.get("/v1/answer")
    assert problem_of(response)["status"] == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("size", [4097, 5_000_000])
def test_a_body_too_large_is_a_413_problem(client: httpx.Client, size: int) -> None:
    detail = problem_of(client.post("/v1/answer", content=bytes(size)))["detail"]
    assert "4096 bytes" in detail

    def chunks() -> Iterator[bytes]:
        for _ in range(size // 1000 + 1):
            yield bytes(1000)

    response = client.post("/v1/answer", content=chunks())
    assert response.status_code == 413
    assert problem_of(response)["detail"] == detail


def test_a_body_at_the_limit_is_read(client: httpx.Client) -> None:
    assert problem_of(client.post("/v1/answer", content=bytes(4096)))["title"] == "PacketChecksum"


def test_what_goes_wrong_inside_is_not_told(
    edge: Edge, packet: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error, kind in ((RuntimeError("secret"), "about:blank"), (GraphError("secret"), "urn:splitcodec:GraphError")):

        def fail(*_: object, error: Exception = error, **__: object) -> Answer:
            raise error

        monkeypatch.setattr(edge, "answer_all", fail)
        with BackgroundServer(create_app(edge, Settings())) as server, caplog.at_level(logging.ERROR):
            response = httpx.post(f"{server.url}/v1/answer", content=packet, trust_env=False)
        assert response.status_code == 500
        assert problem_of(response)["type"] == kind
        assert "secret" not in response.text
        assert "secret" in caplog.text


def test_bundles_and_health_are_told(client: httpx.Client, tiny: Bundle) -> None:
    (bundle,) = client.get("/v1/bundle").json()
    assert bundle["bundle"] == "tiny@1"
    assert bundle["fingerprint"] == tiny.fingerprint.hex()
    assert bundle["levels"] == 3
    assert bundle["tasks"] == ["classify"]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert [client.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]  # balancers ask so
    assert "/v1/answer" in client.get("/openapi.json").json()["paths"]


def test_a_lower_limit_of_symbols_is_the_one_that_is_told(tiny: Bundle) -> None:
    edge = Edge(tiny, max_symbols=7)
    with BackgroundServer(create_app(edge, Settings())) as server:
        (told,) = httpx.get(f"{server.url}/v1/bundle", trust_env=False).json()
    assert told["max_symbols"] == 7
    assert Edge(tiny, max_symbols=2**40).most_symbols(tiny) == tiny.manifest.max_symbols


def test_no_more_than_so_many_packets_at_once(edge: Edge, packet: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock, real = 0, 0, threading.Lock(), edge.answer_all
    all_run = threading.Event()  # as many as may

    def watched(questions: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                all_run.set()
        all_run.wait(20)
        time.sleep(0.02)
        with lock:
            running -= 1
        return real(questions)

    monkeypatch.setattr(edge, "answer_all", watched)
    with BackgroundServer(create_app(edge, Settings(workers=3, max_batch=1))) as server, http(server.url) as link:
        threads = [threading.Thread(target=link, args=(packet,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 3


def test_a_background_server_starts_fast_and_frees_its_port(edge: Edge) -> None:
    begin = time.monotonic()
    with BackgroundServer(create_app(edge, Settings())) as server:
        assert time.monotonic() - begin < 2
        assert server.url == f"http://127.0.0.1:{server.port}"
        port = server.port
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_taken_port_is_refused_by_name(edge: Edge, server: BackgroundServer) -> None:
    with pytest.raises(SettingsError, match=f"127.0.0.1:{server.port}.*another"):
        BackgroundServer(create_app(edge, Settings()), port=server.port)
    with pytest.raises(SettingsError, match="cannot listen"):
        BackgroundServer(create_app(edge, Settings()), host="no-such-host.invalid")


def test_settings_come_from_options_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITCODEC_PORT", "9000")
    assert read_settings().port == 9000
    assert read_settings({"port": None, "host": "0.0.0.0"}) == Settings(host="0.0.0.0", port=9000)
    assert read_settings({"port": 1}).port == 1


@pytest.mark.parametrize(
    "wrong", [{"port": 70_000}, {"max_body_bytes": "x"}, {"workers": 0}, {"log": "xml"}, {"prot": 1}]
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        read_settings(wrong)


@pytest.mark.parametrize("wrong", ["nginx", "10.0.0.5, edge.example", "10.0.0.5/8", "*,10.0.0.5"])
def test_proxies_that_are_no_addresses_are_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody was believed then, so all clients of a proxy counted as one, and nothing said so."""
    for right in ("", "*", "10.0.0.5,", "10.0.0.0/8, ::1"):
        monkeypatch.setenv("SPLITCODEC_TRUSTED_PROXIES", right)
        assert read_settings().trusted_proxies == right
    monkeypatch.setenv("SPLITCODEC_TRUSTED_PROXIES", wrong)
    with pytest.raises(SettingsError, match=r"trusted_proxies: .* is no address"):
        read_settings()


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.annotation is float])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_times_and_rates_without_end_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SPLITCODEC_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"{name}: Input should be"):
        read_settings()


def test_tokens_come_from_either_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().tokens is None
    for name in ("SPLITCODEC_TOKENS", "SPLITCODEC_TOKEN"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "t" * 20)
            found = read_settings()
            assert found.tokens is not None
            assert "ttt" not in repr(found)
            assert default_settings().tokens is None


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITCODEC_PORT", "abc")
    with pytest.raises(SettingsError, match="port"):
        read_settings()


def test_a_misspelt_variable_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A limit under a wrong name was taken for none at all, without a word."""
    for name in ("SPLITCODEC_WORKRES", "SPLITCODEC_COLOUR", "SPLITCODEC_REPLAY_S", "SPLITCODEC_URL"):
        monkeypatch.setenv(name, "3")
    read_settings()
    assert [record.getMessage() for record in caplog.records] == [
        "SPLITCODEC_COLOUR is no setting of the server and does nothing",
        "SPLITCODEC_WORKRES is no setting of the server and does nothing; SPLITCODEC_WORKERS is one",
    ]


def test_serve_announces_logs_to_stderr_and_ends_on_interrupt(tiny_folder: Path) -> None:
    code = f"""
import sys
from splitcodec import Edge
from splitcodec.edge.server import read_settings, serve
edge = Edge({str(tiny_folder)!r}, threads=1)
try:
    serve(edge, read_settings({{"port": 0}}), announce=lambda url: print(url, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        url = run.stdout.readline().strip()
        assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
        run.send_signal(2)
        out, err = run.communicate(timeout=20)
    assert run.returncode == 130
    assert out == ""
    assert "GET /healthz" in err


def test_problem_documents_are_plain_json(client: httpx.Client) -> None:
    assert json.loads(client.get("/nowhere").content)["type"] == "about:blank"
