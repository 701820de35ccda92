"""The watch with a made-up encoder and a made-up link: order, refusals, a full spool, a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitcodec.device import journal as journals
from splitcodec.device.camera import Camera
from splitcodec.device.journal import Journal, Outcome
from splitcodec.device.placed import Letterbox
from splitcodec.device.source import Capture, Folder, Known
from splitcodec.device.spool import DROP_NEWEST, DROP_OLDEST, REFUSE, Spool
from splitcodec.device.status import Backoff, Status
from splitcodec.device.still import Still
from splitcodec.device.watch import Watch
from splitcodec.errors import (
    DataError,
    LinkDown,
    LinkError,
    LinkGarbled,
    LinkRefused,
    OutputError,
    PictureNotFound,
    PictureUnreadable,
    SettingsError,
)
from splitcodec.wire.request import Wanted
from tests.device.test_camera import Clock, MadeUp


def answer_to(packet: bytes, *, tasks: tuple[str, ...] = ()) -> bytes:
    label = packet.decode()
    answers: dict[str, Any] = {"classify": [{"index": 1, "label": label, "p": 0.5}]}
    answers |= {"detect": []} if "detect" in tasks else {}
    return json.dumps({"bundle": "b@1", "level": 3, "answers": answers, "ms": {"tail": 1.0}}).encode()


def encode(picture: Any) -> tuple[bytes, int, None]:
    if picture == b"bad":
        raise PictureUnreadable("not a picture")
    return bytes(picture), 3, None


class Made:
    """A source of made-up captures, as a camera is one."""

    def __init__(self) -> None:
        self.captures: list[Capture] = []
        self.ended: list[tuple[str, Outcome]] = []
        self.pending = False
        self.trouble = ""

    def add(self, *names: str, data: bytes | None = None) -> None:
        for name in names:
            content = name.encode() if data is None else data
            self.captures.append(Capture(f"{name}@0", name, lambda content=content: content))  # type: ignore[misc]

    def take(self, known: Known) -> list[Capture]:
        return [one for one in self.captures if not known(one.ident, one.picture)]

    def done(self, ident: str, picture: str, outcome: Outcome) -> None:
        self.ended.append((picture, outcome))

    def close(self) -> None: ...


class Bench:
    """A watch, and what it needs; `again` is a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = Made()
        self.sent: list[tuple[bytes, Wanted]] = []
        self.asking = Wanted(("classify",))
        self.trouble: list[LinkError] = []
        self.hated: set[bytes] = set()
        self.reserve_bytes = 0
        self.encode: Callable[[Any], tuple[bytes, int, Letterbox | None] | None] = encode
        self.max_bytes = 1_000_000
        self.when_full = REFUSE
        self.still = Still()
        self.again()

    def send(self, packet: bytes, wanted: Wanted) -> bytes:
        self.sent.append((packet, wanted))
        if self.trouble:
            raise self.trouble.pop(0)
        if packet in self.hated:
            raise LinkRefused("no", status=400)
        return answer_to(packet, tasks=wanted.tasks)

    def again(self) -> Watch:
        self.close()
        self.spool = Spool(self.folder / "spool", reserve_bytes=self.reserve_bytes)
        self.journal = Journal(self.folder / "answers.jsonl", self.folder / "spool" / "ledger")
        self.watch = Watch(
            encode=lambda picture: self.encode(picture),  # noqa: PLW0108 - a test may change it
            send=self.send,
            source=self.source,
            spool=self.spool,
            journal=self.journal,
            max_bytes=self.max_bytes,
            asking=self.asking,
            when_full=self.when_full,
            still=self.still,
        )
        return self.watch

    def close(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.journal.close()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "answers.jsonl").read_text().splitlines()]

    def told(self) -> list[tuple[str, str]]:
        return [
            (line["picture"], line["error"]["outcome"] if "error" in line else line["answers"]["classify"][0]["label"])
            for line in self.lines()
        ]


@pytest.fixture
def bench() -> Iterator[Bench]:
    memory = Path("/dev/shm")  # where nothing waits for a disk
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        one = Bench(Path(folder))
        yield one
        one.close()


