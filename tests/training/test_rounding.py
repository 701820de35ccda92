"""Weights rounded by what a convolution sees."""

from __future__ import annotations

import numpy as np
import pytest

from splitcodec.training.rounding import PAIR, Moments, Window, fits_16_bits, rounded, rounded_for_all

WINDOWS = {
    "pointwise": (Window(1, 1, (1, 1), (0, 0, 0, 0), 1), (6, 12, 1, 1)),
    "depthwise": (Window(3, 3, (1, 1), (1, 1, 1, 1), 16), (16, 1, 3, 3)),
    "strided": (Window(3, 2, (2, 1), (0, 0, 1, 1), 1), (5, 4, 3, 2)),
    "grouped": (Window(3, 3, (2, 2), (1, 1, 1, 1), 2), (6, 2, 3, 3)),
    "colours": (Window(3, 3, (2, 2), (0, 0, 1, 1), 1), (8, 3, 3, 3)),
}


def conv(input_chw: np.ndarray, weight: np.ndarray, window: Window) -> np.ndarray:
    """Return a convolution, place by place."""
    top, left, bottom, right = window.pads
    padded = np.pad(input_chw, [(0, 0), (top, bottom), (left, right)])
    down, across = window.strides
    rows = (padded.shape[1] - window.rows) // down + 1
    cols = (padded.shape[2] - window.cols) // across + 1
    out = np.zeros((len(weight), rows, cols))
    below, above = weight.shape[1], len(weight) // window.group
    for o in range(len(weight)):
        first = (o // above) * below
        for y in range(rows):
            for x in range(cols):
                part = padded[first : first + below, y * down : y * down + window.rows]
                out[o, y, x] = (part[:, :, x * across : x * across + window.cols] * weight[o]).sum()
    return out


@pytest.mark.parametrize("name", WINDOWS)
def test_what_comes_out_changes_less_than_with_weights_rounded_one_by_one(name: str) -> None:
    window, shape = WINDOWS[name]
    random, channels = np.random.default_rng(3), shape[1] * window.group
    bright = (
        random.uniform(2, 3, (channels, 1, 1)) + random.normal(size=(channels, 31, 30)) / 3
    )  # brightness, and a little beside
    weight = random.normal(size=shape).astype(np.float32)
    scale = np.abs(weight).max(axis=(1, 2, 3)) / 15
    moments = Moments(window, seed=0)
    moments.add(bright[None].astype(np.float32))
    found = rounded(weight, scale.astype(np.float32), moments.mean(), most=15)
    nearest = np.clip(np.round(weight / scale[:, None, None, None]), -15, 15)
    assert found.dtype == np.int8
    assert np.abs(found).max() <= 15
    wanted = conv(bright, weight, window)
    off, off_nearest = (
        np.square(conv(bright, whole * scale[:, None, None, None], window) - wanted).mean()
        for whole in (found, nearest)
    )
    assert off < 0.5 * off_nearest


def test_moments_are_those_of_what_a_place_sees() -> None:
    window = Window(2, 1, (1, 1), (0, 0, 0, 0), 1)
    input_chw = np.arange(12.0).reshape(2, 3, 2)
    moments = Moments(window, seed=0)
    moments.add(input_chw[None].astype(np.float32))
    seen = np.array([input_chw[:, y : y + 2, x].ravel() for y in range(2) for x in range(2)])
    assert np.allclose(moments.mean(), seen.T @ seen / 4)


def test_channels_that_are_always_nothing_do_no_harm() -> None:
    moments = Moments(WINDOWS["depthwise"][0], seed=0)
    moments.add(np.zeros((1, 16, 5, 5), np.float32))
    weight = np.zeros((16, 1, 3, 3), np.float32)
    assert not rounded(weight, np.zeros(16, np.float32), moments.mean(), most=127).any()


def _saturates(weight: np.ndarray) -> bool:
    """Say whether bytes of 255 saturate a kernel that adds products by twos, channels last; of 3, from any on."""
    flat = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1).astype(int)
    step = 1 if weight.shape[1] == 3 else 2
    return any(np.abs(255 * (flat[:, k] + flat[:, k + 1])).max() > 32767 for k in range(0, flat.shape[1] - 1, step))


