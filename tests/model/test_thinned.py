from __future__ import annotations

import pytest
import torch
from torch import nn

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.student import Student
from splitcodec.model.thinned import Thinned
from splitcodec.model.transforms import Decoder, Squeeze


def _encoder(*, linear: bool = True, share: tuple[int, int] = (2, 3)) -> Thinned:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1))
    return Thinned(stem, Squeeze(8, 5, widths=(7,), halvings=1, linear=linear), share=share, stride=4)


@pytest.mark.parametrize("size", [(64, 64), (24, 40), (8, 8), (8, 120)])
def test_the_latent_has_the_grid_of_the_whole_picture(size: tuple[int, int]) -> None:
    encoder = _encoder().eval()
    image = torch.randn(2, 3, *size)
    assert encoder.features(image).shape == (2, 8, size[0] // 4, size[1] // 4)
    assert encoder(image).shape == (2, 5, size[0] // 8, size[1] // 8)


def test_the_stem_sees_a_smaller_picture() -> None:
    encoder, sides = _encoder(share=(1, 2)), []
    encoder.stem.register_forward_hook(lambda _, given, __: sides.append(given[0].shape[2:]))
    encoder(torch.randn(1, 3, 32, 48))
    assert sides == [(16, 24)]


def test_it_begins_as_the_best_linear_guess_of_another_latent() -> None:
    encoder = _encoder()
    student = Student(encoder, Bottleneck(2, 5), Decoder(5, 8, width=8, blocks=1, up=2, up_width=8, up_blocks=1))
    image = torch.randn(16, 3, 64, 64)
    with torch.no_grad():
        features = encoder.features(image)
        other = nn.Conv2d(8, 5, 2, stride=2)(features) + 3.0
    lost = student.follow(image, other)
    assert lost == pytest.approx(0.0, abs=1e-3)
    with torch.no_grad():  # the squeeze's own layers are silent at first
        torch.testing.assert_close(student.eval().latent(image), other, rtol=0.0, atol=0.05)


def test_without_a_linear_path_there_is_nothing_to_set() -> None:
    student = Student(
        _encoder(linear=False), Bottleneck(2, 5), Decoder(5, 8, width=8, blocks=1, up=2, up_width=8, up_blocks=1)
    )
    assert student.follow(torch.randn(2, 3, 64, 64), torch.randn(2, 5, 8, 8)) is None