def test_pictures_are_answered_in_order_with_all_that_is_known(bench: Bench) -> None:
    bench.source.add("a", "b", "c")
    bench.watch.once(threading.Event())
    assert bench.told() == [("a", "a"), ("b", "b"), ("c", "c")]
    line = bench.lines()[0]
    assert set(line) == {"capture", "picture", "key", "bytes", "level", "bundle", "answers", "ms"}
    assert (line["capture"], line["key"], line["bytes"]) == ("a@0", bench.sent[0][1].key, 1)
    assert bench.source.ended == [(name, Outcome.ANSWERED) for name in "abc"]
    assert bench.watch.status.answered == 3
    bench.again().once(threading.Event())
    assert len(bench.lines()) == 3


def test_boxes_come_in_pixels_of_the_picture_also_after_a_restart(bench: Bench) -> None:
    place = Letterbox((400, 200), 320, 160, 320, 192)
    bench.encode = lambda picture: (bytes(picture), 3, place if picture == b"a" else None)
    bench.asking = Wanted(("detect",))
    bench.again()

    def send(packet: bytes, _: Wanted) -> bytes:
        box = {"index": 0, "label": "car", "score": 0.5, "box": [0.25, 0.0, 0.5, 0.5]}
        return json.dumps({"bundle": "b@1", "level": 3, "answers": {"detect": [box]}, "ms": {}}).encode()

    bench.source.add("a", "b")
    bench.trouble = [LinkDown("away")]
    bench.watch.once(threading.Event())
    watch = bench.again()
    watch._send = send
    watch.once(threading.Event())
    boxes = [line["answers"]["detect"][0]["box"] for line in bench.lines()]
    assert boxes == [[100.0, 0.0, 200.0, 120.0], [0.25, 0.0, 0.5, 0.5]]


def test_a_packet_waits_while_its_answer_lacks_a_task_that_was_asked_for(bench: Bench) -> None:
    bench.asking = Wanted(("classify", "segment"))
    bench.again()
    bench.source.add("a")
    bench.watch.once(threading.Event())
    assert not (bench.folder / "answers.jsonl").exists() or not bench.lines()
    assert bench.watch.status.waiting == 1
    assert "an answer to classify, but segment was asked for" in bench.watch.status.link


def test_an_encoder_that_was_stopped_leaves_the_capture_for_the_next_run(bench: Bench) -> None:
    stop = threading.Event()

    def stopped(picture: Any) -> tuple[bytes, int, None] | None:
        if picture == b"b":
            stop.set()
            return None
        return encode(picture)

    bench.source.add("a", "b", "c")
    bench.encode = stopped
    bench.watch.once(stop)
    assert bench.told() == []
    assert bench.watch.status.waiting == 1
    bench.encode = encode
    bench.again().once(threading.Event())
    assert bench.told() == [("a", "a"), ("b", "b"), ("c", "c")]


def test_a_packet_is_sent_while_the_next_picture_still_waits_for_its_turn(bench: Bench) -> None:
    stop, nothing_waits = threading.Event(), threading.Event()

    def slow(picture: Any) -> tuple[bytes, int, None] | None:
        if picture == b"a":
            assert nothing_waits.wait(20)  # the sending thread has looked, found nothing, and sleeps
        if picture == b"b":
            while not bench.sent and not stop.wait(0.01):
                pass
        return encode(picture)

    waiting = bench.spool.waiting

    def looked() -> list[Path]:
        found = waiting()
        if not found:
            nothing_waits.set()
        return found

    bench.spool.waiting = looked  # type: ignore[method-assign]
    bench.source.add("a", "b")
    bench.encode = slow
    late = threading.Timer(20, stop.set)
    late.start()
    running = threading.Thread(target=bench.watch.run, args=(stop,), kwargs={"poll_s": 0.01})
    running.start()
    while len(bench.sent) < 2 and not stop.wait(0.01):
        pass
    assert [packet for packet, _ in bench.sent] == [b"a", b"b"]
    assert not stop.is_set()
    stop.set()
    running.join()
    late.cancel()


