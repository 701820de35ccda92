"""Packets and answers through a real Mosquitto."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paho.mqtt.client")

from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from splitcodec.cli import main
from splitcodec.device.client import Device
from splitcodec.device.links import open_link
from splitcodec.device.mqtt import mqtt
from splitcodec.edge.answer import Edge
from splitcodec.edge.mqtt import Bridge
from splitcodec.errors import LinkDown, LinkGarbled, LinkRefused, PacketBundle, SettingsError
from splitcodec.wire.answer import parse_answer
from splitcodec.wire.brief import shorten
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.problem import may_pass
from splitcodec.wire.request import SCORE, TOP, Wanted
from splitcodec.wire.topic import parse_broker
from tests.mosquitto import Mosquitto, free_port
from tests.requires import require


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")).running() as running:
        yield running


class Asked:
    """An edge that remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, Wanted]] = []

    def __call__(self, packet: bytes, wanted: Wanted) -> bytes:
        self.seen.append((packet, wanted))
        if packet == b"bad":
            raise PacketBundle("made with another bundle")
        if packet == b"fails":
            raise ZeroDivisionError
        if packet == b"down":
            raise LinkDown("no edge there")
        return b"{" + packet + b"}"


def test_a_picture_through_the_broker(broker: Mosquitto, tiny: Bundle, pictures: list[object]) -> None:
    edge, device = Edge(tiny), Device(tiny)
    with (
        Bridge(parse_broker(broker.url), lambda packet, wanted: edge.respond(packet, tasks=wanted.tasks or None)),
        mqtt(broker.url, tasks=("classify",)) as link,
    ):
        for picture in pictures:
            answer = device.ask(picture, link=link)  # type: ignore[arg-type]
            expected = edge.answer(device.encode(picture))["answers"]  # type: ignore[arg-type]
            assert answer["answers"] == expected


def test_wishes_and_key_travel_and_a_key_is_answered_once(broker: Mosquitto) -> None:
    asked = Asked()
    with Bridge(parse_broker(broker.url), asked), mqtt(broker.url, tasks=("a", "b"), top=2, score=0.3) as link:
        assert link.tasks == ("a", "b")
        assert [
            link(b"one", idempotency_key="k1"),
            link(b"one", idempotency_key="k1"),
            link(b"one", idempotency_key="k2"),
        ] == [b"{one}"] * 3
    assert asked.seen == [(b"one", Wanted(("a", "b"), 2, key, 0.3)) for key in ("k1", "k2")]


_GUESSES, _SCORES = "expected 1 to 1000 guesses", "expected a least score of boxes from 0 to 1"


@pytest.mark.parametrize(
    ("word", "said", "match"),
    [
        *((TOP, said, _GUESSES) for said in ("0", "1001", "two", "-1", "9" * 5000, "\u0663")),
        *((SCORE, said, _SCORES) for said in ("-0.1", "1.01", "nan", "", "many")),
    ],
)
def test_a_word_that_no_edge_takes_is_refused(broker: Mosquitto, word: str, said: str, match: str) -> None:
    asked = Asked()
    with Bridge(parse_broker(broker.url), asked), mqtt(broker.url, top=1, retries=0) as link:
        link._wanted = [(word, said)]
        with pytest.raises(LinkRefused, match=match) as caught:
            link(b"one")
    assert caught.value.status == 400
    assert not asked.seen


def test_large_packets_are_not_cut(broker: Mosquitto) -> None:
    with Bridge(parse_broker(broker.url), Asked()), mqtt(broker.url) as link:
        assert link(b"x" * 65_536) == b"{" + b"x" * 65_536 + b"}"
        with pytest.raises(LinkRefused, match="at most 65536"):
            link(b"x" * 65_537)


