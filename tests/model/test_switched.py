from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from splitcodec.model.film import seen_of
from splitcodec.model.switched import Switch, SwitchedDecoder
from splitcodec.model.transforms import Decoder
from splitcodec.training.graphs import folded


def _decoder(seed: int, *, up: int = 2, linear: bool = True, adapt: bool = True) -> Decoder:
    """Return a decoder of which every number counts."""
    torch.manual_seed(seed)
    made = Decoder(6, 10, width=12, blocks=2, up=up, up_width=8, up_blocks=1, linear=linear, adapt=adapt)
    for one in made.parameters():
        nn.init.normal_(one, std=0.3)
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    made.get_buffer("spread").fill_(1.5)
    made.get_buffer("mean").fill_(0.25)
    return made.eval()


def _set(made: SwitchedDecoder, logit: float) -> SwitchedDecoder:
    """Let the switch say the same of every picture."""
    nn.init.zeros_(made.switch.say.weight)
    assert made.switch.say.bias is not None
    nn.init.constant_(made.switch.say.bias, logit)
    return made


def _weights(decoder: Decoder) -> dict[str, Tensor]:
    return dict(folded(decoder).state_dict())


@pytest.mark.parametrize("up", [1, 2, 4])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("adapt", [False, True])
@torch.no_grad()
def test_it_is_the_one_decoder_or_the_other(up: int, linear: bool, adapt: bool) -> None:
    clean, other = (_decoder(seed, up=up, linear=linear, adapt=adapt) for seed in (1, 2))
    made = SwitchedDecoder(clean, _weights(clean), _weights(other), rank=1000)
    latent = torch.randn(2, 6, 3, 5)
    assert torch.allclose(_set(made, -1.0)(latent), clean(latent), rtol=1e-4, atol=1e-4)
    assert torch.allclose(_set(made, 5.0)(latent), other(latent), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(clean(latent), other(latent), atol=0.1)
    assert any(isinstance(one, nn.BatchNorm2d) for one in clean.modules())  # what it is made of stays as it was


@torch.no_grad()
def test_half_way_weights_are_the_mean_of_both() -> None:
    clean, other = _decoder(1, up=1, adapt=False), _decoder(1, up=1, adapt=False)
    nn.init.normal_(other.get_parameter("layers.3.weight"))
    made = _set(SwitchedDecoder(clean, _weights(clean), _weights(other)), 1.0)
    latent = torch.randn(2, 6, 3, 5)
    assert torch.allclose(made(latent), (clean(latent) + other(latent)) / 2, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_each_picture_is_switched_by_itself() -> None:
    clean, other = _decoder(1), _decoder(2)
    made = SwitchedDecoder(clean, _weights(clean), _weights(other), rank=1000)
    nn.init.zeros_(made.switch.look.weight)
    made.switch.look.weight[0, 0] = 1.0  # the mean size of the first channel
    for bias in (made.switch.look.bias, made.switch.say.bias):
        assert bias is not None
        nn.init.zeros_(bias)
    nn.init.zeros_(made.switch.say.weight)
    made.switch.say.weight[0, 0] = 10.0
    assert made.switch.say.bias is not None
    made.switch.say.bias -= 10.0
    latent = torch.randn(2, 6, 3, 3)
    latent[0, 0], latent[1, 0] = 0.5, -3.0
    assert made.switch(seen_of(latent)).flatten().tolist() == [0.0, 1.0]
    found = made(latent)
    assert torch.allclose(found[0], clean(latent)[0], rtol=1e-4, atol=1e-4)
    assert torch.allclose(found[1], other(latent)[1], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_differences_are_kept_to_their_rank() -> None:
    """Of 3 x 3 kernels the largest singular values; single places and biases are kept whole."""
    clean, other = _decoder(1, up=1), _decoder(1, up=1)
    thin = torch.randn(12, 2) @ torch.randn(2, 6 * 9)
    other.get_parameter("layers.0.0.weight").add_(thin.view(12, 6, 3, 3))
    nn.init.normal_(other.get_parameter("layers.0.1.bias"))
    made = _set(SwitchedDecoder(clean, _weights(clean), _weights(other), rank=2), 5.0)
    latent = torch.randn(2, 6, 3, 5)
    assert torch.allclose(made(latent), other(latent), rtol=1e-3, atol=1e-3)
    assert [tuple(one.shape) for one in made.beside["layers_0_0"].parameters()] == [
        (3, 6, 3, 3),
        (3,),
        (12, 3, 1, 1),
    ]
    less = _set(SwitchedDecoder(clean, _weights(clean), _weights(other), rank=1), 5.0)
    assert not torch.allclose(less(latent), other(latent), atol=1e-2)


def test_what_is_more_likely_clean_is_not_touched_at_all() -> None:
    switch = Switch(3)
    nn.init.zeros_(switch.say.weight)
    assert switch.say.bias is not None
    for logit, share in ((-9.0, 0.0), (0.0, 0.0), (1.0, 0.5), (2.0, 1.0), (9.0, 1.0)):
        nn.init.constant_(switch.say.bias, logit)
        assert switch(torch.randn(2, 6, 1, 1)).flatten().tolist() == [share, share]


def test_a_layer_that_is_not_there_is_named() -> None:
    clean, other = _decoder(1, adapt=False), _decoder(2)
    with pytest.raises(KeyError, match="film"):
        SwitchedDecoder(other, _weights(clean), _weights(other))