@pytest.mark.parametrize(
    "trouble",
    [
        LinkDown("away"),
        LinkGarbled("a captive portal"),
        *(LinkRefused("later", status=status) for status in (401, 403, 408, 409, 429, 500, 503, None)),
        LinkRefused("the edge was started with another bundle", status=400, reason="PacketBundle"),
        LinkRefused("the edge is an older one", status=400, reason="PacketVersion"),
        LinkRefused("no task 'classfy'", status=404, reason="TaskError"),
        LinkRefused("the address has a path too many", status=404, reason="Not Found"),
    ],
)
def test_trouble_that_may_pass_keeps_the_packet_and_its_key(bench: Bench, trouble: LinkError) -> None:
    bench.source.add("a", "b")
    bench.trouble = [trouble]
    bench.watch.once(threading.Event())
    assert bench.told() == []
    assert (bench.watch.status.waiting, bench.watch.status.link) == (2, str(trouble))
    bench.again().once(threading.Event())
    assert bench.told() == [("a", "a"), ("b", "b")]
    assert bench.sent[0] == bench.sent[1]


def test_an_edge_that_was_set_up_wrong_costs_no_packet(bench: Bench) -> None:
    """It refused the whole backlog at full speed, and of more than 1,000 packets most were gone."""
    bench.source.add(*"abcdefgh")
    bench.trouble = [LinkRefused("another bundle", status=400, reason="PacketBundle") for _ in range(100)]
    for _ in range(3):
        bench.watch.once(threading.Event())
    assert (len(bench.sent), bench.watch.status.link, bench.watch.status.waiting) == (3, "another bundle", 8)
    assert not bench.source.ended
    assert not (bench.folder / "spool" / "refused").exists()
    bench.trouble = []
    bench.watch.once(threading.Event())
    assert bench.told() == [(name, name) for name in "abcdefgh"]
    assert (bench.watch.status.link, bench.watch.status.refused) == ("", 0)


def test_a_packet_always_asks_for_what_it_was_made_for(bench: Bench) -> None:
    bench.asking = Wanted(("classify",), 1)
    bench.again()
    bench.source.add("a")
    bench.trouble = [LinkDown("the answer was lost")]
    bench.watch.once(threading.Event())
    bench.asking = Wanted(("classify", "detect"))
    bench.source.add("b")
    bench.again().once(threading.Event())
    assert bench.told() == [("a", "a"), ("b", "b")]
    first, again, other = (wanted for _, wanted in bench.sent)
    assert first == again == Wanted(("classify",), 1, bench.lines()[0]["key"])
    assert other == Wanted(("classify", "detect"), None, bench.lines()[1]["key"])


def test_a_capture_that_is_encoded_anew_for_other_tasks_has_another_key(bench: Bench) -> None:
    bench.source.add("a")
    bench.trouble = [LinkDown("the answer was lost")]
    bench.watch.once(threading.Event())
    bench.spool.waiting()[0].unlink()  # and somebody begins with an empty spool
    bench.asking = Wanted(("segment",))
    bench.again().once(threading.Event())
    (packet, first), (same, second) = bench.sent
    assert packet == same
    assert first.key != second.key


@pytest.mark.parametrize("reason", ["", "PacketChecksum"])
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_for_good_is_recorded_and_set_aside(bench: Bench, status: int, reason: str) -> None:
    bench.source.add("a", "b")
    bench.trouble = [LinkRefused("damaged", status=status, reason=reason)]
    bench.watch.once(threading.Event())
    assert bench.told() == [("a", "refused"), ("b", "b")]
    assert bench.lines()[0]["error"] == {"outcome": "refused", "type": "LinkRefused", "detail": "damaged"}
    (aside,) = (bench.folder / "spool" / "refused").iterdir()
    assert bench.spool.read(aside).packet == b"a"
    bench.again().once(threading.Event())
    assert len(bench.sent) == 2


def test_an_unreadable_picture_is_recorded_once(bench: Bench) -> None:
    bench.source.add("a", data=b"bad")
    bench.source.add("b")
    for _ in range(3):
        bench.again().once(threading.Event())
    assert bench.told() == [("a", "unreadable"), ("b", "b")]
    bench.encode = lambda _: (_ for _ in ()).throw(MemoryError)
    bench.source.add("c")
    bench.again().once(threading.Event())
    assert bench.lines()[-1]["error"]["type"] == "PictureTooLarge"


def fill(bench: Bench, when_full: str) -> None:
    bench.max_bytes, bench.when_full = 5 * 4096, when_full
    bench.again()
    bench.source.add(*"abcdefgh")
    bench.trouble = [LinkDown("away")] * 2
    bench.watch.gather()
    assert bench.spool.bytes <= bench.max_bytes


