from __future__ import annotations

import pytest
import torch
from torch import nn

from splitcodec.model.gdn import GDN, settled


def _trained(*, inverse: bool) -> GDN:
    torch.manual_seed(0)
    gdn = GDN(5, inverse=inverse)
    with torch.no_grad():
        gdn.beta_root.uniform_(0.5, 1.5)
        gdn.gamma_root.uniform_(-0.2, 0.6)
    return gdn


def test_it_starts_as_published() -> None:
    gdn = GDN(3)
    torch.testing.assert_close(gdn.beta(), torch.ones(3))
    torch.testing.assert_close(gdn.gamma(), 0.1 * torch.eye(3), atol=1e-9, rtol=1e-6)
    assert gdn.gamma()[0, 1] == 0.0
    assert gdn.gamma_root[0, 1].item() == 2.0**-18  # as the published code has it, whose weights are imported
    x = torch.tensor([2.0, -3.0, 0.0])[None, :, None, None]
    torch.testing.assert_close(gdn(x).flatten(), torch.tensor([2 / 1.2, -3 / 1.3, 0.0]))


@pytest.mark.parametrize("inverse", [False, True])
def test_each_channel_is_divided_by_the_magnitudes_of_all(inverse: bool) -> None:
    gdn = _trained(inverse=inverse)
    x = torch.randn(2, 5, 3, 4)
    norm = gdn.beta()[None, :, None, None] + torch.einsum("ij,bjhw->bihw", gdn.gamma(), x.abs())
    torch.testing.assert_close(gdn(x), x * norm if inverse else x / norm)


def test_parameters_stay_positive_whatever_is_learned_and_can_come_back() -> None:
    gdn = GDN(4)
    with torch.no_grad():
        gdn.beta_root.fill_(-5)
        gdn.gamma_root.fill_(-5)
    torch.testing.assert_close(gdn.beta(), torch.full((4,), 1e-6), rtol=1e-3, atol=0.0)
    assert (gdn.gamma() >= 0).all()
    for sign, learns in ((-1.0, True), (1.0, False)):  # a step upwards is allowed, one further down is not
        gdn.zero_grad()
        torch.autograd.backward(sign * gdn.beta().sum())
        assert gdn.beta_root.grad is not None
        assert bool((gdn.beta_root.grad != 0).all()) == learns


@pytest.mark.parametrize("inverse", [False, True])
def test_for_export_it_becomes_an_ordinary_convolution(inverse: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(_trained(inverse=inverse)))
    out = settled(module)
    assert not any(isinstance(m, GDN) for m in out.modules())
    assert any(isinstance(m, GDN) for m in module.modules())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(out(x), module(x))


def test_squared_is_the_form_of_the_first_paper() -> None:
    torch.manual_seed(1)
    for inverse in (False, True):
        layer = GDN(5, inverse=inverse, squared=True)
        x = torch.randn(2, 5, 3, 4)
        norm = (layer.beta()[:, None, None] + torch.einsum("ij,bjhw->bihw", layer.gamma(), x.square())).sqrt()
        wanted = x * norm if inverse else x / norm
        torch.testing.assert_close(layer(x), wanted)
        torch.testing.assert_close(settled(nn.Sequential(layer))(x), wanted)
