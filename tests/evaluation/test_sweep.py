from __future__ import annotations

import numpy as np
import pytest

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.codecs import CODECS, JPEG, WEBP, Codec
from splitcodec.evaluation.rivals import Entrant
from splitcodec.evaluation.sweep import Setting, floor_bytes, full_sweep, lean_sweep, scaled
from splitcodec.wire.bundle import Bundle
from tests.evaluation.test_codecs import able, photo


def test_a_lean_sweep_tries_a_few_settings_at_three_lower_resolutions() -> None:
    settings = lean_sweep(WEBP, 224)
    assert [one.value for one in settings if one.side is None] == list(WEBP.sweep)
    assert [(one.side, one.value) for one in settings if one.side] == [
        (side, value) for side in (160, 112, 96) for value in WEBP.few
    ]
    assert [one.words for one in settings][-1] == "quality 75, 96 px"


def test_a_full_sweep_tries_all_at_four() -> None:
    settings = full_sweep(JPEG, 224)
    assert len(settings) == 5 * len(JPEG.sweep) == len(set(settings))
    assert {one.side for one in settings} == {None, 160, 112, 96, 80}
    assert {one.side for one in full_sweep(JPEG, 64)} == {None, 48, 32, 24}
    assert {one.side for one in full_sweep(JPEG, 8)} == {None}


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_floor_is_below_every_picture(codec: Codec) -> None:
    setting = Setting(able(codec), codec.few[0], 32)
    floor = floor_bytes(setting, crop=64)
    assert 20 < floor < len(codec.encode([photo(32)], setting.value)[0])


def test_levels_are_named_by_their_bundle_where_a_method_has_several(tiny: Bundle) -> None:
    shores = Device(tiny, threads=1), Edge(tiny, threads=1)
    setting = Setting(Entrant("paper", tiny, *shores, prefix="beta20 "), 2)
    assert (setting.method, setting.words) == ("paper", "beta20 level 2")
    assert Setting(Entrant("splitcodec", tiny, *shores), 2).words == "level 2"
    assert floor_bytes(setting, crop=64) == 12


def test_scaling_goes_there_and_back() -> None:
    image_hwc = photo(64)
    (small,) = scaled([image_hwc], 32)
    (back,) = scaled([small], 64)
    assert (small.shape, back.shape) == ((32, 32, 3), (64, 64, 3))
    assert np.abs(back.astype(int) - image_hwc).mean() < 12
    assert scaled([image_hwc], None)[0] is image_hwc
