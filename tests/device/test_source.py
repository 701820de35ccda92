from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from splitcodec.device.journal import Outcome
from splitcodec.device.source import Capture, Folder
from splitcodec.errors import DataError, PictureNotFound, PictureUnreadable, SettingsError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, data: bytes = b"data", *, age_s: float = 100.0) -> None:
    path.write_bytes(data)
    os.utime(path, (1e9 - age_s, 1e9 - age_s))


def folder_of(path: Path, clock: Clock, *, after: str = "keep") -> Folder:
    return Folder(path, after=after, settle_s=2.0, clock=clock, wall=lambda: 1e9)


def none(_: str, __: str) -> bool:
    return False


def names(captures: list[Capture]) -> list[str]:
    return [capture.picture for capture in captures]


def test_pictures_by_age_and_nothing_else(tmp_path: Path) -> None:
    for name, age in (("b.jpg", 80), ("a.PNG", 70), ("c.webp", 90), (".d.jpg", 80), ("e.jpg.part", 80), ("f.txt", 80)):
        write(tmp_path / name, age_s=age)
    (tmp_path / "g.jpg").mkdir()
    assert names(folder_of(tmp_path, Clock()).take(none)) == ["c.webp", "b.jpg", "a.PNG"]


def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    clock = Clock()
    folder = folder_of(tmp_path, clock)
    for size in range(1, 5):
        write(tmp_path / "a.jpg", b"x" * size, age_s=0.0)
        clock.now += 1.9
        assert folder.take(none) == []
        assert folder.pending
    clock.now += 2.0
    (capture,) = folder.take(none)
    assert capture.load() == b"xxxx"
    assert not folder.pending


@pytest.mark.parametrize("slow_s", [1.9, 30.0, 4000.0])  # rounded down as vfat does, and other machines' clocks
def test_the_time_of_a_file_does_not_make_it_whole(tmp_path: Path, slow_s: float) -> None:
    clock = Clock()
    folder = folder_of(tmp_path, clock)
    assert folder.take(none) == []
    for size in range(1, 5):
        write(tmp_path / "a.jpg", b"x" * size, age_s=slow_s)
        clock.now += 1.9
        assert folder.take(none) == []
    clock.now += 2.0
    assert names(folder.take(none)) == ["a.jpg"]


def test_a_file_that_never_rests_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """A camera's `latest.jpg`: `watch --once` never left."""
    clock = Clock()
    folder = folder_of(tmp_path, clock)
    for size in range(1, 40):
        write(tmp_path / "latest.jpg", b"x" * size, age_s=0.0)
        assert folder.take(none) == []
        assert folder.pending is (clock.now < 62.0)
        assert ("latest.jpg changes" in folder.trouble) is not folder.pending
        clock.now += 1.9
    write(tmp_path / "new.jpg", age_s=0.0)
    assert folder.take(none) == []
    assert folder.pending, "another is waited for"
    clock.now += 2.0
    assert sorted(names(folder.take(none))) == ["latest.jpg", "new.jpg"]
    assert (folder.pending, folder.trouble) == (False, "")


def test_at_the_first_look_only_what_is_a_minute_old_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", age_s=63.0)
    write(tmp_path / "b.jpg", age_s=61.0)
    folder = folder_of(tmp_path, Clock())
    assert names(folder.take(none)) == ["a.jpg"]
    assert folder.pending


def test_a_name_that_is_not_utf8_is_given_in_a_form_that_can_be_written(tmp_path: Path) -> None:
    raw = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    try:
        write(raw, b"coffee")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    write(tmp_path / "th\u00e9.jpg", b"tea")
    folder = folder_of(tmp_path, Clock(), after="move")
    coffee, tea = folder.take(none)
    assert (coffee.picture, tea.picture) == ("caf\\xe9.jpg", "th\u00e9.jpg")
    assert (coffee.ident, tea.ident) == (
        f"caf\\xe9.jpg@{10**9 - 100}000000000+6",
        f"th\u00e9.jpg@{10**9 - 100}000000000+3",
    )
    assert (coffee.load(), tea.load()) == (b"coffee", b"tea")
    folder.done(coffee.ident, coffee.picture, Outcome.ANSWERED)
    assert [os.fsencode(path.name) for path in (tmp_path / "done").iterdir()] == [b"caf\xe9.jpg"]


def test_a_picture_that_cannot_be_read_now_is_tried_again_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.jpg")
    folder, real = folder_of(tmp_path, Clock()), Path.open

    def stale(path: Path, *rest: Any) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle", path)

    for turns in (4, 5):
        monkeypatch.setattr(Path, "open", stale)
        for turn in range(turns):
            (capture,) = folder.take(none)
            with pytest.raises(PictureUnreadable if turn == 4 else DataError, match="Stale file handle"):
                capture.load()
        monkeypatch.setattr(Path, "open", real)
        (capture,) = folder.take(none)
        assert capture.load() == b"data"
        folder.take(lambda _, __: True)  # it has its line: its failures are forgotten
        folder._first_look = True


