from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, features

from splitcodec.errors import SettingsError
from splitcodec.evaluation.codecs import CODECS, Codec, codecs_named


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_every_setting_gives_the_picture_back_and_costs_more_than_the_one_before(
    codec: Codec, pictures: list[Image.Image]
) -> None:
    if codec.name in ("webp", "avif") and not features.check(codec.name):
        pytest.skip("this Pillow is built without it")
    image_hwc = np.asarray(pictures[-1].resize((64, 64)))
    files = [codec.encode(image_hwc, setting) for setting in codec.sweep]
    assert [len(file) for file in files] == sorted(len(file) for file in files)
    back_hwc = codec.decode(files[-1])
    assert back_hwc.shape == image_hwc.shape
    assert back_hwc.dtype == np.uint8
    error = [np.abs(codec.decode(file).astype(int) - image_hwc).mean() for file in (files[0], files[-1])]
    assert error[1] < error[0]
    assert error[1] < 12


def test_names_are_taken_once_in_order_and_unknown_ones_are_refused_with_the_known() -> None:
    assert [codec.name for codec in codecs_named(["webp", "jpeg", "webp"])] == ["webp", "jpeg"]
    assert codecs_named([]) == ()
    with pytest.raises(SettingsError, match=r"'gif'; known are jpeg, webp, avif"):
        codecs_named(["gif"])


def test_a_pillow_without_the_codec_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(SettingsError, match="without avif"):
        codecs_named(["jpeg", "avif"])
