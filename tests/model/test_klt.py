"""A learned image codec that begins as block transforms: little is lost, and its prior fits from the first step on."""

from __future__ import annotations

import pytest
import torch

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.hyperprior import Hyperprior
from splitcodec.model.klt import begin_as_blocks, widen_step
from splitcodec.model.parts import AbstractBottleneck
from splitcodec.model.pictures import PictureDecoder, PictureEncoder

CHANNELS, WIDTH = 48, 64


def _smooth(count: int, *, seed: int) -> torch.Tensor:
    """Return scaled pictures of a few waves each: (B, 3, 64, 64)."""
    random = torch.Generator().manual_seed(seed)
    at = torch.linspace(0, 1, 64)
    found = torch.zeros(count, 3, 64, 64)
    for _ in range(4):
        down, right, phase = (torch.rand(count, 3, 1, 1, generator=random) * most for most in (9.0, 9.0, 6.3))
        found += 0.2 * torch.cos(down * at[:, None] + right * at + phase)
    return found + torch.rand(count, 3, 1, 1, generator=random) * 0.4 - 0.2


def _bottleneck(kind: str) -> AbstractBottleneck:
    if kind == "factorized":
        return Bottleneck(1, CHANNELS, first_gain=1.0, last_gain=1.0)
    return Hyperprior(CHANNELS, width=WIDTH)


@pytest.mark.parametrize(("kind", "bright"), [("factorized", 0.0), ("factorized", 0.4), ("hyperprior", 0.0)])
def test_pictures_come_back_from_the_first_step_on(kind: str, bright: float) -> None:
    torch.manual_seed(0)
    encoder, bottleneck = PictureEncoder(CHANNELS, width=WIDTH), _bottleneck(kind)
    decoder, other = PictureDecoder(CHANNELS, width=WIDTH), _smooth(8, seed=1) + bright
    lost = begin_as_blocks(encoder, bottleneck, decoder, _smooth(64, seed=0) + bright, step=0.02)
    assert 0.0 <= lost < 0.02
    with torch.no_grad():
        coded = bottleneck(encoder(other), quantise="round")
        back = decoder(coded.latent_bchw)
    off = (back - other).square().mean() / other.var()
    assert off < 0.02, "block transforms lose little of smooth pictures"
    assert coded.bits_b.mean() < 16 * CHANNELS * 8


def test_rounding_costs_what_a_step_of_that_size_costs() -> None:
    torch.manual_seed(0)
    encoder, bottleneck = PictureEncoder(CHANNELS, width=WIDTH), _bottleneck("factorized")
    decoder, image = PictureDecoder(CHANNELS, width=WIDTH), _smooth(8, seed=1)
    begin_as_blocks(encoder, bottleneck, decoder, _smooth(64, seed=0), step=0.02)
    with torch.no_grad():
        latent = encoder(image)
        error = (decoder(latent.round()) - decoder(latent)).square().mean()
    kept = CHANNELS / (3 * 16 * 16)  # of the components of a block, which are as many as its numbers
    assert float(error) == pytest.approx(kept * 0.02**2 / 12, rel=0.3)


@pytest.mark.parametrize(("channels", "width"), [(3, 64), (8, 6)])
def test_what_is_lost_with_fewer_channels_is_told(channels: int, width: int) -> None:
    """In the latent, or on the way to it."""
    torch.manual_seed(0)
    encoder, decoder = PictureEncoder(channels, width=width), PictureDecoder(channels, width=width)
    bottleneck, image = Bottleneck(1, channels, first_gain=1.0, last_gain=1.0), _smooth(8, seed=1)
    lost = begin_as_blocks(encoder, bottleneck, decoder, _smooth(64, seed=0), step=0.02)
    with torch.no_grad():
        off = float((decoder(encoder(image)) - image).square().mean() / image.var())
    assert lost == pytest.approx(off, rel=0.4)
    assert lost > 0.02


def test_a_wider_step_takes_fewer_bits_and_loses_more() -> None:
    found = []
    for step in (0.05, 0.4):
        torch.manual_seed(0)
        encoder, bottleneck = PictureEncoder(CHANNELS, width=WIDTH), _bottleneck("factorized")
        decoder = PictureDecoder(CHANNELS, width=WIDTH)
        begin_as_blocks(encoder, bottleneck, decoder, _smooth(64, seed=0), step=step)
        with torch.no_grad():
            coded = bottleneck(encoder(_smooth(8, seed=1)), quantise="round")
            error = (decoder(coded.latent_bchw) - _smooth(8, seed=1)).square().mean()
        found.append((float(coded.bits_b.mean()), float(error)))
    (fine_bits, fine_error), (coarse_bits, coarse_error) = found
    assert coarse_bits < 0.8 * fine_bits
    assert coarse_error > 1.5 * fine_error


def test_what_is_not_listened_to_yet_can_learn() -> None:
    torch.manual_seed(0)
    encoder, bottleneck = PictureEncoder(CHANNELS, width=WIDTH), _bottleneck("factorized")
    decoder, image = PictureDecoder(CHANNELS, width=WIDTH), _smooth(16, seed=0)
    begin_as_blocks(encoder, bottleneck, decoder, image, step=0.1)
    (decoder(bottleneck(encoder(image)).latent_bchw) - image).square().mean().backward()
    second = encoder.layers[2]
    assert isinstance(second, torch.nn.Conv2d)
    assert second.weight.grad is not None
    assert float(second.weight[:, 12:].detach().abs().sum()) == 0.0
    assert float(second.weight.grad[:48, 12:].abs().sum()) > 0.0


@pytest.mark.parametrize("kind", ["factorized", "hyperprior"])
def test_another_step_changes_symbols_alone(kind: str) -> None:
    torch.manual_seed(0)
    encoder, bottleneck = PictureEncoder(CHANNELS, width=WIDTH), _bottleneck(kind)
    decoder, image = PictureDecoder(CHANNELS, width=WIDTH), _smooth(16, seed=0)
    begin_as_blocks(encoder, bottleneck, decoder, image, step=0.02)
    with torch.no_grad():
        latent = encoder(image)
        fine, bits = decoder(latent), bottleneck(latent, quantise="round").bits_b.mean()
        if isinstance(bottleneck, Hyperprior):
            second = bottleneck.analysis(latent)
            scale_and_mean = bottleneck.synthesis(second)
        widen_step(encoder, bottleneck, decoder, times=2.0)
        torch.testing.assert_close(encoder(image), latent / 2.0, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decoder(encoder(image)), fine, rtol=1e-4, atol=1e-4)
        fewer = bottleneck(encoder(image), quantise="round").bits_b.mean()
        if isinstance(bottleneck, Hyperprior):
            torch.testing.assert_close(bottleneck.analysis(encoder(image)), second, rtol=1e-4, atol=1e-4)
            told = bottleneck.synthesis(second)
            torch.testing.assert_close(told, scale_and_mean / 2.0, rtol=1e-4, atol=1e-5)
    assert fewer < bits
    if kind == "factorized":
        assert isinstance(bottleneck, Bottleneck)
        grid = torch.arange(-2000.0, 2001.0).expand(CHANNELS, -1)
        torch.testing.assert_close(bottleneck.prior.mass(grid).sum(1), torch.ones(CHANNELS), rtol=0, atol=1e-3)
