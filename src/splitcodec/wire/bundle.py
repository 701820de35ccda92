"""The bundle: graphs, integer tables and a manifest in a folder or a zip; what the two shores agree on beforehand.

The fingerprint covers what both shores must share and nothing else, so an edge may improve its decoder without asking
its devices. Files are read when asked for, held against their hash, and graphs are searched for references to other
files; a bundle from a stranger can be wrong but do no harm. docs/bundle-format.md is the norm.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import final

from splitcodec.errors import (
    BundleFormat,
    BundleNotFound,
    BundlePart,
    BundleUnsafe,
    OutputError,
)
from splitcodec.wire import archive, packet
from splitcodec.wire.checked import check_files, read_checked, read_contexts, read_tables
from splitcodec.wire.contexts import Contexts
from splitcodec.wire.durable import check_free, sync_folder, write_synced, write_tree
from splitcodec.wire.graphs import check_graph
from splitcodec.wire.manifest import MAX_BYTES, Colour, FileEntry, Manifest, is_file_name
from splitcodec.wire.tables import Tables
from splitcodec.wire.task import TaskSpec, file_name

_DEVICE = re.compile(
    r"tables(\.\d+)?\.npz|contexts\.npz|encoder(\..+)?\.onnx|golden/.+|task_[a-z0-9_]+\.json|MODEL_CARD\.md"
)
CARD = "MODEL_CARD.md"

__all__ = [
    "CARD",
    "Bundle",
    "Colour",
    "FileEntry",
    "Manifest",
    "derive",
    "device_half",
    "fingerprint_of",
    "open_bundle",
    "renamed",
    "split_device",
    "write_bundle",
    "write_folder",
    "write_zip",
    "zoo_folder",
    "zoo_names",
]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """An opened bundle. `tables` holds one entry per table set, `fingerprint` is 32 bytes, `path` its folder or zip.

    `contexts` are those of coding id 2, None where the bundle has not got it.
    """

    manifest: Manifest
    tables: tuple[Tables, ...]
    fingerprint: bytes
    source: archive.Source
    contexts: Contexts | None = None

    @property
    def ident(self) -> str:
        """Return `name@version`."""
        return self.manifest.ident

    @property
    def path(self) -> Path:
        """Return the folder or zip that was opened."""
        return self.source.path

    @property
    def is_device_half(self) -> bool:
        """Say whether the edge's graphs are left out, as by `split_device`."""
        return not self.has("decoder.onnx")

    def has(self, file_name: str) -> bool:
        """Say whether the bundle holds that file."""
        return file_name in self.manifest.files

    def read(self, file_name: str) -> bytes:
        """Return a file's bytes, held against size and hash; a graph also against references to other files.

        Raises BundlePart if the bundle does not hold it, BundleHash if it changed, BundleUnsafe.
        """
        entry = self.manifest.files.get(file_name)
        if entry is None:
            half, what = "a bundle", "one that holds it"
            if self.is_device_half:
                half, what = "the device's half of a bundle", "the whole one; the wheel for devices has halves alone"
            raise BundlePart(f"{self.ident}: {half} without {file_name}; use {what}")
        data = read_checked(self.source, file_name, entry=entry)
        if file_name.endswith(".onnx"):
            check_graph(data, name=f"{self.ident}: {file_name}")
        return data

    def task(self, task: str) -> TaskSpec:
        """Return what the bundle says of a task beside classification. Raises BundlePart, BundleHash, BundleFormat."""
        name = file_name(task)
        spec = TaskSpec.from_json(self.read(name), name=f"{self.ident}: {name}")
        if spec.task != task:
            raise BundleFormat(f"{self.ident}: {name} is of task {spec.task}")
        return spec

    def graph(self, stem: str) -> bytes:
        """Return the graph `<stem>.onnx`; see `read`."""
        return self.read(f"{stem}.onnx")


