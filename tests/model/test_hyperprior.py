from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from splitcodec.model.hyperprior import SCALES, Hyperprior, _gaussian
from splitcodec.model.parts import Quantise


@pytest.fixture
def neck() -> Hyperprior:
    torch.manual_seed(0)
    return Hyperprior(6, width=4)


def test_what_is_coded_comes_back_to_half_a_step(neck: Hyperprior) -> None:
    latent = 5 * torch.randn(2, 6, 14, 14)
    found = neck.symbols(latent)
    assert found.second_bchw.shape == (2, 4, 4, 4)  # 14 -> 7 -> 4
    assert (found.latent_bchw - latent).abs().max() <= 0.5 + 1e-5
    assert found.first_bchw.dtype == torch.int64
    torch.testing.assert_close(neck(latent, quantise="round").latent_bchw, found.latent_bchw)


def test_the_code_length_is_that_of_the_symbols_and_their_scales(neck: Hyperprior) -> None:
    latent = 3 * torch.randn(1, 6, 8, 8)
    found = neck.symbols(latent)
    scale, mean = neck._of(found.second_bchw.float(), latent)
    edges = [torch.special.ndtr((found.first_bchw + half) / scale) for half in (0.5, -0.5)]
    bits = -torch.log2((edges[0] - edges[1]).clamp_min(1e-9)).sum()
    low, high = int(found.second_bchw.min()), int(found.second_bchw.max())
    mass = neck.masses(low, high)
    for channel in range(4):
        bits -= np.log2(mass[channel, (found.second_bchw[0, channel] - low).flatten()]).sum()
    assert neck(latent, quantise="round").bits_b.item() == pytest.approx(bits.item(), rel=1e-4)
    assert torch.equal(found.first_bchw, torch.round(latent - mean).long())


def test_tables_are_of_the_next_larger_scale(neck: Hyperprior) -> None:
    latent = torch.randn(1, 6, 8, 8)
    found = neck.symbols(latent)
    scale, _ = neck._of(found.second_bchw.float(), latent)
    chosen = torch.tensor(SCALES)[found.scale_bchw]
    assert (chosen >= scale.double() - 1e-6).all()
    assert (chosen <= scale.double() * (SCALES[1] / SCALES[0]) + 1e-6).all()
    assert SCALES[0] == pytest.approx(0.11)
    assert SCALES[-1] == pytest.approx(256.0)


def test_scales_beyond_the_tables_take_the_last(neck: Hyperprior) -> None:
    assert len(SCALES) == 64
    last = _plain(neck)
    with torch.no_grad():
        last.bias[:6], last.bias[6:] = torch.tensor([0.11, 0.1101, 255.9, 256.0, 256.1, 1e4]), 0.25  # type: ignore[index]
    found = neck.symbols(torch.full((1, 6, 3, 5), 2.25))
    assert found.scale_bchw[0, :, 0, 0].tolist() == [0, 1, 63, 63, 63, 63]
    assert (found.first_bchw == 2).all()  # less its mean


def _plain(neck: Hyperprior) -> torch.nn.Conv2d:
    """Return the last layer of the hyper-decoder, whose biases alone tell scales and means from now on."""
    last = neck.synthesis[-1]
    assert isinstance(last, torch.nn.Conv2d)
    torch.nn.init.zeros_(last.weight)
    return last


def test_each_picture_of_a_batch_has_its_own_code_length(neck: Hyperprior) -> None:
    latent = torch.tensor([1.0, 9.0])[:, None, None, None] * torch.randn(2, 6, 8, 8)
    both = neck(latent, quantise="round").bits_b
    alone = [neck(one[None], quantise="round").bits_b for one in latent]
    torch.testing.assert_close(both, torch.cat(alone))


