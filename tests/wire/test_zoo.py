"""A zoo's folder: graphs of one teacher lie there once, and bundles opened by name find them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from splitcodec.errors import BundleError, BundleHash, BundleNotFound, BundlePart, OutputError
from splitcodec.wire.bundle import (
    Bundle,
    derive,
    device_half,
    open_bundle,
    split_device,
    write_folder,
    write_zip,
    zoo_names,
)
from splitcodec.wire.zoo import add_to_zoo, bundles_at

SHARED = ["decoder.onnx", "head.onnx", "tail_classify.onnx"]


def renamed(tiny: Bundle, name: str, *, version: int = 1, **files: bytes) -> Bundle:
    changed = {f"{stem}.onnx": data for stem, data in files.items()}
    return derive(tiny, replace(tiny.manifest, name=name, version=version), files=changed)


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def zoo(tiny: Bundle, tmp_path: Path) -> Path:
    """Return a zoo of two bundles with the same decoder, head and tail."""
    add_to_zoo(tiny, tmp_path / "zoo")
    add_to_zoo(renamed(tiny, "small", encoder=tiny.graph("head")), tmp_path / "zoo")
    return tmp_path / "zoo"


def test_shared_graphs_lie_there_once(tiny: Bundle, zoo: Path) -> None:
    graphs = [f"graphs/{tiny.manifest.files[name].sha256}.onnx" for name in SHARED]
    own = ["MODEL_CARD.md", "encoder.onnx", "manifest.json", "tables.npz"]
    assert tree(zoo) == sorted([*graphs, *(f"{ident}/{name}" for ident in ("small@1", "tiny@1") for name in own)])
    assert zoo_names(zoo) == ["small@1", "tiny@1"]
    assert [path.name for path in zoo.rglob(".*")] == []


def test_a_bundle_of_the_zoo_is_a_whole_one(tiny: Bundle, zoo: Path, tmp_path: Path) -> None:
    found = open_bundle("tiny", zoo=zoo)
    assert found.manifest == tiny.manifest
    assert found.fingerprint == tiny.fingerprint
    assert {name: found.read(name) for name in found.manifest.files} == {
        name: tiny.read(name) for name in tiny.manifest.files
    }
    write_zip(found, tmp_path / "found.zip")
    write_zip(tiny, tmp_path / "tiny.zip")
    assert (tmp_path / "found.zip").read_bytes() == (tmp_path / "tiny.zip").read_bytes()
    assert write_folder(found, tmp_path / "whole").graph("head") == tiny.graph("head")
    assert split_device(found, tmp_path / "half").is_device_half


def test_the_newest_version_answers_to_the_name(tiny: Bundle, zoo: Path) -> None:
    for version in (10, 2):
        add_to_zoo(renamed(tiny, "tiny", version=version), zoo)
    assert open_bundle("tiny", zoo=zoo).ident == "tiny@10"


def test_a_zoo_that_is_not_there_holds_no_bundle(tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        assert zoo_names(root) == []
        with pytest.raises(BundleNotFound, match="which holds none"):
            open_bundle("tiny", zoo=root)


def test_a_date_and_time_is_a_version_too(tiny: Bundle, zoo: Path) -> None:
    for version in (202611280042, 99):
        assert add_to_zoo(renamed(tiny, "tiny", version=version), zoo).bundle.manifest.version == version
    assert open_bundle("tiny", zoo=zoo).ident == "tiny@202611280042"


def test_foreign_folders_do_not_see_the_shared_graphs(zoo: Path) -> None:
    for source in (zoo / "tiny@1", str(zoo / "tiny@1")):
        with pytest.raises(BundlePart, match=r"(decoder|head)\.onnx is missing; .*by its name"):
            open_bundle(source, zoo=zoo)


def test_an_encoder_is_not_looked_up_by_hash(tiny: Bundle, zoo: Path) -> None:
    (zoo / "tiny@1" / "encoder.onnx").rename(zoo / "graphs" / f"{tiny.manifest.files['encoder.onnx'].sha256}.onnx")
    with pytest.raises(BundlePart, match=r"encoder\.onnx is missing"):
        open_bundle("tiny", zoo=zoo)


def test_shared_graphs_are_held_against_their_hash(tiny: Bundle, zoo: Path) -> None:
    graph = zoo / "graphs" / f"{tiny.manifest.files['head.onnx'].sha256}.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleHash, match=r"head\.onnx differs"):
        open_bundle("tiny", zoo=zoo).graph("head")
    graph.unlink()
    with pytest.raises(BundlePart, match=r"head\.onnx is missing"):
        open_bundle("tiny", zoo=zoo)
    add_to_zoo(tiny, zoo)  # mends it
    assert open_bundle("tiny", zoo=zoo).graph("head") == data


def test_adding_says_who_shares_what(tiny: Bundle, tmp_path: Path) -> None:
    assert add_to_zoo(tiny, tmp_path).shared == {"decoder.onnx": [], "head.onnx": [], "tail_classify.onnx": []}
    added = add_to_zoo(renamed(tiny, "small", head=tiny.graph("encoder")), tmp_path)
    assert added.bundle.ident == "small@1"
    assert added.shared == {"decoder.onnx": ["tiny@1"], "head.onnx": [], "tail_classify.onnx": ["tiny@1"]}


def test_adding_the_same_again_changes_nothing_and_thins_a_plain_folder(tiny: Bundle, tmp_path: Path) -> None:
    write_folder(tiny, tmp_path / "tiny@1")
    add_to_zoo(open_bundle("tiny", zoo=tmp_path), tmp_path)
    once = tree(tmp_path)
    assert "tiny@1/head.onnx" not in once
    add_to_zoo(open_bundle("tiny", zoo=tmp_path), tmp_path)
    assert tree(tmp_path) == once


def test_another_bundle_of_that_name_needs_replace(tiny: Bundle, zoo: Path) -> None:
    before = tree(zoo)
    other = renamed(tiny, "tiny", head=tiny.graph("encoder"))
    with pytest.raises(OutputError, match="another tiny@1; raise the version, or replace it"):
        add_to_zoo(other, zoo)
    assert tree(zoo) == before
    assert add_to_zoo(other, zoo, replace=True).removed == []  # small@1 still names the old head
    assert open_bundle("tiny", zoo=zoo).graph("head") == tiny.graph("encoder")
    assert open_bundle("small", zoo=zoo).graph("head") == tiny.graph("head")


def test_graphs_that_nobody_names_are_removed(tiny: Bundle, tmp_path: Path) -> None:
    add_to_zoo(tiny, tmp_path)
    (tmp_path / "graphs" / "notes.txt").touch()
    added = add_to_zoo(renamed(tiny, "tiny", head=tiny.graph("encoder")), tmp_path, replace=True)
    assert added.removed == [f"{tiny.manifest.files['head.onnx'].sha256}.onnx"]
    assert (tmp_path / "graphs" / "notes.txt").exists()
    assert len(list((tmp_path / "graphs").glob("*.onnx"))) == 3


def test_what_is_not_added(tiny: Bundle, zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(BundlePart, match="device's half"):
        add_to_zoo(device_half(tiny), zoo)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be made .*; give another folder"):
        add_to_zoo(tiny, tmp_path / "file")
    before = tree(zoo)
    (zoo / "small@1" / "manifest.json").write_text("{}")
    with pytest.raises(BundleError):  # whose graphs these are cannot be told
        add_to_zoo(renamed(tiny, "new"), zoo)
    assert tree(zoo) == before


def test_if_writing_fails_the_old_bundle_stays(tiny: Bundle, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = tree(zoo), Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match="No space left on device"):
        add_to_zoo(renamed(tiny, "tiny", encoder=tiny.graph("head")), zoo, replace=True)
    assert tree(zoo) == before
    assert open_bundle("tiny", zoo=zoo).graph("encoder") == tiny.graph("encoder")


def test_a_linked_graph_is_refused(tiny: Bundle, zoo: Path) -> None:
    graph = zoo / "graphs" / f"{tiny.manifest.files['head.onnx'].sha256}.onnx"
    shutil.move(graph, zoo / "elsewhere.onnx")
    graph.symlink_to(zoo / "elsewhere.onnx")
    with pytest.raises(BundleError, match="symbolic link"):
        open_bundle("tiny", zoo=zoo)


def test_a_folder_of_bundles_stands_for_all_of_them(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "efficientnet-lite0"
    write_folder(tiny, shelf / "b")
    write_folder(tiny, shelf / ".half-copied")
    write_zip(renamed(tiny, "small"), shelf / "a.ZIP")
    (shelf / "notes").mkdir()
    (shelf / "c.zip").mkdir()
    (shelf / "read.me").write_bytes(b"")
    assert bundles_at(shelf) == bundles_at(str(shelf)) == [shelf / "a.ZIP", shelf / "b"]
    for itself in (shelf / "b", shelf / "a.ZIP", shelf / "notes", shelf / "none", shelf / "read.me", "", "\0"):
        assert bundles_at(itself) == [itself]
    monkeypatch.chdir(tmp_path)  # a name of the zoo means the zoo's
    newest = zoo_names()[-1]
    for name in ("efficientnet-lite0", newest, newest.rpartition("@")[0]):
        assert bundles_at(name) == [name]
    assert bundles_at("./efficientnet-lite0") == [Path("efficientnet-lite0/a.ZIP"), Path("efficientnet-lite0/b")]


def test_a_folder_of_bundles_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir

    def denied(path: Path) -> Iterator[Path]:
        if path == tmp_path:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(BundleNotFound, match=f"{tmp_path}: cannot read this folder: Permission denied"):
        bundles_at(tmp_path)