def test_refusals_and_faults_come_back_by_name(broker: Mosquitto) -> None:
    with Bridge(parse_broker(broker.url), Asked()), mqtt(broker.url, retries=0) as link:
        with pytest.raises(LinkRefused, match="another bundle") as caught:
            link(b"bad")
        assert (caught.value.status, caught.value.reason) == (400, "PacketBundle")
        with pytest.raises(LinkRefused, match="its log says why") as caught:
            link(b"fails")
        assert caught.value.status == 500
        with pytest.raises(LinkDown, match="no edge there"):
            link(b"down")
        assert link(b"good") == b"{good}"


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns far more often than they do by themselves."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_threads")
def test_several_threads_get_their_own_answers(broker: Mosquitto) -> None:
    wrong: list[bytes] = []

    with Bridge(parse_broker(broker.url), Asked(), concurrency=4), mqtt(broker.url) as link:

        def ask(name: int) -> None:
            for i in range(50):
                packet = b"%d-%d" % (name, i)
                if link(packet) != b"{" + packet + b"}":
                    wrong.append(packet)

        threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_process_that_forks_off_has_a_connection_of_its_own(broker: Mosquitto) -> None:
    """It wrote into the other's, whose thread alone reads what comes back."""
    script = (
        "import os, sys; from splitcodec.device.mqtt import mqtt\n"
        "link = mqtt(sys.argv[1], retries=0, timeout_s=5, brief=False); assert link(b'before') == b'{before}'\n"
        "if (child := os.fork()) == 0:\n"
        "    link.close(); assert link(b'child') == b'{child}'; link.close(); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0; assert link(b'after') == b'{after}'; link.close()"
    )
    asked = Asked()
    with Bridge(parse_broker(broker.url), asked):
        subprocess.run([sys.executable, "-W", "ignore", "-c", script, broker.url], check=True, timeout=60)
    assert [packet for packet, _ in asked.seen] == [b"before", b"child", b"after"]


