"""onnxruntime-web, which lets the page's browser encode by itself: fetched once, pinned by hash.   used by: web.py

Its WebAssembly has 14 MB that few need, so it is not in the wheel: `splitcodec demo-assets` gets the
npm package through npm (and so through whatever registry npm is set up for) or takes a tarball that was carried here.
Without it the server encodes for the page.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import final

from splitcodec.errors import MissingExtra, OutputError, SettingsError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
TARBALL = f"{PACKAGE}-{VERSION}.tgz"
MODULE = "ort.wasm.bundle.min.mjs"
WASM = "ort-wasm-simd-threaded.wasm"
_TARBALL_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
_SHA256 = {
    MODULE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_LARGEST = 64 << 20
_NPM_SECONDS = 600


@final
@dataclass(frozen=True, slots=True)
class Ort:
    """The two files of onnxruntime-web that the page loads, each compressed with gzip as it goes over the wire."""

    gzipped: dict[str, bytes]


def cache_folder() -> Path:
    """Return where the files are kept: SPLITCODEC_CACHE, or the user's cache folder. Raises SettingsError without."""
    if chosen := os.environ.get("SPLITCODEC_CACHE"):
        return Path(chosen) / f"{PACKAGE}-{VERSION}"
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without an entry in passwd, as in containers
        raise SettingsError("this user has no home folder; set SPLITCODEC_CACHE to a folder") from None
    return Path(base) / "splitcodec" / f"{PACKAGE}-{VERSION}"


def find_ort() -> Ort | None:
    """Return the files if they were fetched, None if not. Raises SettingsError if they were changed since."""
    try:
        folder = cache_folder()
    except SettingsError:
        return None
    gzipped = {}
    for name, expected in _SHA256.items():
        path = folder / f"{name}.gz"
        try:
            gzipped[name] = path.read_bytes()
        except OSError:  # not there, or a home that this user or a service may not look into
            return None
        if _unpacked_sha256(gzipped[name]) != expected:
            raise SettingsError(f"{path} was changed or damaged; run `splitcodec demo-assets` again")
    return Ort(gzipped)


def fetch_ort(tarball: str | Path | None = None) -> Path:
    """Put the files into the cache and return its folder; `tarball` is the npm package's (none: ask npm for it).

    Raises MissingExtra without npm, SettingsError if npm fails or the tarball is not the pinned one, OutputError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data = _read(Path(tarball) if tarball is not None else _npm_pack(Path(scratch)))
        found = hashlib.sha512(data).hexdigest()
        if found != _TARBALL_SHA512:
            raise SettingsError(
                f"the tarball's SHA-512 begins {found[:16]}, that of {TARBALL} {_TARBALL_SHA512[:16]}; get that version"
            )
        pack = Path(scratch) / "checked.tgz"
        pack.write_bytes(data)
        with tarfile.open(pack, "r:gz") as members:
            files = {name: _member(members, f"package/dist/{name}") for name in _SHA256}
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            draft = folder / f".{name}.{os.getpid()}"
            draft.write_bytes(gzip.compress(content, mtime=0))
            draft.replace(folder / f"{name}.gz")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); set SPLITCODEC_CACHE") from None
    return folder


def _npm_pack(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingExtra(f"npm is not installed; get {TARBALL} elsewhere and pass it with --from {TARBALL}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(folder), "--loglevel", "error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_NPM_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"npm did not answer within {_NPM_SECONDS} s; get {TARBALL} and pass it with --from"
        ) from None
    if done.returncode or not (folder / TARBALL).is_file():
        said = " ".join(done.stderr.split())[:200] or "it said nothing"
        raise SettingsError(f"npm could not get {PACKAGE} {VERSION} ({said}); get {TARBALL} and pass it with --from")
    return folder / TARBALL


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}; give the tarball {TARBALL}") from None


def _member(members: tarfile.TarFile, name: str) -> bytes:
    file = members.extractfile(name)  # the tarball's hash was checked, so it is there
    if file is None:
        raise SettingsError(f"{name}: not a file in {TARBALL}")
    return file.read()


def _unpacked_sha256(gzipped: bytes) -> str:
    try:
        return hashlib.sha256(gzip.decompress(gzipped)).hexdigest()
    except (OSError, EOFError, ValueError, zlib.error):
        return ""
