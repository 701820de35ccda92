from __future__ import annotations

import errno
import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from splitcodec.device import spool as spools
from splitcodec.device.journal import Journal
from splitcodec.device.placed import Letterbox
from splitcodec.device.spool import Entry, Spool, entry_of, idempotency_key
from splitcodec.errors import OutputError, SpoolError
from splitcodec.wire.request import Wanted


def entry(number: int, *, size: int = 100) -> Entry:
    packet = bytes([number % 256]) * size
    return Entry(f"{number}.jpg@1+2", f"{number}.jpg", f"{number:032}", 3, packet)


def test_what_is_added_is_read_in_order_also_by_the_next_process(tmp_path: Path) -> None:
    first = Spool(tmp_path / "spool")
    for number in range(12):
        first.add(entry(number))
    first.remove(first.waiting()[0])
    first.close()
    second = Spool(tmp_path / "spool")
    assert [second.read(place) for place in second.waiting()] == [entry(number) for number in range(1, 12)]
    assert second.bytes == 11 * 4096 == first.bytes
    assert second.add(entry(12)).name == "000000000013.spool"
    second.close()


def test_where_a_picture_lies_waits_beside_its_packet_if_it_is_known(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    placed = replace(entry(1), place=Letterbox((400, 300), 320, 240, 320, 256))
    assert spool.read(spool.add(placed)) == placed
    place = spool.add(entry(2))
    assert b"place" not in place.read_bytes()
    assert spool.read(place).place is None
    for bad in (b"1", b'{"wide": 3}', b'{"picture": 4}', b'{"picture": [1, 2], "wide": 3}'):
        head = (
            b'{"capture":"a","picture":"a","key":"k","level":3,"tasks":[],"top":1,"score":null,"place":' + bad + b"}\n"
        )
        place.write_bytes(head + zlib.crc32(head).to_bytes(4, "little"))
        with pytest.raises(SpoolError, match="damaged"):
            spool.read(place)
    spool.close()


def test_what_to_ask_for_waits_beside_its_packet(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    place = Letterbox((400, 300), 320, 240, 224, 224, 48, 8)
    for wanted in (Wanted(("classify",), 1), Wanted(("classify", "detect"), None, score=0.3), Wanted()):
        made = entry_of("a@0", "a", made=(b"packet", 3, place), wanted=wanted)
        assert spool.read(spool.add(made)) == made
        assert made.wanted() == wanted._replace(key=made.key)
        assert (made.place, made.level, made.packet) == (place, 3, b"packet")
    old = spool.add(entry(2))
    for bad in (
        b'"classify","top":1',
        b'["classify"],"top":"x"',
        b'["classify"],"top":[]',
        b'["a"],"score":"x"',
        b"7",
        b"null",
    ):
        head = b'{"capture":"a","picture":"a","key":"k","level":3,"top":1,"score":null,"tasks":' + bad + b"}\n"
        old.write_bytes(head + zlib.crc32(head).to_bytes(4, "little"))
        with pytest.raises(SpoolError, match="damaged"):
            spool.read(old)
    spool.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    with pytest.raises(SpoolError, match="another process"):
        Spool(tmp_path)
    first.close()
    Spool(tmp_path).close()


def test_what_was_half_written_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "000000000001.part").write_bytes(b"half")
    (tmp_path / "ledger.part").write_bytes(b"half")
    spool = Spool(tmp_path)
    assert (len(spool), sorted(path.name for path in tmp_path.iterdir())) == (0, ["lock"])
    spool.close()


def test_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    """A folder of such a name was a packet that could not be read, before which all others waited; downloads went.

    And no packet takes such a name: none could be written any more once the numbers had come to the folder's.
    """
    (tmp_path / "000000000007.spool").mkdir()
    (tmp_path / "000000000008.spool").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.spool").write_bytes(b"")
    (tmp_path / "\u00b2.spool").write_bytes(b"")
    (tmp_path / "photos.part").mkdir()
    (tmp_path / "000000000005.part").mkdir()
    (tmp_path / "film.mp4.part").write_bytes(b"half a download")
    others = {path.name for path in tmp_path.iterdir()}
    spool = Spool(tmp_path)
    places = [spool.add(entry(number)) for number in range(9)]
    assert spool.waiting() == places
    assert {path.name for path in tmp_path.iterdir()} == {*others, *(place.name for place in places), "lock"}
    spool.close()


@pytest.mark.parametrize("head", [b"[" * 100_000, b'{"capture":"a","picture":"b","key":"c","level":1e999}', b"[1]"])
def test_a_head_that_is_none_is_damage(tmp_path: Path, head: bytes) -> None:
    content = head + b"\npacket"
    (tmp_path / "000000000001.spool").write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
    spool = Spool(tmp_path)
    with pytest.raises(SpoolError, match="damaged"):
        spool.read(spool.waiting()[0])
    spool.close()


def test_damage_is_noticed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    place = spool.add(entry(1))
    content = bytearray(place.read_bytes())
    content[-30] ^= 1
    place.write_bytes(content)
    with pytest.raises(SpoolError, match="damaged"):
        spool.read(place)
    spool.close()


def test_what_cannot_be_read_now_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    place = spool.add(entry(1))

    def broken(_: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", broken)
        with pytest.raises(OutputError, match="Too many open files; tried again"):
            spool.read(place)
    assert spool.read(place) == entry(1)
    place.unlink()
    with pytest.raises(SpoolError, match="gone"):
        spool.read(place)
    spool.close()


def test_it_knows_the_captures_that_wait(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    place = first.add(entry(1))
    first.close()
    spool = Spool(tmp_path)
    assert (spool.holds("1.jpg@1+2"), spool.capture_at(place)) == (False, None)
    spool.read(place)
    place.write_bytes(b"damaged")
    assert (spool.holds("1.jpg@1+2"), spool.capture_at(place)) == (True, ("1.jpg@1+2", "1.jpg"))
    spool.remove(place)
    assert (spool.holds("1.jpg@1+2"), spool.capture_at(place)) == (False, None)
    spool.close()


def test_the_folder_of_refused_packets_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MOST_REFUSED", 3)
    spool = Spool(tmp_path)
    for number in range(6):
        spool.set_aside(spool.add(entry(number)))
    assert sorted(path.name for path in (tmp_path / "refused").iterdir()) == [f"{n:012d}.spool" for n in (4, 5, 6)]
    assert (len(spool), spool.bytes) == (0, 0)
    spool.close()


def test_no_packet_takes_the_name_of_one_that_was_set_aside_before(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    for number in range(3):
        first.set_aside(first.add(entry(number)))
    first.close()
    spool = Spool(tmp_path)
    assert spool.add(entry(3)).name == "000000000004.spool"
    spool.close()


def test_of_two_packets_of_a_capture_one_is_left_where_the_other_goes(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first, second = spool.add(entry(1)), spool.add(entry(1))
    spool.remove(first)
    assert spool.holds("1.jpg@1+2")
    spool.remove(second)
    assert not spool.holds("1.jpg@1+2")
    spool.close()


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    spool = Spool(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        with pytest.raises(OutputError, match="No space left"):
            spool.add(entry(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]
    assert spool.read(spool.add(entry(2))) == entry(2)
    spool.close()


def test_a_disk_without_locks_is_not_put_down_to_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(OutputError, match="No locks available; choose another --spool"):
        Spool(tmp_path)
    with pytest.raises(OutputError, match="No locks available; choose another --answers"):
        Journal(tmp_path / "answers.jsonl", tmp_path / "ledger")


def test_keys_tell_captures_packets_and_what_is_asked_for_apart() -> None:
    """An edge refuses another question under the key of one that it has answered."""
    one = Wanted(("classify",))
    keys = {
        idempotency_key(b"a", "b", wanted=one),
        idempotency_key(b"ab", "", wanted=one),
        idempotency_key(b"", "ab", wanted=one),
        idempotency_key(b"a", "c", wanted=one),
        idempotency_key(b"a", "b", wanted=Wanted(("classify",), 1)),
        idempotency_key(b"a", "b", wanted=Wanted(("classify", "detect"))),
        idempotency_key(b"a", "b", wanted=Wanted()),
        idempotency_key(b"a", "b", wanted=one._replace(score=0.3)),
        idempotency_key(b"a", "b", wanted=one._replace(score=0.5)),
    }
    assert len(keys) == 9
    assert {len(key) for key in keys} == {32}
    assert idempotency_key(b"a", "b", wanted=one._replace(key="k")) in keys