@pytest.mark.parametrize("name", ["pointwise", "strided", "grouped", "colours", "large"])
def test_no_two_neighbouring_weights_saturate_16_bits(name: str) -> None:
    window, shape = WINDOWS.get(name, (Window(3, 3, (1, 1), (1, 1, 1, 1), 1), (4, 120, 3, 3)))
    random = np.random.default_rng(4)
    weight = random.normal(size=shape).astype(np.float32)
    weight[0, :2] = np.abs(weight).max()  # two neighbours as large as can be
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    moments = Moments(window, seed=0)
    moments.add(random.normal(size=(1, shape[1] * window.group, 12, 12)).astype(np.float32))
    moment = None if name == "large" else moments.mean()
    found, step = rounded_for_all(weight, scale, moment, most=127)
    assert fits_16_bits(found).all()
    assert not _saturates(found)
    assert not fits_16_bits(np.round(weight / scale[:, None, None, None]).astype(np.int8)).all()
    assert ((step >= scale) & (step <= 2.1 * scale)).all()  # never coarser than with 7 bits, a step of 3 % more aside
    assert step.mean() < 1.8 * scale.mean()
    off = found * step[:, None, None, None] - weight
    assert np.abs(off).max() < 3 * step.max()


def test_neighbours_of_a_pointwise_convolution_are_channels_two_by_two() -> None:
    weight = np.array([[100, 28, 1, 100], [100, 29, 1, 1], [100, -28, -100, 29], [1, 100, 100, 1]], np.int8)
    assert fits_16_bits(weight[:, :, None, None]).tolist() == [True, False, True, True]
    assert fits_16_bits(weight.reshape(4, 2, 1, 2).transpose(0, 3, 2, 1)).tolist() == [True, False, True, True]
    assert fits_16_bits(weight[:, None, None, :]).tolist() == [True, False, True, False]  # taps of one: any two
    assert PAIR * 255 < 1 << 15


def test_depthwise_weights_keep_8_bits_in_the_step_that_changes_least() -> None:
    window, shape = WINDOWS["depthwise"]
    random = np.random.default_rng(5)
    moments = Moments(window, seed=0)
    moments.add(random.normal(2, 1, size=(1, 16, 19, 19)).astype(np.float32))
    whole = np.ones(shape, np.float32)
    found, step = rounded_for_all(whole, np.full(16, 1 / 127, np.float32), moments.mean(), most=127)
    assert (found == 127).all()
    assert step == pytest.approx(1 / 127)
    weight = random.normal(size=shape).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    found, step = rounded_for_all(weight, scale, moments.mean(), most=127)
    assert ((step >= scale) & (step < 1.51 * scale)).all()

    def change(whole: np.ndarray, step: np.ndarray) -> float:
        off = (whole * step[:, None, None, None] - weight).reshape(16, -1)
        return float(np.einsum("ok,okl,ol->", off, moments.mean(), off))

    assert change(found, step) < 0.7 * change(rounded(weight, scale, moments.mean(), most=127), scale)


def test_no_channel_changes_more_than_with_weights_rounded_one_by_one() -> None:
    """Where few integers are left to take the others' errors, passing them on does harm."""
    random = np.random.default_rng(6)
    seen = random.normal(size=(200, 8)) + 3 * random.normal(size=(200, 1))
    moment = (seen.T @ seen / 200)[None]
    weight = random.normal(size=(64, 8, 1, 1)).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 2.2).astype(np.float32)
    nearest = np.clip(np.round(weight / scale[:, None, None, None]), -2, 2)

    def change(whole: np.ndarray) -> np.ndarray:
        off = (whole * scale[:, None, None, None] - weight).reshape(64, 8)
        return np.asarray(np.einsum("ok,kl,ol->o", off, moment[0], off))

    found = change(rounded(weight, scale, moment, most=2))
    assert (found <= 1.05 * change(nearest) + 1e-9).all()
    assert found.sum() < 0.7 * change(nearest).sum()
