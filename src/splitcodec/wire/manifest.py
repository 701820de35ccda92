"""`manifest.json`: what a bundle says of itself, checked key by key. docs/bundle-format.md is the norm.

Unknown keys are refused like missing ones: a manifest of a later format must not be half understood.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, final

from splitcodec.errors import BundleFormat, one_line

FORMAT = 1
MAX_BYTES = 4 << 20
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_TASK = re.compile(r"[a-z0-9_]{1,32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_ENCODER_KEYS = ("macs", "parameters", "bytes")

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Colour:
    """Colour scaling inside the graphs: uint8 RGB becomes `x * scale + offset`. For information; the graphs do it."""

    scale: float
    offset: float


@final
@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the bundle: SHA-256 in lower-case hex, size in bytes."""

    sha256: str
    bytes: int


@final
@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a bundle says of itself; every field is checked, BundleFormat names the one that is wrong.

    `stride`, `resize`, `crop` and `max_side` are in pixels, `max_symbols` counts the latent's symbols in one packet,
    `codings` are coding ids, `table_sets` file names in the order of the packet's table set, `encoder` holds "macs",
    "parameters" and "bytes", `provenance` is free JSON, `files` is filled by `write_bundle`.
    """

    name: str
    version: int
    colour: Colour
    stride: int
    resize: int
    crop: int
    channels: int
    levels: int
    default_level: int
    max_symbols: int
    max_side: int
    classes: tuple[str, ...]
    tasks: tuple[str, ...]
    encoder: Mapping[str, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    codings: tuple[int, ...] = (0,)
    table_sets: tuple[str, ...] = ("tables.npz",)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        _integer(self.format, "format", low=1)
        if self.format != FORMAT:
            raise BundleFormat(f"manifest: format {self.format}, expected {FORMAT}; update splitcodec")
        _need(_matches(_NAME, self.name), "name", self.name, "lower-case letters, digits, '.', '_' and '-'")
        _integer(self.version, "version", low=1)
        for side in (self.colour.scale, self.colour.offset):
            _need(_is_number(side) and abs(side) < 1e6, "colour", side, "finite numbers scale and offset")
        _integer(self.stride, "stride", low=1, high=256)
        _integer(self.crop, "crop", low=1, high=65_536)
        _need(self.crop % self.stride == 0, "crop", self.crop, f"a multiple of the stride {self.stride}")
        _integer(self.resize, "resize", low=self.crop, high=65_536)
        _integer(self.max_side, "max_side", low=self.crop, high=65_536)
        _integer(self.channels, "channels", low=1, high=4096)
        _integer(self.levels, "levels", low=1, high=16)
        _integer(self.default_level, "default_level", low=0, high=self.levels - 1)
        least = self.channels * (self.crop // self.stride) ** 2
        _integer(self.max_symbols, "max_symbols", low=least, high=self.channels * 255 * 255)
        _need(1 <= len(self.codings) == len(set(self.codings)), "codings", self.codings, "distinct ids")
        for coding in self.codings:
            _integer(coding, "codings", low=0, high=15)
        _need(0 in self.codings, "codings", self.codings, "0, by channel, among them: devices fall back on it")
        names = table_set_names(len(self.table_sets))
        _need(1 <= len(names) <= 16 and self.table_sets == names, "table_sets", self.table_sets, f"{list(names[:16])}")
        _need(1 <= len(self.classes) <= 100_000, "classes", len(self.classes), "1 to 100000 labels")
        _need(all(isinstance(label, str) for label in self.classes), "classes", self.classes, "labels as text")
        _need(len(set(self.tasks)) == len(self.tasks) <= 16, "tasks", self.tasks, "distinct names, at most 16")
        for task in self.tasks:
            _need(_matches(_TASK, task), "tasks", task, "lower-case letters, digits and '_'")
        _need(set(self.encoder) == set(_ENCODER_KEYS), "encoder", sorted(self.encoder), f"keys {list(_ENCODER_KEYS)}")
        for key, number in self.encoder.items():
            _integer(number, f"encoder.{key}", low=0)
        for name, entry in self.files.items():
            _need(is_file_name(name), "files", name, "a plain relative name")
            _need(_matches(_SHA256, entry.sha256), f"files.{name}.sha256", entry.sha256, "64 hex digits")
            _integer(entry.bytes, f"files.{name}.bytes", low=0)

    @property
    def ident(self) -> str:
        """Return `name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def max_grid(self) -> int:
        """Return how many latent rows, and how many columns, a packet may announce: those of `max_side`.

        One more where `max_symbols` has room for a square of that side: such an encoder gains a row and a column.
        """
        side = self.max_side // self.stride
        return side + (self.channels * (side + 1) ** 2 <= self.max_symbols)

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON in UTF-8, keys in the order of docs/bundle-format.md."""
        body = {
            "format": self.format,
            "name": self.name,
            "version": self.version,
            "colour": {"scale": float(self.colour.scale), "offset": float(self.colour.offset)},
            "stride": self.stride,
            "resize": self.resize,
            "crop": self.crop,
            "channels": self.channels,
            "levels": self.levels,
            "default_level": self.default_level,
            "codings": list(self.codings),
            "table_sets": list(self.table_sets),
            "max_symbols": self.max_symbols,
            "max_side": self.max_side,
            "tasks": list(self.tasks),
            "encoder": {key: self.encoder[key] for key in _ENCODER_KEYS},
            "provenance": dict(self.provenance),
            "files": {n: {"sha256": e.sha256, "bytes": e.bytes} for n, e in sorted(self.files.items())},
            "classes": list(self.classes),
        }
        try:
            return (json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise BundleFormat(f"manifest: classes or provenance are not JSON ({_shown(error)})") from error

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """Return the manifest in `data`, at most 4 MiB. Raises BundleFormat naming the key that is wrong."""
        if len(data) > MAX_BYTES:
            raise BundleFormat(f"manifest: {len(data)} bytes, at most {MAX_BYTES} are read")
        try:
            body = strict_json(data)
        except (ValueError, RecursionError) as error:
            raise BundleFormat(f"manifest: not JSON in UTF-8 ({one_line(error, most=120)})") from error
        found = _object(body, "manifest", keys=_KEYS)
        return Manifest(**{key: read(found[key], key) for key, read in _KEYS.items()})


def table_set_names(count: int) -> tuple[str, ...]:
    """Return the file names of `count` table sets: tables.npz, tables.1.npz, ..."""
    return ("tables.npz", *(f"tables.{index}.npz" for index in range(1, count)))[:count]


def is_file_name(name: object) -> bool:
    """Say whether `name` may be a bundle's file: one to three plain parts joined by '/', none that climbs or hides."""
    if not isinstance(name, str) or name == "manifest.json":
        return False
    parts = name.split("/")
    return len(parts) <= 3 and all(_PART.fullmatch(part) for part in parts)


def _text(value: object, key: str) -> str:
    _need(isinstance(value, str), key, value, "text")
    return str(value)


def _integer(value: object, key: str, *, low: int = -(1 << 62), high: int = 1 << 62) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        bounds = f" from {low} to {high}" if high < 1 << 62 else f" of at least {low}" if low > -(1 << 62) else ""
        raise BundleFormat(f"manifest: {key} is {_shown(value)}, expected an integer{bounds}")
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BundleFormat(f"manifest: {key} is {_shown(value)}, expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise BundleFormat(f"manifest: {key} is too large") from error


def _several(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    def read_all(value: object, key: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise BundleFormat(f"manifest: {key} is {_shown(value)}, expected a list")
        return tuple(read(one, key) for one in value)

    return read_all


def _object(value: object, key: str, *, keys: Mapping[str, object] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleFormat(f"manifest: {key} is {_shown(value)}, expected an object")
    if keys is not None:
        missing, unknown = sorted(set(keys) - set(value)), sorted(set(value) - set(keys))
        if missing:
            raise BundleFormat(f"manifest: {key} lacks the key {missing[0]!r}")
        if unknown:
            raise BundleFormat(f"manifest: {key} has the unknown key {unknown[0][:40]!r}; is it of a later version?")
    return value


def _colour(value: object, key: str) -> Colour:
    found = _object(value, key, keys={"scale": 0, "offset": 0})
    return Colour(scale=_number(found["scale"], f"{key}.scale"), offset=_number(found["offset"], f"{key}.offset"))


def _encoder(value: object, key: str) -> dict[str, int]:
    found = _object(value, key, keys=dict.fromkeys(_ENCODER_KEYS))
    return {name: _integer(found[name], f"{key}.{name}", low=0) for name in _ENCODER_KEYS}


def _files(value: object, key: str) -> dict[str, FileEntry]:
    entries = {}
    for name, entry in _object(value, key).items():
        place = f"{key}.{name[:100]!r}" if not name.isprintable() else f"{key}.{name[:100]}"
        found = _object(entry, place, keys={"sha256": 0, "bytes": 0})
        sha256 = _text(found["sha256"], f"{place}.sha256")
        entries[name] = FileEntry(sha256=sha256, bytes=_integer(found["bytes"], f"{place}.bytes", low=0))
    return entries


_KEYS: dict[str, Callable[[object, str], Any]] = {
    "format": _integer,
    "name": _text,
    "version": _integer,
    "colour": _colour,
    "stride": _integer,
    "resize": _integer,
    "crop": _integer,
    "channels": _integer,
    "levels": _integer,
    "default_level": _integer,
    "codings": _several(_integer),
    "table_sets": _several(_text),
    "max_symbols": _integer,
    "max_side": _integer,
    "tasks": _several(_text),
    "encoder": _encoder,
    "provenance": _object,
    "files": _files,
    "classes": _several(_text),
}


def _need(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise BundleFormat(f"manifest: {key} is {_shown(value)}, expected {expected}")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:60]


def strict_json(data: bytes) -> Any:
    """Return what JSON in UTF-8 says, without doubled keys, NaN, infinities. Raises ValueError, RecursionError."""
    found = json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # 1e999; half a character, which nobody could print
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
