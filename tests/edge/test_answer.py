from __future__ import annotations

import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splitcodec import Device, Edge
from splitcodec.errors import (
    BundleNotFound,
    BundlePart,
    GraphError,
    PacketBundle,
    PacketChecksum,
    PacketCoding,
    PacketGrid,
    PacketLevel,
    PacketPayload,
    PacketTableSet,
    PacketTooShort,
    PacketVersion,
    SettingsError,
    SplitcodecError,
    TaskError,
)
from splitcodec.wire.answer import parse_answer
from splitcodec.wire.bundle import Bundle, open_bundle, split_device, write_bundle
from splitcodec.wire.packet import pack, unpack

TINY = open_bundle(Path(__file__).parents[1] / "data" / "tiny")
EDGE = Edge(TINY, threads=1)
PACKETS = [
    Device(TINY, threads=1).encode(np.random.default_rng(n).integers(0, 256, (70, 90, 3), dtype=np.uint8), level=n % 3)
    for n in range(6)
]


def resealed(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def reborn(tiny: Bundle, folder: Path, **changes: object) -> Bundle:
    """Write tiny again, its manifest changed."""
    files = {name: tiny.read(name) for name in tiny.manifest.files}
    return write_bundle(folder, replace(tiny.manifest, **changes), files=files)  # type: ignore[arg-type]


def test_an_answer_says_who_what_and_how_long() -> None:
    answer = EDGE.answer(PACKETS[2])
    assert answer["bundle"] == "tiny@1"
    assert answer["level"] == 2
    assert list(answer["answers"]) == ["classify"]
    assert len(answer["answers"]["classify"]) == 5
    assert list(answer["ms"]) == ["decode", "decoder", "tail"]
    assert (
        EDGE.answer(PACKETS[2], tasks=["classify", "classify"], top=1)["answers"]["classify"]
        == (answer["answers"]["classify"][:1])
    )


def test_a_good_packet_gets_the_teachers_answer(tiny: Bundle, pictures: list[Image.Image]) -> None:
    device = Device(tiny, threads=1)
    for picture in pictures[:3]:
        teacher = EDGE.picture_answer(device.crop(picture), top=1)
        student = EDGE.answer(device.encode(picture, level=2), top=1)
        assert student["answers"]["classify"][0]["index"] == teacher["answers"]["classify"][0]["index"]
        assert teacher["level"] == -1
        assert list(teacher["ms"]) == ["head", "tail"]


def test_respond_is_a_link(tiny: Bundle, pictures: list[Image.Image]) -> None:
    answer = Device(tiny, threads=1).ask(pictures[0], link=EDGE.respond, level=0)
    assert answer["bundle"] == "tiny@1"
    assert parse_answer(EDGE.respond(PACKETS[0]))["answers"] == EDGE.answer(PACKETS[0])["answers"]
    one = parse_answer(EDGE.respond(PACKETS[0], top=1))["answers"]["classify"]
    assert one == EDGE.answer(PACKETS[0])["answers"]["classify"][:1]


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_that_no_box_has_is_refused(score: float) -> None:
    with pytest.raises(SettingsError, match="from 0 to 1"):
        EDGE.answer(PACKETS[0], score=score)


@pytest.mark.parametrize("top", [0, -1])
def test_top_below_one_is_refused(top: int) -> None:
    with pytest.raises(SettingsError):
        EDGE.answer(PACKETS[0], top=top)


@pytest.mark.parametrize("tasks", [["detect"], ["classify", ""], [], "classify"])
def test_tasks_that_are_none_are_refused(tasks: list[str]) -> None:
    with pytest.raises(TaskError):
        EDGE.answer(PACKETS[0], tasks=tasks)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"level": 3}, PacketLevel),
        ({"coding": 1}, PacketCoding),
        ({"table_set": 1}, PacketTableSet),
        ({"rows": 255, "cols": 255}, PacketGrid),
        ({"rows": 5}, PacketPayload),
        ({"payload": b"\xff" * 40}, PacketPayload),
        ({"fingerprint": b"none"}, PacketBundle),
    ],
)
def test_each_refusal_by_name(change: dict[str, int | bytes], error: type[SplitcodecError]) -> None:
    with pytest.raises(error):
        EDGE.answer(pack(replace(unpack(PACKETS[5]), **change)))  # type: ignore[arg-type]


def test_refusals_before_the_bundle_is_known() -> None:
    with pytest.raises(PacketTooShort):
        EDGE.answer(b"")
    with pytest.raises(PacketChecksum):
        EDGE.answer(PACKETS[0][:-1] + b"\0")
    with pytest.raises(PacketVersion):
        EDGE.answer(resealed(b"\x20" + PACKETS[0][1:-4]))


def test_an_unknown_bundle_names_what_is_loaded() -> None:
    with pytest.raises(PacketBundle, match=r"6e6f6e65; loaded here: tiny@1 \([0-9a-f]{8}\)"):
        EDGE.answer(pack(replace(unpack(PACKETS[0]), fingerprint=b"none")))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SplitcodecError):
        EDGE.answer(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_packets_with_a_good_checksum_never_crash(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(PACKETS))[:-4])
    for _ in range(data.draw(st.integers(1, 8))):
        # the fingerprint stays, so that what lies behind it is reached
        place = data.draw(st.sampled_from([0, 1, *range(6, len(body))]))
        body[place] = data.draw(st.integers(0, 255))
    body += data.draw(st.binary(max_size=6))
    try:
        answer = EDGE.answer(resealed(bytes(body)))
    except SplitcodecError:
        return
    assert answer["bundle"] == "tiny@1"


