"""What the student sees in place of a clean picture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from splitcodec.training import disturb
from splitcodec.training.disturb import BRIGHTER, DARKER, LEAST_CONTRAST, MOST_BLUR, MOST_NOISE, disturbed


def _pictures(count: int) -> Tensor:
    """Return pictures, uint8 (count, 3, 32, 32), that rise from left to right, lighter in red."""
    across = torch.linspace(60, 180, 32).expand(count, 3, 32, 32).clone()
    across[:, 0] += 40
    return across.to(torch.uint8)


def test_a_share_is_disturbed_and_the_rest_is_left_alone() -> None:
    torch.manual_seed(5)
    image_u8 = _pictures(600)
    before = image_u8.clone()
    seen_u8 = disturbed(image_u8, 0.4)
    assert (seen_u8.dtype, seen_u8.shape) == (torch.uint8, image_u8.shape)
    assert torch.equal(image_u8, before)  # the teacher's
    changed = (seen_u8 != image_u8).flatten(1).any(1).float().mean()
    assert 0.34 < changed < 0.46
    assert torch.equal(disturbed(image_u8, 0.0), image_u8)


def test_two_in_five_are_noisy_and_each_has_a_strength_of_its_own() -> None:
    torch.manual_seed(7)
    seen = disturbed(_pictures(600), 1.0).float() / 255
    rough_b = (seen[:, :, 1:] - seen[:, :, :-1]).flatten(1).std(1)  # rows are alike in a picture without noise
    noisy = rough_b > 0
    assert 0.34 < noisy.float().mean() < 0.46
    sigma_b = rough_b[noisy] / 2**0.5
    assert sigma_b.max() == pytest.approx(MOST_NOISE, rel=0.2)
    assert sigma_b.mean() == pytest.approx(MOST_NOISE / 2, rel=0.2)
    flat_b = seen[~noisy, 1, 0, -1] - seen[~noisy, 1, 0, 0]
    assert flat_b.min() < 0.2 * 120 / 255  # contrast all but lost in some


def test_noise_follows_the_light_in_part() -> None:
    torch.manual_seed(11)
    unit_chw = torch.stack([torch.full((64, 64), level) for level in (0.1, 0.5, 0.9)])
    quotients = [
        float(noise[2].std() / noise[0].std())
        for noise in (disturb._noisy(unit_chw, 1.0) - unit_chw for _ in range(60))
    ]
    assert min(quotients) < 1.1  # a sensor's
    assert max(quotients) > 2.2  # of photons: the square root of 9 at most
    assert max(quotients) < 3.3
    grey_chw = torch.full((3, 64, 64), 0.5)  # where both kinds are alike strong
    for _ in range(8):
        assert float((disturb._noisy(grey_chw, 1.0) - grey_chw).std()) == pytest.approx(MOST_NOISE, rel=0.05)


def test_what_is_too_bright_is_white_and_not_black() -> None:
    torch.manual_seed(13)
    seen_u8 = disturbed(torch.full((200, 3, 16, 16), 252, dtype=torch.uint8), 1.0)
    assert float((seen_u8 == 255).float().mean()) > 0.1
    assert float((seen_u8 < 20).float().mean()) < 0.001  # 2 ** 8 and more would be dark


def test_blur_keeps_the_light_and_what_is_even() -> None:
    point = torch.zeros(1, 65, 65)
    point[0, 32, 32] = 1.0
    spread = disturb._blurred(point, 1.0)
    assert spread.shape == point.shape
    assert float(spread.sum()) == pytest.approx(1.0, abs=1e-5)
    places = torch.arange(65) - 32.0
    for axis in (1, 2):
        assert float((spread[0].sum(axis - 1) * places**2).sum()) ** 0.5 == pytest.approx(MOST_BLUR, rel=0.05)
    even = torch.full((3, 9, 40), 0.3)
    assert torch.allclose(disturb._blurred(even, 1.0), even, atol=1e-6)  # smaller than the blur reaches
    assert torch.allclose(disturb._blurred(point, 0.0), point, atol=1e-6)


def test_contrast_is_lost_about_the_mean_of_each_colour() -> None:
    unit_chw = _pictures(1)[0] / 255
    flat = disturb._flat(unit_chw, 1.0)
    assert torch.allclose(flat.mean((1, 2)), unit_chw.mean((1, 2)), atol=1e-6)
    assert torch.allclose(flat.std((1, 2)), LEAST_CONTRAST * unit_chw.std((1, 2)), atol=1e-6)
    assert torch.allclose(disturb._flat(unit_chw, 0.0), unit_chw, atol=1e-6)


def test_light_changes_the_value_and_keeps_the_hue() -> None:
    unit_chw = torch.tensor([0.4, 0.2, 0.1]).view(3, 1, 1).expand(3, 4, 4)
    light = disturb._lit(unit_chw, 1.0)[:, 0, 0]
    assert light.tolist() == pytest.approx([0.4 + BRIGHTER, 0.45, 0.225])
    assert disturb._lit(unit_chw + 0.2, 0.0)[:, 0, 0].tolist() == pytest.approx(
        [0.6 + DARKER, 0.4 * 0.2 / 0.6, 0.3 * 0.2 / 0.6]
    )
    assert disturb._lit(2 * unit_chw, 1.0)[:, 0, 0].tolist() == pytest.approx([1.0, 0.5, 0.25])  # no lighter than white
    assert disturb._lit(torch.zeros(3, 4, 4), 1.0).abs().max() == 0  # no hue to lighten
    assert disturb._lit(unit_chw, 0.0).abs().max() == pytest.approx(0.0)


@pytest.mark.parametrize("way", [disturb._noisy, disturb._blurred, disturb._flat, disturb._lit])
def test_a_gpu_disturbs_where_the_picture_lies(way: Callable[[Tensor, float], Tensor]) -> None:
    with FakeTensorMode():  # devices as on a GPU, and no memory
        assert way(torch.zeros(3, 40, 40, device="cuda"), 0.5).device.type == "cuda"
