"""Small generated data sets in the layouts of PASCAL VOC, COCO 2017 and CamVid: bright squares on dim noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Drawn = tuple[Image.Image, list[tuple[int, int, int, int]], NDArray[np.uint8]]


def draw(seed: int, *, size: tuple[int, int] = (96, 64), labels: int = 2) -> Drawn:
    """Return a picture, its boxes (x0, y0, x1, y1), one per label, and its label map (0 = background)."""
    random = np.random.default_rng(seed)
    width, height = size if seed % 3 else size[::-1]
    array = random.integers(0, 90, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    boxes = []
    for label in range(labels):
        side = int(random.integers(16, 30))
        x, y = int(random.integers(0, width - side)), int(random.integers(0, height - side))
        array[y : y + side, x : x + side] = 0
        array[y : y + side, x : x + side, label % 3] = 255
        mask[y : y + side, x : x + side] = label + 1
        boxes.append((x, y, x + side, y + side))
    return Image.fromarray(array), boxes, mask


def write_voc(root: Path, *, train: int = 6, val: int = 3) -> Path:
    """Write boxes of aeroplanes and bicycles (the second box of the first picture is difficult), and label maps."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"{seed:06}" for seed in range(train + val)]
    for seed, name in enumerate(names):
        picture, boxes, mask = draw(seed)
        picture.save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        edge = mask.copy()
        edge[0] = 255
        label_map = Image.fromarray(edge)
        label_map.putpalette(list(range(256)) * 3)
        label_map.save(root / "SegmentationClass" / f"{name}.png")
        objects = "".join(
            f"<object><name>{label}</name><difficult>{int(seed == 0 and place == 1)}</difficult><bndbox>"
            f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
            "<part><name>head</name></part></object>"
            for place, (label, (x0, y0, x1, y1)) in enumerate(zip(("aeroplane", "bicycle"), boxes, strict=True))
        )
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind / "train.txt").write_text("\n".join(names[:train]))
        (root / "ImageSets" / kind / "val.txt").write_text("\n".join(names[train:]))
    return root


def write_coco(root: Path, *, train: int = 6, val: int = 3) -> Path:
    """Write boxes of categories 3 and 90 (classes 1 and 2; category 1, a person, does not occur)."""
    (root / "annotations").mkdir(parents=True)
    for split, seeds in (("train", range(train)), ("val", range(train, train + val))):
        (root / f"{split}2017").mkdir()
        images, found = [], []
        for seed in seeds:
            picture, boxes, _ = draw(seed)
            name = f"{seed:012}.jpg"
            picture.save(root / f"{split}2017" / name, quality=95)
            images.append({"id": seed + 100, "file_name": name, "width": picture.width, "height": picture.height})
            for category, (x0, y0, x1, y1) in zip((3, 90), boxes, strict=True):
                box = [x0, y0, x1 - x0, y1 - y0]
                crowd = int(seed == 0 and category == 90)
                found.append({"image_id": seed + 100, "category_id": category, "bbox": box, "iscrowd": crowd})
        categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
        body = {"images": images, "annotations": found, "categories": categories}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(body))
    return root


def write_camvid(root: Path, *, train: int = 6, val: int = 3) -> Path:
    """Write label maps of the classes 0 to 2 and a row of void."""
    for split, seeds in (("train", range(train)), ("val", range(train, train + val))):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for seed in seeds:
            picture, _, mask = draw(seed)
            picture.save(root / split / f"{seed:03}.jpg", quality=95)
            mask[0] = 11
            Image.fromarray(mask).save(root / f"{split}annot" / f"{seed:03}.png")
    return root


def write_colours(root: Path, *, count: int) -> Path:
    """Write `count` noisy pictures of red in a folder brick/, of blue in sea/."""
    random = np.random.default_rng(4)
    for name, colour in (("brick", (200, 40, 30)), ("sea", (30, 60, 200))):
        (root / name).mkdir(parents=True)
        for n in range(count):
            array = np.asarray(colour) + random.normal(0, 9, (70, 70, 3))
            Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(root / name / f"{n}.png")
    return root
