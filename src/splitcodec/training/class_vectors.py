"""Pictures in one folder per class -> what the last layer of a bundle's tail takes of them, out of packets' symbols.

Inside: device and edge of one bundle. Used by own_classes.py. What was seen is kept on disk, so that a kill costs half
a minute's work.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.ahead import ahead
from splitcodec.device.client import Device
from splitcodec.edge.decoder import Decoder
from splitcodec.errors import DataError, PictureError
from splitcodec.layouts.folders import find_photographs
from splitcodec.session import Graph
from splitcodec.training.last_layer import below_last_layer
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.durable import check_folder, made_folder, write_atomically

MOST_VECTORS: Final = 40_000
"""Of more pictures than this by views, each is seen at fewer levels, drawn anew for each."""
_KEPT_EVERY: Final = 30.0  # seconds
_LARGEST: Final = 65504.0  # of float16


@final
@dataclass(frozen=True, slots=True)
class Picture:
    """One picture file and the index of its class."""

    path: Path
    index: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Vectors float16 (N, D), the class, picture and view of each; why some pictures are left out.

    A view is a level; the one behind the last is the uncompressed picture.
    """

    vector_nd: NDArray[np.float16]
    label_n: NDArray[np.int64]
    picture_n: NDArray[np.int64]
    view_n: NDArray[np.int64]
    skipped: tuple[str, ...]

    def of_view(self, view: int) -> Seen:
        """Return the vectors of one view."""
        at_n = self.view_n == view
        return Seen(self.vector_nd[at_n], self.label_n[at_n], self.picture_n[at_n], self.view_n[at_n], self.skipped)


