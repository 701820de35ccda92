"""What of a picture the network sees, at its full side and at smaller ones."""

from __future__ import annotations

import pytest
from PIL import Image

from splitcodec.device.image import crop_bhwc, letterbox_bhwc
from splitcodec.device.view import View, task_specs
from splitcodec.errors import SettingsError
from splitcodec.wire.bundle import Bundle, open_bundle


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle("efficientnet-lite0")


def view(bundle: Bundle, picture: Image.Image, **how: object) -> View:
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
