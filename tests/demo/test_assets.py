"""onnxruntime-web: only the pinned files are taken, and nothing breaks where they are not."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import stat
import tarfile
from pathlib import Path

import pytest

from splitcodec.demo import assets
from splitcodec.demo.assets import MODULE, TARBALL, WASM, cache_folder, fetch_ort, find_ort
from splitcodec.errors import MissingExtra, OutputError, SettingsError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPLITCODEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tarball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small tarball of the right form, whose hashes are the pinned ones for this test."""
    contents = {MODULE: b"export {}", WASM: b"\0asm"}
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as pack:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            pack.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(assets, "_TARBALL_SHA512", hashlib.sha512(path.read_bytes()).hexdigest())
    monkeypatch.setattr(assets, "_SHA256", {name: hashlib.sha256(one).hexdigest() for name, one in contents.items()})
    return path


def test_none_were_fetched() -> None:
    assert find_ort() is None


def test_a_cache_that_may_not_be_looked_into_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd hides homes from a service: the page was refused, though the server can encode for it."""

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("stat", "open"):
        monkeypatch.setattr(Path, name, forbidden)
    assert find_ort() is None


def test_files_are_taken_from_the_tarball_and_found(tarball: Path, cache: Path) -> None:
    assert fetch_ort(tarball) == cache_folder()
    assert cache_folder().parent == cache
    found = find_ort()
    assert found is not None
    assert {name: gzip.decompress(one) for name, one in found.gzipped.items()} == {MODULE: b"export {}", WASM: b"\0asm"}
    assert fetch_ort(tarball) == cache_folder()


def test_another_tarball_is_refused(tarball: Path) -> None:
    tarball.write_bytes(tarball.read_bytes() + b"\0")
    with pytest.raises(SettingsError, match="SHA-512"):
        fetch_ort(tarball)
    with pytest.raises(SettingsError, match=TARBALL):
        fetch_ort(tarball.with_name("none.tgz"))
    assert find_ort() is None


@pytest.mark.parametrize("damage", [b"", b"x", gzip.compress(b"other", mtime=0)])
def test_changed_files_are_refused(tarball: Path, damage: bytes) -> None:
    (fetch_ort(tarball) / f"{WASM}.gz").write_bytes(damage)
    with pytest.raises(SettingsError, match="demo-assets"):
        find_ort()


def test_npm_is_asked_and_its_failures_are_told(tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    npm = programs / "npm"
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(MissingExtra, match="--from"):
        fetch_ort()
    npm.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n", encoding="utf-8")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(SettingsError, match="no network"):
        fetch_ort()
    npm.write_text(f'#!/bin/sh\n/bin/cp "{tarball}" "$4/{TARBALL}"\n', encoding="utf-8")
    assert fetch_ort() == cache_folder()


def test_a_cache_that_cannot_be_written_is_told(tarball: Path, cache: Path) -> None:
    cache.write_bytes(b"a file")
    with pytest.raises(OutputError, match="SPLITCODEC_CACHE"):
        fetch_ort(tarball)


def test_a_file_damaged_in_its_middle_is_said_so(tarball: Path) -> None:
    """zlib's own error is neither an OSError nor a ValueError: `serve --demo` ended with it."""
    path = fetch_ort(tarball) / f"{MODULE}.gz"
    path.write_bytes(path.read_bytes()[:10] + b"\xff" * 30)
    with pytest.raises(SettingsError, match="changed or damaged"):
        find_ort()


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for name in ("SPLITCODEC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert find_ort() is None
    with pytest.raises(SettingsError, match="set SPLITCODEC_CACHE"):
        cache_folder()
