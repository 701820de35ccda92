from __future__ import annotations

import numpy as np
import pytest
import torch

from splitcodec.model.bottleneck import Bottleneck, FactorizedPrior
from splitcodec.model.parts import Quantise


def test_masses_sum_to_one() -> None:
    torch.manual_seed(0)
    mass = Bottleneck(3, 5).masses(-2047, 2047)
    assert mass.shape == (3, 5, 4095)
    assert mass.min() >= 0
    np.testing.assert_allclose(mass.sum(axis=2), 1.0, atol=1e-9)


def test_masses_far_out_vanish() -> None:
    """No floor: it would give a table a column for every symbol within reach."""
    torch.manual_seed(0)
    assert Bottleneck(2, 2).masses(-2047, -1000).sum() < 1e-9


def test_likelihood_is_the_difference_of_the_cumulative() -> None:
    torch.manual_seed(1)
    prior = FactorizedPrior(4).double()
    with torch.no_grad():
        for factor in prior.factors:
            factor.uniform_(-0.5, 0.5)
    y = torch.linspace(-12, 12, 101, dtype=torch.float64).expand(4, -1)
    wanted = torch.sigmoid(prior.logits(y + 0.5)) - torch.sigmoid(prior.logits(y - 0.5))
    torch.testing.assert_close(prior.mass(y), wanted, rtol=1e-7, atol=1e-15)
    assert (prior.logits(y).diff(dim=1) > 0).all()


def test_likelihood_keeps_a_floor_and_a_gradient() -> None:
    prior = FactorizedPrior(1)
    assert prior.likelihood(torch.full((1, 1), 1e6)).item() == pytest.approx(1e-9)
    y = torch.full((1, 3), 5.0, requires_grad=True)
    torch.autograd.backward(prior.likelihood(y).sum())
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    assert (y.grad != 0).all()


def test_the_middle_of_an_even_density_has_its_mass() -> None:
    """Both logits add up to 0 there, whose sign is 0: 30 bits for the cheapest symbol."""
    prior = FactorizedPrior(1)
    for bias in prior.biases:
        torch.nn.init.zeros_(bias)
    ends = torch.sigmoid(prior.logits(torch.tensor([[-0.5, 0.5]])))
    assert ends.sum() == 1
    torch.testing.assert_close(prior.mass(torch.zeros(1, 1)), ends.diff(dim=1))


def test_a_symbol_far_out_and_its_prior_find_each_other() -> None:
    """Below the floor nothing was pulled: neither the symbol inwards nor the prior outwards."""
    torch.manual_seed(3)
    prior, y = FactorizedPrior(1), torch.full((1, 1), 400.0, requires_grad=True)
    assert 0 < prior.mass(y).item() < 1e-10
    torch.autograd.backward(-torch.log(prior.likelihood(y)).sum())
    assert y.grad is not None
    assert y.grad.item() > 0
    before = prior.mass(y).item()
    with torch.no_grad():
        for parameter in prior.parameters():
            assert parameter.grad is not None
            parameter.sub_(1e-3 * parameter.grad / parameter.grad.norm().clamp_min(1e-30))
    assert prior.mass(y).item() > before


def test_training_approaches_the_entropy_of_a_known_distribution() -> None:
    torch.manual_seed(2)
    neck = Bottleneck(1, 1, first_gain=1.0, last_gain=1.0)
    optimizer = torch.optim.Adam(neck.prior.parameters(), lr=3e-2)
    for _ in range(400):
        optimizer.zero_grad()
        torch.autograd.backward(neck(1.0 + 3.0 * torch.randn(1, 1, 32, 32)).bits_b.mean())
        optimizer.step()
    edges = torch.arange(-40.5, 41.5, dtype=torch.float64)
    true = torch.special.ndtr((edges - 1.0) / 3.0).diff().numpy()
    true /= true.sum()
    entropy = -(true * np.log2(np.maximum(true, 1e-300))).sum()
    found = -(true * np.log2(np.maximum(neck.masses(-40, 40)[0, 0], 1e-12))).sum()
    assert entropy <= found + 1e-9
    assert found < entropy + 0.03


def test_pictures_are_coded_at_their_own_level_in_order() -> None:
    torch.manual_seed(3)
    neck = Bottleneck(4, 2, first_gain=0.5, last_gain=8.0)
    latent = 3 * torch.randn(1, 2, 16, 16).expand(8, -1, -1, -1).contiguous()
    coded = neck(latent)
    error = (coded.latent_bchw - latent).square().mean(dim=(1, 2, 3)).view(4, 2).mean(1)
    wanted = [1 / 12 / gain**2 for gain in neck.gains()[:, 0]]  # of uniform noise, seen behind the gain
    np.testing.assert_allclose(error.detach().numpy(), wanted, rtol=0.25)
    assert coded.bits_b.shape == (8,)
    assert coded.latent_bchw.shape == latent.shape


def test_bits_are_those_of_each_picture_alone() -> None:
    torch.manual_seed(4)
    neck = Bottleneck(2, 3)
    quiet, loud = torch.zeros(1, 3, 4, 4), 20 * torch.randn(1, 3, 4, 4)
    bits = neck(torch.cat((quiet, loud, quiet, loud))).bits_b
    assert (bits[[1, 3]] > 2 * bits[[0, 2]]).all()