def class_folders(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the pictures of every class, by name: a folder below one of `folders` is a class. Raises DataError.

    Each comes once, also where a folder is given twice in different words: else it would be learned from and measured.
    """
    found: dict[str, dict[Path, Path]] = {}  # of every class by where they are
    for root in folders:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give one with a folder of pictures for each class")
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
            if not folder.name.isprintable():  # half a character as well, which no manifest takes
                raise DataError(f"{folder.name!r} below {root}: no name for a class; rename the folder")
            try:
                own = found.setdefault(folder.name, {})
                own.update({path.resolve(): path for path in find_photographs([folder]) if path.resolve() not in own})
            except DataError:
                raise DataError(f"{folder}: no pictures in it; add some, or remove the folder") from None
    return {name: list(paths.values()) for name, paths in found.items()}


def apart(found: Mapping[str, list[Path]], *, every: int) -> tuple[list[Picture], list[Picture]]:
    """Return pictures to learn from, and others of each class to measure on: one in `every`, always the same."""
    learned, held = list[Picture](), list[Picture]()
    for index, paths in enumerate(found.values()):
        order = np.random.default_rng(0).permutation(len(paths))
        for place, number in enumerate(order.tolist()):
            (held if place % every == every - 1 else learned).append(Picture(paths[number], index))
    return learned, held


@final
class Views:
    """Looks at pictures as an edge does: at every level of a bundle, and uncompressed. Safe to share between threads.

    Raises BundlePart for a device's half, GraphError for a tail that does not end in one matrix product.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._device, self._decoder = bundle, Device(bundle, threads=1), Decoder(bundle, threads=1)
        self._head = Graph(bundle.graph("head"), name=f"{bundle.ident}: head.onnx", threads=1)
        below = below_last_layer(bundle.graph("tail_classify"), name=f"{bundle.ident}: tail_classify.onnx")
        self._below = Graph(below, name=f"{bundle.ident}: tail_classify.onnx", threads=1)
        self.count = bundle.manifest.levels + 1

    def vector_vd(self, path: Path, views: Sequence[int]) -> NDArray[np.float16]:
        """Return what the last layer takes of a picture in some views (the last: uncompressed). Raises PictureError."""
        image_bhwc = self._device.crop(path)
        latent_chw = self._device.encoder.latent_chw(image_bhwc)
        tables, parts = self._bundle.tables[0], list[NDArray[np.float32]]()
        for view in views:
            if view == self.count - 1:
                parts.append(self._head(image_bhwc))
            else:
                parts.append(self._decoder.feature_bchw(tables.quantise(latent_chw, view), view))
        vector_vd: NDArray[np.float32] = self._below(np.concatenate(parts))
        return np.clip(vector_vd, -_LARGEST, _LARGEST).astype(np.float16)


def see(
    bundle: Bundle,
    pictures: Sequence[Picture],
    *,
    threads: int,
    memory: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Seen:
    """Look at pictures, `threads` at a time, at all levels or so many that MOST_VECTORS come of it.

    `memory` is a file for what was seen so far. Raises DataError where no picture can be read, OutputError, GraphError.
    """
    views = Views(bundle)
    each = max(1, min(views.count, MOST_VECTORS // max(1, len(pictures))))
    random = np.random.default_rng(0)
    chosen = [np.sort(random.permutation(views.count)[:each]).tolist() for _ in pictures]
    kept = _Memory(memory, _digest(bundle, pictures, each))
    vectors, skipped = kept.load()

    def look(number: int) -> NDArray[np.float16] | str:
        try:
            return views.vector_vd(pictures[number].path, chosen[number])
        except PictureError as error:
            return str(error)

    left = [number for number in range(len(pictures)) if number not in vectors and number not in skipped]
    for begin in range(0, len(left), 8 * threads):
        some = left[begin : begin + 8 * threads]
        for number, found in zip(some, ahead(look, some, threads=threads), strict=True):
            if isinstance(found, str):
                skipped[number] = found
            else:
                vectors[number] = found
        kept.save(vectors, skipped)
        if progress is not None:
            progress(len(vectors) + len(skipped), len(pictures))
    if not vectors:
        raise DataError(f"none of {len(pictures)} pictures can be read; give others")
    order = sorted(vectors)
    return Seen(
        np.concatenate([vectors[number] for number in order]),
        np.repeat([pictures[number].index for number in order], each),
        np.repeat(order, each),
        np.array([view for number in order for view in chosen[number]]),
        tuple(skipped[number] for number in sorted(skipped)),
    )


def _digest(bundle: Bundle, pictures: Sequence[Picture], each: int) -> str:
    files = bundle.manifest.files
    parts = [bundle.fingerprint.hex(), str(each), *(files[name].sha256 for name in sorted(files) if "onnx" in name)]
    for one in pictures:
        told = one.path.stat() if one.path.exists() else None
        parts.append(f"{one.path}\0{None if told is None else (told.st_size, told.st_mtime_ns)}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


@final
class _Memory:
    """One file with what was seen; that of other pictures or another bundle is not taken for it. None keeps nothing."""

    def __init__(self, path: Path | None, of: str) -> None:
        self._path, self._of, self._saved = path, of, time.monotonic()
        if path is not None:
            check_folder(path.parent)  # before the work rather than after it

    def load(self) -> tuple[dict[int, NDArray[np.float16]], dict[int, str]]:
        if self._path is None or not self._path.exists():
            return {}, {}
        try:
            with np.load(self._path, allow_pickle=False) as found:
                if str(found["of"]) != self._of:
                    return {}, {}
                vectors = dict(zip(found["number_p"].tolist(), found["vector_pvd"], strict=True))
                return vectors, dict(zip(found["skipped_s"].tolist(), found["why_s"].tolist(), strict=True))
        except Exception:  # damaged: seen anew
            return {}, {}

    def save(self, vectors: Mapping[int, NDArray[np.float16]], skipped: Mapping[int, str]) -> None:
        """Keep what was seen, now and then, whole or not at all. Raises OutputError."""
        if self._path is None or time.monotonic() - self._saved < _KEPT_EVERY:
            return
        file = io.BytesIO()
        np.savez(
            file,
            of=np.array(self._of),
            number_p=np.array(list(vectors), np.int64),
            vector_pvd=np.array(list(vectors.values()), np.float16),
            skipped_s=np.array(list(skipped), np.int64),
            why_s=np.array(list(skipped.values()), np.str_),
        )
        made_folder(self._path.parent)
        write_atomically(self._path, file.getvalue())
        self._saved = time.monotonic()