def test_full_spool_refuses_pictures_until_there_is_room(bench: Bench) -> None:
    fill(bench, REFUSE)
    assert bench.watch.status.waiting == 5
    bench.trouble = []
    bench.watch.once(threading.Event())
    assert bench.told() == [(name, name) for name in "abcdefgh"]


def test_full_spool_drops_the_oldest_and_says_so(bench: Bench) -> None:
    fill(bench, DROP_OLDEST)
    bench.trouble = []
    bench.watch.once(threading.Event())
    assert bench.told() == [*((name, "dropped") for name in "abc"), *((name, name) for name in "defgh")]
    assert bench.watch.status.dropped == 3


def test_full_spool_drops_the_newest_and_says_so(bench: Bench) -> None:
    fill(bench, DROP_NEWEST)
    bench.trouble = []
    bench.watch.once(threading.Event())
    assert bench.told() == [*((name, "dropped") for name in "fgh"), *((name, name) for name in "abcde")]


def test_a_picture_that_waits_for_room_is_encoded_once(bench: Bench) -> None:
    """It was encoded at each look, for as long as the link was away, and used up the bytes of an average rate."""
    bench.max_bytes, bench.trouble, seen = 3 * 4096, [LinkDown("away")] * 9, list[bytes]()
    bench.again()

    def encode_and_count(picture: Any) -> tuple[bytes, int, None]:
        seen.append(picture)
        return encode(picture)

    bench.encode = encode_and_count
    bench.source.add("a", "b")
    bench.source.add("large", data=b"x" * 5000)  # two blocks, one is left
    for _ in range(5):
        bench.watch.gather()
        bench.watch.deliver()
    assert seen == [b"a", b"b", b"x" * 5000]
    bench.trouble = []
    bench.watch.once(threading.Event())
    assert [name for name, _ in bench.told()] == ["a", "b", "large"]


def test_a_packet_larger_than_the_spool_is_told_of_and_holds_up_nobody(bench: Bench) -> None:
    bench.max_bytes = 2 * 4096
    bench.again()
    bench.source.add("large", data=b"x" * 9000)
    bench.source.add("a")
    bench.watch.once(threading.Event())
    assert bench.told() == [("a", "a")]
    assert "large: its packet takes 12288 bytes" in bench.watch.status.source
    assert "--max-spool-mb" in bench.watch.status.source
    bench.max_bytes = 3 * 4096
    bench.again().once(threading.Event())
    assert [name for name, _ in bench.told()] == ["a", "large"]


def test_a_packet_larger_than_the_spool_drops_nothing_but_itself(bench: Bench) -> None:
    bench.max_bytes, bench.when_full, bench.trouble = 2 * 4096, DROP_OLDEST, [LinkDown("away")]
    bench.again()
    bench.source.add("a", "b")
    bench.source.add("large", data=b"x" * 9000)
    bench.watch.once(threading.Event())
    bench.watch.once(threading.Event())
    assert bench.told() == [("large", "dropped"), ("a", "a"), ("b", "b")]


def test_what_is_on_its_way_is_not_dropped(bench: Bench) -> None:
    fill(bench, DROP_OLDEST)
    bench.trouble = []
    plain = bench.send

    def send(packet: bytes, wanted: Wanted) -> bytes:
        if packet == b"d":
            bench.source.add("i")
            bench.watch.gather()
        return plain(packet, wanted)

    bench.watch._send = send
    bench.watch.once(threading.Event())
    told = dict(bench.told())
    assert (told["d"], told["e"], told["i"]) == ("d", "dropped", "i")
    assert len(bench.told()) == 9


def test_what_did_not_get_through_is_dropped_as_any_other(bench: Bench) -> None:
    fill(bench, DROP_OLDEST)
    bench.trouble = [LinkDown("away")]
    oldest = bench.spool.waiting()[0]
    assert not bench.watch.deliver()
    bench.source.add("i")
    bench.watch.gather()
    assert oldest not in bench.spool.waiting()


