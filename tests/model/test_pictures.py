from __future__ import annotations

import torch

from splitcodec.model.pictures import STRIDE, EightBitColours, PictureDecoder, PictureEncoder


def test_latents_are_a_sixteenth_and_pictures_come_back_in_size() -> None:
    image = torch.randn(2, 3, 64, 96)
    latent = PictureEncoder(7, width=5)(image)
    assert latent.shape == (2, 7, 64 // STRIDE, 96 // STRIDE)
    assert PictureDecoder(7, width=5)(latent).shape == image.shape


def test_parameters_are_those_of_the_published_transforms() -> None:
    """CompressAI's bmshj2018-factorized at qualities 1 to 5: g_a and g_s, N = 128, M = 192."""

    def count(module: torch.nn.Module) -> int:
        return sum(one.numel() for one in module.parameters())

    gdn = 128 * 128 + 128
    assert count(PictureEncoder(192, width=128)) == (
        (75 * 128 + 128) + 2 * (25 * 128 * 128 + 128) + (25 * 128 * 192 + 192) + 3 * gdn
    )
    assert count(PictureDecoder(192, width=128)) == (
        (25 * 192 * 128 + 128) + 2 * (25 * 128 * 128 + 128) + (75 * 128 + 3) + 3 * gdn
    )


def test_colours_become_those_of_8_bits() -> None:
    step, offset = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 0.0, -1.0])
    image = torch.tensor([1.2, 3.6, 1000.0]).view(1, 3, 1, 1)
    found = EightBitColours(step, offset)(image).flatten().tolist()
    assert found == [1.0, 4.0, 2.0 * 255 - 1]
