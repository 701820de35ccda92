"""Pictures with a class index, from the names of files or folders.   used by: rate.py

DIR/0281_tabby.jpg            a class index in front of an underscore
DIR/n02123045/anything.jpg    ImageNet's folders, one per class
DIR/robin/anything.jpg        a folder for each of the bundle's classes, by its name: a user's own

Pictures may lie deeper in a class's folder, as `learn-classes` takes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from splitcodec.errors import DataError
from splitcodec.layouts.folders import SUFFIXES
from splitcodec.wire.manifest import Manifest

_INDEXED = re.compile(r"([0-9]{1,6})_.*")
_WNID = re.compile(r"n[0-9]{8}")
_EXPECTED = (
    "expected files named <class index>_*.jpg, ImageNet folders such as n01440764/, or folders named like the bundle's "
    "classes"
)


@final
@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture file and the index of its class in the bundle's list."""

    path: Path
    index: int


def labelled_pictures(folder: str | Path, manifest: Manifest) -> list[Labelled]:
    """Return the pictures of a folder with their classes, in the order of their names; other files are left out.

    Files count if any is named by class index, else the wnid folders: by the bundle's provenance "wnids" (the wnid of
    every class, in order), or else by sorted wnids where there are exactly as many folders as classes; else folders
    with the names of classes.

    Raises DataError: no such folder, no labelled picture, or labels that the bundle's classes do not cover.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; {_EXPECTED}")
    try:
        found = _by_index(root, manifest) or _by_wnid(root, manifest) or _by_name(root, manifest)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from None
    if not found:
        raise DataError(f"{folder}: holds no labelled picture; {_EXPECTED}")
    return found


def _by_index(root: Path, manifest: Manifest) -> list[Labelled]:
    found = []
    for path in _pictures(root.iterdir()):
        if match := _INDEXED.fullmatch(path.name):
            index = int(match[1])
            if index >= len(manifest.classes):
                last = len(manifest.classes) - 1
                raise DataError(f"{path.name}: class index {index}; {manifest.ident} has classes 0 to {last}")
            found.append(Labelled(path, index))
    return found


def _by_wnid(root: Path, manifest: Manifest) -> list[Labelled]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and _WNID.fullmatch(path.name))
    if not folders:
        return []
    index_of = {wnid: index for index, wnid in enumerate(_wnids(manifest, [path.name for path in folders]))}
    for path in folders:
        if path.name not in index_of:
            raise DataError(f"{path.name}: not among the classes of {manifest.ident}; remove the folder")
    return [Labelled(path, index_of[folder.name]) for folder in folders for path in _pictures(folder.rglob("*"))]


def _by_name(root: Path, manifest: Manifest) -> list[Labelled]:
    index_of = {label: index for index, label in enumerate(manifest.classes)}
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not any(path.name in index_of for path in folders):
        return []
    for path in folders:
        if path.name not in index_of:
            raise DataError(f"{path.name}: not among the classes of {manifest.ident}; remove the folder")
        if manifest.classes.count(path.name) > 1:  # as ImageNet's crane, a bird and a machine
            first = manifest.classes.index(path.name)
            raise DataError(
                f"{path.name}: classes {first} and {index_of[path.name]} of {manifest.ident} have that name; name the "
                f"files by class index, such as {first}_*.jpg"
            )
    return [Labelled(path, index_of[folder.name]) for folder in folders for path in _pictures(folder.rglob("*"))]


def _wnids(manifest: Manifest, folders: Sequence[str]) -> Sequence[str]:
    wnids = manifest.provenance.get("wnids")
    if isinstance(wnids, list) and len(wnids) == len(manifest.classes) and all(isinstance(w, str) for w in wnids):
        return wnids
    if len(folders) != len(manifest.classes):
        raise DataError(
            f"{len(folders)} wnid folders, but {manifest.ident} has {len(manifest.classes)} classes and does not say "
            "which is which; expected one folder per class, or files named <class index>_*.jpg"
        )
    return folders


def _pictures(paths: Iterable[Path]) -> list[Path]:
    shown = (path for path in paths if not path.name.startswith("."))  # macOS leaves ._x.jpg beside x.jpg
    return sorted(path for path in shown if path.suffix.lower() in SUFFIXES and path.is_file())
