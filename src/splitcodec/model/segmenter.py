"""Semantic segmentation: context at a coarse stride, edges at the finest one.

After DeepLabv3+ (Chen et al., ECCV 2018) and LR-ASPP (Howard et al., ICCV 2019), in few dense convolutions: the
coarsest map and the one before it meet, dilated convolutions and the picture's mean look around, and the finest map
says where things end. The edge enlarges the logits to the picture (edge/mask.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from splitcodec.model.fcos import apart_in_neck
from splitcodec.model.neck import doubled_to, lateral
from splitcodec.model.pyramid import Level
from splitcodec.model.transforms import conv

VOID = 255


class Logits(NamedTuple):
    """Class logits at the stride of the finest map (B, K, H, W), and the maps before them."""

    class_bkhw: Tensor
    neck: tuple[Tensor, ...] = ()


class _Labelling(nn.Module):
    """What heads that label every pixel share; `weights` say how much each class counts in the loss."""

    weights: Tensor | None

    def __init__(self, weights: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def loss(self, raw: Logits, truth: Tensor, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the cross-entropy with label maps (B, H, W); VOID is left out."""
        # every second pixel: enlarging to all of them costs more than the head
        some = truth[:, ::2, ::2]
        large = enlarged(raw.class_bkhw, tuple(-(-side // 2) for side in size))
        if bool((some == VOID).all()):  # the mean of no pixels is no number, and would end the run
            return {"class": 0.0 * large.sum()}
        return {"class": nnf.cross_entropy(large, some, weight=self.weights, ignore_index=VOID)}

    def apart(self, raw: Logits, teacher: Logits, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the KL divergence per place from the task teacher's answer, and the errors of the maps."""
        del size
        ours = raw.class_bkhw.float().log_softmax(1)
        theirs = teacher.class_bkhw.float().softmax(1)
        distance = nnf.kl_div(ours, theirs, reduction="none").sum(1).mean()
        return {"class": distance, "neck": apart_in_neck(raw.neck, teacher.neck)}


@final
class Segmenter(_Labelling):
    """Neck and head on a pyramid."""

    def __init__(
        self,
        levels: Sequence[Level],
        classes: int,
        *,
        width: int = 128,
        fine: int = 48,
        dilations: Sequence[int] = (1, 3, 6),
        dropout: float = 0.1,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__(weights)
        self.stride = levels[0].stride
        self.doublings = (levels[1].stride // levels[0].stride).bit_length() - 1
        self.lateral = nn.ModuleList(conv(level.width, width, 1) for level in levels[1:])
        self.fine = lateral(levels[0], fine)
        self.meet = conv(width, width, 3)
        self.look = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width // 2, 3, padding=step, dilation=step, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(),
            )
            for step in dilations
        )
        self.mean = nn.Conv2d(width, width // 2, 1)
        self.join = conv(width // 2 * (len(dilations) + 1), width, 1)
        self.sharpen = nn.Sequential(conv(width + fine, width, 3), conv(width, width, 3))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Logits:
        """Map a pyramid, fine to coarse, to logits at its finest stride."""
        coarse = [layer(one) for layer, one in zip(self.lateral, maps[1:], strict=True)]
        found = coarse[-1]
        for one in reversed(coarse[:-1]):
            found = one + doubled_to(found, one)
        context = self.meet(found)
        mean = nnf.relu(self.mean(context.mean((2, 3), keepdim=True))).expand(-1, -1, *context.shape[-2:])
        context = self.join(torch.cat([*(layer(context) for layer in self.look), mean], 1))
        fine = self.fine(maps[0])
        for _ in range(self.doublings):
            context = doubled_to(context, fine)
        both = self.sharpen(torch.cat([context, fine], 1))
        return Logits(self.classify(self.dropout(both)), (context, both))


@final
class DeepLab(_Labelling):
    """torchvision's DeepLabv3 head on the coarsest map (Chen, Papandreou, Schroff, Adam 2017)."""

    def __init__(
        self, levels: Sequence[Level], classes: int, *, width: int = 256, weights: Tensor | None = None
    ) -> None:
        super().__init__(weights)
        rates = (12, 24, 36) if levels[-1].stride < 16 else (6, 12, 18)
        self.context = ASPP(levels[-1].width, rates, width)
        self.sharpen = conv(width, width, 3)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Logits:
        """Map a pyramid to logits at its coarsest stride."""
        context = self.context(maps[-1])
        return Logits(self.classify(self.sharpen(context)), (context,))


def enlarged(map_bchw: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Return a map at another size, bilinear, in full precision."""
    return nnf.interpolate(map_bchw.float(), size=tuple(size), mode="bilinear", align_corners=False)
