from __future__ import annotations

import pytest
import torch
from torch import nn

from splitcodec.model.patch import Patch, PatchEncoder
from splitcodec.training.graphs import cost, folded


@pytest.mark.parametrize(
    ("stem", "stride"),
    [
        ((Patch(6, 8, 8),), 8),
        ((Patch(6, 16, 8), Patch(6, 3, 1)), 8),
        ((Patch(6, 3, 2), Patch(6, 3, 2), Patch(6, 3, 2)), 8),
        ((Patch(6, 5, 4), Patch(6, 4, 2), Patch(6, 2, 2)), 16),
        ((Patch(6, 7, 4), Patch(6, 5, 4)), 16),
        ((Patch(6, 3, 3),), 3),
    ],
)
@pytest.mark.parametrize("times", [1, 2, 7])
def test_every_stem_divides_by_its_strides(stem: tuple[Patch, ...], stride: int, times: int) -> None:
    encoder = PatchEncoder(5, stem=stem, blocks=1, widths=(7,), halvings=0)
    assert encoder(torch.zeros(2, 3, stride * times, 2 * stride * times)).shape == (2, 5, times, 2 * times)


def test_halvings_come_on_top() -> None:
    encoder = PatchEncoder(5, stem=(Patch(6, 4, 4),), blocks=0, widths=(7, 8), halvings=2)
    assert encoder(torch.zeros(1, 3, 32, 48)).shape == (1, 5, 2, 3)


@pytest.mark.parametrize(
    ("stem", "blocks", "widths", "macs", "limit"),
    [
        # 112 x 112 and so on: (rows * columns) * below * above * kernel^2
        ((Patch(32, 8, 8),), 1, (64,), 784 * (3 * 32 * 64 + 2 * 32 * 32 * 9) + 196 * (32 * 64 * 9 + 64 * 48), 25e6),
        (
            (Patch(24, 5, 4), Patch(48, 3, 2)),
            1,
            (96,),
            3136 * 3 * 24 * 25 + 784 * (24 * 48 * 9 + 2 * 48 * 48 * 9) + 196 * (48 * 96 * 9 + 96 * 48),
            60e6,
        ),
    ],
)
def test_what_small_encoders_cost(
    stem: tuple[Patch, ...], blocks: int, widths: tuple[int, ...], macs: int, limit: float
) -> None:
    encoder = PatchEncoder(48, stem=stem, blocks=blocks, widths=widths, halvings=1)
    found = cost(folded(encoder), torch.zeros(1, 3, 224, 224))
    assert found.macs == macs
    assert found.macs <= limit
    assert found.parameters <= 200_000


def test_bottleneck_blocks_are_cheap() -> None:
    encoder = PatchEncoder(48, stem=(Patch(64, 8, 8),), blocks=2, inner=24, widths=(64,), halvings=1)
    found = cost(folded(encoder), torch.zeros(1, 3, 224, 224))
    blocks = 2 * 784 * (2 * 64 * 24 + 24 * 24 * 9)
    assert found.macs == 784 * 3 * 64 * 64 + blocks + 196 * (64 * 64 * 9 + 64 * 48)


@pytest.mark.parametrize("inner", [None, 3])
def test_folding_changes_nothing(inner: int | None) -> None:
    torch.manual_seed(0)
    encoder = PatchEncoder(5, stem=(Patch(6, 5, 2), Patch(8, 3, 2)), blocks=2, widths=(7,), halvings=1, inner=inner)
    for _ in range(3):
        encoder(torch.randn(4, 3, 32, 32))
    image = torch.randn(1, 3, 16, 32)
    out = folded(encoder)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in out.modules())
    torch.testing.assert_close(out(image), encoder(image), rtol=1e-4, atol=1e-5)
