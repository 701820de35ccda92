"""The least score of the boxes that a device wants, over each carrier, of a bundle that ships."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from splitcodec.cli.bridge import _over_http
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.client import Device
from splitcodec.device.fragmented import fragmented
from splitcodec.device.link import Link, http
from splitcodec.device.links import open_link
from splitcodec.device.udp import udp
from splitcodec.edge.answer import Edge
from splitcodec.edge.fragmented import asked, serve_frames
from splitcodec.edge.server import BackgroundServer, Settings, create_app
from splitcodec.edge.udp import UdpBridge
from splitcodec.wire.brief import shorten
from splitcodec.wire.fragment import DATAGRAM
from splitcodec.wire.topic import parse_broker
from tests.mosquitto import Mosquitto

LEAST = 0.3
CAMERA = next(one for one in PHOTOGRAPHS if one.name == "camera")


@pytest.fixture(scope="module")
def edge() -> Edge:
    return Edge("efficientnet-lite0", threads=1)


@pytest.fixture(scope="module")
def packet(edge: Edge) -> bytes:
    return Device(edge.bundles[0], threads=1).encode(CAMERA.read(), fit="letterbox")


@pytest.fixture(scope="module")
def server(edge: Edge) -> Iterator[BackgroundServer]:
    with BackgroundServer(create_app(edge, Settings())) as running:
        yield running


def boxes(answer: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer)["answers"]["detect"]
    return found


def holds(edge: Edge, packet: bytes, link: Link) -> None:
    """A link that asks for the likelier boxes gets those and no others."""
    whole = boxes(edge.respond(packet, tasks=["detect"]))
    likely = [box for box in whole if box["score"] >= LEAST]
    assert 0 < len(likely) < len(whole)
    assert boxes(link(packet)) == likely


def test_an_answer_holds_the_boxes_that_are_wanted_in_the_bytes_that_they_take(edge: Edge, packet: bytes) -> None:
    sizes = {}
    for score in (0.0, 0.05, LEAST, 0.5, 1.0):
        answer = edge.respond(packet, tasks=["detect"], score=score)
        sizes[score] = (len(boxes(answer)), len(answer), len(shorten(answer)))
    usual = edge.respond(packet, tasks=["detect"])
    assert sizes[0.0][0] == sizes[0.05][0] == len(boxes(usual)) == 100
    assert sizes[1.0][0] == 0
    for few, many, brief in (sizes[LEAST], sizes[0.5]):
        assert 0 < few < 30
        assert many < len(usual) / 4
        assert brief < len(shorten(usual)) / 3


def test_over_http_and_through_a_bridge_before_it(edge: Edge, packet: bytes, server: BackgroundServer) -> None:
    with http(server.url, tasks=["detect"], score=LEAST) as link:
        holds(edge, packet, link)
    respond, _ = _over_http(server.url, 10.0, token=None)
    with UdpBridge("127.0.0.1", 0, respond) as bridge:
        for score, count in ((None, 100), (1, 0)):
            with udp(f"udp://127.0.0.1:{bridge.port}", tasks=["detect"], score=score) as link:
                assert len(boxes(link(packet))) == count


def test_over_udp(edge: Edge, packet: bytes) -> None:
    with UdpBridge("127.0.0.1", 0, edge.respond_to) as bridge:
        link = open_link(f"udp://127.0.0.1:{bridge.port}", tasks=["detect"], score=LEAST)
        holds(edge, packet, link)
        link.close()


def test_over_frames(edge: Edge, packet: bytes) -> None:
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    stop = threading.Event()

    def sending(end: socket.socket, frame: bytes) -> None:
        end.sendall(frame)

    def receiving(end: socket.socket, seconds: float) -> bytes | None:
        end.settimeout(max(seconds, 0.001))
        try:
            return end.recv(DATAGRAM)
        except TimeoutError:
            return None

    with near, far:
        serving = threading.Thread(
            target=serve_frames,
            args=(
                asked(edge.respond_to),
                lambda frame: sending(far, frame),
                lambda seconds: receiving(far, seconds),
            ),
            kwargs={"frame": 222, "stop": stop},
        )
        serving.start()
        try:
            link = fragmented(
                lambda frame: sending(near, frame),
                lambda seconds: receiving(near, seconds),
                tasks=["detect"],
                score=LEAST,
                brief=True,
            )
            holds(edge, packet, link)
        finally:
            stop.set()
            serving.join()


def test_over_mqtt_where_answers_that_are_kept_tell_it_apart(
    edge: Edge, packet: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("paho.mqtt.client")
    from splitcodec.edge.mqtt import Bridge

    with (
        Mosquitto(tmp_path_factory.mktemp("mosquitto")).running() as broker,
        Bridge(parse_broker(broker.url), edge.respond_to),
    ):
        link, usual = (open_link(broker.url, tasks=["detect"], score=score) for score in (LEAST, None))
        holds(edge, packet, lambda one: link(one, idempotency_key="k"))
        assert len(boxes(usual(packet, idempotency_key="k"))) == 100
        link.close()
        usual.close()
