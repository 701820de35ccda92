"""COCO's annotations where they are written as users write their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from splitcodec.errors import DataError
from splitcodec.layouts.find import read_split
from tests.labelled import write_coco


def test_coco_boxes_keep_fractions_and_are_no_crowds_unless_told_so(tmp_path: Path) -> None:
    file = write_coco(tmp_path) / "annotations" / "instances_train2017.json"
    body = json.loads(file.read_bytes())
    for one in body["annotations"]:
        del one["iscrowd"]
    body["annotations"][0]["bbox"] = [10.25, 20.5, 3.5, 4.75]
    file.write_text(json.dumps(body))
    first = read_split(tmp_path, split="train", task="detect").samples[0]
    assert first.spare_n.tolist() == [False, False]
    assert first.box_n4[0].tolist() == [10.25, 20.5, 13.75, 25.25]


def test_a_set_of_own_boxes_needs_no_year_in_its_names(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").rename(tmp_path / "annotations" / "instances_val.json")
    (tmp_path / "val2017").rename(tmp_path / "val")
    samples = read_split(tmp_path, split="val", task="detect").samples
    assert len(samples) == 3
    assert all(one.path.is_file() for one in samples)


def test_a_coco_file_of_no_pictures_is_refused(tmp_path: Path) -> None:
    file = write_coco(tmp_path) / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"images": [], "annotations": []}))
    with pytest.raises(DataError, match="lists no pictures"):
        read_split(tmp_path, split="val", task="detect")
