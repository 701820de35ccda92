"""Scores of a head on a labelled split while it learns: the same decoding and the same metrics as on the edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from splitcodec.device.image import load_picture
from splitcodec.device.placed import letterbox_bhwc
from splitcodec.edge.boxes import Found, find_boxes
from splitcodec.edge.mask import label_map
from splitcodec.errors import DataError
from splitcodec.evaluation.scores import LEAST, Confusion, Seen, Truth, coco_package, mean_precision, seen_in
from splitcodec.layouts.sample import DataSet, Sample, Task
from splitcodec.model.detectors import FasterRcnn, RetinaNet
from splitcodec.model.fcos import Raw
from splitcodec.model.segmenter import Logits
from splitcodec.training.task_data import header

MOST = 200
"""Pictures that are scored on."""


def check_ready(task: Task) -> None:
    """Say now, rather than after the first epochs, that a task cannot be scored. Raises MissingExtra."""
    if task == "detect":
        coco_package()


def check_split(data: DataSet) -> None:
    """Say the same of a split, of which pictures or label maps are not there. Raises DataError."""
    for sample in _scored(data):
        size = header(sample)
        if size is None:
            raise DataError(f"{sample.path}: not there, or no picture; mend the split that is scored")
        sample.check_size(size)
        if data.task == "segment":
            sample.mask_hw(classes=len(data.classes))


def _scored(data: DataSet) -> tuple[Sample, ...]:
    """Return pictures to score on, evenly spread."""
    return data.samples[:: max(1, -(-len(data.samples) // MOST))]


@torch.no_grad()
def check(
    head: nn.Module,
    maps_of: Callable[[Tensor], list[Tensor]],
    data: DataSet,
    *,
    side: int,
    multiple: int,
    strides: tuple[int, ...],
) -> dict[str, float]:
    """Return the scores of a head in per cent, over at most MOST pictures as the device letterboxes them."""
    was_training = head.training
    head.eval()
    seen: list[Seen] = []
    truth: list[Truth] = []
    confusion = Confusion(len(data.classes))
    for sample in _scored(data):
        image_bhwc, place = letterbox_bhwc(load_picture(sample.path), side=side, multiple=multiple)
        raw = head(maps_of(torch.from_numpy(image_bhwc).permute(0, 3, 1, 2)))
        size = (place.rows, place.cols)
        if data.task == "segment":
            said = label_map(raw.class_bkhw[0].float().cpu().numpy(), size=size)
            confusion.add(sample.mask_hw(classes=len(data.classes)), place.mask_in_picture(said))
            continue
        found = _boxes(head, raw, size=size, strides=strides)
        seen.append(seen_in(found, place, size=size))
        truth.append(Truth(sample.box_n4, sample.label_n, sample.spare_n))
    head.train(was_training)
    if data.task == "segment":
        return {"miou": round(confusion.miou, 2), "pixel_accuracy": round(confusion.accuracy, 2)}
    precision = mean_precision(seen, truth, classes=len(data.classes))
    return {"map50": round(precision.map50, 2), "map": round(precision.map, 2)}


def _boxes(head: nn.Module, raw: Any, *, size: tuple[int, int], strides: tuple[int, ...]) -> Found:
    if isinstance(head, RetinaNet | FasterRcnn):
        one = head.boxes(raw, size=size)[0]
        return Found(*(one[key].cpu().numpy() for key in ("boxes", "scores", "labels")))
    if not isinstance(raw, Raw | Logits) or isinstance(raw, Logits):
        raise TypeError(f"{type(raw).__name__} holds no boxes")
    score = (raw.class_bnk.float().sigmoid() * raw.quality_bn.float().sigmoid()[..., None]).sqrt()[0]
    edges = raw.edge_bn4[0].float().cpu().numpy()
    return find_boxes(score.cpu().numpy(), edges, size=size, strides=strides, least=LEAST)
