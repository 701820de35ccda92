"""Anchor-free detection: every place of the pyramid says what it sees, how far its four edges are, and how sure it is.

After Tian, Shen, Chen, He, "FCOS" (ICCV 2019) with centre sampling; in place of centre-ness the quality branch learns
the overlap of the predicted box with the true one. Convolutions are shared between the levels, batch norm is not.
Boxes are decoded and suppressed at the edge, in NumPy (edge/boxes.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from splitcodec.model.neck import Pyramid
from splitcodec.model.pyramid import Level

RADIUS = 1.5
"""Places up to this many strides from a box's centre belong to it."""
REACH = 8.0
"""A level takes boxes whose farthest edge is up to this many strides away (the last one takes all larger ones)."""


class Boxes(NamedTuple):
    """True boxes of B pictures, padded to the same number: (B, M, 4) in pixels, class or -1 (none) or -2 (spare)."""

    box_bm4: Tensor
    label_bm: Tensor


class Raw(NamedTuple):
    """What the head says at all N places of all levels, fine to coarse, row by row."""

    class_bnk: Tensor
    """Logits."""
    edge_bn4: Tensor
    """Distances to left, top, right and bottom edge in pixels, at least 0."""
    quality_bn: Tensor
    """Logits of the box's overlap with the true one."""
    neck: tuple[Tensor, ...] = ()