def test_masses_are_those_of_the_prior_that_has_learned(neck: Hyperprior) -> None:
    with torch.no_grad():
        for one in neck.prior.parameters():
            one.add_(0.3 * torch.randn_like(one))
    wanted = neck.prior.mass(torch.arange(-3.0, 6.0).expand(4, -1))
    np.testing.assert_allclose(neck.masses(-3, 5), wanted.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_of_odd_pictures_the_last_rows_and_columns_are_cut_off(neck: Hyperprior) -> None:
    latent = torch.randn(1, 6, 5, 7)
    second = torch.round(neck.analysis(latent))
    scale, mean = neck._of(second, latent)
    whole = neck.synthesis(second)[:, :, :5, :7]
    torch.testing.assert_close(torch.cat((scale, mean), 1), torch.cat((whole[:, :6].clamp_min(0.11), whole[:, 6:]), 1))


def test_mixed_lets_the_decoder_see_what_use_gives_and_the_prior_what_noise_gives(neck: Hyperprior) -> None:
    latent = 4 * torch.randn(2, 6, 8, 8)
    mixed, used = neck(latent, quantise="mixed"), neck(latent, quantise="round")
    torch.testing.assert_close(mixed.latent_bchw, used.latent_bchw)
    assert not torch.equal(mixed.bits_b, neck(latent, quantise="mixed").bits_b)
    away = neck(latent).latent_bchw - latent
    assert away.abs().max() <= 0.5 + 1e-5
    assert abs(float(away.mean())) < 0.05
    assert float(away.std()) == pytest.approx(1 / math.sqrt(12), rel=0.1)


@pytest.mark.parametrize("quantise", ["noise", "mixed", "round"])
def test_gradients_of_what_the_decoder_sees_pass_straight_through(neck: Hyperprior, quantise: Quantise) -> None:
    latent = torch.randn(1, 6, 8, 8, requires_grad=True)
    neck(latent, quantise=quantise).latent_bchw.sum().backward()
    torch.testing.assert_close(latent.grad, torch.ones_like(latent))


def test_far_symbols_cost_as_much_above_as_below() -> None:
    far = torch.tensor([3.0, 5.0, 6.0])
    above, below = _gaussian(far, torch.ones(3)), _gaussian(-far, torch.ones(3))
    torch.testing.assert_close(above, below, rtol=1e-4, atol=0.0)
    assert (above[:-1] > above[1:]).all()


def test_noise_is_for_training_alone_and_gradients_reach_every_layer(neck: Hyperprior) -> None:
    latent = torch.randn(2, 6, 8, 8, requires_grad=True)
    for quantise in ("noise", "mixed"):
        coded = neck(latent, quantise=quantise)
        (coded.bits_b.sum() + coded.latent_bchw.square().sum()).backward()
        assert all(one.grad is not None and one.grad.isfinite().all() for one in neck.parameters())
    assert not torch.equal(neck(latent).bits_b, neck(latent).bits_b)
    assert torch.equal(neck(latent, quantise="round").bits_b, neck(latent, quantise="round").bits_b)
    assert math.isfinite(neck(1e4 * latent).bits_b.sum().item())


def test_scales_that_begin_below_the_smallest_learn(neck: Hyperprior) -> None:
    """The bound lets a gradient pass that leads back above it, as published; else half of the scales never move."""
    last = neck.synthesis[-1]
    assert isinstance(last, torch.nn.Conv2d)
    for layer in last.parameters():
        torch.nn.init.zeros_(layer)  # scales and means of 0, below the smallest scale
    for symbol, wanted in ((1.0, -1.0), (0.0, 0.0)):  # up where symbols are larger, nowhere where they are not
        neck.zero_grad()
        neck(torch.full((1, 6, 8, 8), symbol), quantise="round").bits_b.sum().backward()
        assert last.bias is not None
        assert last.bias.grad is not None
        assert last.bias.grad[:6].sign().tolist() == [wanted] * 6


def test_all_that_learns_has_a_group(neck: Hyperprior) -> None:
    grouped = {*map(id, neck.prior_parameters()), *map(id, neck.layer_parameters()), *map(id, neck.gain_parameters())}
    assert grouped == {id(one) for one in neck.parameters()}
