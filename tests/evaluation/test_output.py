from __future__ import annotations

import os
from pathlib import Path

import pytest

from splitcodec.evaluation.output import write_whole


def test_files_appear_whole(tmp_path: Path) -> None:
    assert write_whole(tmp_path / "a" / "b", {"x": b"1", "y": b"22"}) == [tmp_path / "a/b/x", tmp_path / "a/b/y"]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["x", "y"]


def test_a_report_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power left an empty one, after hours."""
    done, sync, rename = list[str](), os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append("fsync")
        sync(handle)

    def renamed(self: Path, target: Path) -> None:
        done.append("replace")
        rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_whole(tmp_path, {"x": b"1"})
    assert done == ["fsync", "replace", "fsync"]


def test_an_interrupt_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path, {"x": b"1"})
    assert list(tmp_path.iterdir()) == []
