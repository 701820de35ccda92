from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from splitcodec.model.depthwise import QuickDepthwise, quicken
from splitcodec.model.frozen import FastReLU6
from tests.model.shapes import NAMES, SHAPES


def _learned(module: nn.Sequential, image: Tensor, *, half: bool) -> list[Tensor]:
    """Return the output and the gradients of the input and of all parameters."""
    x = image.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        y = module(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    grads = [x.grad, *(p.grad for p in module.parameters())]
    assert all(grad is not None for grad in grads)
    return [y.detach(), *(grad for grad in grads if grad is not None)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(NAMES, SHAPES)
def test_it_learns_as_pytorch_does(
    *, kernel: int, stride: int, pad: int, rows: int, cols: int, bias: bool, half: bool
) -> None:
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(6, 6, kernel, stride=stride, padding=pad, groups=6, bias=bias))
    quick = copy.deepcopy(plain)
    quicken(quick)
    assert isinstance(quick[0], QuickDepthwise)
    image = torch.randn(3, 6, rows, cols).to(memory_format=torch.channels_last)
    wanted, found = (_learned(module, image, half=half) for module in (plain, quick))
    for a, b in zip(wanted, found, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        torch.testing.assert_close(b, a, rtol=2e-2 if half else 1e-5, atol=6e-2 if half else 1e-5)


def test_weights_keep_their_names_and_values() -> None:
    module = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6(inplace=True)), nn.Conv2d(4, 8, 1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    quicken(module)
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert isinstance(module[0][1], FastReLU6)  # type: ignore[index]
    assert type(module[1]) is nn.Conv2d


def test_layers_that_do_not_suit_are_left_alone() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, (3, 5), padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
    )
    quicken(module)
    assert all(type(layer) is nn.Conv2d for layer in module)


def test_nothing_below_is_asked_where_nothing_learns() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 5, padding=2, groups=4))
    quicken(module)
    image = torch.randn(1, 4, 6, 6)
    module(image).sum().backward()
    assert image.grad is None
    assert module[0].weight.grad is not None
