"""Enlarging class logits in NumPy."""

from __future__ import annotations

import numpy as np

from splitcodec.edge.mask import BAND, label_map, weights


def test_weights_are_linear_and_keep_sums() -> None:
    got = weights(2, 4)
    np.testing.assert_allclose(got, np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))
    np.testing.assert_allclose(weights(5, 33).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights(1, 3), np.ones((3, 1)))


def test_bands_do_not_show() -> None:
    random = np.random.default_rng(2)
    logits = random.normal(size=(4, 20, 7)).astype(np.float32)
    size = (20 * 8, 7 * 8)
    assert size[0] > BAND
    whole = np.einsum("rh,khw,cw->krc", weights(20, size[0]), logits, weights(7, size[1]))
    np.testing.assert_array_equal(label_map(logits, size=size), whole.argmax(axis=0))
