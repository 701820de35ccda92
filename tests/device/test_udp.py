"""Packets in datagrams and answers back: the real link and the real bridge over loopback, lossy where it says so."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.device.links import open_link
from splitcodec.device.udp import udp
from splitcodec.edge import udp as edge_udp
from splitcodec.edge.answer import Edge
from splitcodec.edge.udp import UdpBridge
from splitcodec.errors import LinkDown, LinkGarbled, LinkRefused, SettingsError
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.fragment import DATAGRAM, Channel, Fragment, dump_frame, parse_frame, split
from splitcodec.wire.request import Wanted

KEY = "sixteen bytes or more"


class Echo:
    """An edge that says what it was asked."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.seen: list[tuple[bytes, Wanted]] = []
        self.delay_s = delay_s

    def __call__(self, packet: bytes, wanted: Wanted) -> bytes:
        self.seen.append((packet, wanted))
        time.sleep(self.delay_s)
        return b"answer to " + packet


@contextmanager
def relay(port: int, harm: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """Carry datagrams of one device to a port of this machine and back, as `harm` gives them."""
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    near.bind(("127.0.0.1", 0))
    far.connect(("127.0.0.1", port))
    stop = threading.Event()
    caller: list[Any] = []

    def carry(source: socket.socket, give: Callable[[bytes], Any]) -> None:
        source.settimeout(0.05)
        while not stop.is_set():
            try:
                data, address = source.recvfrom(65_536)
            except OSError:
                continue
            if source is near:
                caller[:] = [address]
            for one in harm(data):
                give(one)

    threads = [
        threading.Thread(target=carry, args=(near, far.send)),
        threading.Thread(target=carry, args=(far, lambda data: near.sendto(data, caller[0]))),
    ]
    try:
        for thread in threads:
            thread.start()
        yield near.getsockname()[1]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        near.close()
        far.close()


@pytest.mark.parametrize("token", [None, KEY])
def test_a_picture_is_answered(tiny: Bundle, pictures: list[Image.Image], token: str | None) -> None:
    edge, device = Edge(tiny), Device(tiny)
    with (
        UdpBridge("127.0.0.1", 0, edge.respond_to, token=token) as bridge,
        udp(f"udp://127.0.0.1:{bridge.port}", top=2, token=token) as link,
    ):
        answer = device.ask(pictures[4], link=link)
        wanted = json.loads(edge.respond(device.encode(pictures[4]), top=2))
    assert len(answer["answers"]["classify"]) == 2
    assert answer["answers"] == wanted["answers"]


def test_what_is_asked_for_arrives() -> None:
    asked = Echo()
    with UdpBridge("127.0.0.1", 0, asked) as bridge:
        url = f"udp://127.0.0.1:{bridge.port}"
        with udp(url, tasks=["classify", "detect"], top=3, score=0.3) as link:
            assert link.tasks == ("classify", "detect")
            assert link(b"\x14one", idempotency_key="k1") == b"answer to \x14one"
        other = open_link(url)
        assert other(b"\x14two") == b"answer to \x14two"
        other.close()
    assert asked.seen == [(b"\x14one", Wanted(("classify", "detect"), 3, score=0.3)), (b"\x14two", Wanted())]


def test_packets_and_answers_of_many_datagrams_over_a_bad_link() -> None:
    chance = random.Random(7)

    def harm(data: bytes) -> list[bytes]:
        if chance.random() < 0.2:
            return []
        if chance.random() < 0.1:
            return [data, data]
        return [bytes((data[0] ^ 1,)) + data[1:]] if chance.random() < 0.1 else [data]

    asked = Echo()
    with (
        UdpBridge("127.0.0.1", 0, asked, token=KEY, wait_s=0.1) as bridge,
        relay(bridge.port, harm) as port,
        udp(f"udp://127.0.0.1:{port}", token=KEY, wait_s=0.1, timeout_s=60.0) as link,
    ):
        packets = [b"\x14" + chance.randbytes(700 * i) for i in range(8)]
        assert [link(packet) for packet in packets] == [b"answer to " + packet for packet in packets]
    assert Counter(packet for packet, _ in asked.seen) == Counter(packets), "each is answered once"


def test_the_largest_answer_of_a_bridge_is_taken() -> None:
    """From 256 KiB on it was dropped at the last datagram, however often it came: the packet waited for ever."""
    answer = random.Random(1).randbytes(300_000)
    with (
        UdpBridge("127.0.0.1", 0, lambda *_: answer) as bridge,
        udp(f"udp://127.0.0.1:{bridge.port}", brief=False, timeout_s=5.0, retries=0) as link,
    ):
        assert link(b"\x14packet") == answer


def test_devices_are_answered_at_the_same_time() -> None:
    all_here = threading.Barrier(4, timeout=20)  # which nobody passes alone

    def asked(packet: bytes, wanted: Wanted) -> bytes:
        all_here.wait()
        return Echo()(packet, wanted)

    with UdpBridge("127.0.0.1", 0, asked, concurrency=4) as bridge:
        got: list[bytes] = []

        def ask(i: int) -> None:
            with udp(f"udp://127.0.0.1:{bridge.port}", timeout_s=30.0) as link:
                got.append(link(b"\x14" + bytes((i,))))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(got) == [b"answer to \x14" + bytes((i,)) for i in range(4)]


def test_a_bridge_that_comes_back_is_found_again() -> None:
    with UdpBridge("127.0.0.1", 0, Echo()) as bridge:
        link = udp(f"udp://127.0.0.1:{bridge.port}", retries=0, timeout_s=2.0)
        assert link(b"\x14a") == b"answer to \x14a"
    with pytest.raises(LinkDown, match="nobody listens there"):
        link(b"\x14b")
    with UdpBridge("127.0.0.1", bridge.port, Echo()):
        assert link(b"\x14b") == b"answer to \x14b"
    link.close()


def test_a_process_that_forks_off_has_a_socket_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        UdpBridge("127.0.0.1", 0, Echo()) as bridge,
        udp(f"udp://127.0.0.1:{bridge.port}") as link,
        monkeypatch.context() as other,
    ):
        opened = []
        for number in (1, 1, 2):
            other.setattr(os, "getpid", lambda number=number: number)
            assert link(b"\x14a") == b"answer to \x14a"
            opened.append(link._line._socket)
        assert opened[0] is opened[1] is not opened[2]