@final
class Fcos(nn.Module):
    """Neck and head on a pyramid."""

    def __init__(self, levels: Sequence[Level], classes: int, *, width: int = 96, depth: int = 2) -> None:
        super().__init__()
        self.strides = tuple(level.stride for level in levels)
        self.neck = Pyramid(levels, width)
        self.class_tower = _Tower(width, depth, levels=len(levels))
        self.edge_tower = _Tower(width, depth, levels=len(levels))
        self.classify = nn.Conv2d(width, classes, 3, padding=1)
        self.edges = nn.Conv2d(width, 4, 3, padding=1)
        self.quality = nn.Conv2d(width, 1, 3, padding=1)
        self.scale = nn.Parameter(torch.full((len(levels),), math.log(REACH / 2)))
        for layer in (self.classify, self.edges, self.quality):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has a bias
        nn.init.constant_(self.classify.bias, -math.log(99))  # type: ignore[arg-type]  # nearly all places are empty

    def forward(self, maps: Sequence[Tensor]) -> Raw:
        """Map a pyramid to what is seen at each place."""
        neck = self.neck(maps)
        kinds, edges, qualities = [], [], []
        for level, (one, stride) in enumerate(zip(neck, self.strides, strict=True)):
            kinds.append(_flat(self.classify(self.class_tower(one, level))))
            place = self.edge_tower(one, level)
            edges.append(_flat((self.edges(place) + self.scale[level]).float().clamp(max=6.0).exp() * stride))
            qualities.append(_flat(self.quality(place)).squeeze(-1))
        return Raw(torch.cat(kinds, 1), torch.cat(edges, 1), torch.cat(qualities, 1), tuple(neck))

    def loss(self, raw: Raw, truth: Boxes, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return what is wrong with `raw` for pictures of `size` (H, W), in three parts."""
        place_n2, stride_n = places(size, self.strides, device=raw.class_bnk.device)
        wanted_bn4, label_bn = assign(truth, place_n2, stride_n, strides=self.strides)
        positive_bn, counted_bn = label_bn >= 0, label_bn >= -1
        count = positive_bn.sum().clamp(min=1).float()
        wanted_bnk = nnf.one_hot(label_bn.clamp(min=0), raw.class_bnk.shape[-1]) * positive_bn[..., None]
        focal = sigmoid_focal_loss(raw.class_bnk.float(), wanted_bnk.float()).sum(-1)
        parts = {"class": (focal * counted_bn).sum() / count}
        place_bn2 = place_n2.expand(len(label_bn), -1, -1)[positive_bn]
        found = corners(place_bn2, raw.edge_bn4[positive_bn])
        true = wanted_bn4[positive_bn]
        overlap = _overlap(found, true)
        parts["box"] = generalized_box_iou_loss(found, true, reduction="sum") / count
        quality = raw.quality_bn[positive_bn].float()
        parts["quality"] = nnf.binary_cross_entropy_with_logits(quality, overlap.detach(), reduction="sum") / count
        return parts

    def apart(self, raw: Raw, teacher: Raw, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return how far `raw` is from what the task teacher says of the same pictures (detached)."""
        place_n2, _ = places(size, self.strides, device=raw.class_bnk.device)
        sure_bnk = teacher.class_bnk.float().sigmoid()
        logit_bnk = raw.class_bnk.float()
        # quality focal loss (Li et al. 2020): the teacher's probability is the label
        weight_bnk = (sure_bnk - logit_bnk.detach().sigmoid()).abs().square()
        entropy = nnf.binary_cross_entropy_with_logits(logit_bnk, sure_bnk, reduction="none")
        sure_bn = sure_bnk.amax(-1)
        sum_of = sure_bn.sum().clamp(min=1)
        strong = sure_bn > 0.1
        weight = sure_bn[strong]
        place_bn2 = place_n2.expand(len(sure_bn), -1, -1)[strong]
        found, true = corners(place_bn2, raw.edge_bn4[strong]), corners(place_bn2, teacher.edge_bn4[strong].float())
        boxes = generalized_box_iou_loss(found, true, reduction="none")
        quality = nnf.binary_cross_entropy_with_logits(
            raw.quality_bn[strong].float(), teacher.quality_bn[strong].float().sigmoid(), reduction="none"
        )
        return {
            "class": 4 * (weight_bnk * entropy).sum() / sum_of,
            "box": (weight * boxes).sum() / sum_of,
            "quality": (weight * quality).sum() / sum_of,
            "neck": apart_in_neck(raw.neck, teacher.neck),
        }


def apart_in_neck(neck: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the mean relative squared error of several maps."""
    errors = [
        (one.float() - other.float()).square().mean() / other.float().var().clamp(min=1e-6)
        for one, other in zip(neck, teacher, strict=True)
    ]
    return torch.stack(errors).mean()


def places(size: tuple[int, int], strides: Sequence[int], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the middles of all places in pixels, float32 (N, 2) as x, y, and each one's stride (N)."""
    middles, steps = [], []
    for stride in strides:
        rows, cols = (-(-side // stride) for side in size)
        y = (torch.arange(rows, device=device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(cols, device=device, dtype=torch.float32) + 0.5) * stride
        middles.append(torch.stack([x.repeat(rows), y.repeat_interleave(cols)], 1))
        steps.append(torch.full((rows * cols,), float(stride), device=device))
    return torch.cat(middles), torch.cat(steps)


def corners(place_n2: Tensor, edge_n4: Tensor) -> Tensor:
    """Return boxes (N, 4) from places and distances to the edges."""
    x, y = place_n2.unbind(-1)
    left, top, right, bottom = edge_n4.float().unbind(-1)
    return torch.stack([x - left, y - top, x + right, y + bottom], -1)


def assign(truth: Boxes, place_n2: Tensor, stride_n: Tensor, *, strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return each place's box (B, N, 4) and class (B, N): -1 for none, -2 where a spare box makes it not count.

    A place may see a box if it lies in it, near its centre, and the box suits the place's level; of several the
    smallest.
    """
    box, label = truth.box_bm4[:, None], truth.label_bm[:, None]
    x, y = place_n2[None, :, None].unbind(-1)
    stride = stride_n[None, :, None]
    edges = torch.stack([x - box[..., 0], y - box[..., 1], box[..., 2] - x, box[..., 3] - y], -1)
    middle_x, middle_y = (box[..., 0] + box[..., 2]) / 2, (box[..., 1] + box[..., 3]) / 2
    near = ((x - middle_x).abs() < RADIUS * stride) & ((y - middle_y).abs() < RADIUS * stride)
    inside = (edges.amin(-1) > 0) & (label != -1)
    far = edges.amax(-1)
    low = torch.where(stride == strides[0], 0.0, REACH * stride / 2)
    high = torch.where(stride == strides[-1], math.inf, REACH * stride)
    suits = inside & near & (far > low) & (far <= high)
    area = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
    cost = torch.where(suits & (label >= 0), area, math.inf)
    least, which = cost.min(-1)
    label_bn = torch.where(least < math.inf, truth.label_bm.gather(1, which), -1)
    spare = (suits & (label == -2)).any(-1) & (label_bn == -1)
    label_bn = torch.where(spare, -2, label_bn)
    return truth.box_bm4.gather(1, which[..., None].expand(-1, -1, 4)), label_bn


@final
class _Tower(nn.Module):
    """Convolutions that the levels share, each level with batch norm of its own."""

    def __init__(self, width: int, depth: int, *, levels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth)) for _ in range(levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        norms = self.norms[level]
        assert isinstance(norms, nn.ModuleList)  # noqa: S101  # for the type checker
        for layer, norm in zip(self.layers, norms, strict=True):
            x = nnf.relu(norm(layer(x)))
        return x

    def affine(self, level: int) -> list[tuple[Tensor, Tensor]]:
        """Return each batch norm of a level as a factor and a shift per channel, (1, width, 1, 1)."""
        norms = self.norms[level]
        assert isinstance(norms, nn.ModuleList)  # noqa: S101  # for the type checker
        found = []
        for norm in norms:
            state = {key: value.detach().float() for key, value in norm.state_dict().items()}
            factor = state["weight"] / (state["running_var"] + 1e-5).sqrt()
            shift = state["bias"] - state["running_mean"] * factor
            found.append((factor[None, :, None, None], shift[None, :, None, None]))
        return found


@final
class FcosGraph(nn.Module):
    """What is exported: (maps) -> scores (B, N, K) in [0, 1] and distances to the edges in pixels (B, N, 4)."""

    def __init__(self, fcos: Fcos, *, neck: nn.Module) -> None:
        super().__init__()
        levels = range(len(fcos.strides))
        self.neck = neck
        # the levels share their convolutions here too: a third of the bytes
        self.class_layers, self.edge_layers = fcos.class_tower.layers, fcos.edge_tower.layers
        self.class_affine = [fcos.class_tower.affine(level) for level in levels]
        self.edge_affine = [fcos.edge_tower.affine(level) for level in levels]
        self.classify, self.edges, self.quality = fcos.classify, fcos.edges, fcos.quality
        self.strides, self.scale = fcos.strides, fcos.scale.detach().tolist()

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map a pyramid to scores and edges."""
        scores, edges = [], []
        for level, one in enumerate(self.neck(maps)):
            kinds = self.classify(_tower(one, self.class_layers, self.class_affine[level])).sigmoid()
            place = _tower(one, self.edge_layers, self.edge_affine[level])
            scores.append(_flat((kinds * self.quality(place).sigmoid()).sqrt()))
            edges.append(_flat((self.edges(place) + self.scale[level]).clamp(max=6.0).exp() * self.strides[level]))
        return torch.cat(scores, 1), torch.cat(edges, 1)


def _tower(x: Tensor, layers: nn.ModuleList, affine: list[tuple[Tensor, Tensor]]) -> Tensor:
    for layer, (factor, shift) in zip(layers, affine, strict=True):
        x = nnf.relu(layer(x) * factor + shift)
    return x


def _flat(map_bchw: Tensor) -> Tensor:
    return map_bchw.flatten(2).transpose(1, 2)


def _overlap(found: Tensor, true: Tensor) -> Tensor:
    """Return the intersection over union of boxes, pair by pair."""
    low, high = torch.maximum(found[:, :2], true[:, :2]), torch.minimum(found[:, 2:], true[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    either = (found[:, 2:] - found[:, :2]).prod(-1) + (true[:, 2:] - true[:, :2]).prod(-1) - shared
    return shared / either.clamp(min=1e-6)
