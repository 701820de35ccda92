from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.linear import reduced_rank
from splitcodec.model.student import Student
from splitcodec.model.transforms import Decoder, Squeeze


def _pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A stem of 5 channels, and a feature of 6 that depends on it linearly (rank 5 a pixel, 20 a 2 x 2 patch)."""
    torch.manual_seed(3)
    x = torch.randn(8, 5, 12, 12) + 2
    y = torch.einsum("oc,bchw->bohw", torch.randn(6, 5), x - 2)
    return x, y


@pytest.mark.parametrize("rank", [3, 10, 20, 30])
def test_the_code_loses_what_it_says(rank: int) -> None:
    x, y = _pair()
    found = reduced_rank(x, y, rank=rank, down=2, up=2)
    code = nnf.conv2d(x, found.encode_kcrs, found.bias_k, stride=2)
    back = nnf.pixel_shuffle(nnf.conv2d(code, found.decode_ok[:, :, None, None]), 2)
    lost = ((back - y).square().sum() / y.square().sum()).item()
    assert lost == pytest.approx(found.residual, abs=2e-3)
    assert lost < 0.02 if rank >= 20 else lost > 0.1
    assert code.mean(dim=(0, 2, 3)).abs().max() < 1e-4  # zeros are what costs least


def test_a_student_begins_as_the_linear_code() -> None:
    x, y = _pair()
    student = Student(
        Squeeze(5, 20, widths=(8,), halvings=1, linear=True),
        Bottleneck(2, 20, first_gain=200.0, last_gain=400.0),
        Decoder(20, 6, width=8, blocks=1, up=2, up_width=8, up_blocks=0, linear=True),
    )
    lost = student.aim_at(x, y)
    assert lost is not None
    assert lost < 0.02
    back = student.reproduce(student.symbols(x, 1), 1)
    assert ((back - y).square().mean() / y.var()).item() < 0.03


def test_without_linear_paths_there_is_nothing_to_begin_with() -> None:
    x, y = _pair()
    student = Student(
        Squeeze(5, 4, widths=(8,), halvings=1),
        Bottleneck(1, 4),
        Decoder(4, 6, width=8, blocks=1, up=2, up_width=8, up_blocks=0),
    )
    assert student.aim_at(x, y) is None
