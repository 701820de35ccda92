"""Generated data sets in the layouts of VOC, COCO and CamVid."""

from __future__ import annotations

import errno
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from splitcodec.errors import DataError
from splitcodec.layouts import voc
from splitcodec.layouts.find import read_split
from splitcodec.layouts.sample import VOID
from tests.labelled import draw, write_camvid, write_coco, write_voc


def test_voc_boxes_count_pixels_from_zero(tmp_path: Path) -> None:
    data = read_split(write_voc(tmp_path / "VOC2007"), split="train", task="detect")
    assert data.name == "VOC2007"
    assert len(data.samples) == 6
    assert data.classes == voc.CLASSES
    first = data.samples[0]
    assert first.box_n4.tolist() == [list(map(float, box)) for box in draw(0)[1]]
    assert first.label_n.tolist() == [0, 1]
    assert first.spare_n.tolist() == [False, True]


def test_voc_lies_in_a_devkit(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    for folder in (tmp_path, tmp_path / "VOCdevkit"):
        assert len(read_split(folder, split="val", task="segment").samples) == 3


def test_voc_label_maps_know_their_border(tmp_path: Path) -> None:
    data = read_split(write_voc(tmp_path / "VOC2012"), split="val", task="segment")
    assert data.classes[:2] == ("background", "aeroplane")
    mask_hw = data.samples[0].mask_hw(classes=21)
    assert (mask_hw[0] == VOID).all()
    np.testing.assert_array_equal(mask_hw[1:], draw(6)[2][1:])


def test_coco_categories_become_indices(tmp_path: Path) -> None:
    data = read_split(write_coco(tmp_path), split="train", task="detect")
    assert data.classes == ("person", "car", "toothbrush")
    assert data.samples[0].label_n.tolist() == [1, 2]
    assert data.samples[0].spare_n.tolist() == [False, True]
    assert data.samples[0].box_n4.tolist() == [list(map(float, box)) for box in draw(0)[1]]
    assert data.samples[0].path.is_file()


def test_a_coco_file_may_say_crowd_in_text(tmp_path: Path) -> None:
    """`"0"` is text that is not empty, so every box counted as a crowd, which nothing has to find."""
    root = write_coco(tmp_path)
    file = root / "annotations" / "instances_train2017.json"
    body = json.loads(file.read_bytes())
    for one in body["annotations"]:
        one["iscrowd"] = str(one["iscrowd"])
    file.write_text(json.dumps(body))
    data = read_split(root, split="train", task="detect")
    assert [one.spare_n.tolist() for one in data.samples[:2]] == [[False, True], [False, False]]


def test_label_maps_of_own_classes(tmp_path: Path) -> None:
    root = write_camvid(tmp_path)
    (root / "classes.txt").write_text("sand\nwater\n\nrock\n" + "".join(f"more {n}\n" for n in range(9)))
    data = read_split(root, split="val", task="segment")
    assert data.classes[:3] == ("sand", "water", "rock")
    mask_hw = data.samples[0].mask_hw(classes=12)
    assert (mask_hw[0] == 11).all()  # CamVid's void is a class like any other here
    (root / "classes.txt").write_text("sand\nwater\nrock\n")
    data = read_split(root, split="val", task="segment")
    with pytest.raises(DataError, match="a class index of 3 or more; the data set has 3 classes"):
        data.samples[0].mask_hw(classes=3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "0 names; expected 1 to 255"),
        (b"sand\nsand\n", "2 names"),
        (b"a\x1bb\n", "1 names"),
        (b"\xff\n", "cannot be read as UTF-8"),
        (b"\n".join(b"%d" % n for n in range(256)), "256 names"),
    ],
)
def test_own_class_names_that_are_none(text: bytes, says: str, tmp_path: Path) -> None:
    root = write_camvid(tmp_path)
    (root / "classes.txt").write_bytes(text)
    with pytest.raises(DataError, match=says):
        read_split(root, split="val", task="segment")


