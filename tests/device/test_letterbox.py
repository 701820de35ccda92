"""Whole pictures: scaled, padded, and boxes and label maps mapped back."""

from __future__ import annotations

import base64
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngStream

from splitcodec import Device
from splitcodec.device.overlay import draw, in_picture, mask_of
from splitcodec.device.placed import GREY, crop_bhwc, crop_place, letterbox_bhwc
from splitcodec.errors import LinkGarbled, SettingsError
from splitcodec.wire.answer import Answer, Mask
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.png import palette, write_png


def mask(index_hw: np.ndarray) -> Mask:
    png = base64.b64encode(write_png(index_hw.astype(np.uint8), palette(256))).decode()
    return {"size": list(index_hw.shape), "png": png, "classes": [{"index": 0, "label": "road", "share": 1.0}]}


def test_the_longest_side_is_scaled_and_the_rest_is_grey() -> None:
    image, place = letterbox_bhwc(Image.new("RGB", (300, 150), (10, 20, 30)), side=96, multiple=32)
    assert image.shape == (1, 64, 96, 3)
    assert (place.wide, place.high) == (96, 48)
    assert (image[0, :48] == [10, 20, 30]).all()
    assert (image[0, 48:] == GREY).all()
    tall, place = letterbox_bhwc(Image.new("RGB", (10, 100)), side=50, multiple=16)
    assert tall.shape == (1, 64, 16, 3)
    assert place.box_in_picture([0, 0, 1, 1]) == [0, 0, 10, 100]


def test_boxes_come_back_to_their_pixels() -> None:
    _, place = letterbox_bhwc(Image.new("RGB", (300, 150)), side=96, multiple=32)
    assert place.box_in_picture([0.25, 0.375, 0.5, 0.75]) == pytest.approx([75, 75, 150, 150])
    place = crop_place((300, 150), resize=72, crop=64)
    got = place.box_in_picture([0, 0, 1, 1])
    assert got == pytest.approx([(144 - 64) / 2 * 300 / 144, 4 * 150 / 72, (144 + 64) / 2 * 300 / 144, 68 * 150 / 72])


def test_a_crop_is_where_crop_place_says() -> None:
    random = np.random.default_rng(5)
    picture = Image.fromarray(random.integers(0, 256, (90, 130, 3), dtype=np.uint8))
    place = crop_place(picture.size, resize=72, crop=64)
    resized = picture.resize((place.wide, place.high), Image.Resampling.BICUBIC)
    part = np.asarray(resized)[place.top : place.top + 64, place.left : place.left + 64]
    np.testing.assert_array_equal(crop_bhwc(picture, resize=72, crop=64)[0], part)


def test_label_maps_come_back_to_the_pictures_size() -> None:
    _, place = letterbox_bhwc(Image.new("RGB", (192, 96)), side=96, multiple=32)
    seen = np.zeros((64, 96), np.uint8)
    seen[:24], seen[48:] = 4, 9
    back = place.mask_in_picture(seen)
    assert back.shape == (96, 192)
    assert (back[:48] == 4).all()
    assert (back[48:] == 0).all()
    cropped = crop_place((100, 100), resize=100, crop=50).mask_in_picture(np.ones((50, 50), np.uint8))
    assert cropped[50, 50] == 1
    assert cropped[0, 0] == 255


def test_an_answer_is_mapped_and_drawn() -> None:
    picture = Image.new("RGB", (192, 96), "grey")
    _, place = letterbox_bhwc(picture, side=96, multiple=32)
    seen = np.zeros((64, 96), np.uint8)
    seen[:, :48] = 2
    answer: Answer = {
        "bundle": "x@1",
        "level": 1,
        "answers": {
            "classify": [{"index": 1, "label": "street", "p": 0.5}],
            "detect": [{"index": 6, "label": "car", "score": 0.9, "box": [0.5, 0.25, 0.75, 0.5]}],
            "segment": mask(seen),
        },
        "ms": {},
    }
    mapped = in_picture(answer, place)
    assert mapped["answers"]["detect"][0]["box"] == [96, 32, 144, 64]
    assert mapped["answers"]["segment"]["size"] == [96, 192]
    assert answer["answers"]["detect"][0]["box"] == [0.5, 0.25, 0.75, 0.5]
    drawn = np.asarray(draw(picture, mapped)).astype(int)
    assert drawn.shape == (96, 192, 3)
    assert (drawn[64, 100] != drawn[60, 120]).any()  # the edge of the box
    assert (drawn[5, 20] != drawn[5, 180]).any()  # the two classes


def test_shares_of_a_label_map_are_of_the_picture() -> None:
    """A letterbox's margin counted, so a road was 46 % of a panorama whose label map said 42."""
    _, place = letterbox_bhwc(Image.new("RGB", (192, 32)), side=96, multiple=32)
    seen = np.zeros((32, 96), np.uint8)
    seen[:16, :24], seen[16:] = 2, 5  # half of what was sent is margin, where the network sees what is not there
    told = ((5, "wall", 0.5), (0, "road", 0.375), (2, "car", 0.125), (-7, "?", 0.1), (300, "?", 0.1))
    classes = [{"index": index, "label": label, "share": share} for index, label, share in told]
    answers = {"segment": {**mask(seen), "classes": classes}}
    mapped = in_picture({"bundle": "x@1", "level": 1, "answers": answers, "ms": {}}, place)  # type: ignore[typeddict-item]
    assert mapped["answers"]["segment"]["classes"] == [
        {"index": 0, "label": "road", "share": 0.75},
        {"index": 2, "label": "car", "share": 0.25},
    ]
    cropped = in_picture(
        {"bundle": "x@1", "level": 1, "answers": {"segment": mask(np.zeros((50, 50)))}, "ms": {}},
        crop_place((100, 100), resize=100, crop=50),
    )
    assert cropped["answers"]["segment"]["classes"] == [{"index": 0, "label": "road", "share": 1.0}]


