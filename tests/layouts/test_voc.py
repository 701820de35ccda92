"""PASCAL VOC's annotations and splits, element by element."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitcodec.errors import DataError
from splitcodec.layouts import voc
from splitcodec.layouts.find import read_split
from tests.labelled import write_voc


def test_classes_are_in_the_order_of_the_devkit_s_which_is_the_alphabet_s() -> None:
    assert len(voc.CLASSES) == 20
    assert list(voc.CLASSES) == sorted(voc.CLASSES)


def _annotate(root: Path, name: str, *, size: str | None = "", **changed: str | None) -> None:
    """Write an annotation of a cat whose elements are as told, none where they are told to be None."""
    told = {"xmin": "11", "ymin": "21", "xmax": "30", "ymax": "40", "difficult": None} | changed
    words = {key: "" if text is None else f"<{key}>{text}</{key}>" for key, text in told.items()}
    box = "".join(words[key] for key in ("xmin", "ymin", "xmax", "ymax"))
    text = f"{size}<object><name>cat</name>{words['difficult']}<bndbox>{box}</bndbox></object>"
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")


@pytest.mark.parametrize(("difficult", "spare"), [(None, False), ("0", False), ("\n 1 ", True)])
def test_a_voc_box_is_difficult_only_where_that_is_said(tmp_path: Path, difficult: str | None, spare: bool) -> None:
    root = write_voc(tmp_path)
    _annotate(root, "000007", difficult=difficult)
    first = read_split(root, split="val", task="detect").samples[1]
    assert (first.label_n.tolist(), first.spare_n.tolist()) == ([7], [spare])
    assert first.box_n4.tolist() == [[10, 20, 30, 40]]


@pytest.mark.parametrize("side", ["xmin", "ymin", "xmax", "ymax"])
def test_a_voc_box_without_one_of_its_sides_is_refused(tmp_path: Path, side: str) -> None:
    root = write_voc(tmp_path)
    _annotate(root, "000007", **{side: None})
    with pytest.raises(DataError, match=r"000007\.xml: a box without all of xmin, ymin, xmax and ymax"):
        read_split(root, split="val", task="detect")


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("<size><width>64</width><height>96</height><depth>3</depth></size>", (64, 96)),
        ("<size><width>64.0</width><height>96.0</height></size>", (64, 96)),
        ("<size><width>0</width><height>0</height></size>", None),
        ("<size><width/><height>96</height></size>", None),
        ("", None),
    ],
)
def test_voc_tells_the_size_that_its_boxes_lie_in(tmp_path: Path, size: str, told: tuple[int, int] | None) -> None:
    """Boxes of a picture that EXIF turns lay elsewhere, and nothing was said."""
    root = write_voc(tmp_path)
    _annotate(root, "000007", size=size)
    one = read_split(root, split="val", task="detect").samples[1]
    assert one.size == told
    one.check_size((64, 96))
    if told is not None:
        with pytest.raises(DataError, match=r"96 x 64 once it is upright, its boxes lie in 64 x 96"):
            one.check_size((96, 64))


@pytest.mark.parametrize("wide", ["1e999", "nan", "wide"])
def test_a_voc_size_that_is_none_is_refused(tmp_path: Path, wide: str) -> None:
    root = write_voc(tmp_path)
    _annotate(root, "000007", size=f"<size><width>{wide}</width><height>96</height></size>")
    with pytest.raises(DataError, match=r"000007\.xml: not a readable annotation"):
        read_split(root, split="val", task="detect")


def test_each_task_of_voc_has_its_own_list_of_pictures(tmp_path: Path) -> None:
    """Few pictures have label maps, and names may have a column behind them (`aeroplane_train.txt`)."""
    root = write_voc(tmp_path)
    for folder, text in (("Main", "000001  1\n000002 -1\n"), ("Segmentation", "000003\n\n")):
        (root / "ImageSets" / folder / "train.txt").write_text(text)
    for task, names in (("detect", ["000001.jpg", "000002.jpg"]), ("segment", ["000003.jpg"])):
        data = read_split(root, split="train", task=task)  # type: ignore[arg-type]
        assert [one.path.name for one in data.samples] == names


def test_of_two_sets_in_a_devkit_none_is_guessed(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / "VOCdevkit" / year)
    with pytest.raises(DataError, match="neither PASCAL VOC"):
        read_split(tmp_path / "VOCdevkit", split="val", task="detect")
