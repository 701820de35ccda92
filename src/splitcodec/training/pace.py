"""How far a stage has come: by pictures seen, or by the clock."""

from __future__ import annotations

from typing import Final, final

from splitcodec.errors import RunError
from splitcodec.training.levelling import TIMES
from splitcodec.training.run import State
from splitcodec.training.stages import Stage

ENDLESS: Final = 2**31


@final
class Pace:
    """Of a stage on `devices` devices. Raises RunError for minutes on several: their clocks would part them."""

    def __init__(self, stage: Stage, *, devices: int) -> None:
        if stage.minutes is not None and devices > 1:
            raise RunError("a stage of so many minutes runs on one device; give `images` in place of `minutes`")
        self.images_each = stage.batch * devices
        self._steps = None if stage.images is None else max(1, stage.images // self.images_each)
        self._seconds = 60 * (stage.minutes or 0.0)

    def done(self, state: State) -> float:
        """Return the share of the stage that is behind us, 0 to 1."""
        if self._steps is not None:
            return state.step / self._steps
        return min(1.0, state.stage_seconds / self._seconds)

    def over(self, state: State) -> bool:
        """Say whether the stage is at its end."""
        return self.done(state) >= 1

    def last_step(self, state: State) -> int:
        """Return a step that the stage does not go beyond."""
        if self._steps is not None:
            return self._steps
        return state.step if self.over(state) else ENDLESS

    def of_images(self, state: State) -> int:
        """Return how many pictures the stage sees, in all; by the clock, a guess."""
        if self._steps is not None:
            return self._steps * self.images_each
        return round(state.step * self.images_each / max(self.done(state), 1e-6))

    def due(self, before: float, state: State) -> bool:
        """Say whether the loss is measured now; `before` is the share that was done a step ago."""
        if self._steps is not None:
            return state.step in {round(k * self._steps / TIMES) for k in range(TIMES + 1)}
        return int(before * TIMES) != int(self.done(state) * TIMES)
