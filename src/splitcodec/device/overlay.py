"""Behind stage 7, on the device again: an answer's boxes and label maps, mapped to the picture and drawn on it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from splitcodec.device.image import MAX_PIXELS
from splitcodec.device.placed import Letterbox
from splitcodec.errors import LinkGarbled, one_line
from splitcodec.wire.answer import LEAST_REGION, Answer, Answers, Mask, Region
from splitcodec.wire.png import palette, write_png

SHOWN: Final = 0.5
"""Boxes of a lower score are not drawn: of those from 0.3 on hardly one in ten is right (docs/LOG.md)."""
VEIL: Final = 0.5
"""How much of the label map's colour a pixel gets."""
_BAND: Final = 256
"""Rows that are coloured at a time: a label map of a large picture takes little more memory than itself."""
_UNSEEN: Final = 255  # in a label map: what the network did not see
_MOST_NAMED: Final = 8
_LEAST_SHARE: Final = 0.01
_MOST_LETTERS: Final = 100  # drawn of a label, which may be as long as an answer


def in_picture(answer: Answer, place: Letterbox) -> Answer:
    """Return the answer with boxes in pixels of the upright picture, and its label map at the picture's size.

    Shares of its classes are then of the picture's pixels that the network saw.
    Raises LinkGarbled for a label map that is none.
    """
    answers: Answers = {**answer["answers"]}
    if "detect" in answers:
        answers["detect"] = [
            {**one, "box": [round(side, 2) for side in place.box_in_picture(one["box"])]} for one in answers["detect"]
        ]
    if "segment" in answers:
        mask = answers["segment"]
        index_hw = place.mask_in_picture(mask_of(mask))
        colours = palette(256)
        png = base64.b64encode(write_png(index_hw, colours)).decode("ascii")
        shares = _shares(mask["classes"], index_hw)
        answers["segment"] = {"size": list(index_hw.shape), "png": png, "classes": shares}
    return {**answer, "answers": answers}


def unwritable(suffix: str) -> str | None:
    """Say why no drawing can be written to a file of that suffix, if so."""
    kind = Image.registered_extensions().get(suffix.lower())
    if kind is None:
        return f"{suffix!r} is the ending of no picture" if suffix else "it has no ending, such as .png"
    try:
        Image.new("RGB", (16, 16)).save(io.BytesIO(), kind)
    except Exception as error:  # its plugin may only read, want another mode, or lack its library
        return f"{suffix} is only read" if isinstance(error, KeyError) else f"{suffix}: {error}"
    return None


def _shares(regions: Sequence[Region], index_hw: NDArray[np.uint8]) -> list[Region]:
    """Return classes with their shares of a picture's label map: the edge's count a letterbox's margin as well."""
    pixels = Image.fromarray(index_hw).histogram()[:_UNSEEN]
    seen = max(sum(pixels), 1)
    known = {one["index"]: one for one in regions if 0 <= one["index"] < _UNSEEN}
    shares = [Region(index=k, label=one["label"], share=round(pixels[k] / seen, 4)) for k, one in known.items()]
    return sorted((one for one in shares if one["share"] >= LEAST_REGION), key=lambda one: -one["share"])


def mask_of(mask: Mask) -> NDArray[np.uint8]:
    """Return the label map in an answer: class indices, uint8 (rows, cols). Raises LinkGarbled."""
    rows, cols = mask["size"]
    try:
        if rows * cols > MAX_PIXELS:
            raise ValueError(f"{rows} x {cols} pixels")
        with Image.open(io.BytesIO(base64.b64decode(mask["png"], validate=True)), formats=["PNG"]) as picture:
            if picture.mode != "P" or picture.size != (cols, rows):
                raise ValueError(f"mode {picture.mode}, {picture.size[0]} x {picture.size[1]} pixels")
            return np.array(picture, dtype=np.uint8)
    except Exception as error:  # hostile chunks make Pillow raise nearly anything: 12.0 a struct.error
        what = "no PNG" if isinstance(error, UnidentifiedImageError) else one_line(error, most=80)
        raise LinkGarbled(  # in the same words each time, which `watch` says once
            f"answers.segment.png: {what}; expected a PNG with a palette, {cols} x {rows} pixels, in base64"
        ) from None


def draw(picture: Image.Image, answer: Answer) -> Image.Image:
    """Return the upright RGB picture with what `in_picture` gave drawn on it: label map, its names, boxes, best class.

    Raises LinkGarbled for a label map that does not fit the picture.
    """
    out, found = picture.copy(), answer["answers"]
    if "segment" in found:
        index_hw = mask_of(found["segment"])
        if index_hw.shape != (picture.height, picture.width):
            raise LinkGarbled(f"a label map of {index_hw.shape}, the picture is {picture.size}")
        for top in range(0, picture.height, _BAND):
            _veil(out, index_hw[top : top + _BAND], top=top)
    pen = ImageDraw.Draw(out)
    size = max(11, round(max(picture.size) / 45))
    font = ImageFont.load_default(size)
    for one in reversed([box for box in found.get("detect", []) if box["score"] >= SHOWN]):
        colour = tuple(palette(256)[one["index"] % 254 + 1].tolist())
        x0, y0, x1, y1 = one["box"]
        pen.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=colour, width=max(2, size // 6))
        _write(pen, (x0, max(0.0, y0 - size - 4)), f"{one['label']} {100 * one['score']:.0f} %", font, colour)
    if "segment" in found:
        _legend(pen, found["segment"], font, size, picture)
    if found.get("classify"):
        best = found["classify"][0]
        words = f"{best['label'].split(',')[0]} {100 * best['p']:.0f} %"
        _write(pen, (2, picture.height - size - 6), words, font, (0, 0, 0))
    return out


def _veil(picture: Image.Image, index_hw: NDArray[np.uint8], *, top: int) -> None:
    """Colour the rows of a picture from `top` on by some rows of its label map."""
    colours = Image.fromarray(index_hw)
    colours.putpalette(palette(257)[1:].tobytes())  # class 0 is a class of its own in most data sets
    rows, cols = index_hw.shape
    part = picture.crop((0, top, cols, top + rows))
    seen = Image.fromarray(np.where(index_hw == 255, np.uint8(0), np.uint8(255)))
    picture.paste(Image.blend(part, colours.convert("RGB"), VEIL), (0, top), seen)


def _legend(
    pen: ImageDraw.ImageDraw,
    mask: Mask,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: int,
    picture: Image.Image,
) -> None:
    """Name the label map's largest classes in their colours, upwards from the lower right corner."""
    named = [one for one in mask["classes"] if one["share"] >= _LEAST_SHARE][:_MOST_NAMED]
    for place, one in enumerate(reversed(named)):
        words, colour = one["label"][-_MOST_LETTERS:], palette(257)[1 + one["index"] % 256].tolist()
        where = picture.width - 4 - pen.textlength(words, font=font), picture.height - (place + 1) * (size + 6)
        _write(pen, where, words, font, tuple(colour))


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    words: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, ...],
) -> None:
    words = words[-_MOST_LETTERS:]  # which end in the score
    box = pen.textbbox(place, words, font=font)
    pen.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), fill=colour)
    pen.text(place, words, font=font, fill=(0, 0, 0) if sum(colour) > 380 else (255, 255, 255))
