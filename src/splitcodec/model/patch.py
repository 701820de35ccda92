"""A small encoder of its own, learned from the first layer on: strided dense convolutions, residual blocks, squeeze.

For devices that cannot afford the teacher's first layers. The stem may be a patch embedding (kernel = stride) or
overlap; Duan and Zhu, "Efficient feature compression for edge-cloud systems" (PCS 2022) come close to the paper's curve
with a stride-8 patch stem and residual blocks at 26 M multiply-accumulates.
"""

from __future__ import annotations

from typing import NamedTuple, final

from torch import Tensor, nn

from splitcodec.model.transforms import Residual, Squeeze


class Patch(NamedTuple):
    """One convolution of the stem; the kernel is at least the stride, and odd where the stride is 1."""

    width: int
    kernel: int
    stride: int


def _strided(below: int, patch: Patch) -> nn.Sequential:
    """Convolution, batch norm, ReLU; (H, W) -> (H / stride, W / stride)."""
    pad = (patch.kernel - patch.stride + 1) // 2
    return nn.Sequential(
        nn.Conv2d(below, patch.width, patch.kernel, stride=patch.stride, padding=pad, bias=False),
        nn.BatchNorm2d(patch.width),
        nn.ReLU(inplace=True),
    )


@final
class PatchEncoder(nn.Module):
    """Image (B, 3, H, W) to the latent (B, channels, H / s, W / s), s = the stem's strides times 2^halvings."""

    def __init__(
        self,
        channels: int,
        *,
        stem: tuple[Patch, ...],
        blocks: int,
        widths: tuple[int, ...],
        halvings: int,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        below = 3
        layers: list[nn.Module] = []
        for patch in stem:
            layers.append(_strided(below, patch))
            below = patch.width
        self.stem = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*(Residual(below, inner=inner) for _ in range(blocks)))
        self.squeeze = Squeeze(below, channels, widths=widths, halvings=halvings)

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Map scaled images to the latent before gain."""
        out: Tensor = self.squeeze(self.blocks(self.stem(image_bchw)))
        return out
