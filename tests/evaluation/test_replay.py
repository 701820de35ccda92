"""How far an encoder's symbols may be off on another machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from splitcodec.device.client import Device
from splitcodec.errors import GoldenMismatch
from splitcodec.evaluation import replay
from splitcodec.wire.bundle import Bundle


@pytest.mark.parametrize(
    ("off", "limits", "said"),
    [
        ([1] * 10, {}, None),
        ([-1] * 10, {}, None),
        ([1] * 11, {}, "level 1: 98.90 % of the symbols are equal, expected 99 %"),
        ([2], {}, "picture 0, level 1: a symbol is off by 2, expected at most 1"),
        ([-2], {}, "off by 2"),
        ([2] * 50, {"least": replay.EQUAL_INT8, "most": replay.OFF_INT8}, None),
        ([1] * 51, {"least": replay.EQUAL_INT8, "most": replay.OFF_INT8}, "94.90 % .* expected 95 %"),
        ([3], {"least": replay.EQUAL_INT8, "most": replay.OFF_INT8}, "off by 3, expected at most 2"),
    ],
)
def test_one_symbol_in_a_hundred_may_be_its_neighbour(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, off: list[int], limits: dict[str, Any], said: str | None
) -> None:
    """Of each level by itself: of the 2,000 symbols only level 1 has some that are off. Of INT8 five in a hundred."""
    symbols_lnchw = np.zeros((2, 1, 10, 10, 10), np.int32)
    seen_lnchw = symbols_lnchw.copy()
    seen_lnchw[1].flat[: len(off)] = off
    monkeypatch.setattr(replay, "symbols_of", lambda *_: seen_lnchw)
    golden: Any = SimpleNamespace(image_bhwc=None, symbols_lnchw=symbols_lnchw)
    device = Device(tiny, threads=1)
    if said is None:
        assert replay._replay_encoder(device, golden, **limits) == 1 - len(off) / 1000
        return
    with pytest.raises(GoldenMismatch, match=said):
        replay._replay_encoder(device, golden, **limits)
