from __future__ import annotations

import torch

from splitcodec.model.film import Film
from splitcodec.model.transforms import Decoder


def _decoder(*, linear: bool = True, adapt: bool = True) -> Decoder:
    return Decoder(6, 10, width=12, blocks=2, up=1, up_width=8, up_blocks=0, linear=linear, adapt=adapt)


def test_it_begins_as_nothing() -> None:
    film = Film(6, [12, 12])
    for factor, shift in film(torch.randn(2, 6, 4, 5)):
        assert factor.shape == shift.shape == (2, 12, 1, 1)
        assert torch.equal(factor, torch.ones_like(factor))
        assert not shift.any()


def test_an_adapting_decoder_begins_as_one_that_does_not() -> None:
    adapts = _decoder().eval()
    torch.nn.init.normal_(next(adapts.layers[-1].parameters()))  # else nothing of the layers would be seen
    plain = _decoder(adapt=False).eval()
    plain.load_state_dict({name: value for name, value in adapts.state_dict().items() if "film" not in name})
    latent = torch.randn(2, 6, 4, 4)
    assert torch.equal(adapts(latent), plain(latent))


def test_it_sees_zeros_and_sizes_but_no_places() -> None:
    film = Film(6, [12])
    torch.nn.init.normal_(next(film.factors[0].parameters()))
    latent = torch.randn(1, 6, 4, 4).round()

    def told(latent_bchw: torch.Tensor) -> torch.Tensor:
        factor: torch.Tensor = film(latent_bchw)[0][0]
        return factor

    assert torch.allclose(told(latent), told(-latent.flip(2, 3)), atol=1e-5)
    assert torch.allclose(told(latent), told(torch.cat((latent, latent), dim=3)), atol=1e-5)  # any size of picture
    assert not torch.allclose(told(latent), told(latent / 2), atol=1e-3)
    spread = latent.abs().mean(dim=(2, 3), keepdim=True).expand_as(latent)  # the same sizes, no zeros
    assert not torch.allclose(told(latent), told(spread), atol=1e-3)


def test_all_of_it_learns() -> None:
    decoder = _decoder(linear=False)
    torch.nn.init.normal_(next(decoder.layers[-1].parameters()))
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.01)
    for _ in range(2):  # what looks learns once what it looks for is not zero
        optimizer.zero_grad()
        decoder(torch.randn(4, 6, 4, 4)).square().mean().backward()
        optimizer.step()
    film = decoder.film
    assert film is not None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in film.parameters())


def test_what_it_sees_is_the_mean_size_and_the_share_that_is_not_nought() -> None:
    """Whatever the gain: symbols of 1 and of 7, divided by 1000, count alike in the share."""
    film = Film(2, [4])
    torch.nn.init.eye_(film.look.weight[:4, :, 0, 0])
    torch.nn.init.zeros_(film.look.bias)  # type: ignore[arg-type]  # it has a bias
    torch.nn.init.eye_(film.factors[0].weight[:, :4, 0, 0])  # type: ignore[index]  # of a convolution
    torch.nn.init.eye_(film.shifts[0].weight[:, :4, 0, 0])  # type: ignore[index]
    symbols = torch.tensor([[[7.0, 0.0], [-1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])[None]
    for gain in (1.0, 1000.0):
        ((factor, shift),) = film(symbols / gain)
        wanted = torch.tensor([2.0 / gain, 0.25 / gain, 0.5, 0.25])  # sizes of both channels, then shares
        torch.testing.assert_close(shift.flatten(), wanted)
        torch.testing.assert_close(factor.flatten(), 1 + wanted)
