"""Task networks -> ONNX graphs with several inputs or outputs; dynamic batch and sides, weights stored as float16."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

from splitcodec.model.fcos import Fcos, FcosGraph
from splitcodec.training.graphs import exported


@final
class MapsTail(nn.Module):
    """A backbone's maps without the feature that went in."""

    def __init__(self, backbone: nn.Module, *, keeps_feature: bool) -> None:
        super().__init__()
        self.backbone, self.first = backbone, int(keeps_feature)

    def forward(self, feature_bchw: Tensor) -> tuple[Tensor, ...]:
        """Map the feature at the cut to the later maps."""
        return tuple(self.backbone(feature_bchw)[self.first :])


@final
class FcosTail(nn.Module):
    """`FcosGraph` with one argument per map."""

    def __init__(self, fcos: Fcos) -> None:
        super().__init__()
        self.head = FcosGraph(fcos, neck=folded_in_place(fcos.neck))

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Map a pyramid to scores and edges."""
        scores, edges = self.head(list(maps))
        return scores, edges


@final
class SegmentTail(nn.Module):
    """A segmenter with one argument per map, and only its logits."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, *maps: Tensor) -> Tensor:
        """Map a pyramid to class logits."""
        out: Tensor = self.segmenter(list(maps)).class_bkhw
        return out


def folded_in_place(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose pairs of convolution and batch norm, one after the other, are one layer."""
    out = copy.deepcopy(module).eval()
    for part in list(out.modules()):
        if isinstance(part, nn.Sequential):
            layers = list(part)
            for place, (layer, norm) in enumerate(pairwise(layers)):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    part[place], part[place + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return out


def joint_onnx(module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Export a module with several inputs and outputs; batch and both sides of every map are dynamic."""
    shapes = tuple({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC} for _ in examples)
    variadic = any(isinstance(module, kind) for kind in (FcosTail, SegmentTail))
    return exported(module, examples, inputs, outputs, shapes=(shapes,) if variadic else shapes)
