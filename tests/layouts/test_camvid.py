"""Label maps in CamVid's layout, and the order in which pictures come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.errors import DataError
from splitcodec.layouts import camvid
from splitcodec.layouts.find import read_split
from splitcodec.layouts.folders import find_photographs
from splitcodec.layouts.sample import VOID
from tests.labelled import write_camvid


def test_classes_are_in_the_order_of_camvid_s_indices() -> None:
    order = "sky building pole road pavement tree sign fence car pedestrian bicyclist"  # of SegNet's label maps
    assert " ".join(camvid.CLASSES) == order


def test_own_class_names_have_no_spaces_around_and_their_void_is_255(tmp_path: Path) -> None:
    root = write_camvid(tmp_path)
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfsand \r\n  \r\n\twater\r\n")  # as editors on Windows write it
    Image.fromarray(np.array([[0, 1], [255, 0]], np.uint8)).save(root / "valannot" / "006.png")
    data = read_split(root, split="val", task="segment")
    assert data.classes == ("sand", "water")
    assert data.samples[0].mask_hw(classes=2).tolist() == [[0, 1], [VOID, 0]]


def test_pictures_come_in_the_order_of_their_names_whatever_the_disk_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order decides which pictures share a batch."""
    root = write_camvid(tmp_path / "camvid")
    for name in ("b/2.PNG", "b/1.avif", "a/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    iterdir, rglob = Path.iterdir, Path.rglob
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(iterdir(path), reverse=True)))
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: iter(sorted(rglob(path, pattern), reverse=True)))
    names = [one.path.name for one in read_split(root, split="train", task="segment").samples]
    assert names == [f"{n:03}.jpg" for n in range(6)]
    found = find_photographs([tmp_path / "b", tmp_path / "a", tmp_path / "b" / ".." / "a"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["b/1.avif", "b/2.PNG", "a/1.jpg"]


@pytest.mark.parametrize("value", [12, 254, 255])
def test_what_is_neither_a_class_nor_the_set_s_own_void_is_refused(tmp_path: Path, value: int) -> None:
    """CamVid's void is 11; a map with more classes was made for something else."""
    root = write_camvid(tmp_path)
    Image.fromarray(np.array([[0, value]], np.uint8)).save(root / "valannot" / "006.png")
    with pytest.raises(DataError, match="a class index of 11 or more"):
        read_split(root, split="val", task="segment").samples[0].mask_hw(classes=11)


def test_a_label_map_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = read_split(write_camvid(tmp_path), split="val", task="segment").samples[0]
    monkeypatch.setattr("splitcodec.layouts.sample.MAX_PIXELS", 64 * 96)
    assert one.mask_hw(classes=11).size == 64 * 96
    monkeypatch.setattr("splitcodec.layouts.sample.MAX_PIXELS", 64 * 96 - 1)
    with pytest.raises(DataError, match="more than 6143 pixels"):
        one.mask_hw(classes=11)