def open_bundle(source: str | Path, *, zoo: Path | None = None) -> Bundle:
    """Open a bundle: a zoo name ("efficientnet-lite0" is its newest version, or with "@1"), a folder or a zip.

    A string that names both a bundle of the zoo and a folder means the zoo's; write "./name" for the folder. Manifest
    and tables are read and checked now, other files when asked for. `zoo` is the zoo's folder (none: the package's).
    Raises BundleNotFound, BundleFormat, BundleHash, BundleUnsafe, BundlePart.
    """
    root = zoo_folder() if zoo is None else zoo
    ident = _find(source, root)
    if ident is None and (source == "" or not archive.is_there(source)):  # "" as a path is the folder one is in
        names, given = ", ".join(zoo_names(root)) or "none", str(source)[:300] or "an empty name"
        raise BundleNotFound(f"{given}: no such folder or zip, nor a bundle of the zoo, which holds {names}")
    files = archive.open_source(Path(source) if ident is None else root / ident)
    size = files.size(archive.MANIFEST)
    if size is None:
        raise BundleNotFound(
            f"{files.path}: no {archive.MANIFEST} at its root, so it is not a bundle; give a zoo name, or what "
            "`splitcodec export` or `splitcodec bundle pack` wrote"
        )
    if size > MAX_BYTES:
        raise BundleUnsafe(
            f"{files.path}: a manifest of {size} bytes, at most {MAX_BYTES} are read; {archive.GET_AGAIN}"
        )
    manifest = Manifest.from_json(files.read(archive.MANIFEST, limit=MAX_BYTES))
    if ident is not None:
        files = archive.InZoo(files, root, sha256_of={name: entry.sha256 for name, entry in manifest.files.items()})
    return _opened(manifest, files)


def zoo_folder() -> Path:
    """Return the folder of the bundles that ship with the package."""
    return Path(str(resources.files("splitcodec.zoo")))


def zoo_names(zoo: Path | None = None) -> list[str]:
    """Return the bundles of a zoo (none: the package's), as name@version, oldest version first."""
    root = zoo_folder() if zoo is None else zoo
    found = (entry.name for entry in (root.iterdir() if root.is_dir() else ()) if (entry / archive.MANIFEST).is_file())
    return sorted((name for name in found if _split_ident(name)[1]), key=_split_ident)


