"""What a PUBLISH weighs, held against paho's own writing of it."""

from __future__ import annotations

import pytest

pytest.importorskip("paho.mqtt.client")

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitcodec.errors import SettingsError
from splitcodec.wire.topic import parse_broker, published_bytes


@pytest.mark.parametrize("size", [1, 60, 61, 100, 5000, 16_350, 16_380, 70_000])
def test_a_publish_is_as_large_as_paho_writes_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType, properties.CorrelationData = "application/json", b"12345678"
    written: list[bytes] = []
    monkeypatch.setattr(client, "_sock", object())  # as if it were connected
    monkeypatch.setattr(client, "_packet_queue", lambda _, packet, *__: written.append(packet))
    client._send_publish(1, "site7/\u00e4".encode(), b"x" * size, qos=1, properties=properties)
    assert published_bytes("site7/\u00e4", properties.pack(), b"x" * size) == len(written[0])


@pytest.mark.parametrize(
    "url", ["mqtt://camera7:s3cret@broker:99999/site7", "mqtt://camera7:s3/cret@broker/site7", "mqtt://[s3cret@b/t"]
)
def test_an_address_that_is_none_tells_no_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_broker(url)
    assert "is no URL" in str(caught.value)
    assert "s3" not in str(caught.value)


def test_a_port_of_zero_is_none() -> None:
    """It went to the usual one."""
    with pytest.raises(SettingsError, match="no address of a broker"):
        parse_broker("mqtt://broker:0/site7")


@pytest.mark.parametrize(
    ("topic", "plain"),
    [
        ("site7/answers/camera7", True),
        ("site7/answers/floor/2/é", True),
        ("site7/answers/", False),
        ("site7/answers", False),
        ("site8/answers/camera7", False),
        ("", False),
        ("site7/answers/#", False),
        ("site7/answers/+/x", False),
        ("site7/answers/a\nb", False),
        ("site7/answers/a\0", False),
        ("site7/answers/\ud800", False),
        ("site7/answers/" + "a" * 256, True),
        ("site7/answers/" + "a" * 257, False),
        ("site7/answers/" + "é" * 129, False),
        ("site7/answers/" + "/".join("12345678"), True),
        ("site7/answers/" + "/".join("123456789"), False),
    ],
)
def test_answers_go_to_plain_topics_of_this_edge(topic: str, plain: bool) -> None:
    assert parse_broker("mqtt://broker/site7").may_answer(topic) is plain
