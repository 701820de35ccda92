"""Where a bundle's files lie: a folder or a zip, either of them foreign. Nothing is ever unpacked to disk.

Every name, size and kind is checked when the bundle is opened; a file is read when it is asked for, and never more
bytes of it than announced. Two more sources stand on these: a bundle of the zoo, where the graphs of a teacher lie once
for all its bundles, and a bundle of which some files are replaced in memory before it is written.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, final

from splitcodec.errors import BundleFormat, BundleHash, BundleNotFound, BundlePart, BundleUnsafe
from splitcodec.wire.manifest import is_file_name

MAX_FILES = 64  # beside the manifest
MAX_TOTAL = 256 << 20  # bytes of all these files together, unpacked
MAX_RATIO = 200  # unpacked to packed, of a zip's file; the weights of a graph hardly shrink
_RATIO_FREE = 1 << 20  # a file below this size may shrink as much as it likes
_RECORD = 22  # bytes of the record that ends a zip
_DIRECTORY = 1 << 18  # bytes of a zip's directory; in memory it takes ten times as much
GET_AGAIN = "get the bundle again, from somebody you trust"
MANIFEST = "manifest.json"
GRAPHS = "graphs"
"""The folder of a zoo that holds shared files, each as <sha256>.onnx, golden pictures as <sha256>.npz."""
_SHARED = re.compile(
    r"(head|decoder(_[a-z0-9_]+)?|(teacher_)?backbone(_[a-z0-9_]+)?|teacher_[a-z0-9_]+|tail_[a-z0-9_]+)\.onnx"
    r"|golden/pictures\.npz"
)


class Source(Protocol):
    """The files of a bundle: a Folder, a Zip, or one of the two that stand on them."""

    path: Path

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, None if there is no such file."""
        ...

    def read(self, name: str, *, limit: int) -> bytes:
        """Return a file's bytes; BundleHash if they are more than `limit`, BundlePart if there is no such file."""
        ...


@final
class Folder:
    """A bundle in a folder. Files that the manifest does not name are never touched. Raises BundleUnsafe for links."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self, name: str) -> int | None:
        """Return a regular file's size, None if there is none."""
        at = self._file(name)
        return at.stat().st_size if at.is_file() else None

    def read(self, name: str, *, limit: int) -> bytes:
        """Return a file's bytes, reading no more than `limit` + 1 of them."""
        at = self._file(name)
        if not at.is_file():
            raise BundlePart(f"{self.path}: no file {name}")
        try:
            with at.open("rb") as file:
                return _bounded(file.read(limit + 1), limit=limit, name=name)
        except OSError as error:
            raise BundleNotFound(f"{self.path}: cannot read {name}: {error.strerror or error}") from error

    def _file(self, name: str) -> Path:
        at = self.path
        for part in name.split("/"):
            at = at / part
            if at.is_symlink():
                raise BundleUnsafe(f"{self.path}: {name} is a symbolic link; copy the bundle with its files")
        return at


