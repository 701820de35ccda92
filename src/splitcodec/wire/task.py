"""`task_<task>.json`: what a bundle says of one task beside classification. docs/bundle-format.md, section 8, is the
norm.

The device reads the side of the pictures from it, the edge the classes and which graphs belong together. Unknown keys
are refused like missing ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, final

from splitcodec.errors import BundleFormat, one_line
from splitcodec.wire.manifest import strict_json

FORMAT: Final = 1
MAX_BYTES: Final = 1 << 20
KINDS: Final = ("detect", "segment")
"""The tasks beside classification that this version knows."""


@final
@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task: what is recognised, at which picture size, and how its graphs hang together.

    `side` is the longest side in pixels that the heads were trained for, `multiple` what padded sides are multiples of.
    `strides` are those of the maps that the head works on, in pixels, fine to coarse; the first map is the decoder's
    feature itself if `keeps_feature`, and the others come from the backbone. `feature_stride` is that of the first map
    as it comes to the head, whatever the head makes of it. `decoder` and `backbone` name graphs without ".onnx" ("" for
    no backbone): the shared ones, or the task's own; the backbone may be "tail_classify", whose graph then gives these
    layers' features beside the logits. `layers` says which layers the maps are. `teacher_backbone` is that of the
    uncompressed task teacher, whose tail is `teacher_<task>.onnx`.
    """

    task: Literal["detect", "segment"]
    classes: tuple[str, ...]
    side: int
    multiple: int
    strides: tuple[int, ...]
    feature_stride: int
    keeps_feature: bool
    layers: tuple[str, ...]
    decoder: str = "decoder"
    backbone: str = "backbone"
    teacher_backbone: str = "backbone"
    provenance: Mapping[str, Any] | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if type(self.format) is not int or self.format != FORMAT:
            raise BundleFormat(f"task file: format {self.format!r:.20}, expected {FORMAT}; update splitcodec")
        _need(self.task in KINDS, "task", self.task, f"one of {', '.join(KINDS)}")
        _need(1 <= len(self.classes) <= 255, "classes", len(self.classes), "1 to 255 labels")
        _need(all(isinstance(one, str) for one in self.classes), "classes", self.classes, "labels as text")
        for key, number, most in (
            ("side", self.side, 16_384),
            ("multiple", self.multiple, 1024),
            ("feature_stride", self.feature_stride, 256),
            *(("strides", stride, 1024) for stride in self.strides),
        ):
            right = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= most
            _need(right, key, number, f"integers from 1 to {most}")
        _need(1 <= len(self.strides) <= 8, "strides", self.strides, "1 to 8 of them")
        _need(isinstance(self.keeps_feature, bool), "keeps_feature", self.keeps_feature, "true or false")
        first = (self.strides[0], 2 * self.strides[0])
        _need(self.feature_stride in first, "feature_stride", self.feature_stride, f"{first[0]} or {first[1]}")
        _need(len(self.layers) == len(self.strides), "layers", self.layers, "as many as strides")
        _need(all(isinstance(one, str) for one in self.layers), "layers", self.layers, "names")
        for key, name in (
            ("decoder", self.decoder),
            ("backbone", self.backbone),
            ("teacher_backbone", self.teacher_backbone),
        ):
            stem = key.removeprefix("teacher_")
            others = ["", "tail_classify"] if stem == "backbone" else []
            allowed = {stem, f"{stem}_{self.task}", f"{key}_{self.task}", *others}
            _need(name in allowed, key, name, f"one of {', '.join(sorted(allowed - {''}))}")

    @property
    def graphs(self) -> tuple[str, ...]:
        """Return the names of all graphs that answering takes, without ".onnx"."""
        return tuple(one for one in (self.decoder, self.backbone, f"tail_{self.task}") if one)

    def to_json(self) -> bytes:
        """Return the file's bytes: indented JSON in UTF-8."""
        body = {**asdict(self), "provenance": dict(self.provenance or {})}
        return (json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, *, name: str) -> TaskSpec:
        """Return what a file says. Raises BundleFormat naming the key that is wrong."""
        if len(data) > MAX_BYTES:
            raise BundleFormat(f"{name}: {len(data)} bytes, at most {MAX_BYTES} are read")
        try:
            body = strict_json(data)
        except (ValueError, RecursionError) as error:
            raise BundleFormat(f"{name}: not JSON in UTF-8 ({one_line(error, most=120)})") from None
        keys = set(TaskSpec.__dataclass_fields__)
        if not isinstance(body, dict) or set(body) != keys:
            raise BundleFormat(f"{name}: expected an object with the keys {', '.join(sorted(keys))}")
        for key in ("classes", "strides", "layers"):
            if not isinstance(body[key], list):
                raise BundleFormat(f"{name}: {key} is {body[key]!r:.40}, expected a list")
            body[key] = tuple(body[key])
        for key in ("task", "decoder", "backbone", "teacher_backbone"):
            if not isinstance(body[key], str):
                raise BundleFormat(f"{name}: {key} is {body[key]!r:.40}, expected text")
        if not isinstance(body["provenance"], dict):
            raise BundleFormat(f"{name}: provenance is {body['provenance']!r:.40}, expected an object")
        try:
            return TaskSpec(**body)
        except BundleFormat as error:
            raise BundleFormat(f"{name}: {error}") from None


def file_name(task: str) -> str:
    """Return the name of a task's file in a bundle."""
    return f"task_{task}.json"


def _need(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise BundleFormat(f"{key} is {value!r:.60}, expected {expected}")
