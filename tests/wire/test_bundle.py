"""The bundle: folder, zip and zoo are the same; writing is all or nothing; the fingerprint covers what it should."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitcodec.errors import BundleFormat, BundleHash, BundleNotFound, BundlePart, BundleUnsafe, OutputError
from splitcodec.wire import bundle as module
from splitcodec.wire.archive import MAX_FILES
from splitcodec.wire.bundle import (
    Bundle,
    Colour,
    derive,
    device_half,
    fingerprint_of,
    open_bundle,
    renamed,
    split_device,
    write_bundle,
    write_folder,
    write_zip,
    zoo_names,
)
from splitcodec.wire.tables import Tables
from tests.wire.protobuf import EXTERNAL, part

FINGERPRINT = "8edc657f40ba9b58a5b995c37841bab678bef7415ec17d43ce39f4b79f83179c"


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.read(name) for name in bundle.manifest.files}


def saved(tables: Tables) -> bytes:
    file = io.BytesIO()
    tables.save(file)
    return file.getvalue()


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


@pytest.fixture
def zoo(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "zoo"
    for version in (2, 10, 1):
        write_bundle(root / f"tiny@{version}", replace(tiny.manifest, version=version), files=contents(tiny))
    (root / "__pycache__").mkdir()
    (root / "__init__.py").touch()
    monkeypatch.setattr(module, "zoo_folder", lambda: root)
    return root


def test_open_reads_manifest_and_tables(tiny: Bundle, tiny_folder: Path) -> None:
    assert tiny.ident == "tiny@1"
    assert tiny.path == tiny_folder
    assert (tiny.tables[0].levels, tiny.tables[0].channels) == (3, 4)
    assert not tiny.is_device_half
    assert tiny.has("encoder.onnx")
    assert not tiny.has("manifest.json")
    assert tiny.graph("decoder") == (tiny_folder / "decoder.onnx").read_bytes()


def test_the_fingerprint_is_pinned(tiny: Bundle) -> None:
    assert tiny.fingerprint.hex() == FINGERPRINT


def test_the_fingerprint_covers_what_both_shores_share(tiny: Bundle) -> None:
    manifest, tables = tiny.manifest, tiny.tables[0]
    changed = [
        (replace(manifest, stride=8), (tables,)),
        (replace(manifest, colour=Colour(scale=1.0, offset=0.0)), (tables,)),
        (replace(manifest, codings=(0, 1)), (tables,)),
        (replace(manifest, levels=4), (tables,)),
        (replace(manifest, channels=3), (tables,)),
        (manifest, (replace(tables, gain_lc=tables.gain_lc * np.float32(2)),)),
        (manifest, (tables, tables)),
    ]
    assert len({FINGERPRINT, *(fingerprint_of(m, t).hex() for m, t in changed)}) == len(changed) + 1


def test_the_fingerprint_leaves_the_edge_free(tiny: Bundle, tmp_path: Path) -> None:
    files = {**contents(tiny), "decoder.onnx": tiny.graph("head"), "MODEL_CARD.md": b"better"}
    other = write_bundle(tmp_path / "x", replace(tiny.manifest, version=2, classes=("other",) * 10), files=files)
    assert other.fingerprint == tiny.fingerprint


def test_a_zip_is_the_same_bundle(tiny: Bundle, tmp_path: Path) -> None:
    write_zip(tiny, tmp_path / "deep" / "tiny.zip")
    write_zip(tiny, tmp_path / "again.zip")
    zipped = open_bundle(tmp_path / "deep" / "tiny.zip")
    assert zipped.manifest == tiny.manifest
    assert zipped.fingerprint == tiny.fingerprint
    assert contents(zipped) == contents(tiny)
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "deep" / "tiny.zip").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_zip_holds_whatever_a_folder_does(tiny: Bundle, tmp_path: Path) -> None:
    """A bundle of 64 files had 65 in its zip, and two megabytes of zeros looked like a bomb."""
    files = {**contents(tiny), "golden/zeros.bin": bytes(2 << 20)}
    files |= {f"golden/{number}.bin": b"" for number in range(MAX_FILES - len(files))}
    written = write_bundle(tmp_path / "full", tiny.manifest, files=files)
    write_zip(written, tmp_path / "full.zip")
    assert len(written.manifest.files) == MAX_FILES
    assert contents(open_bundle(tmp_path / "full.zip")) == files


def test_the_devices_half(tiny: Bundle, tmp_path: Path) -> None:
    files = {**contents(tiny), "encoder.int8.onnx": tiny.graph("encoder"), "golden/vectors.npz": b"golden"}
    half = split_device(write_bundle(tmp_path / "whole", tiny.manifest, files=files), tmp_path / "half")
    assert half.is_device_half
    assert half.fingerprint == tiny.fingerprint
    assert sorted(half.manifest.files) == [
        "MODEL_CARD.md", "encoder.int8.onnx", "encoder.onnx", "golden/vectors.npz", "tables.npz"
    ]  # fmt: skip
    with pytest.raises(BundlePart, match=r"tiny@1: the device's half .* without decoder\.onnx; use the whole one"):
        half.graph("decoder")


def test_a_derived_bundle_is_the_old_one_but_for_what_was_given(tiny: Bundle, tmp_path: Path) -> None:
    tables = replace(tiny.tables[0], gain_lc=tiny.tables[0].gain_lc * np.float32(2))
    new = derive(tiny, replace(tiny.manifest, name="other"), files={"tables.npz": saved(tables), "notes.txt": b"new"})
    assert new.ident == "other@1"
    assert new.fingerprint == fingerprint_of(tiny.manifest, (tables,)) != tiny.fingerprint
    assert contents(new) == {**contents(tiny), "tables.npz": saved(tables), "notes.txt": b"new"}
    written = write_folder(new, tmp_path / "new")
    assert written.manifest == new.manifest
    assert contents(written) == contents(new)
    with pytest.raises(BundleFormat):
        derive(tiny, tiny.manifest, files={"tables.npz": b"no tables"})


def test_a_renamed_bundle_says_so_in_its_card(tiny: Bundle) -> None:
    titled = derive(tiny, tiny.manifest, files={"MODEL_CARD.md": b"# tiny@1\n\nmade of # tiny@1\n"})
    new = renamed(titled, "other", 3)
    assert (new.ident, new.fingerprint) == ("other@3", tiny.fingerprint)
    assert contents(new) == {**contents(tiny), "MODEL_CARD.md": b"# other@3\n\nmade of # tiny@1\n"}
    assert [renamed(titled, *given).ident for given in ((None, None), (None, 2), ("b", None))] == [
        "tiny@1",
        "tiny@2",
        "b@1",
    ]
    for given in (("My Bundle", None), (None, 0)):
        with pytest.raises(BundleFormat, match="expected"):
            renamed(titled, *given)


def test_the_devices_half_can_be_zipped(tiny: Bundle, tmp_path: Path) -> None:
    write_zip(device_half(tiny), tmp_path / "half.zip")
    half = open_bundle(tmp_path / "half.zip")
    assert half.is_device_half
    assert half.fingerprint == tiny.fingerprint
    assert sorted(half.manifest.files) == ["MODEL_CARD.md", "encoder.onnx", "tables.npz"]


def test_a_bundle_without_that_task(tiny: Bundle) -> None:
    with pytest.raises(BundlePart, match=r"a bundle without tail_detect\.onnx"):
        tiny.graph("tail_detect")


def test_several_table_sets(tiny: Bundle, tmp_path: Path) -> None:
    second = replace(tiny.tables[0], gain_lc=tiny.tables[0].gain_lc * np.float32(2))
    manifest = replace(tiny.manifest, table_sets=("tables.npz", "tables.1.npz"))
    both = write_bundle(tmp_path / "two", manifest, files={**contents(tiny), "tables.1.npz": saved(second)})
    assert len(both.tables) == 2
    assert both.tables[1].gain_lc[0, 0] == 2 * both.tables[0].gain_lc[0, 0]


def test_zoo_names_and_versions(tiny: Bundle, zoo: Path) -> None:
    assert zoo_names() == ["tiny@1", "tiny@2", "tiny@10"]
    assert open_bundle("tiny").ident == "tiny@10"
    assert open_bundle("tiny@2").ident == "tiny@2"
    for missing in ("tiny@3", "tiny@0", "none", "tiny@"):
        with pytest.raises(BundleNotFound, match="the zoo, which holds tiny@1, tiny@2, tiny@10"):
            open_bundle(missing)


def test_the_zoo_comes_before_a_folder_of_that_name(zoo: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    assert open_bundle("tiny").ident == "tiny@10"
    assert open_bundle("./tiny").ident == "tiny@1"
    assert open_bundle(Path("tiny")).ident == "tiny@1"


def test_the_shipped_zoo_opens() -> None:
    for name in zoo_names():
        assert open_bundle(name).ident == name


def test_nothing_there_or_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no such folder or zip"):
        open_bundle(tmp_path / "none")
    for name in ("x" * 5000, "a\0b"):  # no file can be called that
        with pytest.raises(BundleNotFound, match="no such folder or zip"):
            open_bundle(name)
    with pytest.raises(BundleNotFound, match=r"no manifest\.json at its root.*; give a zoo name"):
        open_bundle(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(BundleFormat, match="not a readable zip"):
        open_bundle(tmp_path / "x.zip")


def test_files_beside_the_bundles_own_are_left_alone(copy: Path) -> None:
    (copy / ".DS_Store").write_bytes(b"x")
    (copy / "notes.txt").write_bytes(b"x")
    assert not open_bundle(copy).has("notes.txt")


def test_a_missing_file(copy: Path) -> None:
    (copy / "decoder.onnx").unlink()
    with pytest.raises(BundlePart, match=r"decoder\.onnx is missing"):
        open_bundle(copy)


def test_a_changed_size_and_a_changed_byte(copy: Path) -> None:
    opened = open_bundle(copy)
    graph = (copy / "encoder.onnx").read_bytes()
    (copy / "encoder.onnx").write_bytes(graph[:-1] + b"?")
    with pytest.raises(BundleHash, match=r"encoder\.onnx differs from its hash"):
        open_bundle(copy).graph("encoder")
    (copy / "encoder.onnx").write_bytes(graph + b"?")
    with pytest.raises(BundleHash, match="the manifest says"):
        open_bundle(copy)
    with pytest.raises(BundleHash, match="more than the"):
        opened.graph("encoder")
    (copy / "encoder.onnx").unlink()
    with pytest.raises(BundlePart, match="no file"):
        opened.graph("encoder")


def test_changed_tables_are_noticed_at_once(copy: Path) -> None:
    tables = bytearray((copy / "tables.npz").read_bytes())
    tables[100] ^= 1
    (copy / "tables.npz").write_bytes(tables)
    with pytest.raises(BundleHash, match=r"tables\.npz differs"):
        open_bundle(copy)


def test_tables_must_fit_the_manifest(tiny: Bundle, tmp_path: Path) -> None:
    one = tiny.tables[0]
    fewer = replace(one, table_of_lxc=one.table_of_lxc[:2], gain_lc=one.gain_lc[:2])
    with pytest.raises(BundleFormat, match="2 levels and 4 channels, the manifest says 3 and 4"):
        write_bundle(tmp_path / "x", tiny.manifest, files={**contents(tiny), "tables.npz": saved(fewer)})
    with pytest.raises(BundlePart, match=r"lists no tables\.npz"):
        write_bundle(tmp_path / "x", tiny.manifest, files={"encoder.onnx": tiny.graph("encoder")})


def test_tables_that_break_their_rules_are_a_broken_bundle(tiny: Bundle, tmp_path: Path) -> None:
    one, file = tiny.tables[0], io.BytesIO()
    arrays = {name: getattr(one, name) for name in ("freq_ks", "size_k", "offset_k", "table_of_lxc")}
    np.savez(file, gain_lc=-one.gain_lc, **arrays)
    with pytest.raises(BundleFormat, match=r"tables\.npz: gain_lc"):
        write_bundle(tmp_path / "x", tiny.manifest, files={**contents(tiny), "tables.npz": file.getvalue()})


def test_writing_is_all_or_nothing(tiny: Bundle, tmp_path: Path) -> None:
    bad = {**contents(tiny), "head.onnx": part(7, part(5, EXTERNAL))}
    with pytest.raises(BundleUnsafe, match="external data"):
        write_bundle(tmp_path / "x", tiny.manifest, files=bad)
    with pytest.raises(OutputError, match="cannot be the name"):
        write_bundle(tmp_path / "x", tiny.manifest, files={"../x": b""})
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tiny: Bundle, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        write_bundle(copy, tiny.manifest, files=contents(tiny))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be made"):
        write_bundle(tmp_path / "file" / "x", tiny.manifest, files=contents(tiny))
    with pytest.raises(OutputError, match="file: cannot be made"):
        write_zip(tiny, tmp_path / "file" / "x.zip")
    for there in (copy, tmp_path / "file"):
        with pytest.raises(OutputError, match="exists"):
            write_zip(tiny, there)