@final
class Zip:
    """A bundle in a zip archive, files at its root. Raises BundleUnsafe for anything that a bundle never needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not _has_small_directory(path):
                raise BundleUnsafe(f"{path}: its directory lists more files than a bundle has; {GET_AGAIN}")
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except OSError as error:
            raise BundleNotFound(f"{path}: cannot read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise BundleFormat(f"{path}: not a readable zip archive ({error})") from error
        self._check(entries)
        self._sizes = {entry.filename: entry.file_size for entry in entries if not _is_folder(entry)}

    def size(self, name: str) -> int | None:
        """Return the size that the zip's directory announces; `read` holds the data against it."""
        return self._sizes.get(name)

    def read(self, name: str, *, limit: int) -> bytes:
        """Unpack one file in memory, no more than `limit` + 1 bytes of it."""
        if name not in self._sizes:
            raise BundlePart(f"{self.path}: no file {name}")
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                return _bounded(file.read(limit + 1), limit=limit, name=name)
        except OSError as error:
            raise BundleNotFound(f"{self.path}: cannot read {name}: {error.strerror or error}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise BundleFormat(f"{self.path}: {name} does not unpack ({error}); get the bundle again") from error

    def _check(self, entries: list[zipfile.ZipInfo]) -> None:
        names = [entry.filename for entry in entries]
        others = [entry for entry in entries if entry.filename != MANIFEST]
        if len(others) > MAX_FILES:
            raise BundleUnsafe(f"{self.path}: {len(others)} files, at most {MAX_FILES} are allowed; {GET_AGAIN}")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BundleUnsafe(f"{self.path}: {twice[:100]!r} occurs twice; {GET_AGAIN}")
        for entry in entries:
            self._check_entry(entry)
        total = sum(entry.file_size for entry in others)
        if total > MAX_TOTAL:
            raise BundleUnsafe(f"{self.path}: unpacks to {total} bytes, at most {MAX_TOTAL} are allowed; {GET_AGAIN}")

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename.removesuffix("/") if _is_folder(entry) else entry.filename
        if name != MANIFEST and not is_file_name(name):
            raise BundleUnsafe(
                f"{self.path}: {entry.filename[:100]!r}, expected plain names inside the bundle; {GET_AGAIN}"
            )
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BundleUnsafe(f"{self.path}: {name} is a link or device, expected a plain file; {GET_AGAIN}")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleUnsafe(
                f"{self.path}: {name} is encrypted or packed otherwise than by deflate; "
                "pack it with `splitcodec bundle pack`"
            )
        if entry.file_size > max(_RATIO_FREE, MAX_RATIO * entry.compress_size):
            raise BundleUnsafe(
                f"{self.path}: {name} unpacks from {entry.compress_size} to {entry.file_size} bytes: a zip bomb; "
                f"{GET_AGAIN}"
            )


def _has_small_directory(path: Path) -> bool:
    """Say whether a zip's directory may be read: `zipfile` keeps all of it. Looks for its record where that does."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _RECORD - (1 << 16)))
        tail = file.read()
    at = len(tail) - _RECORD
    if at < 0 or tail[at : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6")
    if at < 0:
        return True  # no zip at all, as `zipfile` will say
    far = tail[max(0, at - 20) :].startswith(b"PK\6\7")  # the record for four gigabytes and more counts instead
    return not far and int.from_bytes(tail[at + 12 : at + 16], "little") <= _DIRECTORY


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.endswith("/")  # zipfile's own is_dir stumbles over a name of no letters


@final
class InZoo:
    """A bundle of a zoo: its own files in its folder, the teacher's graphs perhaps in the zoo's `graphs/`, by hash.

    `sha256_of` is the manifest's; what is read is held against it by whoever reads, like every file.
    """

    def __init__(self, own: Source, zoo: Path, *, sha256_of: Mapping[str, str]) -> None:
        self.path = own.path
        self._own = own
        self._graphs = Folder(zoo / GRAPHS)
        self._shared = {name: shared_name(name, sha) for name, sha in sha256_of.items() if is_shared(name)}

    def size(self, name: str) -> int | None:
        """Return the size of the bundle's own file, or else of the shared graph."""
        size = self._own.size(name)
        return self._graphs.size(self._shared[name]) if size is None and name in self._shared else size

    def read(self, name: str, *, limit: int) -> bytes:
        """Return the bundle's own file, or else the shared graph."""
        if name in self._shared and self._own.size(name) is None:
            return self._graphs.read(self._shared[name], limit=limit)
        return self._own.read(name, limit=limit)


@final
class Changed:
    """Another source with some files added or replaced in memory."""

    def __init__(self, base: Source, files: Mapping[str, bytes]) -> None:
        self.path = base.path
        self._base = base
        self._files = dict(files)

    def size(self, name: str) -> int | None:
        """Return the size of the new file, or else of the old one."""
        return len(self._files[name]) if name in self._files else self._base.size(name)

    def read(self, name: str, *, limit: int) -> bytes:
        """Return the new file, or else the old one."""
        if name in self._files:
            return _bounded(self._files[name], limit=limit, name=name)
        return self._base.read(name, limit=limit)


def packing(data: bytes) -> int:
    """Return how a zip holds a file: stored where deflate would make it look like a bomb."""
    if len(data) > _RATIO_FREE and len(data) * 2 > MAX_RATIO * len(zlib.compress(data)):
        return zipfile.ZIP_STORED
    return zipfile.ZIP_DEFLATED


def is_there(path: str | Path) -> bool:
    """Say whether there is a file or folder; none where no file could have such a name, or it is none."""
    try:
        return Path(path).exists()
    except (OSError, TypeError, ValueError):
        return False


def is_shared(name: str) -> bool:
    """Say whether bundles may have that file in common: their teacher's head and tails, decoders, golden pictures."""
    return _SHARED.fullmatch(name) is not None


def shared_name(name: str, sha256: str) -> str:
    """Return what a shared file is called in a zoo's `graphs/`."""
    return f"{sha256}.{name.rpartition('.')[2]}"


def open_source(path: Path) -> Source:
    """Return the folder or zip at `path`. Raises BundleNotFound, BundleFormat, BundleUnsafe."""
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        return Zip(path)
    raise BundleNotFound(f"{path}: no such folder or zip")


def _bounded(data: bytes, *, limit: int, name: str) -> bytes:
    if len(data) > limit:
        raise BundleHash(f"{name}: more than the {limit} bytes that are expected of it")
    return data
