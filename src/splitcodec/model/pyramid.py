"""The teacher's later blocks as a frozen backbone, computed once for all tasks: feature at the cut -> pyramid.

Strided layers get one more row and column of padding below and to the right than an even map needs, so that an odd map
loses nothing: sides become ceil(side / 2), and even maps come out as they did.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, fx, nn

from splitcodec.errors import TeacherError
from splitcodec.model.teacher import Teacher


class Level(NamedTuple):
    """One map of the pyramid: its channels, and its stride in pixels where heads use it."""

    width: int
    stride: int
    doubled: bool = False
    """Whether the map comes at twice that stride, and the head makes the finer one of its channels."""


@final
class Backbone(nn.Module):
    """Feature at the cut (B, C, H, W) -> the maps that `layers` name, from fine to coarse; `levels` describes them.

    The cut's own layer may be named, first: then the first map is the feature itself. Where the second map has the
    first one's stride, heads make a map of half that stride out of the first one's channels (`neck.Doubled`).
    """

    def __init__(self, teacher: Teacher, *, cut: str, layers: Sequence[str], crop: int = 224) -> None:
        super().__init__()
        self.keeps_feature = bool(layers) and layers[0] == cut
        wanted = len(layers) - self.keeps_feature
        if not isinstance(teacher.tail, fx.GraphModule):
            raise TeacherError("a teacher that is cut before its first layer has no later features for tasks")
        self.rest = _later_alone(teacher.tail, count=wanted)
        side = crop // teacher.stride
        with torch.no_grad():
            maps = self(torch.zeros(1, teacher.width, side, side))
        for name, one in zip(layers, maps, strict=True):
            if one.ndim != 4:
                raise TeacherError(f"layer {name!r} gives no feature map; name a convolutional layer")
        levels = [Level(one.shape[1], teacher.stride * side // one.shape[-1]) for one in maps]
        if len(levels) > 1 and levels[0].stride == levels[1].stride > 1:
            levels[0] = Level(levels[0].width, levels[0].stride // 2, doubled=True)
        self.levels = tuple(levels)
        strides = [level.stride for level in self.levels]
        if strides != sorted(set(strides)):
            raise TeacherError(
                f"layers {', '.join(layers)} have strides {strides}; name one layer per stride, in order "
                "(the first one's stride may come twice)"
            )

    def forward(self, feature_bchw: Tensor) -> list[Tensor]:
        """Return the maps, (B, width, ceil(H * stride of the cut / stride), ...) each."""
        later = list(self.rest(feature_bchw)) if self.rest is not None else []
        return [feature_bchw, *later] if self.keeps_feature else later


def answer_and_maps(tail: nn.Module) -> fx.GraphModule:
    """Return a teacher's tail that gives (logits, *later features), with an odd map's rows and columns all used.

    Raises TeacherError for a tail without later features.
    """
    if not isinstance(tail, fx.GraphModule) or not isinstance(_output(tail).args[0], tuple):
        raise TeacherError("the tail gives no later features; name layers behind the cut")
    return _without_loss(copy.deepcopy(tail))


def _output(module: fx.GraphModule) -> fx.Node:
    node: fx.Node = next(node for node in module.graph.nodes if node.op == "output")
    return node


def _later_alone(tail: fx.GraphModule, *, count: int) -> fx.GraphModule | None:
    """Return the tail without its answer: `count` later features alone."""
    if count == 0:
        return None
    module = copy.deepcopy(tail)
    end = _output(module)
    outputs = end.args[0]
    if not isinstance(outputs, tuple) or len(outputs) != count + 1:
        raise TeacherError(f"the tail gives no {count} later features")
    end.args = (tuple(outputs[1:]),)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    return _without_loss(module)


def _without_loss(module: fx.GraphModule) -> fx.GraphModule:
    for part in module.modules():
        if isinstance(part, nn.ZeroPad2d):
            left, right, top, bottom = part.padding
            part.padding = (left, right + 1, top, bottom + 1)
    module.recompile()
    module.eval().requires_grad_(requires_grad=False)
    return module
