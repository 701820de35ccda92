"""The guard from outside: tokens, rates, headers, ids, idempotency, metrics, logs, states."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from starlette.responses import PlainTextResponse

from splitcodec import Device, Edge
from splitcodec.device.link import http
from splitcodec.edge.limits import Buckets
from splitcodec.edge.logs import JsonLines
from splitcodec.edge.scrape import Scrape, parse_metrics
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.errors import GraphError, LinkRefused, SettingsError
from splitcodec.wire.bundle import Bundle, write_bundle

TOKEN, OTHER = "t" * 20, "o" * 20
GOOD = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def edge(tiny: Bundle) -> Edge:
    return Edge(tiny, threads=1)


@pytest.fixture(scope="module")
def packets(tiny: Bundle) -> list[bytes]:
    device = Device(tiny, threads=1)
    return [device.encode(Image.new("RGB", (90, 70), (40 * n, 30, 30)), level=n % 3) for n in range(4)]


@pytest.fixture
def serving(edge: Edge) -> Iterator[Callable[..., httpx.Client]]:
    """Return a function that serves with some settings and gives a client of that server."""
    running: list[Any] = []

    def start(with_edge: Any = edge, *, mounts: Any = None, **settings: Any) -> httpx.Client:
        server = BackgroundServer(create_app(with_edge, read_settings(settings), mounts=mounts))
        running.append(server)
        server.__enter__()
        client = httpx.Client(base_url=server.url, trust_env=False)
        running.append(client)
        return client

    yield start
    for one in reversed(running):
        one.__exit__(None, None, None)


def scraped(client: httpx.Client, **headers: str) -> Scrape:
    response = client.get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return parse_metrics(response.text, when=time.monotonic())


def is_problem(response: httpx.Response, status: int, name: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:splitcodec:{name}"


def test_what_needs_a_token_and_what_does_not(serving: Callable[..., httpx.Client], packets: list[bytes]) -> None:
    client = serving(tokens=f"{TOKEN},{OTHER}", mounts={"/page": PlainTextResponse("hello")})
    for method, path in (("POST", "/v1/answer"), ("GET", "/v1/bundle"), ("GET", "/metrics"), ("GET", "/no-such")):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            response = client.request(method, path, headers=headers, content=packets[0])
            is_problem(response, 401, "TokenRefused")
            assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/page/"):
        assert client.get(path).status_code == 200
    for token in (TOKEN, OTHER):
        answer = client.post("/v1/answer", content=packets[0], headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200
    assert scraped(client, **GOOD).by("splitcodec_refusals_total", "reason") == {"TokenRefused": 12}


def test_a_prefix_before_the_paths_opens_nothing(edge: Edge, packets: list[bytes]) -> None:
    import asyncio

    from starlette.applications import Starlette
    from starlette.routing import Mount

    async def main() -> None:
        app = create_app(edge, read_settings({"tokens": TOKEN}))
        outer = Starlette(routes=[Mount("/edge", app)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://edge") as client:
            is_problem(await client.post("/edge/v1/answer", content=packets[0]), 401, "TokenRefused")
            assert (await client.get("/edge/healthz")).status_code == 200
            assert (await client.post("/edge/v1/answer", content=packets[0], headers=GOOD)).status_code == 200
        await app.state.service.close()

    asyncio.run(main())


def test_nobody_is_led_to_where_the_host_header_says(serving: Callable[..., httpx.Client]) -> None:
    client = serving(mounts={"/page": PlainTextResponse("hello")})
    evil = {"host": "evil.example"}
    assert client.get("/v1/bundle/", headers=evil).status_code == 404
    led = client.get("/page?a=1", headers=evil)
    assert (led.status_code, led.headers["location"]) == (307, "page/?a=1")
    assert client.get("/page", follow_redirects=True).text == "hello"


def test_the_link_brings_its_token(serving: Callable[..., httpx.Client], packets: list[bytes], tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{OTHER}\n{TOKEN}\n")
    url = str(serving(tokens_file=file).base_url)
    with http(url, token=TOKEN, retries=0) as link:
        assert json.loads(link(packets[0]))["bundle"] == "tiny@1"
    with http(url, retries=0) as link, pytest.raises(LinkRefused, match=r"401.*Bearer TOKEN"):
        link(packets[0])


def test_every_answer_has_an_id_and_security_headers(
    serving: Callable[..., httpx.Client], packets: list[bytes]
) -> None:
    page = PlainTextResponse("hello", headers={"content-security-policy": "default-src 'self'"})
    client = serving(mounts={"/page": page})
    for response in (
        client.post("/v1/answer", content=packets[0], headers={"x-request-id": "mine-7"}),
        client.post("/v1/answer", content=b"none", headers={"x-request-id": "mine-7"}),
        client.get("/nowhere", headers={"x-request-id": "mine-7"}),
    ):
        assert response.headers["x-request-id"] == "mine-7"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "server" not in response.headers
    assert client.get("/page/").headers["content-security-policy"] == "default-src 'self'"
    forged = client.get("/healthz", headers={"x-request-id": 'a"; drop'}).headers["x-request-id"]
    assert len(forged) == 32


def test_devices_are_spared_what_only_browsers_read(serving: Callable[..., httpx.Client], packets: list[bytes]) -> None:
    client = serving()
    browser = client.post("/v1/answer", content=packets[0])
    device = client.post("/v1/answer", content=packets[0], headers={"user-agent": "splitcodec"})
    assert device.headers.keys() == {"content-length", "content-type", "date"}
    curious = {"user-agent": "splitcodec", "x-request-id": "mine-8"}
    assert client.post("/v1/answer", content=packets[0], headers=curious).headers["x-request-id"] == "mine-8"
    refused = client.post("/v1/answer", content=b"none", headers={"user-agent": "splitcodec"})
    assert len(refused.headers["x-request-id"]) == 32  # to be found in the edge's log
    assert browser.headers.keys() > device.headers.keys()
    assert browser.json()["answers"] == device.json()["answers"]
    listed = client.get("/v1/bundle", headers={"user-agent": "splitcodec"})  # which a cache might keep
    assert listed.headers["cache-control"] == "no-store"


def test_a_clients_share_of_requests(serving: Callable[..., httpx.Client], packets: list[bytes]) -> None:
    client = serving(requests_per_s=1)
    codes = [client.post("/v1/answer", content=packets[0]).status_code for _ in range(4)]
    assert codes == [200, 200, 429, 429]
    refused = client.get("/v1/bundle")
    is_problem(refused, 429, "RateExceeded")
    assert refused.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200


def test_a_clients_share_of_symbols(serving: Callable[..., httpx.Client], packets: list[bytes], tiny: Bundle) -> None:
    client = serving(symbols_per_s=16)
    large = Device(tiny, threads=1).pack(np.zeros((4, 40, 40), np.int64), level=0)
    assert client.post("/v1/answer", content=large).status_code == 200  # 6400 symbols, on credit
    refused = client.post("/v1/answer", content=packets[0])
    is_problem(refused, 429, "RateExceeded")
    assert 398 <= int(refused.headers["retry-after"]) <= 404
    assert "symbols" in refused.json()["detail"]
    is_problem(client.post("/v1/answer", content=b"cheap"), 400, "PacketTooShort")


def test_tasks_are_charged_to_a_clients_share(serving: Callable[..., httpx.Client]) -> None:
    edge = Edge("efficientnet-lite0", threads=1)
    manifest = edge.bundles[0].manifest
    packet = Device(edge.bundles[0], threads=1).encode(Image.new("RGB", (90, 70)), level=0)
    once = manifest.channels * (manifest.crop // manifest.stride) ** 2
    whole = f"/v1/answer?tasks={','.join(manifest.tasks)}"
    for path, codes in (("/v1/answer", [200, 200]), (whole, [200, 429])):
        client = serving(edge, symbols_per_s=once)  # two classifications at once, or one packet on credit
        assert [client.post(path, content=packet).status_code for _ in codes] == codes
    refused = client.post(whole, content=packet)
    is_problem(refused, 429, "RateExceeded")
    assert "tasks" in refused.json()["detail"]


def test_a_guesser_of_tokens_is_slowed_down(serving: Callable[..., httpx.Client]) -> None:
    client = serving(tokens=TOKEN, requests_per_s=1)
    codes = [client.get("/v1/bundle", headers={"authorization": f"Bearer {n}"}).status_code for n in range(4)]
    assert codes == [401, 401, 429, 429]
    assert client.get("/v1/bundle", headers=GOOD).status_code == 200


def test_the_servers_own_limit_on_symbols(serving: Callable[..., httpx.Client], packets: list[bytes]) -> None:
    client = serving(Edge("tests/data/tiny", threads=1, max_symbols=63))
    is_problem(client.post("/v1/answer", content=packets[0]), 400, "PacketGrid")


def test_a_full_queue_is_503_with_retry_after(
    serving: Callable[..., httpx.Client], edge: Edge, packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real = threading.Event(), edge.answer_all

    def gated(questions: Any) -> Any:
        assert gate.wait(10)
        return real(questions)

    charged: list[float] = []
    take = Buckets.take

    def counted_take(self: Buckets, client: str, amount: float = 1.0) -> None:
        charged.append(amount)
        take(self, client, amount)

    monkeypatch.setattr(Buckets, "take", counted_take)
    monkeypatch.setattr(edge, "answer_all", gated)
    client = serving(workers=1, max_queue=2)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.post, "/v1/answer", content=packet) for packet in packets[:3]]
        while scraped(client).sum("splitcodec_queue_depth") < 2:
            time.sleep(0.01)
        refused = client.post("/v1/answer", content=packets[3])
        is_problem(refused, 503, "EdgeBusy")
        assert refused.headers["retry-after"] == "1"
        gate.set()
        monkeypatch.setattr(edge, "answer_all", real)
        for packet, one in zip(packets, asked, strict=False):
            assert one.result().json()["answers"] == edge.answer(packet)["answers"]
    counted = scraped(client)
    assert counted.by("splitcodec_refusals_total", "reason") == {"EdgeBusy": 1}
    symbols = [edge.read(packet).symbols for packet in packets[:3]]  # what was turned away pays nothing
    assert sorted(n for n in charged if n > 1) == sorted(symbols)
    assert counted.sum("splitcodec_symbols_total") == sum(symbols)
    assert counted.sum("splitcodec_packet_bytes_count") == 3
    assert counted.sum("splitcodec_batch_size_count") == 2
    assert counted.sum("splitcodec_batch_size_sum") == 3


@pytest.mark.parametrize("key", [None, "device-7"])
def test_nothing_is_computed_for_a_client_that_has_gone_unless_it_may_ask_again(
    serving: Callable[..., httpx.Client],
    edge: Edge,
    packets: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
) -> None:
    """Under load the queue was full of packets whose devices had given up, and those that came got no answer either."""
    gate, real, computed = threading.Event(), edge.answer_all, list[int]()

    def gated(questions: Any) -> Any:
        computed.extend(question.packet.level for question in questions)
        assert gate.wait(10)
        return real(questions)

    monkeypatch.setattr(edge, "answer_all", gated)
    client = serving(workers=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/answer", content=packets[0])
        while not computed:
            time.sleep(0.01)
        headers = {} if key is None else {"idempotency-key": key}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{client.base_url}/v1/answer", content=packets[1], headers=headers, timeout=0.3, trust_env=False
            )
        time.sleep(1.0)  # until the server has seen it go
        gate.set()
        assert first.result().status_code == 200
        assert (
            client.post("/v1/answer", content=packets[2], headers=headers and {"idempotency-key": "8"}).status_code
            == 200
        )
    assert computed == ([0, 2] if key is None else [0, 1, 2])
    if key is not None:
        kept = client.post("/v1/answer", content=packets[1], headers=headers)
        assert kept.headers["idempotency-replayed"] == "true"


def test_many_clients_get_their_own_answers(
    serving: Callable[..., httpx.Client], edge: Edge, packets: list[bytes]
) -> None:
    client = serving(workers=2, max_wait_ms=2)
    expected = [edge.answer(packet)["answers"] for packet in packets]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: client.post("/v1/answer", content=packets[n % 4]).json(), range(200)))
    assert [one["answers"] for one in found] == [expected[n % 4] for n in range(200)]
    counted = scraped(client)
    assert counted.by("splitcodec_answers_total", "bundle") == {"tiny@1": 200}
    assert counted.sum("splitcodec_batch_size_sum") == 200
    assert counted.sum("splitcodec_batch_size_count") < 200


def test_metrics_count_what_happened(serving: Callable[..., httpx.Client], packets: list[bytes]) -> None:
    client = serving()
    sent = sum(len(client.post("/v1/answer", content=packet).content) for packet in packets)
    client.post("/v1/answer", content=b"damaged packet, long enough")
    client.post("/v1/answer", content=bytes(70_000))
    client.get("/nowhere")
    client.get("/another/strange%0aplace")
    counted = scraped(client)
    assert counted.sum("splitcodec_requests_total", path="/v1/answer", status="200") == 4
    assert counted.sum("splitcodec_requests_total", path="other", status="404") == 2
    assert counted.by("splitcodec_refusals_total", "reason") == {"PacketChecksum": 1, "http_413": 1, "http_404": 2}
    assert counted.sum("splitcodec_received_bytes_total") >= sum(map(len, packets))
    assert counted.sum("splitcodec_sent_bytes_total") > sent
    assert counted.sum("splitcodec_symbols_total") == 4 * 64
    assert counted.sum("splitcodec_packet_bytes_sum") == sum(map(len, packets))
    stages = counted.by("splitcodec_stage_seconds_count", "stage")
    others = {"backbone": 0, "detect": 0, "segment": 0}  # of tasks that this bundle does not have
    assert stages == {"read": 5, "queue": 4, "decode": 4, "decoder": 4, "tail": 4, "total": 4, **others}
    assert counted.sum("splitcodec_ready") == 1
    assert counted.sum("splitcodec_info") == 1


def test_an_idempotency_key_computes_once(
    serving: Callable[..., httpx.Client], edge: Edge, packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, real = [], edge.answer_all

    def slow(questions: Any) -> Any:
        batches.append(len(questions))
        time.sleep(0.1)
        return real(questions)

    monkeypatch.setattr(edge, "answer_all", slow)
    client = serving()
    key = {"idempotency-key": "K_1-a"}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: client.post("/v1/answer", content=packets[0], headers=key), range(4)))
    assert sum(batches) == 1
    assert len({one.content for one in found}) == 1
    assert sorted(one.headers.get("idempotency-replayed", "") for one in found) == ["", "true", "true", "true"]
    is_problem(client.post("/v1/answer", content=packets[1], headers=key), 422, "IdempotencyMismatch")
    is_problem(client.post("/v1/answer?top=1", content=packets[0], headers=key), 422, "IdempotencyMismatch")
    likely = client.post("/v1/answer?score=0.3", content=packets[0], headers=key)
    is_problem(likely, 422, "IdempotencyMismatch")
    is_problem(client.post("/v1/answer", content=packets[1], headers={"idempotency-key": "a b"}), 400, "IdempotencyKey")
    with http(str(client.base_url), retries=0) as link:
        assert link(packets[0], idempotency_key="K_1-a") == found[0].content
        with pytest.raises(SettingsError, match="idempotency key"):
            link(packets[0], idempotency_key="a b")
    assert sum(batches) == 1
    assert scraped(client).sum("splitcodec_replays_total") == 4


def test_an_answer_that_no_device_takes_is_refused(
    serving: Callable[..., httpx.Client], packets: list[bytes], tiny: Bundle, tmp_path: Path
) -> None:
    """It was sent, and each device hung up at the last byte of 1 MiB, again and again."""
    files = {name: tiny.read(name) for name in tiny.manifest.files}
    classes = tuple(letter * 300_000 for letter in "abcdefghij")
    long = write_bundle(tmp_path / "long", replace(tiny.manifest, classes=classes), files=files)
    client = serving(Edge(long, threads=1))
    packet = Device(long, threads=1).encode(Image.new("RGB", (90, 70), (40, 30, 30)))
    for query in ("", "?brief=1"):
        response = client.post(f"/v1/answer{query}", content=packet, headers={"idempotency-key": "1"})
        is_problem(response, 422, "AnswerTooLarge")
        assert "ask for fewer guesses" in response.json()["detail"]
    assert client.post("/v1/answer?top=3", content=packet, headers={"idempotency-key": "1"}).status_code == 200
    with http(str(client.base_url), retries=0) as link, pytest.raises(LinkRefused, match="ask for fewer guesses"):
        link(packet)
    page = scraped(client)
    assert page.by("splitcodec_refusals_total", "reason") == {"AnswerTooLarge": 3}
    assert page.sum("splitcodec_answers_total") == 1


def test_idempotency_keys_belong_to_a_token(serving: Callable[..., httpx.Client], packets: list[bytes]) -> None:
    client = serving(tokens=f"{TOKEN} {OTHER}")
    for token, packet in ((TOKEN, packets[0]), (OTHER, packets[1])):
        headers = {"authorization": f"Bearer {token}", "idempotency-key": "1"}
        response = client.post("/v1/answer", content=packet, headers=headers)
        assert response.status_code == 200
        assert "idempotency-replayed" not in response.headers


def test_not_ready_until_the_bundles_are_open(
    serving: Callable[..., httpx.Client], edge: Edge, packets: list[bytes]
) -> None:
    gate = threading.Event()

    def slowly() -> Edge:
        assert gate.wait(10)
        return edge

    client = serving(slowly)
    for response in (client.get("/readyz"), client.post("/v1/answer", content=packets[0]), client.get("/v1/bundle")):
        is_problem(response, 503, "EdgeUnready")
        assert response.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200
    assert scraped(client).sum("splitcodec_ready") == 0
    gate.set()
    while client.get("/readyz").status_code != 200:
        time.sleep(0.01)
    assert client.post("/v1/answer", content=packets[0]).status_code == 200


def test_a_server_whose_bundles_do_not_open_ends(edge: Edge) -> None:
    def broken() -> Edge:
        raise GraphError("no such operator")

    app = create_app(broken, read_settings())
    server = BackgroundServer(app)
    with server:
        server._thread.join(10)
        assert not server._thread.is_alive()
    assert isinstance(app.state.service.failure, GraphError)


def test_the_application_runs_without_any_server_of_ours(edge: Edge, packets: list[bytes]) -> None:
    import asyncio

    async def main() -> None:
        app = create_app(lambda: edge, read_settings())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            found = await asyncio.gather(*(client.post("/v1/answer", content=packet) for packet in packets))
            assert [one.json()["answers"] for one in found] == [edge.answer(packet)["answers"] for packet in packets]
        await app.state.service.close()

    asyncio.run(main())


def test_requests_are_logged_with_their_id(
    serving: Callable[..., httpx.Client], packets: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    client = serving(tokens=TOKEN)
    with caplog.at_level(logging.INFO, logger="splitcodec.edge"):
        caplog.handler.setFormatter(JsonLines())
        client.post("/v1/answer?top=2", content=packets[0], headers={"x-request-id": "abc", **GOOD})
        client.post("/v1/answer", content=b"", headers={"x-request-id": "def", **GOOD})
        client.get("/a%0aforged", headers={"x-request-id": "ghi", **GOOD})
        while len(caplog.records) < 3:
            time.sleep(0.01)
    facts = [record.__dict__["splitcodec"] for record in caplog.records]
    assert [record.getMessage() for record in caplog.records] == [
        "POST /v1/answer",
        "POST /v1/answer",
        "GET /a%0aforged",
    ]
    assert [one["status"] for one in facts] == [200, 400, 404]
    assert [one["refusal"] for one in facts] == [None, "PacketTooShort", "http_404"]
    assert facts[0]["received"] == len(packets[0])
    assert facts[0]["client"] == "127.0.0.1"
    assert TOKEN not in caplog.text
    assert [json.loads(line)["request_id"] for line in caplog.text.splitlines()] == ["abc", "def", "ghi"]
