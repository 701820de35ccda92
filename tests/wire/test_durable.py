"""Whatever is written beside its place is on the disk before it has its name, and its name when the writer returns."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitcodec.cli.packets import store
from splitcodec.errors import OutputError
from splitcodec.wire.bundle import Bundle, write_folder, write_zip
from splitcodec.wire.durable import made_folder, sync_folder, write_atomically, write_tree
from splitcodec.wire.zoo import add_to_zoo


def fill(folder: Path, _: Bundle) -> None:
    store(folder, "cat", b"packet")


WRITERS: list[Callable[[Path, Bundle], Any]] = [
    lambda folder, bundle: write_folder(bundle, folder / "bundle"),
    lambda folder, bundle: write_zip(bundle, folder / "bundle.zip"),
    lambda folder, bundle: add_to_zoo(bundle, folder),
    fill,
    lambda folder, _: write_atomically(folder / "notes", b"kept"),
]


def files_in(folder: Path) -> dict[int, Path]:
    """Return the files and folders below a folder that are no drafts, by inode."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    named = (folder / path for path in found if not any(part.startswith(".") for part in path.parts))
    return {path.stat().st_ino: path for path in named}


@pytest.mark.parametrize("write", WRITERS)
def test_nothing_has_its_name_before_it_is_on_the_disk(
    write: Callable[[Path, Bundle], Any], tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power names led to empty files."""
    synced: set[int] = set()
    named_in_time: set[int] = set()
    real = os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        inode = os.fstat(handle).st_ino
        synced.add(inode)
        if inode in {tmp_path.stat().st_ino, *(path.parent.stat().st_ino for path in files_in(tmp_path).values())}:
            named_in_time.update(files_in(tmp_path))

    monkeypatch.setattr(os, "fsync", fsync)
    for step in ("rename", "replace", "link"):
        monkeypatch.setattr(os, step, held(getattr(os, step), synced))
    write(tmp_path, tiny)
    there = files_in(tmp_path)
    assert there
    for inode, path in there.items():
        assert inode in synced or path.is_dir(), path
        assert inode in named_in_time, path


def held(real: Callable[..., Any], synced: set[int]) -> Callable[..., Any]:
    """Return a renaming that insists on contents which are on the disk."""

    def rename(source: Any, target: Any, *rest: Any, **named: Any) -> Any:
        files = [Path(source), *Path(source).rglob("*")] if Path(source).is_dir() else [Path(source)]
        assert all(path.stat().st_ino in synced for path in files), source
        return real(source, target, *rest, **named)

    return rename


def test_a_tree_has_its_folders(tmp_path: Path) -> None:
    files = {"a": b"1", "b/c/d": b"2", "b/e": b"3"}
    write_tree(tmp_path / "tree", files)
    assert {name: (tmp_path / "tree" / name).read_bytes() for name in files} == files
    sync_folder(tmp_path / "tree")


@pytest.mark.parametrize("write", WRITERS)
def test_a_disk_that_syncs_no_folders_will_do(
    write: Callable[[Path, Bundle], Any], tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path, tiny)
    assert files_in(tmp_path)


def test_a_disk_that_is_full_when_it_is_synced_is_said(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in WRITERS:
        with pytest.raises(OutputError, match="No space left on device"):
            write(tmp_path, tiny)
    assert files_in(tmp_path / "graphs") == {}
    assert {path.name for path in tmp_path.iterdir()} <= {"graphs"}


def test_a_folder_without_room_is_no_folder_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("splitcodec.wire.durable.tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        made_folder(tmp_path)
