from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from splitcodec.errors import RunError
from splitcodec.training.pace import ENDLESS, Pace
from splitcodec.training.run import State
from splitcodec.training.stages import DistillStage


def _stage(**length: Any) -> DistillStage:
    return DistillStage(batch=8, learning_rate=1e-3, **length)


def _due(pace: Pace, states: list[State]) -> list[int]:
    found, before = [], 0.0
    for state in states:
        if pace.due(before, state):
            found.append(state.step)
        before = pace.done(state)
    return found


def test_a_stage_of_pictures_is_measured_at_its_beginning_middle_and_end() -> None:
    long, short = Pace(_stage(images=160 * 8), devices=1), Pace(_stage(images=3 * 8), devices=1)
    assert _due(long, [State(step=step) for step in range(161)]) == list(range(0, 161, 10))
    assert _due(short, [State(step=step) for step in range(4)]) == [0, 1, 2, 3]
    assert Pace(_stage(images=7150 * 8), devices=1).due(0.0, State(step=7150 // 2))


def test_a_stage_of_pictures_ends_with_the_last() -> None:
    pace = Pace(_stage(images=100), devices=2)
    assert (pace.images_each, pace.last_step(State())) == (16, 6)
    assert pace.done(State(step=3, stage_seconds=1e9)) == 0.5
    assert not pace.over(State(step=5))
    assert pace.over(State(step=6))
    assert pace.of_images(State()) == 96
    assert Pace(_stage(images=3), devices=1).last_step(State()) == 1


def test_a_stage_of_minutes_follows_the_clock() -> None:
    pace = Pace(_stage(minutes=2), devices=1)
    assert pace.last_step(State(step=7)) == ENDLESS
    assert pace.done(State(step=10**6, stage_seconds=30)) == 0.25
    assert pace.of_images(State(step=10, stage_seconds=30)) == 320
    assert pace.of_images(State()) == 0  # nobody knows yet
    assert not pace.over(State(stage_seconds=119.9))
    done = State(step=9, stage_seconds=125)
    assert pace.over(done)
    assert pace.done(done) == 1.0
    assert pace.last_step(done) == 9
    states = [State(step=step, stage_seconds=float(step)) for step in range(1, 121)]
    assert _due(pace, states) == [8, 15, 23, 30, 38, 45, 53, 60, 68, 75, 83, 90, 98, 105, 113, 120]


def test_clocks_of_several_devices_are_refused() -> None:
    with pytest.raises(RunError, match="runs on one device; give `images` in place of `minutes`"):
        Pace(_stage(minutes=1), devices=2)
    Pace(_stage(images=8), devices=2)


@pytest.mark.parametrize("length", [{}, {"images": 8, "minutes": 1}])
def test_a_stage_has_one_length(length: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give either images"):
        _stage(**length)
