from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from splitcodec.device.image import load_picture
from splitcodec.device.placed import MAX_RESIZED_SIDE, crop_bhwc
from splitcodec.errors import PictureError, PictureNotFound, PictureTooLarge, PictureUnreadable, SettingsError

rng = np.random.default_rng(1)


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def photo(height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_path_bytes_image_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    picture = photo()
    path = tmp_path / "a.png"
    path.write_bytes(file_of(picture, "PNG"))
    data = path.read_bytes()
    gaps = memoryview(b"".join(bytes((one, 0)) for one in data))[::2]
    with os.scandir(tmp_path) as found:
        entry = next(found)
    for source in (path, str(path), entry, data, bytearray(data), memoryview(data), gaps, picture, np.asarray(picture)):
        assert np.array_equal(pixels(load_picture(source)), np.asarray(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    upright = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](np.asarray(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    assert np.array_equal(pixels(load_picture(data)), np.asarray(upright))
    assert np.array_equal(pixels(load_picture(load_picture(data))), np.asarray(upright)), "turned once"


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    data = file_of(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert load_picture(data).size == (60, 40)


def test_grey_becomes_three_equal_channels() -> None:
    grey = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    for source in (grey, grey[:, :, None], file_of(Image.fromarray(grey), "PNG")):
        assert np.array_equal(pixels(load_picture(source)), np.repeat(grey[:, :, None], 3, axis=2))


def test_one_bit_picture_is_black_and_white() -> None:
    data = file_of(Image.fromarray(np.eye(8, dtype=bool)), "PNG")
    assert set(np.unique(pixels(load_picture(data)))) == {0, 255}


def test_transparent_pixels_lie_on_white() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    for source in (rgba, Image.fromarray(rgba), file_of(Image.fromarray(rgba), "PNG")):
        rgb = pixels(load_picture(source))
        assert tuple(rgb[0, 0]) == (10, 20, 30)
        assert (rgb[1] == 255).all()
    assert (pixels(load_picture(Image.new("LA", (2, 2), (0, 0)))) == 255).all()
    assert (pixels(load_picture(Image.new("RGBa", (2, 2)))) == 255).all()
    assert (pixels(load_picture(Image.new("La", (2, 2)))) == 255).all()


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency_lies_on_white(kind: str, transparency: int | bytes) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    if kind == "GIF" and isinstance(transparency, bytes):
        transparency = 1
    rgb = pixels(load_picture(file_of(picture, kind, transparency=transparency)))
    assert rgb.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(load_picture(file_of(red, "JPEG"))).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    raw = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    rgb = pixels(load_picture(file_of(Image.fromarray(raw), kind)))
    assert np.array_equal(rgb[:, :, 0], np.arange(256).reshape(16, 16))


def test_a_transparent_16_bit_grey_lies_on_white() -> None:
    grey = Image.fromarray(np.array([[0xC8C8, 0x1111]], np.uint16))
    assert pixels(load_picture(file_of(grey, "PNG", transparency=0x1111)))[0].tolist() == [[200] * 3, [255] * 3]


def test_16_bit_colour_png_is_scaled() -> None:
    raw = rng.integers(0, 65_536, (3, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in raw)
    rgb = pixels(load_picture(png(5, 3, depth=16, colour=2, rows=rows)))
    assert np.abs(rgb - raw / 257).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_uint16_arrays_are_scaled(channels: int) -> None:
    raw = rng.integers(0, 65_536, (3, 5, channels), dtype=np.uint16)
    assert np.abs(pixels(load_picture(raw)) - raw / 257).max() <= 0.5
    assert np.array_equal(pixels(load_picture(raw.astype(">u2"))), pixels(load_picture(raw)))


def test_16_bit_pgm_is_scaled() -> None:
    data = b"P5\n2 1\n65535\n" + np.array([0, 65_535], ">u2").tobytes()
    assert pixels(load_picture(data))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4), bool),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_other_arrays_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(PictureUnreadable, match="expected"):
        load_picture(array)


@pytest.mark.parametrize(("mode", "value"), [("F", 0), ("I", 70_000), ("I", -1)])
def test_pictures_without_an_agreed_white_are_refused(mode: str, value: int) -> None:
    with pytest.raises(PictureUnreadable, match="white"):
        load_picture(Image.new(mode, (2, 2), value))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_truncated_files_are_refused(kind: str) -> None:
    whole = file_of(photo(64, 64), kind)
    with pytest.raises(PictureUnreadable):
        load_picture(whole[: len(whole) // 2])


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    note = tmp_path / "note.jpg"
    note.write_text("not a picture")
    for source in (note, b"", b"hello"):
        with pytest.raises(PictureUnreadable, match="not a picture"):
            load_picture(source)
    with pytest.raises(PictureNotFound, match=r"absent\.png"):
        load_picture(tmp_path / "absent.png")
    with pytest.raises(PictureUnreadable, match="folder"):
        load_picture(tmp_path)
    with pytest.raises(PictureUnreadable, match="NoneType"):
        load_picture(None)  # type: ignore[arg-type]
    with pytest.raises(PictureUnreadable):
        load_picture("a\0b")


def test_formats_that_start_programs_are_refused() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(PictureUnreadable, match="EPS"):
        load_picture(eps)


@pytest.mark.parametrize("side", [9_000, 10_000, 60_000])
def test_bombs_are_refused_from_the_header_without_a_warning(side: int) -> None:
    bomb = png(side, side, depth=8, colour=2, rows=b"\0")
    with pytest.raises(PictureTooLarge, match=rf"{side * side} pixels; at most 64000000 are allowed, shrink it first$"):
        load_picture(bomb)


def test_max_pixels_is_the_callers() -> None:
    with pytest.raises(PictureTooLarge, match="60 x 40 = 2400 pixels; at most 2399"):
        load_picture(photo(), max_pixels=2399)
    with pytest.raises(PictureTooLarge):
        load_picture(np.zeros((40, 60, 3), np.uint8), max_pixels=2399)
    assert load_picture(photo(), max_pixels=2400).size == (60, 40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_raise_picture_errors_alone(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    message = ""
    try:
        assert load_picture(bytes(whole), max_pixels=1_000_000).mode == "RGB"
    except PictureError as error:
        message = str(error)
    assert "\n" not in message


SEEDS = [file_of(photo(9, 7), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 60), (301, 200), (256, 256), (255, 333), (224, 224)])
def test_crop_has_the_size_that_is_asked_for(height: int, width: int) -> None:
    image = crop_bhwc(photo(height, width), resize=256, crop=224)
    assert image.shape == (1, 224, 224, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (77, 301), (300, 257), (256, 299), (32, 32)])
def test_crop_equals_torchvision(height: int, width: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    picture = photo(height, width)
    resized = transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC)(picture)
    expected = np.asarray(transforms.CenterCrop(27)(resized))
    assert np.array_equal(crop_bhwc(picture, resize=32, crop=27)[0], expected)


@pytest.mark.parametrize(("step", "name"), [(Image, "open"), (Image.Image, "convert")])
def test_what_memory_does_not_hold_is_not_called_damaged(
    step: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO()
    photo().save(data, "PNG")

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(step, name, full)
    with pytest.raises(PictureTooLarge, match="does not fit into this machine's memory; shrink it first"):
        load_picture(data.getvalue())


def test_extreme_shapes_are_bounded() -> None:
    with pytest.raises(PictureTooLarge, match="10000 x 2"):
        crop_bhwc(Image.new("RGB", (10_000, 2)), resize=256, crop=224)
    widest = Image.new("RGB", (MAX_RESIZED_SIDE // 256, 1))
    assert crop_bhwc(widest, resize=256, crop=224).shape == (1, 224, 224, 3)


def test_crop_refuses_what_makes_no_sense() -> None:
    with pytest.raises(SettingsError):
        crop_bhwc(photo(), resize=200, crop=224)
    with pytest.raises(PictureUnreadable, match="load_picture"):
        crop_bhwc(Image.new("L", (4, 4)), resize=4, crop=4)
