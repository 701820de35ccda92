"""Which way a convolution's weights are rounded to 8 bits: so that what comes out changes least, not each weight.

Edge filters have large weights whose sum is near nothing; rounded one by one they answer to plain brightness, and in a
depthwise convolution nothing averages that out. Each weight's error is therefore passed on to those not rounded yet, by
the second moments of what the convolution sees (Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ", ICLR 2023, which rounds
in the same way; Nagel et al., "Up or down? Adaptive rounding for post-training quantization", ICML 2020, tell why).

x86 without VNNI adds two products of a byte and a weight in 16 bits, which saturate. Neighbouring weights of a channel
that together would go beyond take wider steps: half a bit less in the worst channels, where 7-bit weights give up one.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LARGEST: Final = 1024
"""Weights of an output channel from which on a convolution is left as it is."""
PAIR: Final = 128
"""What two neighbouring weights may add up to: 255 times as much fits into 16 bits."""
_WIDER: Final = 1.03
_STEPS: Final = 26
_PLACES: Final = 512  # of a crop's output that count
_DAMP: Final = 0.01  # of the mean second moment


class Window(NamedTuple):
    """What of a convolution's input an output place sees."""

    rows: int
    cols: int
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    group: int


@final
class Moments:
    """Second moments of what a convolution's output places see: (groups, K, K) with K = channels of a group x taps."""

    def __init__(self, window: Window, *, seed: int) -> None:
        self._window = window
        self._random = np.random.default_rng(seed)
        self._sum: NDArray[np.float64] = np.zeros(())
        self._count = 0

    def add(self, input_bchw: Floats) -> None:
        """Take some places of one crop's input (1, C, H, W) into account."""
        rows, cols, (down, right), pads, group = self._window
        top, left, bottom, end = pads
        padded = np.pad(input_bchw[0], [(0, 0), (top, bottom), (left, end)])
        seen = np.lib.stride_tricks.sliding_window_view(padded, (rows, cols), axis=(1, 2))[:, ::down, ::right]
        count = seen.shape[1] * seen.shape[2]
        places = self._random.choice(count, size=min(count, _PLACES), replace=False)
        picked = seen[:, places // seen.shape[2], places % seen.shape[2]]  # (C, places, rows, cols)
        flat = picked.reshape(group, -1, len(places), rows * cols).transpose(0, 1, 3, 2)
        flat_gkn = flat.reshape(group, -1, len(places)).astype(np.float64)
        self._sum = self._sum + flat_gkn @ flat_gkn.transpose(0, 2, 1)
        self._count += len(places)

    def mean(self) -> NDArray[np.float64]:
        """Return the moments; there must have been a crop."""
        return self._sum / self._count


class Rounded(NamedTuple):
    """A convolution's weight as integers (O, I, rows, cols), and the step of each output channel."""

    weight_oikk: NDArray[np.int8]
    scale_o: Floats


def rounded_for_all(
    weight_oikk: Floats, scale_o: Floats, moment_gkk: NDArray[np.float64] | None, *, most: int
) -> Rounded:
    """Return the weight as `rounded` does, in steps that are wider where products would saturate.

    Without `moment_gkk` each weight goes to the nearest integer.
    """
    scale_o = np.maximum(scale_o, 1e-12, dtype=np.float32)
    if moment_gkk is not None and len(moment_gkk) > 1 and weight_oikk.shape[1] == 1:
        return _depthwise(weight_oikk, scale_o, moment_gkk, most=most)
    while True:
        if moment_gkk is None:
            found = np.clip(np.round(weight_oikk / scale_o[:, None, None, None]), -most, most).astype(np.int8)
        else:
            found = rounded(weight_oikk, scale_o, moment_gkk, most=most)
        too_large_o = ~fits_16_bits(found)
        if not too_large_o.any():
            return Rounded(found, scale_o)
        scale_o[too_large_o] *= np.float32(_WIDER)


def _depthwise(weight_oikk: Floats, scale_o: Floats, moment_gkk: NDArray[np.float64], *, most: int) -> Rounded:
    """Return each channel in the step, of some that are up to half wider, that changes what comes out least.

    Few taps meet the integers of one step far better than those of another. Kernels add these in 32 bits.
    """
    out = len(weight_oikk)
    moment_okk = np.repeat(moment_gkk, out // len(moment_gkk), axis=0)
    best, least_o = Rounded(np.zeros(weight_oikk.shape, np.int8), scale_o.copy()), np.full(out, np.inf)
    for wider in np.linspace(1.0, 1.5, _STEPS, dtype=np.float32):
        step_o = scale_o * wider
        found = rounded(weight_oikk, step_o, moment_gkk, most=most)
        off_ok = (found * step_o[:, None, None, None] - weight_oikk).reshape(out, -1)
        change_o = np.einsum("ok,okl,ol->o", off_ok, moment_okk, off_ok)
        better_o = change_o < least_o
        best.weight_oikk[better_o], best.scale_o[better_o] = found[better_o], step_o[better_o]
        least_o[better_o] = change_o[better_o]
    return best


def fits_16_bits(weight_oikk: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Say of each output channel whether products with bytes may be added by twos: (O,).

    Kernels add a place's input channels two by two. Where their number is odd, pairs go on from place to place; such a
    convolution may also be laid out anew (`int8_pixels.py`), so any two neighbours count, of places as of channels.
    """
    out, below = weight_oikk.shape[:2]
    channels_last = weight_oikk.transpose(0, 2, 3, 1).reshape(out, -1).astype(np.int16)
    pairs = [channels_last[:, :-1] + channels_last[:, 1:]]
    if below % 2 == 0 or weight_oikk.shape[2:] == (1, 1):
        pairs = [pairs[0][:, ::2]]
    else:
        places_last = weight_oikk.reshape(out, -1).astype(np.int16)
        pairs.append(places_last[:, :-1] + places_last[:, 1:])
    largest_o: NDArray[np.int16] = np.max([np.abs(one).max(axis=1, initial=0) for one in pairs], axis=0)
    return largest_o <= PAIR


def rounded(weight_oikk: Floats, scale_o: Floats, moment_gkk: NDArray[np.float64], *, most: int) -> NDArray[np.int8]:
    """Return the weight as integers from -most to most, each output channel `o` in steps of `scale_o[o]`.

    `moment_gkk` is what `Moments` found; output channels are dealt out to its groups in order.
    """
    out, groups = len(weight_oikk), len(moment_gkk)
    flat_ok = weight_oikk.reshape(out, -1)
    found = np.empty(flat_ok.shape, np.int8)
    for group, places in enumerate(np.split(np.arange(out), groups)):
        found[places] = _group(flat_ok[places], scale_o[places], moment_gkk[group], most=most)
    return found.reshape(weight_oikk.shape)


def _group(weight_ok: Floats, scale_o: Floats, moment_kk: NDArray[np.float64], *, most: int) -> NDArray[np.int8]:
    """Return a group's integers: passed on or rounded one by one, whichever changes an output channel less."""
    step_o1 = np.maximum(scale_o.astype(np.float64), 1e-12)[:, None]
    damped_kk = moment_kk + (_DAMP * np.trace(moment_kk) / len(moment_kk) + 1e-9) * np.eye(len(moment_kk))
    # the largest come first: what is left at the end has room to take the others' errors
    order_k = np.argsort(-np.abs(weight_ok).max(axis=0), kind="stable")
    passed_ok = np.empty(weight_ok.shape)
    passed_ok[:, order_k] = _passed_on(weight_ok[:, order_k], step_o1, damped_kk[np.ix_(order_k, order_k)], most=most)
    nearest_ok = np.clip(np.round(weight_ok / step_o1), -most, most)
    change_o, nearest_change_o = (
        np.einsum("ok,kl,ol->o", off_ok, damped_kk, off_ok)
        for off_ok in (passed_ok * step_o1 - weight_ok, nearest_ok * step_o1 - weight_ok)
    )
    return np.where((change_o < nearest_change_o)[:, None], passed_ok, nearest_ok).astype(np.int8)


def _passed_on(
    weight_ok: Floats, step_o1: NDArray[np.float64], moment_kk: NDArray[np.float64], *, most: int
) -> NDArray[np.float64]:
    left_ok = weight_ok.astype(np.float64)
    upper_kk = np.linalg.cholesky(np.linalg.inv(moment_kk)).T
    found = np.empty(weight_ok.shape)
    for k in range(weight_ok.shape[1]):
        found[:, k : k + 1] = np.clip(np.round(left_ok[:, k : k + 1] / step_o1), -most, most)
        error_o1 = (left_ok[:, k : k + 1] - found[:, k : k + 1] * step_o1) / upper_kk[k, k]
        left_ok[:, k + 1 :] -= error_o1 * upper_kk[k, k + 1 :]
    return found
