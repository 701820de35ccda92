"""A finished bundle -> the zoo's folder, where the graphs of a teacher lie once for all its bundles.

    zoo/<name>@<version>/        a bundle's own files and its manifest, which lists the shared graphs too
    zoo/graphs/<sha256>.onnx     heads, tails, decoders; golden pictures as <sha256>.npz

`archive.InZoo` reads what lies so. Bundles may also lie beside one another whole, in a folder of the user's own.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import final

from splitcodec.errors import BundleNotFound, BundlePart, OutputError
from splitcodec.wire import archive
from splitcodec.wire.bundle import Bundle, open_bundle, zoo_names
from splitcodec.wire.durable import made_folder, sync_folder, write_synced, write_tree
from splitcodec.wire.manifest import Manifest

_SHARED = re.compile(r"[0-9a-f]{64}\.(onnx|npz)")


def bundles_at(source: str | Path) -> list[str | Path]:
    """Return what a source stands for: itself, or the bundles that a folder which is none holds, by name.

    These are folders with a manifest and files that end in .zip; hidden ones, such as those half copied, are left out.
    Nothing is opened. Raises BundleNotFound for a folder that cannot be read.
    """
    if source == "" or not archive.is_there(source):  # the zoo's, or nothing that could be a path
        return [source]
    if source in {name for ident in zoo_names() for name in (ident, ident.rpartition("@")[0])}:
        return [source]
    folder = Path(source)
    try:
        if not folder.is_dir() or (folder / archive.MANIFEST).exists():
            return [source]
        inside = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
        found = [one for one in inside if (one / archive.MANIFEST).is_file() or _is_zip(one)]
    except OSError as error:
        raise BundleNotFound(f"{folder}: cannot read this folder: {error.strerror or error}") from error
    return [*found] or [source]


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


@final
@dataclass(frozen=True, slots=True)
class Added:
    """What became of a bundle: itself, opened from the zoo; and the zoo's graphs.

    `shared` names every shared graph of the bundle and the other bundles of the zoo that have it; `removed` are file
    names in `graphs/` that no bundle names any more.
    """

    bundle: Bundle
    shared: dict[str, list[str]]
    removed: list[str]


def add_to_zoo(bundle: Bundle, zoo: str | Path, *, replace: bool = False) -> Added:
    """Put a bundle into a zoo's folder: its own files into `<name>@<version>/`, head and tails by hash, each once.

    A bundle that is there already is written anew; one of that name and version but with other files is refused unless
    `replace`. Graphs that no bundle of the zoo names any more are removed. If writing fails, the old bundle stays.
    Raises OutputError, BundlePart for a device's half, and what `open_bundle` raises for bundles of the zoo.
    """
    root = Path(zoo)
    if bundle.is_device_half:
        raise BundlePart(f"{bundle.ident}: the device's half of a bundle; a zoo holds whole ones")
    made_folder(root)
    try:
        others = {ident: _manifest(root / ident) for ident in zoo_names(root) if ident != bundle.ident}
        _check_place(bundle, root, replace=replace)
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        own = {name: data for name, data in files.items() if not archive.is_shared(name)}
        for name in files.keys() - own.keys():
            store_shared(files[name], root, name=name, sha256=bundle.manifest.files[name].sha256)
        _place({**own, archive.MANIFEST: bundle.manifest.to_json()}, root / bundle.ident)
        added = open_bundle(bundle.ident, zoo=root)
        for name in added.manifest.files:
            added.read(name)
        removed = _sweep(root / archive.GRAPHS, [added.manifest, *others.values()])
    except OSError as error:
        raise OutputError(f"cannot write {bundle.ident} to {root}: {error.strerror or error}") from error
    holders = {ident: _hashes(manifest) for ident, manifest in others.items()}
    shared = {
        name: [ident for ident, found in holders.items() if entry.sha256 in found]
        for name, entry in bundle.manifest.files.items()
        if archive.is_shared(name)
    }
    return Added(added, shared, removed)


def _check_place(bundle: Bundle, root: Path, *, replace: bool) -> None:
    place = root / bundle.ident
    if not place.exists() or replace:
        return
    if not (place / archive.MANIFEST).is_file() or _manifest(place) != bundle.manifest:
        raise OutputError(f"{place} holds another {bundle.ident}; raise the version, or replace it by --replace")


def _manifest(folder: Path) -> Manifest:
    return Manifest.from_json((folder / archive.MANIFEST).read_bytes())


def _hashes(manifest: Manifest) -> set[str]:
    return {entry.sha256 for name, entry in manifest.files.items() if archive.is_shared(name)}


def store_shared(data: bytes, zoo: Path, *, name: str, sha256: str) -> None:
    """Write a file that bundles share under its hash, unless it lies there whole. Raises OSError."""
    place = zoo / archive.GRAPHS / archive.shared_name(name, sha256)
    if place.is_file() and hashlib.sha256(place.read_bytes()).hexdigest() == sha256:
        return
    place.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".graph.", dir=place.parent) as temporary:
        draft = Path(temporary) / place.name
        write_synced(draft, data)
        draft.replace(place)
        sync_folder(place.parent)


def _place(files: dict[str, bytes], folder: Path) -> None:
    """Write a folder beside its place, then let it take the place; what was there comes back if that fails."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        draft, old = Path(temporary) / "new", Path(temporary) / "old"
        write_tree(draft, files)
        if folder.exists():
            folder.rename(old)
        try:
            draft.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        sync_folder(folder.parent)


def _sweep(graphs: Path, manifests: list[Manifest]) -> list[str]:
    """Remove the shared files that none of the bundles names; returns their file names."""
    if not graphs.is_dir():
        return []
    kept = {sha for manifest in manifests for sha in _hashes(manifest)}
    unused = [path for path in sorted(graphs.iterdir()) if _SHARED.fullmatch(path.name) and path.stem not in kept]
    for path in unused:
        path.unlink()
    return [path.name for path in unused]