@pytest.mark.parametrize("damaged", [False, True])
def test_an_answered_packet_that_cannot_be_removed_is_removed_later_and_not_sent_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """The status spoke of the disk until another picture came, and looks for pictures were a minute apart."""
    bench.source.add("a")
    bench.watch.gather()
    (place,) = bench.spool.waiting()

    def stuck(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "remove", stuck)
        assert not bench.watch.deliver()
    assert "Read-only file system" in bench.watch.status.disk
    if damaged:
        place.write_bytes(b"damaged")
    assert bench.watch.deliver()
    assert (bench.told(), len(bench.sent), bench.watch.deliver()) == ([("a", "a")], 1, None)
    assert bench.source.ended == [("a", Outcome.ANSWERED)]
    assert (bench.watch.status.disk, bench.watch.status.refused) == ("", 0)
    assert not (bench.folder / "spool" / "refused").exists()


def test_a_picture_that_has_gone_does_not_hold_up_the_others(bench: Bench) -> None:
    def gone() -> bytes:
        raise PictureNotFound("a: no such file")

    bench.source.captures.append(Capture("a@0", "a", gone))
    bench.source.add("b")
    bench.watch.gather()
    assert bench.watch.status.waiting == 1


def test_a_damaged_packet_is_set_aside_and_its_picture_taken_again(bench: Bench) -> None:
    bench.source.add("a", "b")
    bench.watch.gather()
    place = bench.spool.waiting()[0]
    place.write_bytes(place.read_bytes()[:-3])
    bench.again().once(threading.Event())
    bench.watch.once(threading.Event())
    assert sorted(bench.told()) == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize("harm", [lambda place: place.write_bytes(b"damaged"), lambda place: place.unlink()])
def test_a_packet_that_is_damaged_while_it_waits_gets_its_line(bench: Bench, harm: Callable[[Path], None]) -> None:
    bench.source.add("a", "b")
    bench.watch.gather()
    harm(bench.spool.waiting()[0])
    bench.source.captures.pop(0)  # a camera's picture is not there a second time
    bench.watch.once(threading.Event())
    assert bench.told() == [("a", "refused"), ("b", "b")]
    assert bench.lines()[0]["error"]["type"] == "SpoolError"
    assert bench.source.ended == [("a", Outcome.REFUSED), ("b", Outcome.ANSWERED)]
    assert bench.watch.status.refused == 1
    assert bench.again().status.waiting == 0


def test_a_damaged_packet_that_is_to_be_dropped_gets_one_line(bench: Bench) -> None:
    bench.max_bytes, bench.when_full = 2 * 4096, DROP_OLDEST
    bench.again()
    bench.source.add("a", "b")
    bench.watch.gather()
    bench.spool.waiting()[0].write_bytes(b"damaged")
    bench.source.add("c")
    bench.watch.once(threading.Event())
    assert bench.told() == [("a", "refused"), ("b", "b"), ("c", "c")]


def test_a_packet_that_cannot_be_read_now_is_sent_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.source.add("a", "b")
    bench.watch.gather()
    real = Path.read_bytes

    def broken(path: Path) -> bytes:
        if path.suffix == ".spool":
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        assert bench.watch.deliver() is False
        assert "Too many open files" in bench.watch.status.disk
        assert bench.again().deliver() is False
        assert bench.watch.status.waiting == 2
    bench.watch.once(threading.Event())
    assert sorted(bench.told()) == [("a", "a"), ("b", "b")]
    assert bench.watch.status.disk == ""
    assert not list((bench.folder / "spool").glob("refused/*"))


def test_packets_on_a_disk_that_is_away_for_a_while_are_sent_once_it_is_back(bench: Bench) -> None:
    """The first was refused for good where the spool's folder had gone, all of them where an empty one stood there."""
    bench.source.add("a", "b")
    bench.watch.gather()
    bench.source.add("c")
    spool, taken_out = bench.spool.folder, bench.folder / "taken out"
    for empty in (False, True):
        spool.rename(taken_out)
        if empty:
            spool.mkdir()
        assert bench.watch.deliver() is False
        bench.watch.gather()
        assert "is the disk there?" in bench.watch.status.disk
        if empty:
            spool.rmdir()  # nothing was written there
        taken_out.rename(spool)
    bench.watch.gather()
    while bench.watch.deliver():
        pass
    assert [line["answers"]["classify"][0]["label"] for line in bench.lines()] == ["a", "b", "c"]
    assert (bench.watch.status.refused, bench.watch.status.disk) == (0, "")


