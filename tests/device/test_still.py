"""Scenes that stand still: what counts as a change, and which capture a picture is held against."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from splitcodec.device.still import Still, Unchanged, change
from splitcodec.errors import SettingsError

GAIN = np.array([2.0, 0.5], np.float32)


def latent(*moved: float) -> NDArray[np.float32]:
    """Return a latent (2, 3, 4) of which the first places of channel 0 are moved."""
    made = np.ones((2, 3, 4), np.float32)
    made[0, 0, : len(moved)] += moved
    return made


def test_the_place_that_differs_most_counts() -> None:
    before, after = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 4), np.float32)
    assert change(before, after) == 0
    after += 0.1  # everywhere a little: less than a place where it is much
    assert change(before, after) == pytest.approx(0.1)
    after[:, 2, 3] = 3, 4
    assert change(before, after) == pytest.approx(math.sqrt(12.5))
    assert change(after, before) == pytest.approx(math.sqrt(12.5))
    assert change(before, np.zeros((2, 3, 5), np.float32)) == math.inf
    assert change(before[:, :0], before[:, :0]) == 0


def test_pictures_are_held_against_the_last_one_that_was_taken() -> None:
    still = Still(GAIN, least=1.0)
    still.look(latent())  # nothing has been taken yet
    still.look(latent())
    still.keep("a")
    with pytest.raises(Unchanged) as found:
        still.look(latent(0.5))
    assert (found.value.since, found.value.to_json()) == ("a", {"unchanged_since": "a", "change": 0.707})  # 2 * 0.5
    with pytest.raises(Unchanged):
        still.look(latent(0.7))  # against a, not against the one before
    still.look(latent(0.8))
    with pytest.raises(Unchanged):  # it was not taken: the spool was full
        still.look(latent(0.5))
    still.look(latent(0.8))
    still.keep("b")
    with pytest.raises(Unchanged, match="as b"):
        still.look(latent(1.3))
    still.look(latent(0.0))


def test_a_capture_without_an_answer_is_nothing_to_look_like() -> None:
    still = Still(GAIN, least=1.0)
    still.look(latent())
    still.keep("a")
    still.forget("other")
    with pytest.raises(Unchanged):
        still.look(latent())
    still.forget("a")
    still.look(latent())


def test_a_scene_that_stands_still_is_taken_once_in_a_while() -> None:
    now = [0.0]
    still = Still(GAIN, least=1.0, refresh_s=60, clock=lambda: now[0])
    still.look(latent())
    still.keep("a")
    now[0] = 59.9
    with pytest.raises(Unchanged):
        still.look(latent())
    now[0] = 60.0
    still.look(latent())
    still.keep("b")
    now[0] = 119.9
    with pytest.raises(Unchanged, match="as b"):
        still.look(latent())


def test_by_default_everything_is_taken() -> None:
    still = Still()
    for _ in range(2):
        still.look(latent())
        still.keep("a")
    Still().keep("a")  # nothing was looked at


@pytest.mark.parametrize("number", [-0.1, math.nan])
def test_numbers_that_mean_nothing_are_refused(number: float) -> None:
    with pytest.raises(SettingsError, match="least"):
        Still(GAIN, least=number)
    with pytest.raises(SettingsError, match="refresh_s"):
        Still(GAIN, least=1.0, refresh_s=number)
