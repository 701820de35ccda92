"""Batches of labelled pictures: the same for a step, and labels that follow the pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from splitcodec.errors import DataError
from splitcodec.layouts.find import read_split
from splitcodec.layouts.sample import VOID
from splitcodec.model.fcos import Boxes
from splitcodec.training.task_data import LabelledPictures
from splitcodec.training.task_recipe import TaskDataRecipe
from tests.labelled import write_camvid, write_coco, write_voc


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc") / "voc")


def pictures(folder: Path, task: str, **keys: object) -> LabelledPictures:
    data = read_split(folder, split="train", task=task)  # type: ignore[arg-type]
    recipe = TaskDataRecipe(side=96, jitter=0.0, **keys)  # type: ignore[arg-type]
    return LabelledPictures(data, recipe, seed=3)


def test_a_step_has_one_batch(voc: Path) -> None:
    source, again = pictures(voc, "detect", mosaic=0.5), pictures(voc, "detect", mosaic=0.5)
    whole = list(source.batches(0, 4, batch=3, stream=1))
    rest = list(again.batches(2, 4, batch=3, stream=1))
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.image_u8, other.image_u8)
        assert isinstance(one.truth, Boxes)
        assert all(torch.equal(a, b) for a, b in zip(one.truth, other.truth, strict=True))
    assert not torch.equal(whole[0].image_u8, source.batch(0, size=3, stream=2).image_u8)
    assert all(side % 32 == 0 for one in whole for side in one.image_u8.shape[2:])


def test_a_picture_that_exif_turns_is_of_the_shape_that_it_is_seen_in(voc: Path, tmp_path: Path) -> None:
    """It lay on the canvas of the others' shape, at half its size."""
    shutil.copytree(voc, tmp_path / "voc")
    for path in (tmp_path / "voc" / "JPEGImages").iterdir():
        with Image.open(path) as opened:
            upright = opened.convert("RGB")
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    for step in range(4):
        turned, plain = (pictures(one, "detect").batch(step, size=3, stream=0) for one in (tmp_path / "voc", voc))
        assert turned.image_u8.shape == plain.image_u8.shape
        difference = (turned.image_u8.float() - plain.image_u8.float()).abs().mean()
        assert difference < 8, "the same pictures, twice through JPEG"


def test_boxes_of_a_picture_of_another_size_are_refused(tmp_path: Path) -> None:
    """Those of a picture as it is stored would lie elsewhere once EXIF has turned it."""
    root = write_coco(tmp_path / "coco")
    path = root / "train2017" / "000000000001.jpg"
    with Image.open(path) as opened:
        stored = opened.convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    stored.save(path, exif=exif)
    with pytest.raises(
        DataError, match=r"000000000001\.jpg: 64 x 96 once it is upright, its boxes lie in 96 x 64; give"
    ):
        pictures(root, "detect")
    file = root / "annotations" / "instances_train2017.json"
    body = json.loads(file.read_text())
    for image in body["images"]:
        image.pop("width")
    file.write_text(json.dumps(body))
    assert pictures(root, "detect").count == 6  # where no size is told


def test_pictures_without_a_header_are_told(voc: Path, tmp_path: Path) -> None:
    shutil.copytree(voc, tmp_path / "voc")
    (tmp_path / "voc" / "JPEGImages" / "000002.jpg").write_bytes(b"nothing")
    source = pictures(tmp_path / "voc", "detect")
    assert ([path.name for path in source.unreadable], source.count) == (["000002.jpg"], 5)


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_follow_their_squares(voc: Path, mosaic: float) -> None:
    source = pictures(voc, "detect", scale=(0.7, 1.4), mosaic=mosaic)
    checked = 0
    for step in range(6):
        image_u8, truth = source.batch(step, size=4, stream=0)
        assert isinstance(truth, Boxes)
        for picture, boxes, labels in zip(image_u8.numpy(), truth.box_bm4.numpy(), truth.label_bm.numpy(), strict=True):
            for box, label in zip(boxes, labels, strict=True):
                if label < 0:
                    continue
                x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
                colours = picture[:, y, x]
                if colours.max() > 200 and np.sort(colours)[1] < 90:  # else another square lies on it
                    checked += int(colours.argmax() == label)
                    assert colours.argmax() in (0, 1)
    assert checked > 20


def test_label_maps_follow_their_squares(tmp_path: Path) -> None:
    source = pictures(write_camvid(tmp_path / "camvid"), "segment", scale=(0.7, 1.4))
    image_u8, mask = source.batch(0, size=6, stream=0)
    assert isinstance(mask, torch.Tensor)
    assert set(mask.flatten().tolist()) <= {0, 1, 2, VOID}
    red, green = image_u8[:, 0].float(), image_u8[:, 1].float()
    assert red[mask == 1].mean() > 180 > green[mask == 1].mean()
    assert green[mask == 2].mean() > 180
    shares = source.shares()
    assert shares.argmax() == 0
    assert shares.sum() == pytest.approx(1)
