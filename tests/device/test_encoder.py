from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitcodec.device.encoder import Encoder
from splitcodec.errors import GraphError
from splitcodec.wire.bundle import Bundle


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 16), (32, 80)])
def test_latent_has_one_value_per_channel_and_stride(tiny: Bundle, height: int, width: int) -> None:
    image = np.zeros((1, height, width, 3), np.uint8)
    latent = Encoder(tiny, threads=1).latent_chw(image)
    assert latent.shape == (4, height // 16, width // 16)
    assert latent.dtype == np.float32


def test_a_batch_equals_its_pictures_one_by_one(tiny: Bundle) -> None:
    images = np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    encoder = Encoder(tiny, threads=1)
    latents = encoder.latents_bchw(images)
    for n in range(3):
        np.testing.assert_allclose(encoder.latent_chw(images[n : n + 1]), latents[n], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 65, 3), np.uint8),
        np.zeros((1, 0, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 3), np.uint8),
    ],
)
def test_other_images_are_refused(tiny: Bundle, image: NDArray[Any]) -> None:
    with pytest.raises(GraphError, match="expected"):
        Encoder(tiny, threads=1).latent_chw(image)


@pytest.mark.parametrize(
    ("rows", "cols", "fits"),
    [(0, 0, True), (1, 1, True), (-1, -1, True), (1, 0, False), (0, -1, False), (2, 2, False), (-2, -2, False)],
)
def test_a_latent_may_gain_or_lose_one_row_and_column(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, rows: int, cols: int, fits: bool
) -> None:
    encoder = Encoder(tiny, threads=1)
    latent = np.zeros((1, 4, 4 + rows, 3 + cols), np.float32)

    class Odd:
        name = "odd"

        def __call__(self, _: NDArray[Any]) -> NDArray[np.float32]:
            return latent

    monkeypatch.setattr(encoder, "_graph", Odd())
    image = np.zeros((1, 64, 48, 3), np.uint8)
    if fits:
        assert encoder.latent_chw(image).shape == latent.shape[1:]
    else:
        with pytest.raises(GraphError, match="the bundle is wrong"):
            encoder.latent_chw(image)