def test_a_picture_that_cannot_be_read_now_does_not_hold_up_the_others(bench: Bench) -> None:
    def stale() -> bytes:
        raise DataError("a: cannot be read now (Stale file handle); tried again later")

    bench.source.captures.append(Capture("a@0", "a", stale))
    bench.source.add("b")
    bench.watch.once(threading.Event())
    assert bench.told() == [("b", "b")]
    assert "Stale file handle" in bench.watch.status.source
    bench.source.captures.clear()
    bench.source.add("a")
    bench.watch.once(threading.Event())
    assert bench.told() == [("b", "b"), ("a", "a")]
    assert bench.watch.status.source == ""


def test_names_that_are_not_utf8_are_taken_with_the_others(bench: Bench) -> None:
    folder = bench.folder / "pictures"
    folder.mkdir()
    try:
        (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"coffee")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (folder / "a.jpg").write_bytes(b"tea")
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(b"bad")
    bench.source = Folder(folder, settle_s=0.0, after="move")  # type: ignore[assignment]
    for _ in range(2):
        bench.again().once(threading.Event())
    told = [("\\xff.jpg", "unreadable"), ("a.jpg", "tea"), ("caf\\xe9.jpg", "coffee")]
    assert sorted(bench.told()) == told
    assert sorted(os.fsencode(path.name) for path in folder.glob("*/*")) == [b"a.jpg", b"caf\xe9.jpg", b"\xff.jpg"]


@pytest.mark.parametrize("once", [True, False])
def test_a_backlog_does_not_keep_it_from_stopping(bench: Bench, once: bool) -> None:
    stop = threading.Event()

    def encode_one(picture: Any) -> tuple[bytes, int, None]:
        stop.set()
        return encode(picture)

    bench.encode = encode_one
    bench.source.add(*"abcdef")
    bench.watch.once(stop) if once else bench.watch.run(stop)
    assert bench.watch.status.taken == 1


def test_a_stop_between_two_looks_is_not_slept_over(bench: Bench) -> None:
    stop = threading.Event()

    class Late(threading.Event):
        def clear(self) -> None:
            stop.set()
            self.set()  # the last call of `run`, just before it is cleared
            super().clear()

    bench.watch._more = Late()
    sender = threading.Thread(target=bench.watch._keep_delivering, args=(stop, Backoff()), daemon=True)
    sender.start()
    sender.join(5)
    assert not sender.is_alive()


def test_troubles_name_no_password(bench: Bench) -> None:
    bench.source.add("a")
    bench.trouble = [LinkDown("http://me:secret@edge:8080 does not answer")]
    bench.watch.once(threading.Event())
    assert bench.watch.status.link == "http://edge:8080 does not answer"