def test_a_confirmation_may_come_while_a_packet_is_published(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Client.publish
    success = ReasonCode(PacketTypes.PUBACK, "Success")

    def publish(client: Client, *args: Any, **options: Any) -> Any:
        if client.on_publish is not None:  # paho calls it with a lock held that publishing needs
            confirm = threading.Thread(
                target=client.on_publish, args=(client, None, 60_000, success, None), daemon=True
            )
            confirm.start()
            confirm.join(5)
            assert not confirm.is_alive()
        return plain(client, *args, **options)

    monkeypatch.setattr(Client, "publish", publish)
    with Bridge(parse_broker(broker.url), Asked()), mqtt(broker.url, retries=0) as link:
        assert link(b"one") == b"{one}"


def test_nobody_bridges_is_link_down_at_once(broker: Mosquitto) -> None:
    begin = time.monotonic()
    with mqtt(broker.url + "/empty", retries=0) as link, pytest.raises(LinkDown, match="splitcodec bridge"):
        link(b"x")
    assert time.monotonic() - begin < 5


def test_no_broker_is_link_down() -> None:
    url = f"mqtt://127.0.0.1:{free_port()}/site7"
    with mqtt(url, retries=1) as link, pytest.raises(LinkDown, match=r"2 tries .*cannot reach the broker"):
        link(b"x")
    with pytest.raises(LinkDown, match="cannot reach the broker"):
        Bridge(parse_broker(url), Asked()).__enter__()


def test_a_slow_edge_is_link_down_after_the_time_out(broker: Mosquitto) -> None:
    over = threading.Event()

    def respond(packet: bytes, _: Wanted) -> bytes:
        over.wait(5)
        return packet

    with Bridge(parse_broker(broker.url), respond), mqtt(broker.url, timeout_s=0.3, retries=0) as link:
        with pytest.raises(LinkDown, match=r"within 0\.3 s"):
            link(b"x")
        over.set()


def test_the_broker_keeps_packets_for_a_named_bridge_that_is_away(broker: Mosquitto) -> None:
    url = broker.url + "/kept"
    with Bridge(parse_broker(url), Asked(), client_id="bridge7"):
        pass
    got: list[bytes] = []
    with mqtt(url, timeout_s=20, retries=0) as link:
        thread = threading.Thread(target=lambda: got.append(link(b"waited")))
        thread.start()
        time.sleep(0.3)
        with Bridge(parse_broker(url), Asked(), client_id="bridge7"):
            thread.join(15)
    assert got == [b"{waited}"]


def test_a_broker_that_restarts_is_found_again(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    with broker.running():
        bridge = Bridge(parse_broker(broker.url), Asked()).__enter__()
        link = mqtt(broker.url, timeout_s=2, retries=5)
        assert link(b"before") == b"{before}"
    with broker.running():
        assert link(b"after") == b"{after}"
        link.close()
        bridge.__exit__()


def test_a_stranger_who_names_a_topic_of_others_is_not_answered_there(broker: Mosquitto) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    got: list[bytes] = []
    subscribed = threading.Event()
    stranger = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    stranger.on_message = lambda _, __, message: got.append(message.payload)
    stranger.on_subscribe = lambda *_: subscribed.set()
    stranger.connect("localhost", broker.port)
    stranger.loop_start()
    stranger.subscribe("elsewhere", qos=1)
    assert subscribed.wait(5)
    asked = Asked()
    with Bridge(parse_broker(broker.url), asked), mqtt(broker.url) as link:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = "elsewhere"
        stranger.publish("site7/packets", b"evil", qos=1, properties=properties).wait_for_publish(5)
        assert link(b"good") == b"{good}"
    stranger.disconnect()
    stranger.loop_stop()
    assert got == []
    assert [packet for packet, _ in asked.seen] == [b"good"]


def test_answers_cross_the_broker_shortened(broker: Mosquitto) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    answer = b'{"bundle":"tiny@1","level":0,"answers":{"classify":[]},"ms":{"decode":0.3}}'
    crossed: list[tuple[str, bytes]] = []
    subscribed = threading.Event()
    ear = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    ear.on_message = lambda _, __, message: crossed.append((message.properties.ContentType, message.payload))
    ear.on_subscribe = lambda *_: subscribed.set()
    ear.connect("localhost", broker.port)
    ear.loop_start()
    ear.subscribe("site7/answers/#", qos=1)
    assert subscribed.wait(5)
    with Bridge(parse_broker(broker.url), lambda *_: answer):
        for brief in (True, False):
            with mqtt(broker.url, brief=brief) as link:
                assert link(b"x") == answer
    deadline = time.monotonic() + 5
    while len(crossed) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    ear.disconnect()
    ear.loop_stop()
    assert crossed == [("application/x-brief", shorten(answer)), ("application/json", answer)]


def test_a_garbled_answer_is_named(broker: Mosquitto) -> None:
    with (
        Bridge(parse_broker(broker.url), lambda *_: b"not json"),
        mqtt(broker.url) as link,
        pytest.raises(LinkGarbled),
    ):
        parse_answer(link(b"x"))


def test_passwords(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run([require("mosquitto_passwd"), "-b", "-c", passwords, "camera7", "s3cret"], check=True)
    broker = Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}\n")
    with broker.running():
        good = parse_broker(broker.url, username="camera7", password="s3cret")
        assert "s3cret" not in repr(good)
        with (
            Bridge(good, Asked()),
            mqtt(broker.url.replace("://", "://camera7:s3cret@"), retries=0) as link,
            mqtt(broker.url, username="camera7", password="wrong", retries=0) as stranger,
        ):
            assert link(b"x") == b"{x}"
            assert "s3cret" not in link.url
            with pytest.raises(LinkRefused, match="user and password") as caught:
                stranger(b"x")
            assert caught.value.status == 401
        with pytest.raises(LinkDown, match="user and password"):
            Bridge(parse_broker(broker.url), Asked()).__enter__()


def test_a_wrong_password_is_named_every_time_and_a_broker_that_is_gone_too(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run([require("mosquitto_passwd"), "-b", "-c", passwords, "camera7", "s3cret"], check=True)
    broker = Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}\n")
    with mqtt(broker.url, username="camera7", password="wrong", retries=0, timeout_s=2.0) as link:
        with broker.running():
            for _ in range(3):
                with pytest.raises(LinkRefused, match="check user and password") as caught:
                    link(b"x")
                assert caught.value.status == 401
        deadline = time.monotonic() + 40
        told = "password"
        while "password" in told and time.monotonic() < deadline:
            with pytest.raises((LinkRefused, LinkDown)) as other:
                link(b"x")
            told = str(other.value)
        assert "check that the broker runs" in told


# paho leaves the socket of a failed handshake to the garbage collector
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls(tmp_path: Path) -> None:
    openssl = require("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    broker = Mosquitto(tmp_path, f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n", scheme="mqtts")
    with broker.running(), Bridge(parse_broker(broker.url, ca_file=certificate), Asked()):
        with mqtt(broker.url, ca_file=certificate) as link:
            assert link(b"x") == b"{x}"
        with mqtt(broker.url, retries=0) as link, pytest.raises(LinkDown, match="certificate"):
            link(b"x")
    with pytest.raises(SettingsError, match="no certificates"):
        mqtt(broker.url, ca_file=key)
    gc.collect()


def test_a_link_that_is_dropped_leaves_the_broker(broker: Mosquitto) -> None:
    with Bridge(parse_broker(broker.url), Asked()):
        mqtt(broker.url)(b"x")
        gc.collect()
        names = [one.name for one in threading.enumerate()]
    assert not [name for name in names if "paho" in name and "bridge" not in name]


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://",
        "mqtt://host",
        "mqtt://host/",
        "mqtt://host/a/+/b",
        "mqtt://host/$SYS",
        "mqtt://h:x/t",
        "mqtt://h/t?q=1",
    ],
)
def test_addresses_that_are_none_are_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="expected"):
        open_link(url)


