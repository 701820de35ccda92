"""Packets up and answers down over frames, both ends in simulated time; and once over real datagrams."""

from __future__ import annotations

import itertools
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from splitcodec.device.client import Device
from splitcodec.device.fragmented import FragmentedLink, fragmented
from splitcodec.edge.answer import Edge
from splitcodec.edge.fragmented import Peer, serve_frames
from splitcodec.errors import LinkDown, LinkRefused, PacketError, SettingsError
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.exchange import Patience, Sender
from splitcodec.wire.fragment import Channel
from tests.wire.lossy import Radio

Respond = Callable[[bytes], bytes]
PATIENCE = Patience(report_s=1.0, tries=8)


def over(radio: Radio, respond: Respond, *, frame: int, timeout_s: float = 600.0) -> FragmentedLink:
    """Return a link through `radio`; the far end lives inside `receive`."""
    peer = Peer(respond, frame=frame, patience=PATIENCE)

    def far_end() -> None:
        if frames := peer.frames(radio.now):
            for one in frames:
                radio.send("device", one)
            peer.sent(radio.now)

    def receive(seconds: float) -> bytes | None:
        until = radio.now + seconds
        while True:
            far_end()
            wake = peer.wake or float("inf")
            if min(radio.next_at, wake) > until:
                radio.now = until
                return None
            if wake < radio.next_at:
                radio.now = max(radio.now, wake)
                continue
            to, data = radio.take()
            if to == "device":
                return data
            peer.heard(data, radio.now)

    return fragmented(
        lambda data: radio.send("edge", data),
        receive,
        frame=frame,
        timeout_s=timeout_s,
        patience=PATIENCE,
        clock=lambda: radio.now,
    )


def echo(packet: bytes) -> bytes:
    return b"answer to " + packet


@pytest.mark.parametrize("frame", [51, 115, 222])
@pytest.mark.parametrize("seed", range(5))
def test_every_packet_is_answered_once_over_a_bad_radio(frame: int, seed: int) -> None:
    asked: Counter[bytes] = Counter()

    def respond(packet: bytes) -> bytes:
        asked[packet] += 1
        return echo(packet)

    link = over(Radio(seed, loss=0.2, double=0.1, damage=0.05, spread_s=1.5), respond, frame=frame)
    packets = [random.Random(100 * seed + i).randbytes(20 + 150 * i) for i in range(6)]
    assert [link(packet) for packet in packets] == [echo(packet) for packet in packets]
    assert asked == Counter(packets)


def test_a_dreadful_radio_gives_the_right_answer_or_link_down() -> None:
    right = down = 0
    for seed in range(40):
        radio = Radio(seed, loss=0.55, double=0.2, damage=0.1, spread_s=4.0)
        link = over(radio, echo, frame=51, timeout_s=300.0)
        for i in range(3):
            packet = random.Random(seed + i).randbytes(200)
            try:
                assert link(packet) == echo(packet)
                right += 1
            except LinkDown:
                down += 1
    assert right > 20
    assert down > 0


def test_a_refusal_comes_back_with_its_name() -> None:
    def respond(_: bytes) -> bytes:
        raise PacketError("no packet of mine")

    with pytest.raises(LinkRefused, match="PacketError") as caught:
        over(Radio(1), respond, frame=51)(b"x")
    assert caught.value.status == 400


def test_an_answer_too_long_for_the_frames_is_refused() -> None:
    with pytest.raises(LinkRefused, match="AnswerTooLarge") as caught:
        over(Radio(1), lambda _: bytes(20_000), frame=51)(b"x")
    assert caught.value.status == 422


def test_the_answers_that_are_kept_of_one_device_are_bounded_in_bytes() -> None:
    """256 senders that asked for large label maps again and again took gigabytes of a bridge."""
    for size, kept in ((30_000, 2), (50_000, 1), (100, 16)):
        peer = Peer(partial(lambda answer, _: answer, bytes(size)), frame=222)
        next_ident = itertools.count().__next__
        for _ in range(20):
            sender = Sender(b"one", channel=Channel.REQUEST, frame=222, next_ident=next_ident, patience=PATIENCE)
            for one in sender.frames(0.0):
                peer.heard(one, 0.0)
        assert peer.kept_bytes == kept * size


def test_any_answer_that_fits_into_256_frames_is_taken() -> None:
    """Above 65,536 bytes the device forgot it, and timed out each time."""
    answer = random.Random(1).randbytes(256 * (1200 - 7) - 4)
    assert over(Radio(1), lambda _: answer, frame=1200)(b"x") == answer


def test_nobody_there_is_link_down() -> None:
    with pytest.raises(LinkDown, match="no sign of an edge"):
        over(Radio(1, loss=1.0), echo, frame=51)(b"x")


def test_time_is_bounded() -> None:
    radio = Radio(1, loss=0.9)
    with pytest.raises(LinkDown):
        over(radio, echo, frame=51, timeout_s=5.0)(bytes(1000))
    assert radio.now <= 5.0


def test_a_packet_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    radio = Radio(1)
    with pytest.raises(SettingsError, match="lower level or larger frames"):
        over(radio, echo, frame=51)(bytes(20_000))
    assert radio.sent == 0
    with pytest.raises(SettingsError, match="time-out"):
        over(radio, echo, frame=51, timeout_s=0.0)


def test_a_picture_over_real_datagrams(tiny: Bundle, pictures: list[object]) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    chance = random.Random(5)

    def lossy(end: socket.socket) -> Callable[[bytes], None]:
        def send(data: bytes) -> None:
            if chance.random() > 0.1:
                end.send(data)

        return send

    def receiving(end: socket.socket) -> Callable[[float], bytes | None]:
        def receive(seconds: float) -> bytes | None:
            end.settimeout(max(seconds, 0.001))
            try:
                return end.recv(300)
            except TimeoutError:
                return None

        return receive

    quick, stop = Patience(report_s=0.02, tries=10), threading.Event()
    edge, device = Edge(tiny), Device(tiny)
    thread = threading.Thread(
        target=serve_frames,
        args=(edge.respond, lossy(far), receiving(far)),
        kwargs={"frame": 51, "stop": stop, "patience": quick},
    )
    with near, far:
        thread.start()
        try:
            link = fragmented(lossy(near), receiving(near), frame=51, patience=quick)
            answer = device.ask(pictures[4], link=link)  # type: ignore[arg-type]
        finally:
            stop.set()
            thread.join()
    assert answer["answers"] == json.loads(edge.respond(device.encode(pictures[4])))["answers"]  # type: ignore[arg-type]
