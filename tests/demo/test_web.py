"""The page's endpoints without a browser: what they give, what they refuse, and that they are not there unasked."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr
from typer.testing import CliRunner

pytest.importorskip("fastapi")

from splitcodec import Device, Edge
from splitcodec.cli import app
from splitcodec.demo.assets import MODULE, VERSION, WASM, Ort
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.demo.places import Limits
from splitcodec.demo.web import mount
from splitcodec.device.image import load_picture
from splitcodec.edge.server import BackgroundServer, Settings, create_app
from splitcodec.errors import BundlePart
from splitcodec.evaluation.contextual import with_contexts
from splitcodec.wire.bundle import Bundle
from tests.wire.test_contexts import contexts

LIMITS = Limits(
    encode_bytes=60_000, jpeg_bytes=8_000, pixels=90_000, jpeg_pixels=9_000, seconds=1.0, running=1, waiting=0
)
ORT = Ort({MODULE: b"module", WASM: b"wasm"})


@pytest.fixture(scope="module")
def edge(tiny: Bundle) -> Edge:
    return Edge(tiny, threads=1)


@pytest.fixture(scope="module")
def shipped() -> Edge:
    return Edge("efficientnet-lite0", threads=1)


@pytest.fixture(scope="module")
def server(edge: Edge) -> Iterator[BackgroundServer]:
    web = create_app(edge, Settings())
    mount(web, edge, ort=ORT, limits=LIMITS)
    with BackgroundServer(web) as running:
        yield running


@pytest.fixture
def client(server: BackgroundServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as one:
        yield one


def as_jpeg(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "jpeg", **options)
    return file.getvalue()


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    return problem


def test_nothing_is_there_unasked(edge: Edge) -> None:
    with BackgroundServer(create_app(edge, Settings())) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/demo").status_code == 404
        assert client.post("/demo/encode", content=b"x").status_code == 404


def test_a_slash_behind_the_page_leads_to_it_on_whatever_host(client: httpx.Client) -> None:
    led = client.get("/demo/", headers={"host": "evil.example"})
    assert (led.status_code, led.headers["location"]) == (307, "../demo")
    assert "<title>splitcodec" in client.get("/demo/", follow_redirects=True).text


def test_every_file_is_served_with_a_strict_policy(client: httpx.Client) -> None:
    static = [f"/demo/static/{one.name}" for one in files("splitcodec.demo").joinpath("static").iterdir()]
    photographs = [f"/demo/photos/{one.name}.jpg" for one in PHOTOGRAPHS]
    others = ["/demo", "/demo/bundle", "/demo/tables", "/demo/encoder.onnx"]
    assert len(static) >= 12
    for path in (*static, *photographs, *others):
        response = client.get(path)
        assert response.status_code == 200, path
        assert response.headers["content-type"], path
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
    for path in (
        "/demo/static/x.js",
        "/demo/static/..%2fweb.py",
        "/demo/photos/x.jpg",
        f"/demo/ort/{VERSION}/x",
        "/demo/x",
    ):
        assert client.get(path).status_code == 404


def test_no_file_names_another_host() -> None:
    for one in files("splitcodec.demo").joinpath("static").iterdir():
        text = one.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


def test_the_bundle_is_told(client: httpx.Client, tiny: Bundle) -> None:
    told = client.get("/demo/bundle").json()
    assert told["bundle"] == "tiny@1"
    assert told["fingerprint"] == tiny.fingerprint.hex()
    assert (told["crop"], told["levels"], told["tasks"]) == (64, 3, ["classify"])
    assert told["jpeg_tasks"] == ["classify"]
    assert told["ort"] == {"version": VERSION, "module": MODULE, "wasm": WASM}
    assert client.get("/demo/encoder.onnx").content == tiny.graph("encoder")
    tables = client.get("/demo/tables").json()
    assert tables["freq"][0] == tiny.tables[0].freq_ks[0, : tiny.tables[0].size_k[0]].tolist()
    assert np.array_equal(np.array(tables["gain_lc"], np.float32), tiny.tables[0].gain_lc)
    assert told["contexts_sha256"] is None
    refused = client.get("/demo/contexts")
    assert (refused.status_code, refused.json()["detail"]) == (404, "tiny@1 has no contexts")


def test_contexts_go_out_compressed(tiny: Bundle) -> None:
    made = with_contexts(tiny, contexts(3, groups=(1, 2, 1), levels=3), note={"photographs": 3})
    edge = Edge(made, threads=1)
    web = create_app(edge, Settings())
    mount(web, edge)
    with BackgroundServer(web) as one, httpx.Client(base_url=one.url, trust_env=False) as client:
        response = client.get("/demo/contexts")
        assert response.headers["content-encoding"] == "gzip"
        told = response.json()
        assert client.get("/demo/bundle").json()["contexts_sha256"] == hashlib.sha256(response.content).hexdigest()
    assert made.contexts is not None
    assert (told["levels"], told["order"], told["passes"]) == (3, made.contexts.order_c.tolist(), [4, 1, 2])
    assert base64.b64decode(told["out"]) == made.contexts.out_lkcht.tobytes()


def test_onnxruntime_web_goes_out_compressed(edge: Edge, server: BackgroundServer) -> None:
    with httpx.stream("GET", f"{server.url}/demo/ort/{VERSION}/{WASM}", trust_env=False) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["content-type"] == "application/wasm"
        assert "immutable" in response.headers["cache-control"]
        assert b"".join(response.iter_raw()) == b"wasm"
    web = create_app(edge, Settings())
    mount(web, edge)
    with BackgroundServer(web) as without:
        assert httpx.get(f"{without.url}/demo/ort/{VERSION}/{WASM}", trust_env=False).status_code == 404
        assert httpx.get(f"{without.url}/demo/bundle", trust_env=False).json()["ort"] is None


def test_the_server_encodes_with_the_devices_own_code(client: httpx.Client, tiny: Bundle) -> None:
    device = Device(tiny, threads=1)
    for photograph in PHOTOGRAPHS[3:]:
        body = as_jpeg(load_picture(photograph.read()).resize((200, 120)))
        told = client.post("/demo/encode", content=body).json()
        packets = [base64.b64decode(one) for one in told["packets"]]
        assert packets == [device.encode(body, level=level) for level in range(3)]
        assert list(told["ms"]) == ["preprocess", "encoder", "coding"]
        assert client.post("/v1/answer", content=packets[0]).json()["level"] == 0


def test_a_jpeg_gets_the_uncompressed_networks_answer(client: httpx.Client, edge: Edge, tiny: Bundle) -> None:
    picture = load_picture(PHOTOGRAPHS[0].read())
    for side in (64, 24):
        body = as_jpeg(picture.resize((side, side)), quality=20)
        answer = client.post("/demo/picture", content=body).json()
        shown = load_picture(body).resize((64, 64), Image.Resampling.BICUBIC)
        expected = edge.picture_answer(np.asarray(shown)[None])["answers"]
        assert answer["answers"] == expected
        assert answer["level"] == -1
        assert answer["bundle"] == tiny.ident


def test_a_jpeg_is_answered_for_the_packets_tasks(shipped: Edge) -> None:
    picture = load_picture(PHOTOGRAPHS[1].read()).resize((224, 224))
    web = create_app(shipped, Settings())
    mount(web, shipped)
    with BackgroundServer(web) as one, httpx.Client(base_url=one.url, trust_env=False) as client:
        told = client.get("/demo/bundle").json()
        assert told["jpeg_tasks"] == told["tasks"] == ["classify", "detect", "segment"]
        body = as_jpeg(picture, quality=60)
        answer = client.post(f"/demo/picture?tasks={','.join(told['jpeg_tasks'])}", content=body).json()
        image_bhwc = np.asarray(load_picture(body))[None]
        assert answer["answers"] == shipped.picture_answer(image_bhwc, tasks=told["tasks"])["answers"]
        assert list(answer["ms"]) == ["head", "tail", "backbone", "detect", "segment"]
        assert list(client.post("/demo/picture", content=body).json()["answers"]) == ["classify"]
        for tasks in ("nope", "", "classify,,", "detect,'"):
            refused = client.post("/demo/picture", params={"tasks": tasks}, content=body)
            assert "a JPEG can be asked classify, detect, segment" in refusal(refused, 404)["detail"]
        assert client.post("/demo/picture", params={"tasks": "x" * 501}, content=body).status_code == 422


def test_without_task_teachers_a_jpeg_is_classified(shipped: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_teachers(*_: object, **__: object) -> None:
        raise BundlePart("no teacher_detect.onnx in it")

    monkeypatch.setattr("splitcodec.edge.line.Line.teachers", property(no_teachers))
    web = create_app(shipped, Settings())
    mount(web, shipped)
    with BackgroundServer(web) as one, httpx.Client(base_url=one.url, trust_env=False) as client:
        told = client.get("/demo/bundle").json()
        assert (told["tasks"], told["jpeg_tasks"]) == (["classify", "detect", "segment"], ["classify"])
        body = as_jpeg(Image.new("RGB", (64, 64)))
        assert client.post("/demo/picture?tasks=classify", content=body).status_code == 200
        assert refusal(client.post("/demo/picture?tasks=detect", content=body), 404)["title"] == "TaskError"


def test_scripts_and_page_name_the_same_elements() -> None:
    static = files("splitcodec.demo").joinpath("static")
    page = static.joinpath("index.html").read_text(encoding="utf-8")
    scripts = "".join(one.read_text(encoding="utf-8") for one in static.iterdir() if one.name.endswith(".js"))
    ids, used = set(re.findall(r'\bid="([^"]+)"', page)), set(re.findall(r'\$\("([^"]+)"\)', scripts))
    assert {"ours-drawn", "ours-classes", "jpeg-drawn", "jpeg-classes"} <= used <= ids


def test_what_is_no_picture_or_too_large_is_refused(client: httpx.Client) -> None:
    assert refusal(client.post("/demo/encode", content=b"no picture"), 400)["title"] == "PictureUnreadable"
    assert refusal(client.post("/demo/encode", content=b""), 400)["title"] == "PictureUnreadable"
    whole = as_jpeg(Image.new("RGB", (300, 300)))
    assert client.post("/demo/encode", content=whole).status_code == 200
    assert refusal(client.post("/demo/encode", content=whole[:400]), 400)["title"] == "PictureUnreadable"
    bomb = as_jpeg(Image.new("RGB", (301, 300)))
    problem = refusal(client.post("/demo/encode", content=bomb), 400)
    assert problem["type"] == "urn:splitcodec:PictureTooLarge"
    assert "90300 pixels; at most 90000" in problem["detail"]
    refusal(client.post("/demo/encode", content=bytes(LIMITS.encode_bytes + 1)), 413)
    refusal(client.post("/demo/encode", content=iter([bytes(40_000)] * 2)), 413)
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "png")
    assert "not a JPEG" in refusal(client.post("/demo/picture", content=file.getvalue()), 400)["detail"]
    large = as_jpeg(Image.new("RGB", (100, 91)))
    assert refusal(client.post("/demo/picture", content=large), 400)["title"] == "PictureTooLarge"
    refusal(client.post("/demo/picture", content=bytes(LIMITS.jpeg_bytes + 1)), 413)


def test_slow_and_too_many_callers_are_turned_away(server: BackgroundServer, client: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"POST /demo/encode HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        deadline = time.monotonic() + 20
        while (busy := client.post("/demo/picture", content=b"x")).status_code != 503:
            assert time.monotonic() < deadline
        assert busy.headers["retry-after"] == "1"
        assert refusal(busy, 503)["type"] == "about:blank"
        slow.settimeout(20)
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    assert refusal(client.post("/demo/picture", content=b"x"), 400)


def test_slow_senders_give_way_to_whoever_finds_no_place(edge: Edge) -> None:
    """They held all places for 30 s, and again as soon as these were over."""
    web = create_app(edge, Settings())
    mount(web, edge, ort=ORT, limits=replace(LIMITS, seconds=60.0, patience=0.2, running=1, waiting=2))
    body = as_jpeg(Image.new("RGB", (80, 80), "red"))
    head = b"POST /demo/encode HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"
    with BackgroundServer(web) as running, contextlib.ExitStack() as opened:
        slow = [
            opened.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=30)) for _ in range(3)
        ]
        for sent, one in zip((b"abc", b"a", bytes(20_000)), slow, strict=True):
            one.sendall(head + sent)
        deadline = time.monotonic() + 30
        while (came := httpx.post(f"{running.url}/demo/encode", content=body, trust_env=False)).status_code == 503:
            assert time.monotonic() < deadline
        assert came.status_code == 200
        refused = b"".join(iter(lambda: slow[1].recv(1000), b""))
        assert refused.startswith(b"HTTP/1.1 408"), "the one that had sent least"
        assert b"connection: close" in refused, "whose connection stayed open"
        for one in (slow[0], slow[2]):
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(1)


def test_work_that_fails_gives_its_place_back(server: BackgroundServer) -> None:
    def post() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            gone.sendall(b"POST /demo/encode HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")

    callers = [threading.Thread(target=post) for _ in range(4)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    body = as_jpeg(Image.new("RGB", (80, 80), "red"))
    deadline = time.monotonic() + 20
    while httpx.post(f"{server.url}/demo/encode", content=body, trust_env=False).status_code != 200:
        assert time.monotonic() < deadline


def test_a_bundle_without_its_head_is_refused_at_once(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_head(*_: object, **__: object) -> None:
        raise BundlePart("tiny@1 has no head.onnx")

    monkeypatch.setattr(edge, "picture_answer", no_head)
    with pytest.raises(BundlePart, match=r"head\.onnx"):
        mount(create_app(edge, Settings()), edge)


def test_the_tables_have_the_form_of_the_pinned_ones(client: httpx.Client) -> None:
    golden = json.loads((files("tests.golden") / "packets.json").read_text(encoding="utf-8"))
    assert set(client.get("/demo/tables").json()) == set(golden["tables"])


def test_the_command_mounts_it_and_says_who_encodes(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(
        edge: Edge, settings: Settings, *, announce: Callable[[str], None], extend: Any, pages: Any, ends_process: bool
    ) -> None:
        assert ends_process
        web = create_app(edge, settings, pages=pages)
        if extend is not None:
            extend(web)
        announce("http://x")
        with BackgroundServer(web) as one:
            found.append(httpx.get(f"{one.url}/demo", trust_env=False).status_code)

    found: list[int] = []
    monkeypatch.setattr("splitcodec.edge.server.serve", run)
    monkeypatch.setenv("SPLITCODEC_CACHE", str(tmp_path))
    for options in ([], ["--demo"]):
        result = CliRunner().invoke(app, ["serve", "--bundle", str(tiny_folder), *options], catch_exceptions=False)
        assert result.exit_code == 0
        assert ("http://x/demo (the server encodes; after `splitcodec demo-assets`" in result.stderr) == bool(options)
    assert found == [404, 200]


def test_where_tokens_are_set_the_page_is_open_and_its_work_is_not(edge: Edge) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    photo = as_jpeg(Image.new("RGB", (90, 80), (200, 120, 40)))
    web = create_app(edge, Settings(tokens=SecretStr(secret)), pages=("/demo",))
    mount(web, edge, limits=LIMITS)
    with BackgroundServer(web) as one, httpx.Client(base_url=one.url, trust_env=False) as client:
        assert client.get("/demo").status_code == 200
        assert client.get("/demo/static/app.js").status_code == 200
        assert client.get("/demonstration").status_code == 401
        for path in ("/demo/encode", "/demo/picture"):
            assert client.post(path, content=photo).status_code == 401
        told = client.post("/demo/encode", content=photo, headers={"authorization": f"Bearer {secret}"})
        assert told.status_code == 200


def test_a_picture_that_is_too_large_hears_of_pictures(edge: Edge) -> None:
    web = create_app(edge, Settings(), pages=("/demo",))
    mount(web, edge, limits=LIMITS)
    with BackgroundServer(web) as one:
        told = httpx.post(f"{one.url}/demo/encode", content=bytes(LIMITS.encode_bytes + 1), trust_env=False)
    assert told.status_code == 413
    assert "picture" in told.json()["detail"]
