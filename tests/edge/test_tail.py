from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from splitcodec.edge.tail import Tail, softmax
from splitcodec.errors import GraphError, SettingsError, TaskError
from splitcodec.wire.bundle import Bundle

FEATURES = np.random.default_rng(5).normal(size=(3, 8, 8, 8)).astype(np.float32)


def test_guesses_are_labelled_and_sorted(tiny: Bundle) -> None:
    guesses = Tail(tiny, "classify", threads=1).classify(FEATURES, top=4)
    assert [len(one) for one in guesses] == [4, 4, 4]
    for one in guesses:
        assert [guess["label"] for guess in one] == [f"c{guess['index']}" for guess in one]
        assert [guess["p"] for guess in one] == sorted((guess["p"] for guess in one), reverse=True)


def test_all_classes_if_there_are_fewer_than_asked_for(tiny: Bundle) -> None:
    tail = Tail(tiny, "classify", threads=1)
    guesses = tail.classify(FEATURES[:1], top=1000)[0]
    assert sorted(guess["index"] for guess in guesses) == list(range(10))
    assert sum(guess["p"] for guess in guesses) == pytest.approx(1)
    assert guesses[0]["index"] == int(tail.logits(FEATURES[:1]).argmax())


def test_top_below_one_is_refused(tiny: Bundle) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        Tail(tiny, "classify", threads=1).classify(FEATURES, top=0)


def test_unknown_tasks_are_refused(tiny: Bundle) -> None:
    with pytest.raises(TaskError, match=r"'detect'; tiny@1 has classify"):
        Tail(tiny, "detect")


def test_other_features_are_refused(tiny: Bundle) -> None:
    tail = Tail(tiny, "classify", threads=1)
    with pytest.raises(GraphError):
        tail.logits(FEATURES[:, :7])
    with pytest.raises(GraphError, match="finite"):
        tail.logits(np.full_like(FEATURES, np.nan))


@given(arrays(np.float32, (2, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_softmax_is_a_distribution(logits: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    p = softmax(logits)
    assert np.isfinite(p).all()
    assert (p >= 0).all()
    assert (p <= 1).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)