@pytest.mark.parametrize(("score", "drawn"), [(0.55, True), (0.45, False)])
def test_only_boxes_that_are_likely_right_are_drawn(score: float, drawn: bool) -> None:
    """From 0.3 on the shipped bundle has 24 boxes a picture of VOC 2007, 2 of them right."""
    picture = Image.new("RGB", (192, 96), "grey")
    box = {"index": 6, "label": "car", "score": score, "box": [96.0, 32.0, 144.0, 64.0]}
    answer: Answer = {"bundle": "x@1", "level": 1, "answers": {"detect": [box]}, "ms": {}}  # type: ignore[list-item]
    assert (draw(picture, answer).tobytes() != picture.tobytes()) is drawn


def test_a_label_map_names_its_classes() -> None:
    """Colours alone told nobody which is the road."""
    picture = Image.new("RGB", (192, 96), "grey")
    index_hw = np.zeros((96, 192), np.uint8)
    plain, few, all_of_it = (
        np.asarray(draw(picture, {"bundle": "x@1", "level": 1, "answers": {"segment": found}, "ms": {}}))
        for found in (
            Mask(**{**mask(index_hw), "classes": []}),
            Mask(**{**mask(index_hw), "classes": [{"index": 0, "label": "road", "share": 0.001}]}),
            mask(index_hw),
        )
    )
    rows, cols = np.nonzero((plain != all_of_it).any(axis=2))
    assert rows.min() > 96 - 24
    assert cols.min() > 96
    assert (plain == few).all()


def test_a_large_label_map_is_drawn_in_little_memory() -> None:
    """One of 64 megapixels took 1.5 GB beside the picture."""
    index_hw = (np.add.outer(np.arange(900), np.arange(1100)) // 7 % 256).astype(np.uint8)
    picture = Image.linear_gradient("L").convert("RGB").resize((1100, 900))
    answer: Answer = {"bundle": "x@1", "level": 0, "answers": {"segment": {**mask(index_hw), "classes": []}}, "ms": {}}
    tracemalloc.start()
    drawn = draw(picture, answer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    veiled = Image.blend(picture, Image.fromarray(palette(257)[index_hw.astype(int) + 1]), 0.5)
    expected_hwc = np.where((index_hw == 255)[..., None], np.asarray(picture), np.asarray(veiled))
    assert (np.asarray(drawn) == expected_hwc).all()
    assert peak < 6 * index_hw.size  # of what NumPy and Python take


@pytest.mark.parametrize("change", [{"png": "%%"}, {"png": "aGVsbG8="}, {"size": [64, 95]}, {"size": [60000, 60000]}])
def test_a_label_map_that_is_none_is_refused(change: dict[str, object]) -> None:
    one: Mask = {**mask(np.zeros((64, 96))), **change}  # type: ignore[typeddict-item]
    with pytest.raises(LinkGarbled, match=r"segment\.png: [^<>]*; expected"):  # of no address in memory
        mask_of(one)


def test_a_label_map_that_pillow_stumbles_over_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow 12.0 raised struct.error for a gAMA of one byte behind the pixels; `watch` ended at each start."""
    monkeypatch.setattr(PngStream, "chunk_gAMA", lambda *_: struct.unpack(">I", b"\0"), raising=False)
    png = write_png(np.zeros((64, 96), np.uint8), palette(256))
    chunk = struct.pack(">I4sBI", 1, b"gAMA", 0, zlib.crc32(b"gAMA\0"))
    hostile = base64.b64encode(png[:-12] + chunk + png[-12:]).decode()
    with pytest.raises(LinkGarbled, match=r"segment\.png: unpack requires"):
        mask_of({**mask(np.zeros((64, 96))), "png": hostile})


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_a_label_as_long_as_an_answer_is_drawn_in_part(task: str) -> None:
    """Its pixels were more than Pillow takes: a traceback of `ask --draw`."""
    one = {"index": 1, "label": "A" * 300_000}
    found = {"classify": [{**one, "p": 0.9}], "detect": [{**one, "score": 0.9, "box": [1.0, 2.0, 30.0, 40.0]}]}
    answer: Answer = {"bundle": "x@1", "level": 0, "answers": {task: found[task]}, "ms": {}}  # type: ignore[misc]
    assert draw(Image.new("RGB", (2000, 1500)), answer).size == (2000, 1500)


def test_a_device_sends_any_grid(tiny: Bundle, pictures: list[Image.Image]) -> None:
    device = Device(tiny, threads=1)
    wide = pictures[4]  # 120 x 90
    packet = device.encode(wide, fit="letterbox", side=160, level=1)
    assert (packet[6], packet[7]) == (8, 10)  # 120 -> 128 rows, 160 columns
    np.testing.assert_array_equal(device.view(wide)[0], device.crop(wide))
    with pytest.raises(SettingsError, match="16 to 1024"):
        device.encode(wide, fit="letterbox", side=2000)
    with pytest.raises(SettingsError, match="fit='letterbox'"):
        device.encode(wide, side=160)
    with pytest.raises(SettingsError, match="'crop' or 'letterbox'"):
        device.view(wide, fit="whole")  # type: ignore[arg-type]
