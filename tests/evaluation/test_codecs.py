from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from splitcodec.errors import MissingExtra, SettingsError
from splitcodec.evaluation.codecs import CODECS, JP2, JPEG, JPEG444, JXL, Codec, codecs_named
from splitcodec.evaluation.video import VideoCodec

STILL = [codec for codec in CODECS if not isinstance(codec, VideoCodec)]


def able(codec: Codec) -> Codec:
    try:
        codec.require()
    except (MissingExtra, SettingsError) as error:
        pytest.skip(str(error))
    return codec


def photo(side: int) -> NDArray[np.uint8]:
    """Return a picture with edges and soft areas."""
    random = np.random.default_rng(4)
    soft = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    soft.paste(
        Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)), (side // 2, side // 3)
    )
    return np.asarray(soft, dtype=np.uint8)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_the_dial_goes_from_a_wreck_to_a_picture_as_good_as_new(codec: Codec) -> None:
    image_hwc = photo(64)
    dial = codec.sweep if codec in STILL else codec.sweep[:: len(codec.sweep) - 1]
    files = [able(codec).encode([image_hwc], setting)[0] for setting in dial]
    assert [len(file) for file in files] == sorted(len(file) for file in files)
    assert len(files[0]) < len(files[-1])
    assert set(codec.few) & set(range(min(codec.sweep), max(codec.sweep))) == set(codec.few)
    backs = [codec.decode([file])[0] for file in (files[0], files[-1])]
    assert all(back.shape == image_hwc.shape and back.dtype == np.uint8 for back in backs)
    error = [np.abs(back.astype(int) - image_hwc).mean() for back in backs]
    assert error[1] < error[0]
    assert error[1] < 6


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_colours_come_back_as_they_went(codec: Codec) -> None:
    colours = [(200, 30, 40), (20, 180, 60), (250, 250, 250), (0, 0, 0)]
    images = [np.full((48, 48, 3), colour, dtype=np.uint8) for colour in colours]
    for image_hwc, back_hwc in zip(images, able(codec).decode(codec.encode(images, codec.sweep[-1])), strict=True):
        assert np.abs(back_hwc.astype(int) - image_hwc).max() <= 6


def test_jpeg_is_tried_with_colours_at_full_resolution_as_well() -> None:
    """It stood at 4:2:0 alone, with which it needs more bytes from teacher - 4 on."""
    data = [codec.encode([photo(64)], 50)[0] for codec in (JPEG, JPEG444)]
    samplings = [one[one.index(b"\xff\xc0") + 11] for one in data]  # of luma (T.81, B.2.2)
    assert samplings == [0x22, 0x11]
    assert JPEG444 in CODECS


def test_jpeg_2000_transforms_colours() -> None:
    """Pillow leaves it out unless told, and then codes red, green and blue apart."""
    grey = np.broadcast_to(np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8), (64, 64, 3))
    (data,) = able(JP2).encode([np.ascontiguousarray(grey)], 8)
    assert data[data.index(b"\xff\x52") + 8] == 1  # Scod, progression, layers, then the transform (T.800, A.6.1)


def test_names_are_taken_once_in_order_and_unknown_ones_are_refused_with_the_known() -> None:
    assert [codec.name for codec in codecs_named(["webp", "jpeg", "webp"])] == ["webp", "jpeg"]
    assert codecs_named([]) == ()
    with pytest.raises(
        SettingsError, match=r"'gif'; known are jpeg, jpeg444, webp, avif, jp2, jxl, hevc, hevc444, vvc$"
    ):
        codecs_named(["gif"])


def test_a_pillow_without_the_codec_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: name == "jpg")
    with pytest.raises(SettingsError, match="without avif"):
        codecs_named(["jpeg", "avif"])
    with pytest.raises(SettingsError, match="without jp2"):
        codecs_named(["jp2"])


def test_a_missing_plug_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(MissingExtra, match=r"pillow-jxl-plugin.*splitcodec\[eval\]"):
        codecs_named([JXL.name])


def test_bytes_of_another_kind_are_refused() -> None:
    with pytest.raises(SettingsError, match="no jpeg in 3 bytes"):
        JPEG.decode([b"abc"])