def test_camvid_void_is_void(tmp_path: Path) -> None:
    data = read_split(write_camvid(tmp_path), split="val", task="segment")
    assert len(data.classes) == 11
    mask_hw = data.samples[0].mask_hw(classes=11)
    assert (mask_hw[0] == VOID).all()
    assert mask_hw[1:].max() == 2


def test_pictures_of_all_endings_that_training_takes_have_label_maps(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid", train=2, val=1)
    (root / "train" / "000.jpg").rename(root / "train" / "000.TIFF")
    data = read_split(root, split="train", task="segment")
    assert [one.path.name for one in data.samples] == ["000.TIFF", "001.jpg"]


def test_hidden_files_beside_label_maps_are_no_pictures(tmp_path: Path) -> None:
    """macOS leaves `._000.jpg` beside 000.jpg, which has no label map: the whole data set was refused."""
    root = write_camvid(tmp_path)
    (root / "train" / "._000.jpg").write_bytes(b"Mac OS X")
    assert len(read_split(root, split="train", task="segment").samples) == 6


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        read_split(tmp_path / "none", split="val", task="detect")
    with pytest.raises(DataError, match="neither PASCAL VOC"):
        read_split(tmp_path, split="val", task="detect")
    with pytest.raises(DataError, match="neither CamVid"):
        read_split(tmp_path, split="val", task="segment")
    root = write_voc(tmp_path / "voc")
    with pytest.raises(DataError, match=r"test\.txt"):
        read_split(root, split="test", task="detect")
    (root / "Annotations" / "000001.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(DataError, match=r"000001\.xml"):
        read_split(root, split="train", task="detect")
    (root / "JPEGImages" / "000007.jpg").unlink()
    with pytest.raises(DataError, match=r"000007\.jpg is missing"):
        read_split(root, split="val", task="segment")
    coco = write_coco(tmp_path / "coco")
    (coco / "annotations" / "instances_val2017.json").write_text("{}")
    with pytest.raises(DataError, match="not COCO"):
        read_split(coco, split="val", task="detect")
    camvid = write_camvid(tmp_path / "camvid")
    (camvid / "valannot" / "007.png").unlink()
    with pytest.raises(DataError, match="needs its label map"):
        read_split(camvid, split="val", task="segment")


def test_a_split_that_was_written_on_windows_is_one(tmp_path: Path) -> None:
    """Its first picture was missing: the mark at the file's beginning belonged to the name."""
    root = write_voc(tmp_path)
    (root / "ImageSets" / "Main" / "val.txt").write_bytes(b"\xef\xbb\xbf000007\r\n000008\r\n")
    samples = read_split(root, split="val", task="detect").samples
    assert [sample.path.name for sample in samples] == ["000007.jpg", "000008.jpg"]


@pytest.mark.parametrize("write", [write_voc, write_camvid])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    root = write(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_split(root, split="x" * 3000, task="segment")
    with pytest.raises(DataError, match="File name too long"):
        read_split("y" * 5000, split="val", task="segment")


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_camvid(tmp_path)

    def forbidden(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        read_split(root, split="val", task="segment")


def test_a_label_map_of_unknown_classes_is_refused(tmp_path: Path) -> None:
    sample = read_split(write_camvid(tmp_path), split="val", task="segment").samples[0]
    with pytest.raises(DataError, match="2 or more"):
        sample.mask_hw(classes=2)


def test_hostile_label_maps_are_refused_by_name(tmp_path: Path) -> None:
    """Bombs and broken headers make Pillow raise what is no OSError; EPS would start Ghostscript."""
    sample = read_split(write_camvid(tmp_path), split="val", task="segment").samples[0]
    assert sample.mask is not None
    good = sample.mask.read_bytes()
    bomb, wide = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", n, n, 8, 0, 0, 0, 0)) for n in (30000, 9000)
    )
    pixels = _chunk(b"IDAT", zlib.compress(bytes(9000)))
    hostile = [
        bomb,
        bomb + pixels,
        wide + pixels,
        good[:33] + _chunk(b"tRNS", b"") + good[33:],
        good[:60],
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ]
    for data in hostile:
        sample.mask.write_bytes(data)
        with pytest.raises(DataError, match=f"{sample.mask.name}: not a readable label map"):
            sample.mask_hw(classes=11)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("images", "id", float("inf")),
        ("annotations", "bbox", [float("nan")] * 4),
        ("annotations", "bbox", [10**400, 1, 1, 1]),
        ("annotations", "bbox", [1e300, 1, 1, 1]),
        ("annotations", "category_id", float("nan")),
        ("annotations", "bbox", [-1e300, 1, 1, 1]),
        ("annotations", "bbox", [30, 30, -20, -20]),
        ("annotations", "bbox", [30, 30, 20, -20]),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path: Path, place: str, key: str, value: object) -> None:
    file = write_coco(tmp_path) / "annotations" / "instances_val2017.json"
    body = json.loads(file.read_text())
    body[place][0][key] = value
    file.write_text(json.dumps(body))
    with pytest.raises(DataError, match="not COCO's annotations"):
        read_split(tmp_path, split="val", task="detect")


def test_boxes_without_a_side_are_boxes(tmp_path: Path) -> None:
    """COCO 2017 has some."""
    file = write_coco(tmp_path) / "annotations" / "instances_val2017.json"
    body = json.loads(file.read_text())
    body["annotations"][0]["bbox"] = [30, 30, 0, 4]
    file.write_text(json.dumps(body))
    assert read_split(tmp_path, split="val", task="detect").samples[0].box_n4[0].tolist() == [30, 30, 30, 34]


@pytest.mark.parametrize("place", ["images", "categories"])
def test_two_of_one_id_are_refused(tmp_path: Path, place: str) -> None:
    """Of two files that were put together: both pictures had the boxes of both, one class had none."""
    file = write_coco(tmp_path) / "annotations" / "instances_val2017.json"
    body = json.loads(file.read_text())
    body[place].append({**body[place][0], "file_name": "other.jpg", "name": "other"})
    file.write_text(json.dumps(body))
    with pytest.raises(DataError, match=f"two {place} of one id"):
        read_split(tmp_path, split="val", task="detect")


@pytest.mark.parametrize(
    ("corners", "told"),
    [
        ((50, 50, 10, 60), "a box of 000007 ends before it begins"),
        ((1, 1, 9, "1e300"), "a box of 000007 is not finite"),
        ((1, 1, 9, "inf"), "a box without all of"),
        ((1, 1, 9, ""), "not a readable annotation"),
    ],
)
def test_boxes_of_voc_that_are_none_are_refused(tmp_path: Path, corners: tuple[object, ...], told: str) -> None:
    root = write_voc(tmp_path)
    sides = "".join(
        f"<{key}>{side}</{key}>" for key, side in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    text = f"<annotation><object><name>cat</name><bndbox>{sides}</bndbox></object></annotation>"
    (root / "Annotations" / "000007.xml").write_text(text)
    with pytest.raises(DataError, match=rf"000007\.xml: .*{told}"):
        read_split(root, split="val", task="detect")


def test_annotations_of_odd_form_are_refused(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "coco") / "annotations" / "instances_val2017.json"
    file.write_text("[" * 100_000)
    with pytest.raises(DataError, match="not COCO's annotations"):
        read_split(tmp_path / "coco", split="val", task="detect")
    root = write_voc(tmp_path / "voc")
    (root / "Annotations" / "000007.xml").write_text('<?xml version="1.0" encoding="nobody"?><annotation/>')
    with pytest.raises(DataError, match=r"000007\.xml: not a readable annotation"):
        read_split(root, split="val", task="detect")
    with pytest.raises(DataError, match="cannot be read"):
        read_split(root, split="a\0", task="detect")
    (root / "SegmentationClass" / "000007.png").unlink()
    with pytest.raises(DataError, match=r"000007\.png is missing"):
        read_split(root, split="val", task="segment")
