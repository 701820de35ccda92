"""torchvision's detectors on a pyramid of ours: RetinaNet and Faster R-CNN, as the paper's recipes use them.

Only necks and heads: features come from the backbone behind the decoder, whatever pictures went in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRcnn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from splitcodec.model.fcos import Boxes, apart_in_neck
from splitcodec.model.pyramid import Level


class Neck(NamedTuple):
    """The pyramid's maps; heads run when the loss or the boxes are asked for."""

    neck: tuple[Tensor, ...]


class _NoBackbone(nn.Module):
    """What torchvision's detectors want in place of a backbone: its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = width


class _OnNeck(nn.Module):
    """What torchvision's detectors share: a neck that makes a pyramid of the backbone's maps."""

    neck: FeaturePyramidNetwork

    def forward(self, maps: Sequence[Tensor]) -> Neck:
        """Map a pyramid to the neck's maps."""
        return Neck(tuple(self.neck(_named(maps)).values()))

    def apart(self, raw: Neck, teacher: Neck, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return how far the neck's maps are from the teacher's, as the paper's first stage does."""
        del size
        return {"neck": apart_in_neck(raw.neck, teacher.neck)}


@final
class RetinaNet(_OnNeck):
    """Lin, Goyal, Girshick, He, Dollar, "Focal loss for dense object detection" (ICCV 2017); P3 to P7."""

    def __init__(self, levels: Sequence[Level], classes: int, *, width: int = 256) -> None:
        super().__init__()
        self.neck = FeaturePyramidNetwork(
            [level.width for level in levels], width, extra_blocks=LastLevelP6P7(width, width)
        )
        strides = [level.stride for level in levels] + [levels[-1].stride * 2, levels[-1].stride * 4]
        sizes = tuple(tuple(int(4 * stride * 2 ** (k / 3)) for k in range(3)) for stride in strides)
        anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
        head = RetinaNetHead(width, anchors.num_anchors_per_location()[0], classes)
        self.model = TorchvisionRetinaNet(_NoBackbone(width), classes, anchor_generator=anchors, head=head)

    def loss(self, raw: Neck, truth: Boxes, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return what is wrong, in parts."""
        outputs = self.model.head([one.float() for one in raw.neck])
        anchors = self.model.anchor_generator(_images(raw.neck, size), list(raw.neck))
        found: dict[str, Tensor] = self.model.compute_loss(_targets(truth, first=0), outputs, anchors)
        return {"class": found["classification"], "box": found["bbox_regression"]}

    @torch.no_grad()
    def boxes(self, raw: Neck, *, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """Return boxes, scores and labels of each picture."""
        maps = [one.float() for one in raw.neck]
        outputs: dict[str, Tensor] = self.model.head(maps)
        anchors = self.model.anchor_generator(_images(raw.neck, size), maps)
        cells = [one.shape[-2] * one.shape[-1] for one in maps]
        each = outputs["cls_logits"].shape[1] // sum(cells)
        split = {key: list(torch.split(value, [n * each for n in cells], dim=1)) for key, value in outputs.items()}
        parts = [list(torch.split(one, [n * each for n in cells])) for one in anchors]
        found: list[dict[str, Tensor]] = self.model.postprocess_detections(split, parts, [size] * len(anchors))
        return found


@final
class FasterRcnn(_OnNeck):
    """Ren, He, Girshick, Sun, "Faster R-CNN" (NeurIPS 2015), with a feature pyramid."""

    def __init__(self, levels: Sequence[Level], classes: int, *, width: int = 256) -> None:
        super().__init__()
        self.neck = FeaturePyramidNetwork([level.width for level in levels], width, extra_blocks=LastLevelMaxPool())
        strides = [level.stride for level in levels] + [levels[-1].stride * 2]
        anchors = AnchorGenerator(tuple((8 * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
        pool = MultiScaleRoIAlign([str(place) for place in range(len(levels))], output_size=7, sampling_ratio=2)
        self.model = TorchvisionFasterRcnn(
            _NoBackbone(width), classes + 1, rpn_anchor_generator=anchors, box_roi_pool=pool
        )

    def loss(self, raw: Neck, truth: Boxes, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return what is wrong, in parts."""
        maps, images, targets = self._named(raw), _images(raw.neck, size), _targets(truth, first=1)
        proposals, first = self.model.rpn(images, maps, targets)
        _, second = self.model.roi_heads(maps, proposals, images.image_sizes, targets)
        return {
            "class": second["loss_classifier"],
            "box": second["loss_box_reg"],
            "objectness": first["loss_objectness"],
            "proposal": first["loss_rpn_box_reg"],
        }

    @torch.no_grad()
    def boxes(self, raw: Neck, *, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """Return boxes, scores and labels of each picture."""
        maps, images = self._named(raw), _images(raw.neck, size)
        proposals, _ = self.model.rpn(images, maps)
        found: list[dict[str, Tensor]] = self.model.roi_heads(maps, proposals, images.image_sizes)[0]
        return [{**one, "labels": one["labels"] - 1} for one in found]

    def _named(self, raw: Neck) -> OrderedDict[str, Tensor]:
        names = [*(str(place) for place in range(len(raw.neck) - 1)), "pool"]
        return OrderedDict(zip(names, (one.float() for one in raw.neck), strict=True))


def _named(maps: Sequence[Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((str(place), one) for place, one in enumerate(maps))


def _images(maps: Sequence[Tensor], size: tuple[int, int]) -> ImageList:
    """Return what torchvision asks for pictures: only their sizes matter."""
    count = len(maps[0])
    return ImageList(maps[0].new_zeros((count, 3, *size), dtype=torch.float32), [size] * count)


def _targets(truth: Boxes, *, first: int) -> list[dict[str, Any]]:
    """Return boxes as torchvision takes them; spare ones are left out."""
    out = []
    for box, label in zip(truth.box_bm4, truth.label_bm, strict=True):
        kept = label >= 0
        out.append({"boxes": box[kept], "labels": label[kept] + first})
    return out
