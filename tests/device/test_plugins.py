"""HEIC and JPEG XL: by the plugin that is installed, and by name of the one that is not."""

from __future__ import annotations

import io
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from splitcodec.device import plugins
from splitcodec.device.image import load_picture, suffixes
from splitcodec.device.plugins import foreign, jxl_size
from splitcodec.device.source import Folder
from splitcodec.errors import PictureTooLarge, PictureUnreadable


def box(kind: bytes, data: bytes) -> bytes:
    return (8 + len(data)).to_bytes(4, "big") + kind + data


HEIC = box(b"ftyp", b"heic\0\0\0\0mif1heic") + b"what a telephone writes"
JXL_FILE = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")


def stream(width: int, height: int) -> bytes:
    """Return the beginning of a JPEG XL stream that says this size, in the longest form."""
    bits = 0 | 3 << 1 | (height - 1) << 3 | 0 << 33 | 3 << 36 | (width - 1) << 38
    return b"\xff\x0a" + bits.to_bytes(10, "little")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Pillow without any plugin of others, whatever is installed here."""
    Image.init()
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "OPEN", {kind: how for kind, how in Image.OPEN.items() if kind not in ("HEIF", "JXL")})
        patch.setattr(Image, "ID", [kind for kind in Image.ID if kind in Image.OPEN])
        known = {suffix: kind for suffix, kind in Image.EXTENSION.items() if kind not in ("HEIF", "JXL")}
        patch.setattr(Image, "EXTENSION", known)
        yield monkeypatch


@pytest.mark.parametrize(
    ("data", "package"),
    [
        (HEIC, "pillow-heif"),
        (HEIC.replace(b"ftypheic", b"ftypmif1"), "pillow-heif"),
        (stream(8, 8), "pillow-jxl-plugin"),
        (JXL_FILE, "pillow-jxl-plugin"),
    ],
)
def test_what_a_plugin_would_open_is_refused_by_the_name_of_its_package(
    alone: pytest.MonkeyPatch, tmp_path: Path, data: bytes, package: str
) -> None:
    """They were "not a picture"."""
    (tmp_path / "a.jpg").write_bytes(data)  # telephones also call it that
    for source in (data, tmp_path / "a.jpg"):
        with pytest.raises(PictureUnreadable, match=rf"a plugin of Pillow's; install it with: pip install {package}$"):
            load_picture(source)


def test_a_folder_leaves_alone_what_nobody_can_open(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each got a line `unreadable` for ever, and was moved away."""
    names = ("a.heic", "b.heif", "c.jxl", "d.jpg", "e.webp", "f.J2K", "g.eps", "h.pdf", "i.mpo", "j.jfif")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    wanted = [name for name in names if name[0] not in "abcgh"]
    folder = Folder(tmp_path, settle_s=0.0)
    assert sorted(one.picture for one in folder.take(lambda _, __: False)) == sorted(wanted)
    assert suffixes() >= {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".pgm", ".bmp", ".gif", ".qoi", ".tga"}


def test_a_plugin_is_imported_when_its_first_picture_comes(
    alone: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pillow_heif")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pillow_heif.py").write_text(
        "def register_heif_opener():\n    import telephone\n    telephone.known()\n"
    )

    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (6, 4), "RGB"
            self.tile = []

        def load(self) -> Any:
            self.im = Image.new("RGB", self.size, "red").im
            return self.im.pixel_access(self.readonly)

    def known() -> None:
        Image.register_open("HEIF", Heif, lambda head: head[4:12] == b"ftypheic")

    monkeypatch.setitem(sys.modules, "telephone", types.SimpleNamespace(known=known))
    assert {".heic", ".heif"} < suffixes()
    assert ".jxl" not in suffixes()
    load_picture(np.zeros((4, 4, 3), np.uint8))
    assert "pillow_heif" not in sys.modules
    (tmp_path / "a.heic").write_bytes(HEIC)
    for source in (HEIC, tmp_path / "a.heic"):
        assert np.asarray(load_picture(source))[0, 0].tolist() == [255, 0, 0]


