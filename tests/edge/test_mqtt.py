"""The bridge between publishers that are not ours and a real Mosquitto."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paho.mqtt.client")

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitcodec.edge import mqtt as edge_mqtt
from splitcodec.edge.mqtt import Bridge
from splitcodec.wire.request import Wanted
from splitcodec.wire.topic import parse_broker
from tests.mosquitto import Mosquitto


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")).running() as running:
        yield running


def echo(packet: bytes, _: Wanted) -> bytes:
    return packet


class Publisher:
    """Publishes packets with the QoS it is told, and keeps the answers."""

    def __init__(self, broker: Mosquitto, name: str) -> None:
        self.answers: list[bytes] = []
        self._topic = f"site7/answers/{name}"
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5)
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = lambda _, __, message: self.answers.append(message.payload)
        self.client.connect("localhost", broker.port)
        self.client.loop_start()
        self.client.subscribe(self._topic, qos=1)
        assert subscribed.wait(5)

    def publish(self, packet: bytes, qos: int) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = self._topic
        self.client.publish("site7/packets", packet, qos=qos, properties=properties)

    def answered(self, count: int) -> list[bytes]:
        deadline = time.monotonic() + 10
        while len(self.answers) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return sorted(self.answers)


@contextmanager
def publisher(broker: Mosquitto, name: str) -> Iterator[Publisher]:
    one = Publisher(broker, name)
    yield one
    one.client.disconnect()
    one.client.loop_stop()
    one.client.on_message = one.client.on_subscribe = None


def test_publishers_of_any_quality_are_answered_over_one_connection(broker: Mosquitto) -> None:
    packets = [b"%02d" % i for i in range(30)]
    connections: list[object] = []
    bridge = Bridge(parse_broker(broker.url), echo)

    def connected(*said: Any) -> None:
        connections.append(said[3])
        bridge._on_connect(*said)

    bridge._client.on_connect = connected
    with bridge, publisher(broker, "q0") as loose, publisher(broker, "q1") as sure, publisher(broker, "q2") as once:
        for packet in packets:
            for qos, one in enumerate((loose, sure, once)):
                one.publish(packet, qos)
        for one in (loose, sure, once):
            assert one.answered(len(packets)) == packets
    assert len(connections) == 1
    assert "protocol error" not in (broker.folder / "log").read_text().lower()


def test_packets_that_the_broker_cannot_hold_back_are_bounded(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(edge_mqtt, "UNHELD", 3)
    over = threading.Event()

    def respond(packet: bytes, _: Wanted) -> bytes:
        over.wait(10)
        return packet

    with (
        caplog.at_level(logging.WARNING, "splitcodec.edge"),
        Bridge(parse_broker(broker.url), respond, concurrency=1),
        publisher(broker, "q0") as one,
    ):
        for i in range(5):
            one.publish(b"%d" % i, 0)
        deadline = time.monotonic() + 10
        while caplog.text.count("one more is dropped") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        over.set()
        assert one.answered(3) == [b"0", b"1", b"2"]
        one.publish(b"after", 0)
        assert b"after" in one.answered(4)


def test_an_answer_that_the_broker_would_hang_up_on_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was sent again after each connection, and nobody was answered any more."""
    broker = Mosquitto(tmp_path, lines="allow_anonymous true\nmax_packet_size 1000\n")

    def respond(packet: bytes, _: Wanted) -> bytes:
        return packet * int(packet)

    with (
        broker.running(),
        caplog.at_level(logging.WARNING, "splitcodec.edge"),
        Bridge(parse_broker(broker.url), respond) as bridge,
        publisher(broker, "me") as one,
    ):
        one.publish(b"300", 1)  # 900 bytes of answer
        assert one.answered(1) == [b"300" * 300]
        one.publish(b"333", 1)  # 999, and what is around them
        one.answered(2)
        one.publish(b"001", 1)
        assert b"001" in one.answered(3)
        refusal = next(json.loads(came) for came in one.answers if came.startswith(b"{"))
        assert (refusal["title"], refusal["status"]) == ("AnswerTooLarge", 422)
        assert "the broker takes 1000" in caplog.text
        assert bridge._client.is_connected()
    assert "oversize" not in (tmp_path / "log").read_text()


def test_the_answers_that_are_kept_are_bounded_in_bytes(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_mqtt, "BYTES_KEPT", 1000)
    with Bridge(parse_broker(broker.url), lambda packet, _: packet * 200, concurrency=1) as bridge:
        with publisher(broker, "me") as one:
            for count, packet in enumerate((b"a", b"b", b"c", b"d", b"e", b"f", b"g"), 1):
                one.publish(packet, 1)
                assert len(one.answered(count)) == count
        assert list(bridge._kept.values()) == [packet * 200 for packet in (b"c", b"d", b"e", b"f", b"g")]


@pytest.mark.parametrize("name", ["/".join("a" * 250), "a" * 65_000])
def test_a_response_topic_that_the_broker_would_hang_up_on_is_not_answered(broker: Mosquitto, name: str) -> None:
    """The answer was sent again after each connection, and nobody was answered any more."""
    with (
        Bridge(parse_broker(broker.url), echo) as bridge,
        publisher(broker, "stranger") as stranger,
        publisher(broker, "me") as me,
    ):
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = f"site7/answers/{name}"
        stranger.client.publish("site7/packets", b"evil", qos=1, properties=properties).wait_for_publish(5)
        me.publish(b"good", 1)
        assert me.answered(1) == [b"good"]
        assert bridge._client.is_connected()
        me.publish(b"then", 1)
        assert me.answered(2) == [b"good", b"then"]


def test_an_answer_that_the_broker_does_not_allow_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "acl").write_text("topic readwrite site7/packets\ntopic read site7/answers/#\n")
    broker = Mosquitto(tmp_path, lines=f"allow_anonymous true\nacl_file {tmp_path / 'acl'}\n")
    with (
        broker.running(),
        caplog.at_level(logging.WARNING, "splitcodec.edge"),
        Bridge(parse_broker(broker.url), echo),
        publisher(broker, "me") as me,
    ):
        me.publish(b"packet", 1)
        deadline = time.monotonic() + 10
        while not caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "refused an answer: Not authorized; check its access rules" in caplog.text
    assert me.answers == []


def test_a_lost_connection_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = Mosquitto(tmp_path)
    with caplog.at_level(logging.WARNING, "splitcodec.edge"):
        with broker.running():
            bridge = Bridge(parse_broker(broker.url), echo).__enter__()
        deadline = time.monotonic() + 10
        while "the connection is lost" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        bridge.__exit__()
    assert "the connection is lost" in caplog.text