@contextmanager
def silent() -> Iterator[socket.socket]:
    """Somebody who listens and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        yield one


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let names have several addresses: these ports of this machine."""
    found = [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def nobody() -> int:
    with silent() as one:
        port: int = one.getsockname()[1]
        return port


@pytest.mark.parametrize("token", [None, KEY])
def test_an_edge_that_has_moved_is_found_again(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    alive = threading.Event()
    alive.set()
    asked = Echo()
    with (
        UdpBridge("127.0.0.1", 0, asked, token=token) as bridge,
        relay(bridge.port, lambda data: [data] if alive.is_set() else []) as old,
        relay(bridge.port, lambda data: [data]) as new,
    ):
        resolve_to(monkeypatch, old)
        with udp("udp://edge", timeout_s=1.0, retries=0, token=token) as link:
            assert link(b"\x14a") == b"answer to \x14a"
            alive.clear()
            resolve_to(monkeypatch, new)
            with pytest.raises(LinkDown, match="no answer"):
                link(b"\x14b", idempotency_key="b")
            assert link(b"\x14b", idempotency_key="b") == b"answer to \x14b"
    assert [packet for packet, _ in asked.seen] == [b"\x14a", b"\x14b"]


def test_a_packet_computed_for_an_address_that_was_left_is_answered_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first try had computed goes to a socket that is closed; the second gets an answer of its own."""
    asked = Echo(delay_s=1.5)
    with UdpBridge("127.0.0.1", 0, asked) as bridge:
        resolve_to(monkeypatch, bridge.port, bridge.port)
        with udp("udp://edge", timeout_s=1.0, retries=0) as link:
            with pytest.raises(LinkDown, match="no answer"):
                link(b"\x14a", idempotency_key="a")
            time.sleep(0.8)  # the answer that nobody waits for
            asked.delay_s = 0.0
            assert link(b"\x14a", idempotency_key="a") == b"answer to \x14a"
            assert link(b"\x14b", idempotency_key="b") == b"answer to \x14b"


def test_of_several_addresses_one_that_is_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with UdpBridge("127.0.0.1", 0, Echo()) as bridge, silent() as mute:
        resolve_to(monkeypatch, mute.getsockname()[1], bridge.port)
        with udp("udp://edge", timeout_s=1.0, retries=1) as link:
            assert link(b"\x14a") == b"answer to \x14a"
            assert link(b"\x14b") == b"answer to \x14b"
            assert link._line._turn == 1, "the address that answers keeps its turn"


def test_of_several_addresses_one_where_nobody_listens_costs_no_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` with ::1 first, and a bridge on 0.0.0.0."""
    with UdpBridge("127.0.0.1", 0, Echo()) as bridge:
        resolve_to(monkeypatch, nobody(), nobody(), bridge.port)
        with udp("udp://edge", retries=0) as link:
            assert link(b"\x14a") == b"answer to \x14a"
    with udp("udp://edge", retries=0) as link, pytest.raises(LinkDown, match="nobody listens there"):
        link(b"\x14a")


def test_an_address_of_a_family_that_this_machine_lacks_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with UdpBridge("127.0.0.1", 0, Echo()) as bridge:
        here = (socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", bridge.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(9999, socket.SOCK_DGRAM, 0, "", ()), here])
        with udp("udp://edge", retries=0) as link:
            assert link(b"\x14a") == b"answer to \x14a"


def test_a_bridge_without_its_server_is_not_left_for_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def respond(_: bytes, __: Wanted) -> bytes:
        raise LinkDown("its server is away")

    with UdpBridge("127.0.0.1", 0, respond) as bridge, silent() as mute:
        resolve_to(monkeypatch, bridge.port, mute.getsockname()[1])
        mute.setblocking(False)
        with udp("udp://edge", timeout_s=2.0, retries=1) as link, pytest.raises(LinkDown, match="cannot reach an edge"):
            link(b"\x14a")
        with pytest.raises(BlockingIOError):
            mute.recv(1)


def test_a_refusal_is_one() -> None:
    def respond(_: bytes, __: Wanted) -> bytes:
        raise SettingsError("not like that")

    with UdpBridge("127.0.0.1", 0, respond) as bridge, udp(f"udp://127.0.0.1:{bridge.port}") as link:
        with pytest.raises(LinkRefused, match="SettingsError") as caught:
            link(b"\x14a")
        assert (caught.value.status, caught.value.reason) == (400, "SettingsError")
        with (
            udp(f"udp://127.0.0.1:{bridge.port}", brief=False) as bare,
            pytest.raises(LinkRefused, match=rf"127.0.0.1:{bridge.port} refused the packet \(400\): PacketError"),
        ):
            bare(b"\x02a")


def test_a_bug_at_the_edge_is_a_500_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    def respond(packet: bytes, _: Wanted) -> bytes:
        if packet == b"\x14bad":
            raise RuntimeError("inside")
        return packet

    with UdpBridge("127.0.0.1", 0, respond, concurrency=1) as bridge, udp(f"udp://127.0.0.1:{bridge.port}") as link:
        with pytest.raises(LinkRefused) as caught:
            link(b"\x14bad")
        assert caught.value.status == 500
        assert "inside" not in str(caught.value)
        assert link(b"\x14good") == b"\x14good"
    assert "inside" in caplog.text


@pytest.mark.parametrize(("ours", "theirs"), [(None, KEY), (KEY, None), (KEY, KEY + "!")])
def test_keys_that_differ_get_no_word(ours: str | None, theirs: str | None) -> None:
    asked = Echo()
    with (
        UdpBridge("127.0.0.1", 0, asked, token=theirs) as bridge,
        udp(f"udp://127.0.0.1:{bridge.port}", token=ours, timeout_s=0.4, retries=0) as link,
        pytest.raises(LinkDown, match="need the same token"),
    ):
        link(b"\x14a")
    assert not asked.seen


def test_public_addresses_are_not_answered_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [edge_udp._public(host) for host in ("8.8.8.8", "::ffff:8.8.8.8", "2a00:1450::1")] == [True] * 3
    private = (
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.7",
        "100.64.0.1",
        "::1",
        "fe80::1%eth0",
        "::ffff:10.1.2.3",
        "fd00::1",
    )
    assert not any(edge_udp._public(host) for host in private)
    monkeypatch.setattr(edge_udp, "_public", lambda _: True)
    asked = Echo()
    with UdpBridge("127.0.0.1", 0, asked) as bridge, UdpBridge("127.0.0.1", 0, asked, token=KEY) as closed:
        with pytest.raises(LinkDown), udp(f"udp://127.0.0.1:{bridge.port}", timeout_s=0.4, retries=0) as link:
            link(b"\x14a")
        assert not asked.seen
        with udp(f"udp://127.0.0.1:{closed.port}", token=KEY) as link:
            assert link(b"\x14a") == b"answer to \x14a"


def test_no_bytes_bring_a_bridge_down() -> None:
    chance = random.Random(3)
    frames = split(b"\x14" + bytes(3000), frame=DATAGRAM)
    with UdpBridge("127.0.0.1", 0, Echo()) as bridge:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(("127.0.0.1", bridge.port))
            for ident in range(3000):
                stranger.send(chance.randbytes(chance.randrange(60)))
                piece = Fragment(Channel.REQUEST, ident, chance.randrange(3), 2, frames[0], report=True)
                data = bytearray(dump_frame(piece))
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
                stranger.send(bytes(data))
                stranger.send(dump_frame(piece))
        with udp(f"udp://127.0.0.1:{bridge.port}") as link:
            assert link(b"\x14a") == b"answer to \x14a"


def test_callers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_udp, "PEERS_KEPT", 3)
    with UdpBridge("127.0.0.1", 0, Echo()) as bridge:
        for _ in range(8):
            with udp(f"udp://127.0.0.1:{bridge.port}") as link:
                link(b"\x14a")
        assert len(bridge._callers) == 3


def test_an_answer_spares_its_complete() -> None:
    """What is on the wire for one small packet: a datagram up, a datagram down, and the thanks."""
    seen: list[bytes] = []

    def harm(data: bytes) -> list[bytes]:
        seen.append(data)
        return [data]

    with UdpBridge("127.0.0.1", 0, Echo()) as bridge, relay(bridge.port, harm) as port:
        with udp(f"udp://127.0.0.1:{port}") as link:
            link(b"\x14a")
        until = time.monotonic() + 20
        while len(seen) < 3 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)  # and for what must not come
    assert [type(parse_frame(data)).__name__ for data in seen] == ["Fragment", "Fragment", "Complete"]


def test_an_answer_that_is_none_is_garbled() -> None:
    with (
        UdpBridge("127.0.0.1", 0, Echo()) as bridge,
        udp(f"udp://127.0.0.1:{bridge.port}") as link,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("splitcodec.edge.fragmented.shorten", lambda answer: answer)
        with pytest.raises(LinkGarbled, match="shortened"):
            link(b"\x14a")


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("udp://", {}, "no address"),
        ("udp://host/path", {}, "no address"),
        ("udp://me@host", {}, "no address"),
        ("udp://host:99999", {}, "no URL"),
        ("udp://host:0", {}, "no address"),
        ("udp://a..b", {}, "'udp://a..b' is no URL"),
        (f"udp://{'x' * 70}", {}, "no URL"),
        ("udp://me:secret/@host", {}, "'host' is no URL; expected"),
        ("udp://host", {"timeout_s": 0.0}, "time-out"),
        ("udp://host", {"retries": -1}, "retries"),
        ("udp://host", {"top": 0}, "guesses"),
        ("udp://host", {"score": 1.5}, "least score"),
        ("udp://host", {"token": "short"}, "at least 16"),
        ("udp://host", {"wait_s": -1.0}, "more than 0 s"),
        ("udp://host", {"datagram": 8}, "at least 11"),
    ],
)
def test_wrong_arguments_are_named(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        udp(url, **options)(b"\x14a")


def test_a_name_that_nobody_knows_is_link_down() -> None:
    with pytest.raises(LinkDown, match="check the address"):
        udp("udp://nowhere.invalid", retries=0)(b"\x14a")


def test_a_port_that_is_taken_is_named() -> None:
    with UdpBridge("127.0.0.1", 0, Echo()) as bridge, pytest.raises(SettingsError, match="cannot listen on UDP port"):
        UdpBridge("127.0.0.1", bridge.port, Echo())
