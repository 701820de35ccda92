from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splitcodec.errors import MissingExtra, SettingsError
from splitcodec.evaluation import video
from splitcodec.evaluation.codecs import HEVC, HEVC444, VVC
from splitcodec.evaluation.video import VideoCodec, pictures_in
from tests.evaluation.test_codecs import able, photo

EVERY = pytest.mark.parametrize("codec", [HEVC, HEVC444, VVC], ids=lambda codec: codec.name)


TWO = HEVC, HEVC444


@EVERY
def test_a_picture_among_others_costs_and_shows_what_it_does_alone(codec: VideoCodec) -> None:
    """Each file is decodable alone, and no byte of it depends on what was coded before it."""
    able(codec)
    images = [photo(64), np.full((64, 64, 3), 90, np.uint8), photo(64)[::-1].copy(), photo(64)[:, ::-1].copy()]
    files = codec.encode(images, 33)
    together = codec.decode(files)
    for k in (0, 3):
        (alone,) = codec.encode([images[k]], 33)
        assert len(files[k]) == len(alone)
        (back_hwc,) = codec.decode([files[k]])
        assert (back_hwc == together[k]).all()
        assert (back_hwc == codec.decode([alone])[0]).all()


@EVERY
def test_nothing_but_headers_and_slices_is_counted(codec: VideoCodec) -> None:
    """libvvenc prints warnings on stdout, where they once were taken for 213 bytes of stream."""
    (data,) = able(codec).encode([np.full((64, 64, 3), 128, np.uint8)], codec.sweep[0])
    assert len(data) < 120
    assert b"onfiguration" not in data


def test_colours_at_full_resolution_stay_where_they_are() -> None:
    """HEVC was tried with colours at half of it alone, with which it needs more bytes from teacher - 4 on."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 220, 220
    off = [np.abs(codec.decode(able(codec).encode([stripes], 10))[0].astype(int) - stripes).mean() for codec in TWO]
    assert off[1] < 8 < off[0]


def test_no_number_of_pictures_is_lost() -> None:
    """Of 7 to 10 pictures ffmpeg 9.0 with libvvenc writes none, and calls it done."""
    able(VVC)
    images = [np.full((16, 16, 3), 20 * k, np.uint8) for k in range(12)]
    for count in (7, 8, 10, 12):
        files = VVC.encode(images[:count], 30)
        levels = [int(back_hwc.mean()) for back_hwc in VVC.decode(files)]
        assert levels == pytest.approx([20 * k for k in range(count)], abs=4)


def test_a_stream_is_cut_where_its_first_kind_of_unit_comes_again() -> None:
    first, second = b"\0\0\0\1\x40\1aa\0\0\1\x26\1bb", b"\0\0\0\1\x40\1c\0\0\1\x26\1\0\0\3\1"
    assert pictures_in(first + second) == [first, second]
    assert pictures_in(b"") == []
    assert pictures_in(b"warning" + first) == []


def test_odd_sides_and_other_bytes_are_refused() -> None:
    with pytest.raises(SettingsError, match="even sides"):
        able(HEVC).encode([np.zeros((33, 32, 3), np.uint8)], 30)
    with pytest.raises(SettingsError, match="leave hevc out"):
        HEVC.decode([b"no stream"])


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Forget the ffmpeg of other tests, and let them forget this one's."""
    for function in (video._ffmpeg, video._coders):
        function.cache_clear()
    yield
    for function in (video._ffmpeg, video._coders):
        function.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_a_missing_ffmpeg_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtra, match=r"imageio-ffmpeg.*splitcodec\[eval\]"):
        HEVC.require()


@pytest.mark.usefixtures("forgetful")
def test_an_ffmpeg_without_the_encoder_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")
    other = tmp_path / "ffmpeg"
    other.write_text("#!/bin/sh\necho ' V....D libx265 H.265'\necho ' VFS..D hevc HEVC'\n")
    other.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(other))
    HEVC.require()
    with pytest.raises(SettingsError, match=r"without libvvenc.*leave vvc out"):
        VVC.require()
