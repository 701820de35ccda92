from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from splitcodec.model.frozen import FastReLU6, FrozenDepthwise, fast
from tests.model.shapes import NAMES, SHAPES


def _both(module: nn.Module, image: Tensor, *, half: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return (output, gradient of the input) of the module and of its fast twin."""
    out = []
    for one in (module, fast(module)):
        x = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = one(x)
        weight = torch.linspace(-1, 1, y.numel()).view_as(y)
        (y.float() * weight).sum().backward()
        assert x.grad is not None
        out.append([y.detach(), x.grad])
    return out[0], out[1]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(NAMES, SHAPES)
def test_depthwise_gives_the_same(
    *, kernel: int, stride: int, pad: int, rows: int, cols: int, bias: bool, half: bool
) -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(6, 6, kernel, stride=stride, padding=pad, groups=6, bias=bias).requires_grad_(requires_grad=False)
    module = nn.Sequential(conv)
    assert isinstance(fast(module)[0], FrozenDepthwise)
    image = torch.randn(2, 6, rows, cols).to(memory_format=torch.channels_last)
    wanted, found = _both(module, image, half=half)
    for a, b in zip(wanted, found, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(b, a, rtol=2e-2 if half else 1e-5, atol=3e-2 if half else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_gives_the_same(dtype: torch.dtype) -> None:
    special = torch.tensor([0.0, -0.0, 6.0, 6.03125, 5.96875, -1e-30, 1e-30, -3e38, 3e38, float("inf"), -float("inf")])
    values = torch.cat((special, torch.linspace(-20, 20, 501))).to(dtype)
    grads = []
    for one in (nn.ReLU6(), FastReLU6()):
        x = values.clone().requires_grad_()
        y = one(x)
        (y * torch.linspace(1, 2, len(values)).to(dtype)).sum().backward()
        assert x.grad is not None
        grads.append((y.detach(), x.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])
    with torch.no_grad():
        assert torch.equal(FastReLU6()(values), nn.ReLU6()(values))


def test_layers_that_do_not_suit_are_left_alone() -> None:
    dense = nn.Conv2d(4, 4, 3, padding=1)
    grouped = nn.Conv2d(4, 8, 3, padding=1, groups=4)
    oblong = nn.Conv2d(4, 4, (3, 5), padding=1, groups=4)
    dilated = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)
    wrapping = nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="circular")
    same = nn.Conv2d(4, 4, 3, padding="same", groups=4)
    module = nn.Sequential(dense, grouped, oblong, dilated, wrapping, same)
    assert all(type(layer) is nn.Conv2d for layer in fast(module))


def test_the_original_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6()))
    before = [type(m) for m in module.modules()]
    fast(module)
    assert [type(m) for m in module.modules()] == before