def test_gains_rise_from_first_to_last() -> None:
    gains = Bottleneck(5, 2, first_gain=0.5, last_gain=8.0).gains()
    assert gains.shape == (5, 2)
    assert gains.dtype == np.float32
    np.testing.assert_allclose(gains[[0, 2, 4], 0], [0.5, 2.0, 8.0], rtol=1e-6)


def test_every_parameter_learns() -> None:
    torch.manual_seed(5)
    neck = Bottleneck(2, 3)
    latent = torch.randn(4, 3, 5, 5, requires_grad=True)
    coded = neck(latent)
    (coded.bits_b.sum() + coded.latent_bchw.square().sum()).backward()
    for name, parameter in [("latent", latent), *neck.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_the_rate_is_computed_in_float32_under_autocast() -> None:
    """bfloat16 has 8 bits: differences of a cumulative drown in its rounding."""
    torch.manual_seed(6)
    neck = Bottleneck(2, 3)
    latent = torch.randn(4, 3, 8, 8).bfloat16()
    torch.manual_seed(7)
    wanted = neck(latent).bits_b
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16):
        found = neck(latent).bits_b
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_channels_last_latents_are_the_same_latents() -> None:
    neck = Bottleneck(2, 3)
    latent = torch.randn(4, 3, 8, 6)
    torch.manual_seed(8)
    flat = neck(latent).latent_bchw
    torch.manual_seed(8)
    last = neck(latent.to(memory_format=torch.channels_last)).latent_bchw
    gain = neck.log_gain_lc.exp().repeat_interleave(2, 0)[:, :, None, None]
    for found in (flat, last):  # the noise may lie elsewhere, but never beyond half a step
        assert ((found - latent).abs() * gain).max() <= 0.5001


@pytest.mark.parametrize("quantise", ["mixed", "round"])
def test_rounding_codes_what_use_will_code(quantise: Quantise) -> None:
    torch.manual_seed(4)
    bottleneck = Bottleneck(2, 3, first_gain=2.0, last_gain=8.0)
    latent = torch.randn(4, 3, 5, 5, requires_grad=True)
    coded = bottleneck(latent, quantise=quantise)
    gain = torch.tensor([2.0, 2.0, 8.0, 8.0])[:, None, None, None]
    torch.testing.assert_close(coded.latent_bchw, torch.round(latent * gain) / gain)
    assert coded.bits_b.shape == (4,)
    coded.latent_bchw.sum().backward()  # straight through
    torch.testing.assert_close(latent.grad, torch.ones_like(latent))


def test_mixed_counts_the_bits_of_noisy_symbols() -> None:
    torch.manual_seed(4)
    bottleneck, latent = Bottleneck(2, 3), torch.randn(4, 3, 5, 5)
    bits = [bottleneck(latent, quantise="mixed").bits_b for _ in range(2)]
    assert not torch.equal(*bits)
    assert torch.equal(*[bottleneck(latent, quantise="round").bits_b for _ in range(2)])


def test_levels_move_between_the_trained_ones() -> None:
    torch.manual_seed(5)
    neck = Bottleneck(3, 2, first_gain=1.0, last_gain=4.0)
    for parameter in neck.prior.parameters():
        torch.nn.init.normal_(parameter)
    before = neck.masses(-3, 3)
    neck.move([0.0, 0.5, 1.75])
    np.testing.assert_allclose(neck.gains()[:, 0], [1.0, 2**0.5, 2**1.75], rtol=1e-5)
    np.testing.assert_allclose(neck.masses(-3, 3), before[[0, 0, 2]])
    with pytest.raises(ValueError, match="3 numbers from 0 to 2"):
        neck.move([0.0, 1.0, 2.1])


def test_bits_are_what_the_masses_of_each_channel_s_symbols_say() -> None:
    """Nothing held a code length in bits: in nats, or of another channel's density, it would have passed."""
    torch.manual_seed(6)
    neck = Bottleneck(2, 3, first_gain=1.0, last_gain=2.0)
    for bias in neck.prior.biases:
        torch.nn.init.normal_(bias)
    latent = 2 * torch.randn(4, 3, 2, 5)
    found = neck(latent, quantise="round").bits_b
    mass_lcs = neck.masses(-40, 40)
    for picture in range(4):
        symbols_chw = torch.round(latent[picture] * [1.0, 2.0][picture // 2]).long()
        masses = [mass_lcs[picture // 2, c, symbols_chw[c].numpy() + 40] for c in range(3)]
        assert found[picture].item() == pytest.approx(-np.log2(masses).sum(), rel=1e-4)


def test_stretched_densities_are_so_many_times_as_wide() -> None:
    torch.manual_seed(7)
    prior, x = FactorizedPrior(2), torch.linspace(-20, 20, 9).expand(2, -1)
    for factor in prior.factors:
        torch.nn.init.normal_(factor)
    before = prior.logits(x)
    prior.stretch(torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(prior.logits(x * torch.tensor([[0.5], [3.0]])), before)