def test_the_highest_version_answers(tiny: Bundle, tmp_path: Path) -> None:
    newer = reborn(tiny, tmp_path / "newer", version=3)
    older = reborn(tiny, tmp_path / "older", version=2)
    for bundles in ((tiny, newer, older), (newer, older, tiny), (older, tiny, newer)):
        edge = Edge(*bundles, threads=1)
        assert edge.answer(PACKETS[0])["bundle"] == "tiny@3"
        assert edge.bundles == bundles
    crop = Device(tiny, threads=1).crop(Image.new("RGB", (9, 9)))
    assert edge.picture_answer(crop, bundle="tiny@2")["bundle"] == "tiny@2"
    with pytest.raises(BundleNotFound, match="tiny@7"):
        edge.picture_answer(crop, bundle="tiny@7")


def test_fingerprints_that_begin_alike_are_refused(tiny: Bundle) -> None:
    twin = replace(tiny, fingerprint=tiny.fingerprint[:4] + bytes(28))
    with pytest.raises(SettingsError, match="begin alike"):
        Edge(tiny, twin, threads=1)


def test_two_bundles_are_told_apart(tiny: Bundle, tmp_path: Path) -> None:
    other = reborn(tiny, tmp_path / "other", name="other", colour=replace(tiny.manifest.colour, scale=0.5))
    edge = Edge(tiny, other, threads=1)
    for bundle in (tiny, other):
        packet = Device(bundle, threads=1).encode(Image.new("RGB", (9, 9)))
        assert edge.answer(packet)["bundle"] == bundle.ident


def test_an_edge_opened_again_shares_what_has_not_changed_and_leaves_the_other_as_it_was(
    tiny: Bundle, tmp_path: Path
) -> None:
    reborn(tiny, tmp_path / "other", name="other", colour=replace(tiny.manifest.colour, scale=0.5))
    edge = Edge(tiny, tmp_path / "other", threads=1)
    assert edge.reopened() is edge
    old = Device(tmp_path / "other", threads=1).encode(Image.new("RGB", (9, 9)))
    question = edge.read(old)
    (tmp_path / "other").rename(tmp_path / "before")
    with pytest.raises(BundleNotFound):
        edge.reopened()
    reborn(tiny, tmp_path / "other", name="other", colour=replace(tiny.manifest.colour, scale=0.25))
    new = Device(tmp_path / "other", threads=1).encode(Image.new("RGB", (9, 9)))
    renewed = edge.reopened()
    assert (renewed.read(PACKETS[0]).line, renewed.bundles[0]) == (edge.read(PACKETS[0]).line, edge.bundles[0])
    assert (edge.answer(old)["bundle"], renewed.answer(new)["bundle"]) == ("other@1", "other@1")
    assert isinstance(renewed.answer_all([question])[0], dict), "what was let in before"
    for one, packet in ((renewed, old), (edge, new)):
        with pytest.raises(PacketBundle):
            one.answer(packet)


def test_a_folder_of_bundles_may_get_more_of_them_and_fewer(tiny: Bundle, tmp_path: Path) -> None:
    """Which bundles a server has was fixed when it started."""
    shelf = tmp_path / "shelf"
    reborn(tiny, shelf / "one")
    edge = Edge(tiny, shelf, threads=1)  # the same twice
    assert edge.reopened() is edge
    reborn(tiny, shelf / "a", name="other", colour=replace(tiny.manifest.colour, scale=0.5))
    packet = Device(shelf / "a", threads=1).encode(Image.new("RGB", (9, 9)))
    more = edge.reopened()
    assert [one.ident for one in more.bundles] == ["tiny@1", "other@1", "tiny@1"]
    assert more.reopened() is more
    assert more.answer(packet)["bundle"] == "other@1"
    assert more.read(PACKETS[0]).line is edge.read(PACKETS[0]).line, "shared"
    with pytest.raises(PacketBundle):
        edge.answer(packet)
    shutil.rmtree(shelf / "a")
    with pytest.raises(PacketBundle):
        more.reopened().answer(packet)
    shutil.rmtree(shelf / "one")
    with pytest.raises(BundleNotFound, match="not a bundle"):  # an empty folder is a mistake
        more.reopened()


def test_what_an_edge_cannot_open_is_refused_at_once(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundlePart):
        Edge(split_device(tiny, tmp_path / "half"))
    with pytest.raises(BundleNotFound):
        Edge("no-such-bundle")
    with pytest.raises(SettingsError):
        Edge(tiny, max_symbols=0)


def test_the_edges_own_limit_counts(tiny: Bundle) -> None:
    with pytest.raises(PacketGrid):
        Edge(tiny, threads=1, max_symbols=10).answer(PACKETS[0])


def test_a_picture_answer_takes_one_picture() -> None:
    with pytest.raises(GraphError, match="expected 1"):
        EDGE.picture_answer(np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(GraphError):
        EDGE.picture_answer(np.zeros((1, 64, 64, 3), np.float32))