def test_a_file_from_the_future_is_taken_once_it_rests(tmp_path: Path) -> None:
    clock = Clock()
    folder = folder_of(tmp_path, clock)
    write(tmp_path / "a.jpg", age_s=-1e6)
    assert folder.take(none) == []
    clock.now += 2.0
    assert names(folder.take(none)) == ["a.jpg"]


def test_what_changes_or_goes_before_it_is_read_is_not_a_picture(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    write(tmp_path / "b.jpg")
    first, second = folder_of(tmp_path, Clock()).take(none)
    write(tmp_path / "a.jpg", b"other data")
    (tmp_path / "b.jpg").unlink()
    for capture in (first, second):
        with pytest.raises(PictureNotFound):
            capture.load()


def test_what_is_known_is_not_taken_again_and_a_changed_file_is_another(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    clock = Clock()
    folder = folder_of(tmp_path, clock)
    (first,) = folder.take(none)
    assert folder.take(lambda ident, _: ident == first.ident) == []
    write(tmp_path / "a.jpg", b"more data")
    assert folder.take(lambda ident, _: ident == first.ident) == []
    clock.now += 2.0
    (second,) = folder.take(lambda ident, _: ident == first.ident)
    assert second.ident != first.ident


@pytest.mark.parametrize(
    ("after", "outcome", "left"),
    [
        ("keep", Outcome.ANSWERED, ["a.jpg"]),
        ("delete", Outcome.ANSWERED, []),
        ("delete", Outcome.UNREADABLE, ["a.jpg"]),
        ("move", Outcome.ANSWERED, ["done", "done/a-1.jpg", "done/a.jpg"]),
        ("move", Outcome.DROPPED, ["failed", "failed/a.jpg"]),
    ],
)
def test_after(tmp_path: Path, after: str, outcome: Outcome, left: list[str]) -> None:
    write(tmp_path / "a.jpg")
    if left[:1] == ["done"]:
        (tmp_path / "done").mkdir()
        write(tmp_path / "done" / "a.jpg")
    folder = folder_of(tmp_path, Clock(), after=after)
    (capture,) = folder.take(none)
    folder.done(capture.ident, capture.picture, outcome)
    folder.done(capture.ident, capture.picture, outcome)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == left


def test_a_picture_that_has_changed_is_not_deleted(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    folder = folder_of(tmp_path, Clock(), after="delete")
    (capture,) = folder.take(none)
    write(tmp_path / "a.jpg", b"a new picture of the same name")
    folder.done(capture.ident, capture.picture, Outcome.ANSWERED)
    assert (tmp_path / "a.jpg").exists()


@pytest.mark.parametrize(
    ("after", "outcome", "call", "words"),
    [
        ("move", Outcome.ANSWERED, "replace", "moved to .*done"),
        ("move", Outcome.UNREADABLE, "mkdir", "moved to .*failed"),
        ("delete", Outcome.ANSWERED, "unlink", "deleted from "),
    ],
)
def test_what_cannot_be_moved_or_deleted_is_told_in_one_way_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str, outcome: Outcome, call: str, words: str
) -> None:
    """Nobody was told: the pictures stayed, and the disk filled."""
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / name)
    folder = folder_of(tmp_path, Clock(), after=after)

    def settled(ident: str, picture: str) -> bool:
        folder.done(ident, picture, outcome)
        return True

    def denied(*_: Any, **__: Any) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, denied)
        told = set()
        for _ in range(2):
            assert folder.take(settled) == []
            told.add(folder.trouble)
    (trouble,) = told
    assert re.match(rf"pictures cannot be {words}.*\(Permission denied\)", trouble)
    assert "a.jpg" not in trouble
    folder.take(settled)
    assert folder.trouble == ""
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == []


def test_a_file_in_the_way_of_done_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    (tmp_path / "done").write_text("a note")
    folder = folder_of(tmp_path, Clock(), after="move")
    (capture,) = folder.take(none)
    folder.done(capture.ident, capture.picture, Outcome.ANSWERED)
    assert "done (File exists)" in folder.trouble
    folder.done("b.jpg@1+1", "b.jpg", Outcome.ANSWERED)  # gone already: no trouble of its own
    (tmp_path / "done").unlink()
    folder.take(none)
    folder.done(capture.ident, capture.picture, Outcome.ANSWERED)
    assert folder.trouble == ""
    assert (tmp_path / "done" / "a.jpg").exists()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Folder(tmp_path / "none")
    with pytest.raises(SettingsError, match="keep, delete or move"):
        Folder(tmp_path, after="burn")
    folder = Folder(tmp_path / ".." / tmp_path.name)
    tmp_path.rmdir()
    with pytest.raises(DataError, match="is the disk there"):
        folder.take(none)
    tmp_path.mkdir()
