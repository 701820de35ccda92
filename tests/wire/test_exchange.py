"""Every message arrives once and whole, or its sender says that it is lost; and a receiver's memory is bounded."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitcodec.errors import FrameError, SettingsError
from splitcodec.wire.exchange import Limits, Patience, Receiver, Sender, State
from splitcodec.wire.fragment import (
    Channel,
    Complete,
    Fragment,
    Report,
    dump_frame,
    message_crc,
    parse_frame,
    split,
)
from tests.wire.lossy import Radio

PATIENCE = Patience(report_s=1.0, tries=8)


def sending(sender: Sender) -> bool:
    return sender.state is State.SENDING


def run(radio: Radio, messages: list[bytes], *, frame: int) -> tuple[list[bytes], list[State]]:
    """Send messages one after the other; return what was delivered and how each sender ended."""
    receiver = Receiver(limits=Limits())
    numbers = itertools.count(7)
    delivered: list[bytes] = []
    ends: list[State] = []
    for message in messages:
        sender = Sender(
            message, channel=Channel.REQUEST, frame=frame, next_ident=lambda: next(numbers) % 65_536, patience=PATIENCE
        )
        while sending(sender):
            for one in sender.frames(radio.now):
                radio.send("up", one)
            sender.sent(radio.now)
            if not sending(sender):
                break
            if radio.next_at > sender.wake:
                radio.now = sender.wake
                continue
            to, data = radio.take()
            try:
                heard = parse_frame(data)
            except FrameError:
                continue
            if isinstance(heard, Fragment) and to == "up":
                found = receiver.heard(heard, radio.now)
                if found.reply is not None:
                    radio.send("down", found.reply)
                if found.message is not None:
                    delivered.append(found.message.data)
            elif not isinstance(heard, Fragment) and to == "down":
                sender.heard(heard, radio.now)
        ends.append(sender.state)
    return delivered, ends


def check(messages: list[bytes], delivered: list[bytes], ends: list[State]) -> None:
    counts = Counter(delivered)
    assert set(counts) <= set(messages), "something arrived that nobody sent"
    for message, end in zip(messages, ends, strict=True):
        assert counts[message] <= 1, "doubled"
        assert counts[message] == 1 or end is State.LOST, "neither delivered nor reported lost"


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.6),
    double=st.floats(0, 0.5),
    damage=st.floats(0, 0.3),
    spread=st.floats(0, 5.0),
    frame=st.sampled_from([11, 51, 115, 222]),
    sizes=st.lists(st.integers(0, 150), min_size=1, max_size=4),
)
def test_once_and_whole_or_reported_lost(
    seed: int, loss: float, double: float, damage: float, spread: float, frame: int, sizes: list[int]
) -> None:
    radio = Radio(seed, loss=loss, double=double, damage=damage, spread_s=spread)
    messages = [bytes([i]) + random.Random(seed + i).randbytes(size) for i, size in enumerate(sizes)]
    check(messages, *run(radio, messages, frame=frame))


@pytest.mark.parametrize("frame", [51, 115, 222])
def test_a_bad_radio_delivers_everything(frame: int) -> None:
    radio = Radio(frame, loss=0.2, double=0.1, damage=0.05, spread_s=1.0)
    messages = [random.Random(i).randbytes(700) for i in range(30)]
    delivered, ends = run(radio, messages, frame=frame)
    assert ends == [State.COMPLETE] * 30
    assert delivered == messages


def test_a_good_radio_costs_one_frame_a_piece_and_one_back() -> None:
    radio = Radio(1)
    assert run(radio, [bytes(700)], frame=222) == ([bytes(700)], [State.COMPLETE])
    assert radio.sent == 4 + 1


def test_a_radio_that_doubles_everything_breeds_no_storm() -> None:
    radio = Radio(2, loss=0.3, double=1.0, spread_s=2.0)
    messages = [random.Random(i).randbytes(2000) for i in range(5)]
    delivered, ends = run(radio, messages, frame=51)
    assert ends == [State.COMPLETE] * 5
    assert delivered == messages
    assert radio.sent < 5 * 46 * 6


def test_a_dead_radio_is_reported_after_bounded_frames() -> None:
    radio = Radio(3, loss=1.0)
    assert run(radio, [bytes(400)], frame=51) == ([], [State.LOST])
    assert radio.sent == 10 + PATIENCE.tries - 1


def test_a_way_back_that_is_dead_is_lost_though_the_message_came_once() -> None:
    receiver = Receiver(limits=Limits())
    sender = Sender(b"x" * 90, channel=Channel.REQUEST, frame=51, next_ident=lambda: 1, patience=PATIENCE)
    came = 0
    while sender.state is State.SENDING:
        for data in sender.frames(sender.wake):
            frame = parse_frame(data)
            assert isinstance(frame, Fragment)
            came += receiver.heard(frame, 0.0).message is not None
        sender.sent(sender.wake)
    assert (came, sender.state) == (1, State.LOST)


def test_a_restarted_device_that_repeats_a_number_is_not_taken_for_its_old_self() -> None:
    receiver, now = Receiver(limits=Limits()), 0.0
    delivered = []
    for message in (b"first", b"other", b"a longer one" * 9):
        numbers = itertools.count(5)
        sender = Sender(message, channel=Channel.REQUEST, frame=51, next_ident=numbers.__next__, patience=PATIENCE)
        while sending(sender):
            for data in sender.frames(now):
                frame = parse_frame(data)
                assert isinstance(frame, Fragment)
                found = receiver.heard(frame, now)
                if found.message is not None:
                    delivered.append(found.message.data)
                if found.reply is not None:
                    reply = parse_frame(found.reply)
                    assert not isinstance(reply, Fragment)
                    sender.heard(reply, now)
            sender.sent(now)
            now = sender.wake
        assert sender.state is State.COMPLETE
    assert delivered == [b"first", b"other", b"a longer one" * 9]


def test_an_answer_to_another_request_does_not_come_whole() -> None:
    sender = Sender(
        b"answer", channel=Channel.ANSWER, frame=51, next_ident=lambda: 1, patience=PATIENCE, request_crc=111
    )
    (data,) = sender.frames(0.0)
    frame = parse_frame(data)
    assert isinstance(frame, Fragment)
    other, right = Receiver(limits=Limits(), request_crc=112), Receiver(limits=Limits(), request_crc=111)
    assert other.heard(frame, 0.0).message is None
    assert other.dropped == 1
    found = right.heard(frame, 0.0).message
    assert found is not None
    assert found.data == b"answer"


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_hostile_frames_never_exceed_the_limits(seed: int) -> None:
    chance = random.Random(seed)
    limits = Limits(messages=4, total_bytes=900, idle_s=50.0, remembered=8)
    receiver = Receiver(limits=limits)
    for step in range(400):
        last = chance.choice([0, 1, 3, 255])
        frame = Fragment(
            chance.choice(list(Channel)),
            chance.randrange(12),
            chance.randint(0, last),
            last,
            chance.randbytes(chance.randint(1, 215)),
            chance.random() < 0.3,
        )
        receiver.heard(frame, float(step))
        assert receiver.held_bytes <= limits.total_bytes
        assert len(receiver._parts) <= limits.messages
        assert receiver.held_bytes == sum(part.size for part in receiver._parts.values())
        assert len(receiver._known) <= limits.remembered


def test_what_gets_no_news_is_dropped_and_asked_for_again() -> None:
    receiver = Receiver(limits=Limits(idle_s=10.0))
    half = Fragment(Channel.REQUEST, 1, 0, 1, b"half", report=True)
    reply = receiver.heard(half, 0.0).reply
    assert reply == dump_frame(Report(Channel.REQUEST, 1, 1, frozenset({0})))
    later = receiver.heard(Fragment(Channel.REQUEST, 2, 1, 1, b"x", report=True), 11.0).reply
    assert later == dump_frame(Report(Channel.REQUEST, 2, 1, frozenset({1})))
    assert (receiver.dropped, receiver.held_bytes) == (1, 1)


def test_silence_is_waited_for_twice_as_long_each_time_up_to_eight_times_and_nothing_is_sent_meanwhile() -> None:
    sender = Sender(b"x" * 90, channel=Channel.REQUEST, frame=51, next_ident=lambda: 1, patience=PATIENCE)
    waits, now = list[float](), 0.0
    while sender.frames(now):
        sender.sent(now)
        waits.append(sender.wake - now)
        sender.sent(now + 0.5)  # nothing has left since
        assert sender.frames(now + 0.5) == []
        assert sender.wake == now + waits[-1]
        now = sender.wake
    assert waits == [1, 2, 4, 8, 8, 8, 8, 8]
    assert sender.state is State.LOST
    assert sender.frames(now + 100) == []


def exchange(sender: Sender, receiver: Receiver) -> list[bytes]:
    """Let both speak over a link that loses nothing until the sender ends; return what was delivered."""
    now, delivered = 0.0, list[bytes]()
    for _ in range(100):
        for data in sender.frames(now):
            found = receiver.heard(parse_frame(data), now)  # type: ignore[arg-type]  # a sender's are fragments
            if found.message is not None:
                delivered.append(found.message.data)
            if found.reply is not None:
                sender.heard(parse_frame(found.reply), now)  # type: ignore[arg-type]  # and a receiver's are not
        if not sending(sender):
            return delivered
        sender.sent(now)
        now = max(now, sender.wake)
    raise AssertionError("no end")


@pytest.mark.parametrize("limits", [Limits(total_bytes=900), Limits(total_bytes=40)])
def test_a_message_that_its_receiver_has_no_room_for_is_lost_after_bounded_frames(limits: Limits) -> None:
    sender = Sender(bytes(2000), channel=Channel.REQUEST, frame=51, next_ident=lambda: 1, patience=PATIENCE)
    assert exchange(sender, Receiver(limits=limits)) == []
    assert sender.state is State.LOST


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_message_half_come_under_its_number_stands_in_nobodys_way(last: int) -> None:
    receiver, numbers = Receiver(limits=Limits()), itertools.count(5)
    receiver.heard(Fragment(Channel.REQUEST, 5, 1, last, b"o" * 44), 0.0)
    message = random.Random(1).randbytes(100)  # three pieces
    sender = Sender(message, channel=Channel.REQUEST, frame=51, next_ident=numbers.__next__, patience=PATIENCE)
    assert exchange(sender, receiver) == [message]
    assert (sender.state, sender.frames(1e6)) == (State.COMPLETE, [])


def sealed(ident: int, data: bytes) -> Fragment:
    """Return a message of one fragment that asks for a report."""
    (piece,) = split(data, frame=51)
    return Fragment(Channel.REQUEST, ident, 0, 0, piece, report=True)


def test_the_latest_messages_are_remembered_the_earliest_forgotten() -> None:
    receiver = Receiver(limits=Limits(remembered=2))
    for ident in (1, 2, 3):
        assert receiver.heard(sealed(ident, b"x"), 0.0).message is not None
        again = receiver.heard(sealed(ident, b"x"), 0.0)
        assert (again.message, again.known) == (None, True)
        assert again.reply == dump_frame(Complete(Channel.REQUEST, ident, message_crc(b"x")))
    assert receiver.heard(sealed(2, b"x"), 0.0).known
    assert receiver.heard(sealed(1, b"x"), 0.0).message is not None
    assert not receiver.heard(Fragment(Channel.REQUEST, 1, 0, 5, b"of another message"), 0.0).known


def test_what_is_the_longest_without_news_goes_first() -> None:
    for limits, now in ((Limits(messages=2), 3.0), (Limits(idle_s=10.0), 11.5)):
        receiver = Receiver(limits=limits)
        for at, (ident, index) in enumerate([(1, 0), (2, 0), (1, 1)]):
            receiver.heard(Fragment(Channel.REQUEST, ident, index, 2, b"x"), float(at))
        receiver.heard(Fragment(Channel.REQUEST, 3, 0, 2, b"x"), now)
        assert [ident for _, ident in receiver._parts] == [1, 3]


def test_whoever_asks_again_sends_one_frame_and_waits_as_long_as_at_first() -> None:
    sender = Sender(b"x" * 90, channel=Channel.REQUEST, frame=51, next_ident=lambda: 7, patience=PATIENCE)
    now = 0.0
    for _ in range(3):
        sender.frames(now)
        sender.sent(now)
        now = sender.wake
    sender.heard(Complete(Channel.REQUEST, 7, sender.crc), now)
    sender.ask_again(now)
    (data,) = sender.frames(now)
    asked = parse_frame(data)
    assert isinstance(asked, Fragment)
    assert asked.report
    turns = 1
    while sending(sender):
        sender.sent(now)
        now = sender.wake
        turns += bool(sender.frames(now))
    assert turns == PATIENCE.tries - 1


def test_a_sender_that_was_silent_speaks_at_once_where_the_receiver_lives_or_gives_up() -> None:
    sender = Sender(b"x", channel=Channel.ANSWER, frame=51, next_ident=lambda: 7, patience=PATIENCE)
    sender.frames(0.0)
    sender.sent(0.0)
    sender.nudge(0.1)
    assert sender.wake == 1.0  # the first wait is not cut short
    sender.frames(1.0)
    sender.sent(1.0)
    sender.nudge(1.1)
    assert sender.frames(1.1)
    sender.give_up()
    assert (sender.state, sender.frames(99.0)) == (State.LOST, [])


def test_a_receiver_that_knows_every_number_of_another_message_ends_a_sender() -> None:
    numbers = itertools.count(5)
    sender = Sender(b"x", channel=Channel.REQUEST, frame=51, next_ident=numbers.__next__, patience=PATIENCE)
    for now in range(PATIENCE.tries):
        assert sender.frames(float(now))
        sender.sent(float(now))
        sender.heard(Complete(Channel.REQUEST, sender.ident, sender.crc ^ 1), float(now))
    assert (sender.frames(99.0), sender.state, next(numbers)) == ([], State.LOST, 6 + PATIENCE.tries)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 1 try"):
        Patience(tries=0)
    with pytest.raises(SettingsError, match="more than 0 s"):
        Patience(report_s=float("nan"))
    with pytest.raises(SettingsError, match="at least 1 of each"):
        Limits(messages=0)
