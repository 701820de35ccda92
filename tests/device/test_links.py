"""One address, several things to ask for; and a refusal's name on its way through a bridge."""

from __future__ import annotations

import pytest
from PIL import Image

from splitcodec.cli.bridge import _over_http
from splitcodec.device.client import Device
from splitcodec.device.link import http
from splitcodec.device.links import Links, open_link
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, Settings, create_app
from splitcodec.edge.udp import UdpBridge
from splitcodec.errors import LinkDown, LinkRefused, SettingsError
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.problem import may_pass
from splitcodec.wire.request import Wanted
from tests.device import test_link

edge = test_link.edge


def test_each_packet_asks_for_what_is_wanted_of_it_over_a_link_that_is_kept(edge: test_link.Edge) -> None:
    links = Links(edge.url, retries=0, token="t0ken")
    few, many = Wanted(("classify",), 1, "k1"), Wanted(("classify", "detect"), None, "k2")
    for wanted in (few, many, few._replace(key="k3")):
        assert links(b"packet", wanted) == b"{}"
    assert [path.partition("?")[2] for path, _, _ in edge.seen] == [
        "tasks=classify&top=1&brief=1",
        "tasks=classify%2Cdetect&brief=1",
        "tasks=classify&top=1&brief=1",
    ]
    assert [headers["idempotency-key"] for _, headers, _ in edge.seen] == ["k1", "k2", "k3"]
    assert all(headers["authorization"] == "Bearer t0ken" for _, headers, _ in edge.seen)
    assert links.asking(few) is links.asking(Wanted(("classify",), 1)) is not links.asking(many)
    likely = few._replace(score=0.3)
    assert links(b"packet", likely) == b"{}"
    assert edge.seen[-1][0].endswith("?tasks=classify&top=1&score=0.3&brief=1")
    assert links.asking(likely) is not links.asking(few)
    links.close()


def test_a_token_that_was_turned_over_is_read_again(edge: test_link.Edge) -> None:
    """`watch --token-file` went on with the old one until somebody started it anew."""
    tokens: list[str | None] = ["old"]

    def read() -> str | None:
        if tokens[0] is None:
            raise SettingsError("no such file")
        return tokens[0]

    links, refused = Links(edge.url, retries=0, token=read), test_link.problem(401, "no")
    fine: test_link.Reply = (200, {}, b"{}")
    for tokens[0] in ("old", None, "not \u00fc"):
        edge.replies = [refused]
        with pytest.raises(LinkRefused):
            links(b"packet", Wanted())
    tokens[0] = "new"
    for edge.replies in ([refused, fine], [fine]):
        assert links(b"packet", Wanted()) == b"{}"
    links.close()
    sent = [headers["authorization"] for _, headers, _ in edge.seen]
    assert sent == ["Bearer old"] * 4 + ["Bearer new"] * 2


def test_a_bridge_reads_the_servers_token_again(edge: test_link.Edge) -> None:
    tokens = ["old"]
    respond, _ = _over_http(edge.url, 10.0, token=lambda: tokens[0])
    edge.replies = [test_link.problem(401, "no")]
    with pytest.raises(LinkRefused):
        respond(b"packet", Wanted())
    tokens[0], edge.replies = "new", [test_link.problem(401, "no"), (200, {}, b"{}")]
    assert respond(b"packet", Wanted()) == b"{}"
    assert [headers["authorization"] for _, headers, _ in edge.seen] == [
        f"Bearer {one}" for one in ("old", "old", "new")
    ]


def test_an_address_that_is_none_is_refused_when_it_is_first_asked() -> None:
    with pytest.raises(SettingsError, match="no address of an edge"):
        Links("ftp://a").asking(Wanted())


def test_the_name_of_a_refusal_comes_through_a_bridge(tiny: Bundle, pictures: list[Image.Image]) -> None:
    packet = Device(tiny).encode(pictures[4])
    with BackgroundServer(create_app(Edge(tiny), Settings())) as server:
        respond, _ = _over_http(server.url, 10.0, token=None)
        with UdpBridge("127.0.0.1", 0, respond) as bridge:
            links = Links(f"udp://127.0.0.1:{bridge.port}", retries=0)
            for asked, reason, passes in (
                (packet, "TaskError", True),
                (packet[:-1] + bytes((packet[-1] ^ 1,)), "PacketChecksum", False),
            ):
                with pytest.raises(LinkRefused) as caught:
                    links(asked, Wanted(("detect",)))
                assert (caught.value.reason, may_pass(caught.value)) == (reason, passes)
            links.close()


def test_an_empty_word_for_the_broker_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an environment file has it: no user, no password, no file of authorities."""
    pytest.importorskip("paho.mqtt.client")
    from splitcodec.cli.bridge import _from_mqtt
    from splitcodec.device.mqtt import MqttLink

    for name in ("USERNAME", "PASSWORD", "CA"):
        monkeypatch.setenv(f"SPLITCODEC_MQTT_{name}", "")
    link = open_link("mqtt://broker.example/site7")
    assert isinstance(link, MqttLink)
    broker = link._session._broker
    assert (broker.username, broker.password, broker.ca_file) == (None, None, None)
    _, place = _from_mqtt("mqtt://broker.example/site7", lambda *_: b"", ca=None, client_id=None, concurrency=1)
    assert place == "mqtt://broker.example:1883/site7"


def test_a_scheme_may_be_in_capitals() -> None:
    pytest.importorskip("paho.mqtt.client")
    for url in ("HTTP://edge.example", "UDP://edge.example:8080", "MQTT://broker.example/site7"):
        link = open_link(url)
        assert link.url.lower().startswith(url[:4].lower())
        link.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "udp://127.0.0.1:9", "mqtt://127.0.0.1:9/site"])
def test_every_link_waits_alike_between_tries(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if url.startswith("mqtt"):
        pytest.importorskip("paho.mqtt")
    waits = list[float]()
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setitem(http.__kwdefaults__ or {}, "sleep", waits.append)
    link = open_link(url, timeout_s=0.2, retries=30)
    with pytest.raises(LinkDown, match="31 tries"):
        link(b"x")
    link.close()
    assert len(waits) == 30
    for turn, wait in enumerate(waits):
        most = min(15.0, 0.4 * 2.0**turn)
        assert most / 2 <= wait <= most
