"""Hostile bundles: archives, folders, graphs and array files from somebody who means harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitcodec.errors import BundleError, BundleFormat, BundleHash, BundlePart, BundleUnsafe
from splitcodec.wire.archive import MAX_FILES
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.manifest import MAX_BYTES
from tests.wire.protobuf import EXTERNAL, part

Files = dict[str, bytes]
pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")


@pytest.fixture
def files(tiny: Bundle) -> Files:
    """Return every file of the tiny bundle, manifest first."""
    return {"manifest.json": tiny.manifest.to_json(), **{name: tiny.read(name) for name in tiny.manifest.files}}


def zipped(path: Path, files: Files, *more: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    """Write a zip with these files, then `more` under any name and mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [*files.items(), *more]:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return path


def signed(files: Files, **replaced: bytes) -> Files:
    """Replace files ('encoder_onnx' is encoder.onnx) and put their hashes into the manifest, as an attacker would."""
    named = {name.replace("_onnx", ".onnx").replace("_npz", ".npz"): data for name, data in replaced.items()}
    manifest: dict[str, Any] = json.loads(files["manifest.json"])
    for name, data in named.items():
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return {**files, **named, "manifest.json": json.dumps(manifest).encode()}


def special(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, mode << 16
    return entry


def test_the_harmless_zip_opens(files: Files, tmp_path: Path) -> None:
    assert open_bundle(zipped(tmp_path / "x.zip", files)).graph("encoder") == files["encoder.onnx"]
    folder = zipped(tmp_path / "y.zip", files, (special("golden/", stat.S_IFDIR | 0o755), b""))
    assert open_bundle(folder).ident == "tiny@1"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../evil.onnx",
            "../../etc/passwd",
            "golden/../../evil",
            "/etc/passwd",
            "//host/share",
            "C:/evil",
            "C:\\evil",
        ),
        *("..", "golden\\..\\..\\evil", "./evil", "golden//evil", ".hidden", "a/b/c/d", "evil\n", "manifest.json/.."),
    ],
)
def test_names_that_reach_outside(files: Files, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleUnsafe, match="expected plain names inside the bundle"):
        open_bundle(zipped(tmp_path / "x.zip", files, (name, b"evil")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zip"]


def test_a_name_twice(files: Files, tmp_path: Path) -> None:
    with pytest.raises(BundleUnsafe, match=r"'encoder\.onnx' occurs twice"):
        open_bundle(zipped(tmp_path / "x.zip", files, ("encoder.onnx", b"evil")))
    with pytest.raises(BundleUnsafe, match=r"'manifest\.json' occurs twice"):
        open_bundle(zipped(tmp_path / "x.zip", files, ("manifest.json", b"{}")))


def test_a_name_of_no_letters(files: Files, tmp_path: Path) -> None:
    data = zipped(tmp_path / "x.zip", files, ("Z", b"")).read_bytes()
    at = data.rindex(b"Z", 0, data.rindex(b"PK\x05\x06"))
    (tmp_path / "x.zip").write_bytes(data[:at] + b"\0" + data[at + 1 :])
    with pytest.raises(BundleUnsafe, match="'', expected plain names"):
        open_bundle(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip(files: Files, tmp_path: Path, kind: int) -> None:
    with pytest.raises(BundleUnsafe, match="card is a link or device"):
        open_bundle(zipped(tmp_path / "x.zip", files, (special("card", kind | 0o777), b"/etc/passwd")))


@pytest.mark.parametrize("name", ["encoder.onnx", "tables.npz", "manifest.json"])
def test_links_in_a_folder(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleUnsafe, match=f"{name} is a symbolic link"):
        open_bundle(folder)


def test_a_linked_subfolder(files: Files, tmp_path: Path) -> None:
    folder, outside = tmp_path / "tiny", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "vectors.npz").write_bytes(b"x")
    for name, data in signed(files, **{"golden/vectors.npz": b"x"}).items():
        if "/" not in name:
            (folder / name).write_bytes(data)
    (folder / "golden").symlink_to(outside)
    with pytest.raises(BundleUnsafe, match="symbolic link"):
        open_bundle(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
    (folder / "encoder.onnx").unlink()
    os.mkfifo(folder / "encoder.onnx")
    with pytest.raises(BundlePart, match=r"encoder\.onnx is missing"):
        open_bundle(folder)


def test_a_bomb_by_ratio(files: Files, tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "x.zip", files, ("bomb", bytes(8 << 20)))
    assert bomb.stat().st_size < 40_000
    with pytest.raises(BundleUnsafe, match="a zip bomb; get the bundle again"):
        open_bundle(bomb)


def announced(path: Path, name: str, size: int) -> Path:
    """Change the unpacked size that the zip's directory announces for a file."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    data[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


def test_a_bomb_by_total_size(files: Files, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(800_000)
    path = zipped(tmp_path / "x.zip", files, ("one", noise), ("two", noise))
    for name in ("one", "two"):
        announced(path, name, 150 << 20)
    with pytest.raises(BundleUnsafe, match=r"unpacks to 314\d+ bytes, at most 268435456 .*; get the bundle again"):
        open_bundle(path)


def test_a_bomb_that_announces_little(files: Files, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", signed(files, encoder_onnx=bytes(50 << 20)))
    announced(path, "encoder.onnx", 1000)
    tracemalloc.start()
    try:
        with pytest.raises(BundleHash, match="the manifest says"):
            open_bundle(path)
        manifest = json.loads(signed(files, encoder_onnx=bytes(1000))["manifest.json"])
        lying = {**signed(files, encoder_onnx=bytes(50 << 20)), "manifest.json": json.dumps(manifest).encode()}
        with pytest.raises(BundleError):
            open_bundle(announced(zipped(path, lying), "encoder.onnx", 1000)).graph("encoder")
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_too_many_files(files: Files, tmp_path: Path) -> None:
    many = [(f"f{index}", b"") for index in range(MAX_FILES)]
    with pytest.raises(BundleUnsafe, match=f"at most {MAX_FILES} are allowed"):
        open_bundle(zipped(tmp_path / "x.zip", files, *many))


@pytest.mark.parametrize("ends", [b"", b"a comment", b"\0\0"])
def test_a_directory_of_many_files_is_not_read(tmp_path: Path, ends: bytes) -> None:
    """zipfile keeps every entry, five hundred bytes each, before anybody can count them."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.comment = ends
        for number in range(20_000):
            archive.writestr(f"f{number}", b"")
    tracemalloc.start()
    try:
        with pytest.raises(BundleUnsafe, match="lists more files than a bundle has"):
            open_bundle(tmp_path / "x.zip")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_zip_for_four_gigabytes_is_not_read(files: Files, tmp_path: Path) -> None:
    """Its second record may name a directory of any size."""
    data = zipped(tmp_path / "x.zip", files).read_bytes()
    (tmp_path / "x.zip").write_bytes(data[:-22] + b"PK\6\7" + bytes(16) + data[-22:])
    with pytest.raises(BundleUnsafe, match="lists more files"):
        open_bundle(tmp_path / "x.zip")


def test_too_many_or_too_large_by_the_manifest(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = json.loads(files["manifest.json"])
    entry = {"sha256": "0" * 64, "bytes": 0}
    many = {**manifest, "files": {**manifest["files"], **{f"f{index}": entry for index in range(MAX_FILES)}}}
    (folder / "manifest.json").write_text(json.dumps(many))
    with pytest.raises(BundleUnsafe, match=f"at most {MAX_FILES} are allowed"):
        open_bundle(folder)
    large = {**manifest, "files": {**manifest["files"], "f": {"sha256": "0" * 64, "bytes": 1 << 40}}}
    (folder / "manifest.json").write_text(json.dumps(large))
    with pytest.raises(BundleUnsafe, match="at most 268435456 are allowed"):
        open_bundle(folder)


def test_a_huge_manifest(files: Files, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(MAX_BYTES // 2).hex().encode()
    path = zipped(tmp_path / "x.zip", {**files, "manifest.json": files["manifest.json"] + noise})
    with pytest.raises(BundleUnsafe, match=r"a manifest of .*; get the bundle again"):
        open_bundle(path)


def test_an_encrypted_file(files: Files, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", files)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"encoder.onnx"))
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(BundleUnsafe, match=r"encoder\.onnx is encrypted"):
        open_bundle(path)


def test_another_packing(files: Files, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("card", b"x" * 1000, zipfile.ZIP_LZMA)
    with pytest.raises(BundleUnsafe, match="packed otherwise"):
        open_bundle(path)


@pytest.mark.parametrize("cut", [1, 30, 500, 5000])
def test_a_cut_zip(files: Files, tmp_path: Path, cut: int) -> None:
    path = zipped(tmp_path / "x.zip", files)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BundleFormat, match="not a readable zip"):
        open_bundle(path)


def test_a_damaged_zip_is_refused_or_the_same_bundle(files: Files, tmp_path: Path) -> None:
    whole = zipped(tmp_path / "x.zip", files).read_bytes()
    random, refusals = np.random.default_rng(5), list[str]()
    for at in random.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[at] ^= int(random.integers(1, 256))
        (tmp_path / "x.zip").write_bytes(damaged)
        try:
            opened = open_bundle(tmp_path / "x.zip")
            got = {name: opened.read(name) for name in opened.manifest.files}
        except BundleError as error:
            refusals.append(str(error))
            continue
        assert all(files[name] == data for name, data in got.items())
    assert len(refusals) > 100
    assert not any("\n" in refusal for refusal in refusals)


def test_a_wrong_hash(files: Files, tmp_path: Path) -> None:
    opened = open_bundle(zipped(tmp_path / "x.zip", {**files, "encoder.onnx": files["encoder.onnx"][::-1]}))
    with pytest.raises(BundleHash, match=r"encoder\.onnx differs from its hash"):
        opened.graph("encoder")


def test_a_graph_with_external_data(files: Files, tmp_path: Path) -> None:
    opened = open_bundle(zipped(tmp_path / "x.zip", signed(files, encoder_onnx=part(7, part(5, EXTERNAL)))))
    with pytest.raises(BundleUnsafe, match=r"tiny@1: encoder\.onnx: a tensor with external data"):
        opened.graph("encoder")


def pickled() -> bytes:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return (os.mkdir, ("/splitcodec-was-here",))

    file = io.BytesIO()
    rest = {"size_k": np.zeros(1, "<i4"), "offset_k": np.zeros(1, "<i4"), "table_of_lxc": np.zeros((1, 1, 1), "<i4")}
    evil = np.array([[Evil()]], dtype=object)
    np.savez(file, allow_pickle=True, freq_ks=evil, gain_lc=np.ones((1, 1), "<f4"), **rest)
    return file.getvalue()


def huge_header() -> bytes:
    header = b"{'descr': '<u4', 'fortran_order': False, 'shape': (%d, %d), }\n" % (10**6, 10**6)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("freq_ks", "size_k", "offset_k", "table_of_lxc", "gain_lc"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(40))
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [(pickled, "freq_ks: \\|O"), (huge_header, "announces shape"), (lambda: b"PK", "not a readable")],
)
def test_hostile_array_files(files: Files, tmp_path: Path, make: Callable[[], bytes], message: str) -> None:
    path = zipped(tmp_path / "x.zip", signed(files, tables_npz=make()))
    with pytest.raises(BundleFormat, match=message):
        open_bundle(path)
    assert not Path("/splitcodec-was-here").exists()
