"""Weights rounded by what a convolution sees."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

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


@pytest.mark.parametrize(("pads", "strides"), [((0, 0, 0, 0), (2, 1)), ((1, 0, 2, 3), (1, 1)), ((0, 1, 1, 2), (1, 3))])
def test_moments_are_of_all_crops_with_what_lies_around_them(
    pads: tuple[int, int, int, int], strides: tuple[int, int]
) -> None:
    window = Window(3, 2, strides, pads, 2)
    random, moments = np.random.default_rng(7), Moments(window, seed=0)
    crops = [random.normal(size=(4, *shape)).astype(np.float32) for shape in ((7, 9), (5, 4))]
    total: list[NDArray[np.float32]] = []
    for crop in crops:
        moments.add(crop[None])
        top, left, bottom, right = pads
        padded = np.pad(crop, [(0, 0), (top, bottom), (left, right)])
        places = product(range(0, padded.shape[1] - 2, strides[0]), range(0, padded.shape[2] - 1, strides[1]))
        total += [padded[:, y : y + 3, x : x + 2].reshape(2, 12) for y, x in places]
    wanted = np.einsum("ngk,ngl->gkl", total, total, dtype=np.float64) / len(total)
    np.testing.assert_allclose(moments.mean(), wanted, rtol=1e-6, atol=1e-9)


def test_of_a_large_crop_some_hundred_places_tell() -> None:
    window = Window(2, 2, (1, 1), (0, 0, 0, 0), 1)
    input_bchw = np.random.default_rng(8).normal(1, 1, size=(1, 3, 60, 60)).astype(np.float32)
    moments = Moments(window, seed=0)
    moments.add(input_bchw)
    true = np.eye(12) + 1  # of independent numbers whose mean and variance are 1
    assert np.linalg.norm(moments.mean()[0] - true) < 0.15 * np.linalg.norm(true)


def test_what_neighbours_share_and_what_is_seen_most_counts() -> None:
    """Errors go to weights that can make them good, whatever order the weights stand in."""
    random, count = np.random.default_rng(8), 18
    mix = random.normal(size=(count, count)) * np.geomspace(3, 0.05, count)
    seen = random.normal(size=(400, count)) @ mix.T * random.permutation(np.geomspace(4, 0.2, count))
    moment = (seen.T @ seen / 400)[None]
    weight = random.normal(size=(32, 2, 3, 3)).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 15).astype(np.float32)

    def change(whole: np.ndarray) -> float:
        off = (whole * scale[:, None, None, None] - weight).reshape(32, count)
        return float(np.einsum("ok,kl,ol->", off, moment[0], off))

    nearest = np.clip(np.round(weight / scale[:, None, None, None]), -15, 15)
    assert change(rounded(weight, scale, moment, most=15)) < 0.25 * change(nearest)


def test_each_group_is_rounded_by_what_itself_sees() -> None:
    random = np.random.default_rng(9)
    seen = random.normal(size=(2, 90, 18)) @ random.normal(size=(2, 18, 18))
    moment = seen.transpose(0, 2, 1) @ seen / 90
    weight = random.normal(size=(6, 2, 3, 3)).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 7).astype(np.float32)
    alone = [
        rounded(weight[part], scale[part], moment[k : k + 1], most=7) for k, part in enumerate((np.s_[:3], np.s_[3:]))
    ]
    assert np.array_equal(rounded(weight, scale, moment, most=7), np.concatenate(alone))
    taps = random.normal(size=(8, 1, 3, 3)).astype(np.float32)  # two of them to each of four groups
    seen = random.normal(size=(4, 90, 9)) @ random.normal(size=(4, 9, 9))
    moment = seen.transpose(0, 2, 1) @ seen / 90
    scale = (np.abs(taps).max(axis=(1, 2, 3)) / 31).astype(np.float32)
    whole = rounded_for_all(taps, scale, moment, most=31)
    halves = [rounded_for_all(taps[k : k + 4], scale[k : k + 4], moment[k // 2 : k // 2 + 2], most=31) for k in (0, 4)]
    assert np.array_equal(whole.weight_oikk, np.concatenate([half.weight_oikk for half in halves]))
    assert np.array_equal(whole.scale_o, np.concatenate([half.scale_o for half in halves]))


@pytest.mark.parametrize("seen", [True, False])
def test_no_integer_is_larger_than_was_asked_for(*, seen: bool) -> None:
    """Beyond 127 it would become -128."""
    random = np.random.default_rng(10)
    weight = random.normal(size=(16, 8, 1, 1)).astype(np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 200).astype(np.float32)  # finer than 8 bits reach
    crop = random.normal(size=(900, 8))
    moment = (crop.T @ crop / 900)[None] if seen else None
    for most in (127, 63):
        found, step = rounded_for_all(weight, scale, moment, most=most)
        assert np.abs(found.astype(int)).max() == most
        beyond = np.abs(weight) > most * step[:, None, None, None]
        assert (np.sign(found) == np.sign(weight))[beyond].all()


def test_weights_of_large_convolutions_go_to_the_nearest_integer() -> None:
    weight = np.array([[0.1, 0.26, -0.49, 0.74], [0, 0, 0, 0]], np.float32)[:, :, None, None]
    found, step = rounded_for_all(weight, np.array([0.1, 0.0], np.float32), None, most=127)
    assert found[:, :, 0, 0].tolist() == [[1, 3, -5, 7], [0, 0, 0, 0]]
    assert step[0] == np.float32(0.1)


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
    odd = np.array([[1, 100, 100], [100, 100, 1]], np.int8)  # the last has no neighbour
    assert fits_16_bits(odd[:, :, None, None]).tolist() == [True, False]
    assert PAIR * 255 < 1 << 15


def test_neighbours_of_an_odd_number_of_channels_are_any_two_of_places_as_of_channels() -> None:
    beside, deeper, apart = np.zeros((3, 1, 3, 2, 2), np.int8)
    beside[0, 1, 0] = 100  # one channel at two places of a row
    deeper[0, 1:, 0, 0] = 100  # two channels at one place
    apart[0, 0, 0, 0] = apart[0, 2, 1, 1] = 100
    weight = np.concatenate([beside, deeper, apart])
    assert fits_16_bits(weight).tolist() == [False, False, True]
    assert fits_16_bits(np.pad(weight, [(0, 0), (0, 1), (0, 0), (0, 0)])).tolist() == [True, True, True]


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
