"""Files of a bundle, held against its manifest when they are read.   asked by: bundle.py"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from splitcodec.errors import BundleFormat, BundleHash, BundlePart, BundleUnsafe, TablesError
from splitcodec.wire import archive
from splitcodec.wire.coder import BY_CONTEXT, RETIRED
from splitcodec.wire.contexts import FILE, Contexts
from splitcodec.wire.manifest import FileEntry, Manifest
from splitcodec.wire.tables import Tables

T = TypeVar("T", Tables, Contexts)


def check_files(manifest: Manifest, files: archive.Source) -> None:
    """Hold number and sizes of files against the manifest. Raises BundleUnsafe, BundlePart, BundleHash."""
    path = files.path
    if len(manifest.files) > archive.MAX_FILES:
        raise BundleUnsafe(
            f"{path}: {len(manifest.files)} files, at most {archive.MAX_FILES} are allowed; {archive.GET_AGAIN}"
        )
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > archive.MAX_TOTAL:
        raise BundleUnsafe(f"{path}: {total} bytes, at most {archive.MAX_TOTAL} are allowed; {archive.GET_AGAIN}")
    for name, entry in manifest.files.items():
        size = files.size(name)
        if size is None:
            how = " (or open it by its name: it lies in a zoo)" if (path.parent / archive.GRAPHS).is_dir() else ""
            raise BundlePart(f"{path}: {name} is missing; get the bundle again{how}")
        if size != entry.bytes:
            raise BundleHash(f"{path}: {name} has {size} bytes, the manifest says {entry.bytes}; get the bundle again")
    for name in manifest.table_sets:
        if name not in manifest.files:
            raise BundlePart(f"{path}: the manifest lists no {name}")


def read_tables(files: archive.Source, name: str, *, manifest: Manifest) -> Tables:
    """Return a table set that the manifest lists. Raises BundleFormat, BundleHash."""
    return _loaded(Tables.load, files, name, manifest=manifest)


def read_contexts(files: archive.Source, *, manifest: Manifest) -> Contexts | None:
    """Return the contexts of a manifest that lists coding id 2, or None. Raises as `read_tables`, and BundlePart."""
    if RETIRED in manifest.codings:
        raise BundleFormat(
            f"{manifest.ident}: codes by coding id {RETIRED}, which was never released; make its contexts anew: "
            "splitcodec contexts, on the bundle that it came from"
        )
    if BY_CONTEXT not in manifest.codings:
        return None
    if FILE not in manifest.files:
        raise BundlePart(f"{manifest.ident}: {FILE}: missing, though the manifest lists coding id {BY_CONTEXT}")
    return _loaded(Contexts.load, files, FILE, manifest=manifest)


def _loaded(load: Callable[..., T], files: archive.Source, name: str, *, manifest: Manifest) -> T:
    what = f"{manifest.ident}: {name}"
    try:
        found = load(read_checked(files, name, entry=manifest.files[name]), what=what)
    except TablesError as error:
        raise BundleFormat(f"{what}: {error}") from error
    if (found.levels, found.channels) != (manifest.levels, manifest.channels):
        raise BundleFormat(
            f"{what}: {found.levels} levels and {found.channels} channels, the manifest says {manifest.levels} and "
            f"{manifest.channels}"
        )
    return found


def read_checked(files: archive.Source, name: str, *, entry: FileEntry) -> bytes:
    """Return a file of the size and hash that the manifest lists. Raises BundleHash for any other."""
    data = files.read(name, limit=entry.bytes)
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleHash(f"{files.path}: {name} differs from its hash in the manifest; get the bundle again")
    return data
