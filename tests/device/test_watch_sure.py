"""A watch whose packets are followed by larger ones where answers are unsure."""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitcodec.device.entry import Entry, Larger, Made, Sent, entry_of, parse_entry
from splitcodec.device.journal import Journal
from splitcodec.device.source import Folder
from splitcodec.device.spool import Spool
from splitcodec.device.watch import Watch
from splitcodec.errors import LinkDown, LinkError, OutputError, SpoolError
from splitcodec.wire.answer import Answer, dump_answer
from splitcodec.wire.request import Wanted

ASKING = Wanted(("classify",))


def made(*, sure: float = 0.5) -> Made:
    return Made(b"small", 1, None, Larger(b"much larger", 7, sure))


def answering(certainties: dict[bytes, float], seen: list[tuple[bytes, Wanted]]) -> Callable[[bytes, Wanted], bytes]:
    def send(packet: bytes, wanted: Wanted) -> bytes:
        seen.append((packet, wanted))
        guesses: Any = [{"index": 0, "label": packet.decode(), "p": certainties[packet]}]
        return dump_answer(Answer(bundle="b@1", level=3, answers={"classify": guesses}, ms={}))

    return send


@contextlib.contextmanager
def watching(folder: Path, send: Callable[[bytes, Wanted], bytes], lines: list[dict[str, Any]]) -> Iterator[Watch]:
    (folder / "pictures").mkdir(exist_ok=True)
    spool = Spool(folder / "spool", reserve_bytes=0)
    journal = Journal(folder / "answers.jsonl", folder / "spool" / "ledger")
    yield Watch(
        encode=lambda _: made(),
        send=send,
        source=Folder(folder / "pictures", settle_s=0.0),
        spool=spool,
        journal=journal,
        max_bytes=1_000_000,
        asking=ASKING,
        tell=lambda line: None if line is None else lines.append(line),
    )
    spool.close()
    journal.close()


@pytest.mark.parametrize(("certainty", "packets"), [(0.5, [b"small"]), (0.49, [b"small", b"much larger"])])
def test_one_line_whatever_it_took(tmp_path: Path, certainty: float, packets: list[bytes]) -> None:
    seen: list[tuple[bytes, Wanted]] = []
    lines: list[dict[str, Any]] = []
    with watching(tmp_path, answering({b"small": certainty, b"much larger": 0.1}, seen), lines) as watch:
        (tmp_path / "pictures" / "a.jpg").write_bytes(b"a")
        watch.once(threading.Event())
        assert (watch.status.waiting, watch.status.answered, watch.status.spool_bytes) == (0, 1, 0)
    (line,) = lines
    assert [packet for packet, _ in seen] == packets
    assert len({wanted.key for _, wanted in seen}) == len(packets)  # another packet, another key
    assert {wanted._replace(key=None) for _, wanted in seen} == {ASKING}
    assert (line["key"], line["bytes"], line["answers"]["classify"][0]["label"]) == (
        seen[-1][1].key,
        sum(map(len, packets)),
        packets[-1].decode(),
    )
    assert line.get("before") == ([{"level": 1, "bytes": 5, "p": 0.49}] if len(packets) == 2 else None)


def test_a_link_that_breaks_between_the_two_goes_on_with_the_second(tmp_path: Path) -> None:
    seen: list[tuple[bytes, Wanted]] = []
    lines: list[dict[str, Any]] = []
    answer = answering({b"small": 0.1, b"much larger": 0.9}, seen)
    broken: list[LinkError] = [LinkDown("away")]

    def send(packet: bytes, wanted: Wanted) -> bytes:
        if packet != b"small" and broken:
            raise broken.pop()
        return answer(packet, wanted)

    with watching(tmp_path, send, lines) as watch:
        (tmp_path / "pictures" / "a.jpg").write_bytes(b"a")
        watch.once(threading.Event())
        assert (watch.status.waiting, watch.status.link, lines) == (1, "away", [])
    with watching(tmp_path, send, lines) as again:  # also after a restart
        again.once(threading.Event())
    assert [packet for packet, _ in seen] == [b"small", b"much larger"]
    assert [line["before"] for line in lines] == [[{"level": 1, "bytes": 5, "p": 0.1}]]


def test_a_full_disk_between_the_two_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, Wanted]] = []
    lines: list[dict[str, Any]] = []
    with watching(tmp_path, answering({b"small": 0.1, b"much larger": 0.9}, seen), lines) as watch:
        (tmp_path / "pictures" / "a.jpg").write_bytes(b"a")
        watch.gather()
        with monkeypatch.context() as full:
            full.setattr(Spool, "_free_bytes", lambda _: 0)
            assert watch.deliver() is False
            assert (watch.status.waiting, "are free" in watch.status.disk, lines) == (1, True, [])
        assert watch.deliver() is True
        assert watch.status.disk == ""
    assert [line["answers"]["classify"][0]["label"] for line in lines] == ["much larger"]
    first, second, _ = (wanted.key for _, wanted in seen)
    assert first == second  # asked again under its own key: the edge need not compute it twice


def test_an_entry_is_read_as_it_was_written(tmp_path: Path) -> None:
    whole = entry_of("a@0", "a", made=made(sure=0.25), wanted=Wanted(("classify",), 1))
    for entry in (
        whole,
        replace(whole, larger=None, sent=(Sent(1, 5, 0.125),)),
        replace(whole, sent=(Sent(0, 1, 0.0),)),
    ):
        assert parse_entry(entry.dump(), tmp_path) == entry


@pytest.mark.parametrize("larger", ["[0, 7, 0.5]", "[16, 7, 0.5]", "[-3, 7, 0.5]", "[3, 7]", "3", '["3", 7, 0.5]'])
def test_a_damaged_larger_packet_is_refused(tmp_path: Path, larger: str) -> None:
    entry = entry_of("a@0", "a", made=made(), wanted=ASKING)
    content = entry.dump()[:-4].replace(b"[11,7,0.5]", larger.encode())

    with pytest.raises(SpoolError, match="damaged"):
        parse_entry(content + zlib.crc32(content).to_bytes(4, "little"), tmp_path)


def test_a_place_that_is_taken_again_counts_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, reserve_bytes=0)
    large = Entry("a@0", "a", "k", 1, bytes(9000))
    place, other = spool.add(large), spool.add(Entry("b@0", "b", "l", 1, b"b"))
    assert spool.add(replace(large, packet=b"small"), place) == place
    assert (spool.waiting(), spool.bytes, spool.read(place).packet) == ([place, other], 2 * 4096, b"small")
    assert spool.add(Entry("c@0", "c", "m", 1, b"c")).name == "000000000003.spool"
    (tmp_path / "lock").unlink()
    with pytest.raises(OutputError):
        spool.add(large, place)
    spool.close()