def test_a_plugin_that_does_not_load_says_why(
    alone: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pillow_heif")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pillow_heif.py").write_text("raise ImportError('libheif.so.1: no such file')\n")
    with pytest.raises(
        PictureUnreadable, match=r"\(libheif.so.1: no such file\); install it with: pip install pillow-h"
    ):
        load_picture(HEIC)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (HEIC, "HEIF"),
        (box(b"ftyp", b"avif\0\0\0\0mif1avif"), None),
        (box(b"ftyp", b"mif1\0\0\0\0mif1avifheic"), None),
        (box(b"ftyp", b"isom\0\0\0\0isommp42"), None),
        (box(b"ftyp", b"isom\0\0\0\0isom") + b"heic", None),
        (b"\xff\xd8\xff\xe0", None),
        (b"\0\0\0\0ftyp", None),
        (b"", None),
    ],
)
def test_what_is_foreign(head: bytes, kind: str | None) -> None:
    assert foreign(head) == kind


@pytest.mark.parametrize(
    "data",
    [
        stream(100_000, 90_000),
        JXL_FILE + box(b"jxlc", stream(100_000, 90_000)),
        JXL_FILE + box(b"Exif", bytes(50)) + (1).to_bytes(4, "big") + b"jxlc" + bytes(8) + stream(100_000, 90_000),
        JXL_FILE + box(b"jxlp", bytes(4) + b"\xff") + box(b"jxlp", b"\0\0\0\1" + stream(100_000, 90_000)[1:]),
        JXL_FILE + bytes(4) + b"jxlc" + stream(100_000, 90_000),
    ],
)
def test_a_jxl_bomb_is_refused_before_its_plugin_sees_it(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """The plugin decodes all of it when it opens it."""
    if b"jxlc" + bytes(8) in data:
        at = data.index(b"jxlc")
        data = data[: at + 4] + (len(data) - at + 4).to_bytes(8, "big") + data[at + 12 :]
    monkeypatch.setitem(Image.OPEN, "JXL", (lambda *_: pytest.fail("opened"), lambda _: True))
    with pytest.raises(PictureTooLarge, match="100000 x 90000"):
        load_picture(data)


@pytest.mark.parametrize("data", [b"\xff\x0a", JXL_FILE, JXL_FILE + box(b"jxlc", b"none"), JXL_FILE + b"\0\0\0\3jxlc1"])
def test_a_jxl_without_a_size_is_refused(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setitem(Image.OPEN, "JXL", (lambda *_: pytest.fail("opened"), lambda _: True))
    with pytest.raises(PictureUnreadable, match="no code stream"):
        load_picture(data)


JXL = """
import io, sys
from PIL import Image
from splitcodec.device.image import load_picture, suffixes
from splitcodec.device import plugins
data = sys.stdin.buffer.read()
assert ".jxl" in suffixes() and "pillow_jxl" not in sys.modules
picture = load_picture(data)
assert "pillow_jxl" in sys.modules
print(picture.size)
"""


def test_the_real_plugin_is_found_and_says_the_size_that_we_read() -> None:
    pytest.importorskip("pillow_jxl")
    tag = Image.Exif()
    tag[0x0112] = 6
    for size in (
        (1, 1),
        (8, 8),
        (256, 256),
        (257, 100),
        (60, 40),
        (16, 9),
        (320, 180),
        (1030, 7),
        (7, 1030),
        (512, 256),
    ):
        for options in ({}, {"exif": tag.tobytes()}):
            out = io.BytesIO()
            Image.linear_gradient("L").convert("RGB").resize(size).save(out, "JXL", **options)
            assert jxl_size(out.getvalue()) == size
            assert load_picture(out.getvalue()).size == size, "as its stream turns it"
    done = subprocess.run([sys.executable, "-c", JXL], input=out.getvalue(), capture_output=True, check=False)
    assert done.stdout.split() == [b"(512,", b"256)"], done.stderr.decode()
    assert plugins.foreign(out.getvalue()) == "JXL"
