from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.errors import PacketError, SettingsError
from splitcodec.wire.request import MAX_PACKET, Request, Wanted, backoff_s, dump_request, parse_request, wanted_from

packets = st.binary(max_size=80).map(lambda data: b"\x14" + data)
letters = st.sampled_from("abc-_.é%&= ")
names = st.lists(  # at most 255 bytes of words in all, six for an é
    st.text(letters, min_size=1, max_size=9).filter(lambda name: name.strip() == name), max_size=3
)


@given(packets, names, st.none() | st.integers(1, 1000), st.none() | st.floats(0, 1), st.booleans())
def test_what_is_dumped_is_parsed(
    packet: bytes, tasks: list[str], top: int | None, score: float | None, brief: bool
) -> None:
    message = dump_request(packet, tasks=tasks, top=top, score=score, brief=brief)
    assert parse_request(message) == Request(packet, Wanted(tuple(tasks), top, score=score), brief)


def test_a_packet_alone_is_a_request() -> None:
    assert dump_request(b"\x14abc") == b"\x14abc"
    assert parse_request(b"\x14abc") == Request(b"\x14abc", Wanted())


def test_one_guess_in_brief_costs_seven_bytes() -> None:
    assert dump_request(b"\x14abc", top=1, brief=True) == b"\x01\x05top=1\x14abc"
    assert dump_request(b"\x14abc", brief=True) == b"\x01\x00\x14abc"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\x02\x00\x14", "begins with 0200"),
        (b"\x00\x09top=1", "begins with 0009"),
        (b"\x00", "begins with 00"),
        (b"\x00\x03top\x14", "expected words such as"),
        (b"\x00\x02\xff\xff\x14", "expected words such as"),
        (b"\x14" + bytes(MAX_PACKET), "at most 65536"),
        (b"\x01\x00\x14" + bytes(MAX_PACKET), "at most 65536"),
    ],
)
def test_what_is_no_request_is_refused(message: bytes, words: str) -> None:
    with pytest.raises(PacketError, match=words):
        parse_request(message)


@pytest.mark.parametrize("said", ["0", "1001", "-1", "1.0", "x", "1" * 20])
def test_a_number_of_guesses_is_checked(said: str) -> None:
    words = f"top={said}".encode()
    with pytest.raises(SettingsError, match="expected 1 to 1000"):
        parse_request(bytes((0, len(words))) + words + b"\x14")


def test_a_score_costs_ten_bytes() -> None:
    message = dump_request(b"\x14abc", tasks=["detect"], score=0.3)
    assert message == b"\x00\x16tasks=detect&score=0.3\x14abc"
    assert parse_request(message).wanted == Wanted(("detect",), score=0.3)


@pytest.mark.parametrize(("said", "score"), [("0", 0.0), ("1", 1.0), ("1.0", 1.0), ("5E-1", 0.5), ("1e-05", 1e-5)])
def test_a_score_may_be_written_as_json_writes_numbers(said: str, score: float) -> None:
    words = f"score={said}".encode()
    assert parse_request(bytes((0, len(words))) + words + b"\x14").wanted.score == score


@pytest.mark.parametrize("said", ["-0.1", "1.01", "x", "nan", "inf", "1_0", "0,3", "%200.3", "%D9%A1", "0" * 40])
def test_a_score_is_checked(said: str) -> None:
    words = f"score={said}".encode()
    with pytest.raises(SettingsError, match="expected a least score of boxes from 0 to 1"):
        parse_request(bytes((0, len(words))) + words + b"\x14")


def test_other_words_are_ignored() -> None:
    words = b"idempotency-key=a%20b&top=2&more=1"
    assert parse_request(bytes((0, len(words))) + words + b"\x14") == Request(b"\x14", Wanted((), 2))


def test_too_many_tasks_are_refused_at_once() -> None:
    room = 255 - len("tasks=")
    assert parse_request(dump_request(b"\x14", tasks=["a" * room])).wanted.tasks == ("a" * room,)
    with pytest.raises(SettingsError, match=r"256 bytes of tasks.*ask for fewer"):
        dump_request(b"\x14", tasks=["a" * (room + 1)])


def test_what_no_edge_takes_is_not_asked_for() -> None:
    for top in (0, 1001):
        with pytest.raises(SettingsError, match=f"top {top}; expected 1 to 1000"):
            dump_request(b"\x14", top=top)
    for score in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="expected a least score of boxes from 0 to 1"):
            dump_request(b"\x14", score=score)
    assert dump_request(b"\x14", score=1) == b"\x00\x09score=1.0\x14"


def test_the_largest_packet_of_all_and_spaces_between_tasks() -> None:
    largest = b"\x10" + bytes(MAX_PACKET - 1)
    assert parse_request(largest) == Request(largest, Wanted())
    assert wanted_from({"tasks": " detect, ,segment "}).tasks == ("detect", "segment")


def test_waits_double_up_to_a_quarter_of_a_minute_and_are_less_by_chance() -> None:
    for failed, most in ((1, 0.4), (2, 0.8), (6, 12.8), (7, 15.0), (10_000, 15.0)):
        waits = [backoff_s(failed) for _ in range(200)]
        assert most / 2 <= min(waits) < 0.6 * most
        assert 0.9 * most < max(waits) <= most


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(message: bytes) -> None:
    try:
        parse_request(message)
    except (PacketError, SettingsError):
        return
