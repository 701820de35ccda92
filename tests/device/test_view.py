"""What of a picture the network sees, at its full side and at smaller ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.image import Picture, load_picture, load_reduced
from splitcodec.device.placed import crop_bhwc, letterbox_bhwc
from splitcodec.device.view import View, task_specs
from splitcodec.errors import PictureError, PictureTooLarge, PictureUnreadable, SettingsError
from splitcodec.wire.bundle import Bundle, open_bundle


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle("efficientnet-lite0")


def view(bundle: Bundle, picture: Picture, **how: object) -> View:
    return View(bundle, picture, specs=task_specs(bundle), **how)  # type: ignore[arg-type]


def test_sides_fall_to_two_fifths_in_steps_that_keep_every_map_whole(shipped: Bundle) -> None:
    picture = Image.new("RGB", (300, 150))
    assert view(shipped, picture).sides == [224, 192, 160, 128, 96]
    assert view(shipped, picture, fit="letterbox").sides == [480, *range(448, 191, -32)]
    assert view(shipped, picture, fit="letterbox", side=300).sides == [300, 288, 256, 224, 192, 160, 128]


def test_a_small_crop_does_not_shrink(tiny: Bundle) -> None:
    assert task_specs(tiny) == []
    assert view(tiny, Image.new("RGB", (80, 70))).sides == [64]


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_pixels_place_and_grid_agree_at_every_side(shipped: Bundle, fit: str) -> None:
    picture = Image.linear_gradient("L").convert("RGB").resize((330, 190))
    seen = view(shipped, picture, fit=fit)
    for side in seen.sides:
        image_bhwc, place = seen.pixels_bhwc(side), seen.place(side)
        assert image_bhwc.shape == (1, place.rows, place.cols, 3)
        assert seen.grid(side) == (place.rows // 16, place.cols // 16)
        assert (place.picture, place.rows % 32, place.cols % 32) == ((330, 190), 0, 0)
        same = (
            crop_bhwc(picture, resize=round(256 * side / 224), crop=side)
            if fit == "crop"
            else letterbox_bhwc(picture, side=side, multiple=32)[0]
        )
        assert (image_bhwc == same).all()


def test_what_the_bundle_does_not_take_is_refused(shipped: Bundle) -> None:
    with pytest.raises(SettingsError, match="'crop' or 'letterbox'"):
        view(shipped, Image.new("RGB", (9, 9)), fit="whole")
    with pytest.raises(SettingsError, match=r"side 5000; .* takes 16 to 1024"):
        view(shipped, Image.new("RGB", (9, 9)), fit="letterbox", side=5000)


def photograph(width: int, height: int) -> Image.Image:
    """Return a picture with edges and soft parts, and nothing that a smaller one could not show."""
    noise = Image.effect_noise((width // 16, height // 16), 80).resize((width, height), Image.Resampling.BICUBIC)
    tilt = Image.linear_gradient("L").resize((width, height))
    picture = Image.merge("RGB", (noise, tilt, tilt.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    picture.paste((240, 30, 60), (width // 4, height // 4, width // 2, height // 2))
    return picture


def jpeg(picture: Image.Image, *, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_smaller_and_looks_and_lies_the_same(
    shipped: Bundle, fit: str, orientation: int
) -> None:
    data = jpeg(photograph(2208, 1664), orientation=orientation)
    quick, whole = view(shipped, data, fit=fit), view(shipped, load_picture(data), fit=fit)
    assert quick._picture.size == tuple(side // 2 for side in whole._picture.size)
    for side in (quick.side, quick.sides[-1]):
        assert quick.place(side) == whole.place(side)
        off = np.abs(quick.pixels_bhwc(side).astype(int) - whole.pixels_bhwc(side))
        assert off.mean() < 0.7
        assert off.max() < 30


@pytest.mark.parametrize(
    ("size", "times"),
    [
        ((4032, 3024), 4),
        ((4096, 4096), 8),
        ((1024, 1024), 2),
        ((1022, 1024), 1),
        ((2050, 2056), 2),
        ((2049, 2056), 1),
        ((640, 480), 1),
    ],
)
def test_how_much_smaller_depends_on_both_sides(size: tuple[int, int], times: int) -> None:
    picture, found = load_reduced(jpeg(Image.new("RGB", size, "red")), least=512)
    assert found == times
    assert picture.size == (size[0] // times, size[1] // times)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_are_decoded_smaller_too(mode: str) -> None:
    data = jpeg(photograph(2048, 2048).convert(mode))
    (quick, times), whole = load_reduced(data, least=512), load_picture(data)
    assert times == 4
    off = np.abs(np.asarray(quick, int) - np.asarray(whole.resize((512, 512), Image.Resampling.BOX), int))
    assert off.mean() < 1.5


def test_other_sources_come_as_they_are(tmp_path: Path) -> None:
    picture = photograph(2048, 2048)
    picture.save(tmp_path / "a.png")
    for source in (picture, tmp_path / "a.png", np.asarray(picture)):
        found, times = load_reduced(source, least=512)
        assert (found.size, times) == ((2048, 2048), 1)


def test_a_large_jpeg_that_is_damaged_or_too_large_is_refused() -> None:
    data = jpeg(photograph(2048, 2048))
    with pytest.raises(PictureUnreadable, match="damaged"):
        load_reduced(data[: len(data) // 2], least=512)
    with pytest.raises(PictureTooLarge, match="4194304 pixels"):
        load_reduced(data, least=512, max_pixels=4_000_000)


def test_a_file_of_a_shape_or_depth_that_is_not_taken_is_refused_by_its_name(tiny: Bundle, tmp_path: Path) -> None:
    """Of a folder of photographs `calibrate` and others listed what they left out, but not which file that was."""
    Image.new("RGB", (20_000, 3)).save(tmp_path / "strip.png")
    Image.fromarray(np.full((80, 80), 70_000, np.int32)).save(tmp_path / "deep.tiff")
    for name in ("strip.png", "deep.tiff"):
        with pytest.raises(PictureError) as refusal:
            view(tiny, tmp_path / name).pixels_bhwc(64)
        assert str(refusal.value).startswith(f"{tmp_path / name}: ")