@pytest.mark.parametrize("broken", ["fsync", "pwrite", "replace", "mkdir"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_full_disk_at_any_moment(bench: Bench, monkeypatch: pytest.MonkeyPatch, broken: str, turn: int) -> None:
    bench.source.add("a", "b", "c")
    bench.hated = {b"a"}
    real, calls = getattr(os, broken), 0

    def full(*rest: Any, **names: Any) -> Any:
        nonlocal calls
        calls += 1
        if turn <= calls < turn + 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*rest, **names)

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        for _ in range(6):
            bench.watch.once(threading.Event())
    bench.watch.once(threading.Event())
    told = dict(bench.told())
    assert len(bench.told()) == 3
    assert set(told) == set("abc")
    assert list(told.values()).count("refused") == 1
    assert bench.watch.status.waiting == 0
    assert bench.again().status.waiting == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    bench = Bench(disk)
    bench.reserve_bytes = 8192
    bench.again()
    try:
        bench.source.add(*(f"picture{number}" for number in range(40)))
        bench.trouble = [LinkDown("away")] * 50
        (disk / "ballast").write_bytes(bytes(40_000))
        bench.watch.once(threading.Event())
        assert "8,192 bytes are free" in bench.watch.status.disk
        assert 0 < bench.watch.status.waiting < 40
        bench.trouble = []
        with (disk / "more").open("wb", buffering=0) as more, contextlib.suppress(OSError):
            while True:
                more.write(bytes(4096))
        bench.watch.once(threading.Event())
        assert "No space left" in bench.watch.status.disk
        assert bench.told() == []
        (disk / "more").unlink()
        for _ in range(30):
            bench.watch.once(threading.Event())
        assert bench.told() == [(f"picture{number}", f"picture{number}") for number in range(40)]
    finally:
        bench.close()
        subprocess.run(["umount", disk], check=True)


def test_it_runs_until_it_is_stopped(bench: Bench, tmp_path: Path) -> None:
    stop, folder = threading.Event(), tmp_path / "pictures"
    folder.mkdir()
    bench.source = Folder(folder, settle_s=0.0)  # type: ignore[assignment]
    bench.trouble = [LinkDown("away")] * 3
    watch = bench.again()
    thread = threading.Thread(
        target=watch.run, args=(stop,), kwargs={"poll_s": 0.01, "backoff": Backoff(first_s=0.01, longest_s=0.02)}
    )
    thread.start()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
        (tmp_path / name).rename(folder / name)  # whole from the first moment: nothing settles here
    for _ in range(500):
        if watch.status.answered == 3:
            break
        stop.wait(0.01)
    stop.set()
    thread.join(5)
    assert sorted(bench.told()) == [("a.jpg", "a.jpg"), ("b.jpg", "b.jpg"), ("c.jpg", "c.jpg")]


def test_what_ends_the_sending_thread_ends_the_watch(bench: Bench) -> None:
    bench.source.add("a")
    bench.watch._send = lambda *_: 1 / 0  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        bench.watch.run(threading.Event(), poll_s=0.01)


def test_waits_double_up_to_a_bound_and_begin_again() -> None:
    backoff = Backoff(first_s=1.0, longest_s=300.0)
    waits = [backoff.next_s() for _ in range(100)]
    for turn, wait in enumerate(waits):
        most = min(300.0, 2.0 ** min(turn, 30))
        assert most / 2 <= wait <= most
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_pictures_that_cannot_be_moved_are_told_of_once_and_hold_up_nobody(bench: Bench) -> None:
    folder = bench.folder / "pictures"
    folder.mkdir()
    (folder / "done").write_text("a note, where a folder is to be made")
    bench.source = Folder(folder, settle_s=0.0, after="move")  # type: ignore[assignment]
    watch, told = bench.again(), list[str]()
    watch._tell = lambda _: told.append(watch.status.source)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(name.encode())
        watch.once(threading.Event())
        assert watch.gather() is False, "nothing that time mends: the next look comes as soon as always"
    assert bench.told() == [("a.jpg", "a.jpg"), ("b.jpg", "b.jpg")]
    assert f"moved to {folder / 'done'} (File exists)" in watch.status.source
    assert set(told) <= {"", watch.status.source}
    again = bench.again()
    again._tell = lambda _: told.append("again")
    assert again.gather() is False
    assert again.gather() is False
    assert told.count("again") == 1
    (folder / "done").unlink()
    again.gather()
    assert again.status.source == ""
    assert sorted(path.name for path in (folder / "done").iterdir()) == ["a.jpg", "b.jpg"]


def test_a_camera_that_fails_is_in_the_status_until_a_picture_comes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2, clock = MadeUp(), Clock()
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    bench.source = Camera("0", every_s=3600.0, clock=clock)  # type: ignore[assignment]
    bench.encode = lambda _: (b"frame", 3, None)
    watch = bench.again()
    cv2.gives = cv2.opens = False
    for second in range(4):
        clock.now = float(second)
        assert watch.gather() is True
        assert "camera 0" in watch.status.source
    cv2.gives = cv2.opens = True
    assert watch.gather() is False
    assert (watch.status.source, watch.status.taken) == ("", 1)
    assert watch.gather() is False
    assert watch.status.taken == 1


def test_a_long_run_remembers_the_pictures_that_are_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is bounded while it runs, and yet no picture that is kept gets a second line."""
    monkeypatch.setattr(journals, "MOST_RECORDS", 10)
    pictures = bench.folder / "pictures"
    pictures.mkdir()
    bench.source = Folder(pictures, settle_s=0.0)  # type: ignore[assignment]  # a real folder for once
    watch = bench.again()
    for number in range(100):
        (pictures / f"{number:03d}.jpg").write_bytes(b"x")
        if number >= 40:
            (pictures / f"{number - 10:03d}.jpg").unlink()
        watch.once(threading.Event())
    assert [name for name, _ in bench.told()] == [f"{number:03d}.jpg" for number in range(100)]
    assert (bench.folder / "spool" / "ledger").stat().st_size <= (40 + 10) * 17


def looking(bench: Bench) -> None:
    """Let the encoder hold pictures, which are numbers here, against the one before; half of one is no change."""
    bench.still = Still(np.ones(1, np.float32), least=0.5)

    def look(picture: Any) -> tuple[bytes, int, None]:
        bench.still.look(np.full((1, 1, 1), float(picture), np.float32))
        return encode(picture)

    bench.encode = look
    bench.again()


def shot(bench: Bench, *numbers: str) -> None:
    for number in numbers:
        bench.source.add(f"{len(bench.source.captures)}.jpg", data=number.encode())


def test_a_scene_that_stands_still_is_not_sent_and_every_capture_has_its_line(bench: Bench) -> None:
    looking(bench)
    shot(bench, "1", "1.1", "0.7", "2", "2")
    assert not bench.watch.gather()
    while bench.watch.deliver():
        pass
    assert [packet for packet, _ in bench.sent] == [b"1", b"2"]
    told = {
        line["picture"]: (line.get("unchanged_since"), line.get("change"), "answers" in line) for line in bench.lines()
    }
    assert told == {
        "0.jpg": (None, None, True),
        "1.jpg": ("0.jpg@0", 0.1, False),
        "2.jpg": ("0.jpg@0", 0.3, False),
        "3.jpg": (None, None, True),
        "4.jpg": ("3.jpg@0", 0.0, False),
    }
    status = bench.watch.status
    assert (status.taken, status.answered, status.unchanged, status.waiting, status.unfinished) == (2, 2, 3, 0, False)
    assert sorted(bench.source.ended) == [
        (f"{n}.jpg", Outcome.ANSWERED if n in (0, 3) else Outcome.UNCHANGED) for n in range(5)
    ]
    looking(bench)  # a restart knows what has its line, and takes the next picture whatever it shows
    shot(bench, "2")
    bench.watch.gather()
    bench.watch.deliver()
    assert len(bench.lines()) == 6
    assert bench.sent[2][0] == b"2"


def gather_on_a_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "add", full)
        bench.watch.gather()


def test_what_was_dropped_is_nothing_to_look_like(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It made room for another picture, which the disk then did not take."""
    bench.when_full, bench.max_bytes = DROP_OLDEST, 4096
    looking(bench)
    shot(bench, "1")
    bench.watch.gather()
    shot(bench, "9")

    gather_on_a_full_disk(bench, monkeypatch)
    bench.source.captures.pop()
    shot(bench, "1.1")
    bench.watch.gather()
    bench.watch.deliver()
    assert bench.told() == [("0.jpg", "dropped"), ("1.jpg", "1.1")]


def test_a_picture_that_was_not_taken_is_nothing_to_look_like(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was encoded, but the disk was full; held against itself it would never be sent."""
    looking(bench)
    shot(bench, "1")

    gather_on_a_full_disk(bench, monkeypatch)
    assert (bench.watch.status.disk, bench.watch.status.unchanged) == ("the disk is full", 0)
    bench.watch.gather()
    assert (bench.watch.status.taken, bench.watch.status.unchanged) == (1, 0)


def test_what_was_refused_is_nothing_to_look_like(bench: Bench) -> None:
    looking(bench)
    bench.hated = {b"1"}
    shot(bench, "1")
    bench.watch.gather()
    bench.watch.deliver()
    shot(bench, "1.1")
    bench.watch.gather()
    bench.watch.deliver()
    assert bench.told() == [("0.jpg", "refused"), ("1.jpg", "1.1")]


@pytest.mark.parametrize(
    "what", [{"waiting": 1}, {"refused": 1}, {"unreadable": 1}, {"dropped": 1}, {"source": "gone"}, {"disk": "full"}]
)
def test_what_waits_or_failed_is_unfinished(what: dict[str, Any]) -> None:
    assert Status(**what).unfinished
    assert not Status(taken=3, answered=3, unchanged=2, sent=4, link="away").unfinished  # nothing waits for that link


def test_a_policy_that_is_none_is_refused(bench: Bench) -> None:
    bench.when_full = "burn"
    with pytest.raises(SettingsError, match="drop-oldest"):
        bench.again()