def test_passwords_are_not_printed_with_a_wrong_address() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_broker("mqtt://user:s3cret@host")
    assert "s3cret" not in str(caught.value)


def test_options_without_sense() -> None:
    with pytest.raises(SettingsError, match="time-out"):
        mqtt("mqtt://h/t", timeout_s=0)
    with pytest.raises(SettingsError, match="retries"):
        mqtt("mqtt://h/t", retries=-1)
    with pytest.raises(SettingsError, match="CA file"):
        mqtt("mqtt://h/t", ca_file="x")
    with pytest.raises(SettingsError, match="concurrency"):
        Bridge(parse_broker("mqtt://h/t"), Asked(), concurrency=0)


def test_the_commands(
    broker: Mosquitto,
    tiny_folder: Path,
    tmp_path: Path,
    pictures: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "picture.png"
    pictures[4].save(path)  # type: ignore[attr-defined]
    url = broker.url + "/command"
    command = [sys.executable, "-m", "splitcodec.cli"]
    with subprocess.Popen(
        [*command, "bridge", "--mqtt", url, "--bundle", str(tiny_folder)], stderr=subprocess.PIPE, text=True
    ) as bridge:
        assert bridge.stderr is not None
        assert "bridging mqtt://" in bridge.stderr.readline()
        ask = ["splitcodec", "ask", str(path), "--url", url, "--bundle", str(tiny_folder), "--json", "--top", "1"]
        monkeypatch.setattr(sys, "argv", ask)
        try:
            with pytest.raises(SystemExit):
                main()
        finally:
            bridge.terminate()
        assert bridge.wait(20) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["bundle"], len(told["answers"]["classify"])) == ("tiny@1", 1)


def test_the_access_rules_of_the_guide(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text(
        "user bridge\ntopic read site7/packets\ntopic write site7/answers/#\n"
        "user camera7\ntopic write site7/packets\npattern read site7/answers/%c\n"
        "user spy\ntopic write site7/packets\n"
    )
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    for user in ("bridge", "camera7", "spy"):
        subprocess.run([require("mosquitto_passwd"), "-b", passwords, user, "x"], check=True)
    broker = Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}\nacl_file {rules}\n")
    with (
        broker.running(),
        Bridge(parse_broker(broker.url, username="bridge", password="x"), Asked()),
        mqtt(broker.url, username="camera7", password="x") as link,
        mqtt(broker.url, username="bridge", password="x", retries=0, timeout_s=2) as reader,
    ):
        assert link(b"x") == b"{x}"
        with pytest.raises(LinkRefused, match="access rules") as caught:
            reader(b"x")
        assert caught.value.status == 403


def test_a_packet_that_the_broker_would_hang_up_on_is_refused(tmp_path: Path) -> None:
    """It was sent again after each connection, and none behind it arrived."""
    broker = Mosquitto(tmp_path, lines="allow_anonymous true\nmax_packet_size 1000\n")
    with broker.running(), Bridge(parse_broker(broker.url), Asked()), mqtt(broker.url, retries=0, timeout_s=5) as link:
        assert link(b"one") == b"{one}"
        with pytest.raises(LinkRefused, match="choose a lower level") as caught:
            link(b"x" * 5000)
        assert caught.value.status == 413
        assert not may_pass(caught.value)
        assert link(b"two") == b"{two}"
    assert "oversize" not in (tmp_path / "log").read_text()