def fingerprint_of(manifest: Manifest, tables: Sequence[Tables], contexts: Contexts | None = None) -> bytes:
    """Return the SHA-256 (32 bytes) of what both shores must share, put together as docs/bundle-format.md says."""
    shared = {
        "channels": manifest.channels,
        "codings": sorted(manifest.codings),
        "colour": {"offset": float(manifest.colour.offset), "scale": float(manifest.colour.scale)},
        "levels": manifest.levels,
        "packet": packet.VERSION,
        "stride": manifest.stride,
        "table_sets": len(tables),
    }
    digest = hashlib.sha256(json.dumps(shared, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    for one in tables:
        digest.update(one.shared_bytes())
    if contexts is not None:
        digest.update(contexts.shared_bytes())
    return digest.digest()


def write_bundle(folder: str | Path, manifest: Manifest, *, files: Mapping[str, bytes]) -> Bundle:
    """Write a new bundle folder and return it opened. `manifest.files` is replaced by the hashes of `files`.

    All or nothing, also after a loss of power: written beside its place, opened as a check, then renamed. Raises
    OutputError if `folder` exists or cannot be written, and as `open_bundle` and `Bundle.read` for a wrong bundle.
    """
    target = Path(folder)
    for name in files:
        if not is_file_name(name):
            raise OutputError(f"{name!r} cannot be the name of a bundle's file")
    entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(files.items())}
    manifest = replace(manifest, files=entries)
    check_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            draft = Path(temporary) / "bundle"
            write_tree(draft, {**files, archive.MANIFEST: manifest.to_json()})
            checked = open_bundle(draft)
            for name in manifest.files:
                checked.read(name)
            draft.rename(target)
            sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write the bundle {target}: {error.strerror or error}") from error
    return open_bundle(target)


def write_folder(bundle: Bundle, folder: str | Path) -> Bundle:
    """Write the bundle as a folder that holds all its files; see `write_bundle`. Raises as that and `Bundle.read`."""
    return write_bundle(folder, bundle.manifest, files={name: bundle.read(name) for name in bundle.manifest.files})


def write_zip(bundle: Bundle, path: str | Path) -> None:
    """Write the bundle as one zip; the same bundle gives the same bytes. Raises OutputError, and as `Bundle.read`."""
    target = Path(path)
    check_free(target)
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name in (archive.MANIFEST, *bundle.manifest.files):
            data = bundle.manifest.to_json() if name == archive.MANIFEST else bundle.read(name)
            entry = zipfile.ZipInfo(name)  # 1980: no clock in the bytes
            entry.compress_type, entry.external_attr = archive.packing(data), 0o100644 << 16
            out.writestr(entry, data)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            draft = Path(temporary) / "bundle.zip"
            write_synced(draft, packed.getvalue())
            draft.replace(target)
            sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def split_device(bundle: Bundle, folder: str | Path) -> Bundle:
    """Write the device's half as a folder; see `device_half` and `write_folder`."""
    return write_folder(device_half(bundle), folder)


def device_half(bundle: Bundle) -> Bundle:
    """Return the device's half: tables, encoder graphs, golden vectors, card; same fingerprint. Nothing is written."""
    kept = {name: entry for name, entry in bundle.manifest.files.items() if _DEVICE.fullmatch(name)}
    return replace(bundle, manifest=replace(bundle.manifest, files=kept))


def derive(bundle: Bundle, manifest: Manifest, *, files: Mapping[str, bytes], without: Collection[str] = ()) -> Bundle:
    """Return the bundle with another manifest, with `files` added or replaced, `without` others; nothing is written.

    `manifest.files` is replaced by the old files' entries and the new ones'. Raises as `open_bundle` does.
    """
    entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    merged = dict(sorted({**bundle.manifest.files, **entries}.items()))
    merged = {name: entry for name, entry in merged.items() if name not in without}
    return _opened(replace(manifest, files=merged), archive.Changed(bundle.source, files))


def renamed(bundle: Bundle, name: str | None, version: int | None) -> Bundle:
    """Return the bundle under another name or version (none: its own), the card's title too; nothing is written.

    Raises BundleFormat for a name or version that no manifest takes.
    """
    old = bundle.manifest
    manifest = replace(
        old, name=old.name if name is None else name, version=old.version if version is None else version
    )
    files = {}
    if bundle.has(CARD):
        files[CARD] = bundle.read(CARD).replace(f"# {old.ident}".encode(), f"# {manifest.ident}".encode(), 1)
    return derive(bundle, manifest, files=files)


def _opened(manifest: Manifest, files: archive.Source) -> Bundle:
    check_files(manifest, files)
    tables = tuple(read_tables(files, name, manifest=manifest) for name in manifest.table_sets)
    contexts = read_contexts(files, manifest=manifest)
    fingerprint = fingerprint_of(manifest, tables, contexts)
    return Bundle(manifest=manifest, tables=tables, fingerprint=fingerprint, source=files, contexts=contexts)


def _find(source: str | Path, zoo: Path) -> str | None:
    """Return the newest bundle of the zoo that a name stands for, if it is one."""
    if not isinstance(source, str):
        return None
    name, version = _split_ident(source)
    found = [one for one in zoo_names(zoo) if _split_ident(one)[0] == name and version in (0, _split_ident(one)[1])]
    return found[-1] if found else None


def _split_ident(text: str) -> tuple[str, int]:
    """Return (name, version) of name@version; version 0 where there is none."""
    match = re.fullmatch(r"(.+)@([1-9]\d{0,18})", text)
    return (match[1], int(match[2])) if match else (text, 0)
