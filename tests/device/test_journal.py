from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from splitcodec.device import journal as journals
from splitcodec.device.journal import Journal, Outcome, problem_line
from splitcodec.device.spool import lock_file
from splitcodec.errors import LinkRefused, OutputError, SpoolError

LINE = {"picture": "a.jpg"}
REFUSED = {**LINE, "error": {"outcome": "refused", "type": "LinkRefused", "detail": "no"}}

UNCHANGED = {**LINE, "unchanged_since": "b.jpg@0", "change": 0.25}


def opened(folder: Path) -> Journal:
    return Journal(folder / "answers.jsonl", folder / "ledger")


def captures(folder: Path) -> list[str]:
    return [json.loads(line)["capture"] for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_one_line_a_capture_over_restarts(tmp_path: Path) -> None:
    for _ in range(3):
        journal = opened(tmp_path)
        for name in ("a", "b", "a"):
            journal.settle(name, Outcome.ANSWERED, LINE)
        journal.settle("c", Outcome.REFUSED, REFUSED)
        journal.close()
    assert captures(tmp_path) == ["a", "b", "c"]
    journal = opened(tmp_path)
    assert [journal.outcome(name) for name in "abcd"] == [Outcome.ANSWERED, Outcome.ANSWERED, Outcome.REFUSED, None]
    journal.close()


def test_half_a_surrogate_pair_in_an_answer_is_written_as_json_escapes_it(tmp_path: Path) -> None:
    for _ in range(2):
        journal = opened(tmp_path)
        journal.settle("a", Outcome.ANSWERED, {**LINE, "label": "\ud83d"})
        journal.close()
    (line,) = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["label"] == "\ud83d"


def test_a_picture_too_large_for_the_memory_is_told_as_such() -> None:
    error = problem_line(Outcome.UNREADABLE, MemoryError())["error"]
    assert (error["outcome"], error["type"]) == ("unreadable", "PictureTooLarge")
    assert "memory" in error["detail"]


def test_a_line_of_an_error_names_no_password() -> None:
    line = problem_line(Outcome.REFUSED, LinkRefused("http://me:secret@edge:8080 refused the packet", status=400))
    assert line["error"] == {
        "outcome": "refused",
        "type": "LinkRefused",
        "detail": "http://edge:8080 refused the packet",
    }


@pytest.mark.parametrize(
    ("line", "outcome"), [(LINE, Outcome.ANSWERED), (REFUSED, Outcome.REFUSED), (UNCHANGED, Outcome.UNCHANGED)]
)
def test_a_line_without_a_mark_gets_it(tmp_path: Path, line: dict[str, object], outcome: Outcome) -> None:
    journal = opened(tmp_path)
    journal.settle("a", outcome, line)
    journal.close()
    (tmp_path / "ledger").write_bytes(b"")
    journal = opened(tmp_path)
    assert journal.outcome("a") is outcome
    journal.settle("a", outcome, line)
    journal.close()
    assert captures(tmp_path) == ["a"]


def killed_before_the_mark(folder: Path, *, torn: int = 0) -> None:
    """Leave two lines and the mark of the first, as a kill does; `torn` bytes of the second line are missing."""
    journal = opened(folder)
    journal.settle("a", Outcome.ANSWERED, LINE)
    journal.settle("b", Outcome.ANSWERED, LINE)
    journal.close()
    os.truncate(folder / "ledger", 17)
    os.truncate(folder / "answers.jsonl", (folder / "answers.jsonl").stat().st_size - torn)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("torn", [0, 5])
def test_answers_that_were_moved_after_a_kill_are_still_looked_at(tmp_path: Path, torn: int, linked: bool) -> None:
    """The line that had no mark was written a second time, into the new file."""
    if linked:
        (tmp_path / "disk").mkdir()
        (tmp_path / "answers.jsonl").symlink_to("disk/answers.jsonl")
    killed_before_the_mark(tmp_path, torn=torn)
    (tmp_path / "answers.jsonl").resolve().rename(tmp_path / "answers.1")
    for _ in range(2):
        journal = opened(tmp_path)
        assert (journal.outcome("b") is None) is bool(torn)
        assert journal.unsure == ""
        journal.close()
    journal = opened(tmp_path)
    journal.settle("b", Outcome.ANSWERED, LINE)
    journal.settle("c", Outcome.ANSWERED, LINE)
    journal.close()
    assert captures(tmp_path) == (["b", "c"] if torn else ["c"])
    old = [json.loads(line)["capture"] for line in (tmp_path / "answers.1").read_text().splitlines()]
    assert old == (["a"] if torn else ["a", "b"])


def test_other_answers_after_a_kill_do_not_get_the_line_again(tmp_path: Path) -> None:
    killed_before_the_mark(tmp_path)
    journal = Journal(tmp_path / "others.jsonl", tmp_path / "ledger")
    assert (journal.outcome("b"), journal.unsure) == (Outcome.ANSWERED, "")
    journal.settle("c", Outcome.ANSWERED, LINE)
    journal.close()
    assert (tmp_path / "ledger.answers").samefile(tmp_path / "others.jsonl")
    assert (tmp_path / "answers.jsonl").stat().st_nlink == 1


def test_answers_that_another_process_writes_by_now_are_left_alone(tmp_path: Path) -> None:
    killed_before_the_mark(tmp_path, torn=5)
    held = lock_file(tmp_path / "answers.jsonl")
    size = (tmp_path / "answers.jsonl").stat().st_size
    Journal(tmp_path / "others.jsonl", tmp_path / "ledger").close()
    os.close(held)
    assert (tmp_path / "answers.jsonl").stat().st_size == size


@pytest.mark.parametrize("names", ["truncated", "no second names", "somebody else's"])
def test_where_the_last_line_is_not_to_be_found_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if names == "no second names":  # as on FAT
        monkeypatch.setattr(os, "link", none)
    journal = opened(tmp_path)
    assert journal.unsure == ""
    journal.settle("a", Outcome.ANSWERED, LINE)
    journal.close()
    journal = opened(tmp_path)
    assert journal.unsure == ""
    journal.close()
    if names == "truncated":
        os.truncate(tmp_path / "answers.jsonl", 0)
    else:
        (tmp_path / "answers.jsonl").rename(tmp_path / "answers.1")
    if names == "somebody else's":
        (tmp_path / "answers.1").write_text("notes\n")
    journal = opened(tmp_path)
    assert "answers.jsonl: the last line that was written is not there" in journal.unsure
    journal.settle("b", Outcome.ANSWERED, LINE)
    journal.close()
    journal = opened(tmp_path)
    assert journal.unsure == ""
    journal.close()


def test_a_mark_of_which_the_length_alone_was_written_is_made_again(tmp_path: Path) -> None:
    """As a loss of power leaves it on some file systems; `watch` did not start any more."""
    journal = opened(tmp_path)
    for name in ("a", "b"):
        journal.settle(name, Outcome.ANSWERED, LINE)
    journal.close()
    ledger = tmp_path / "ledger"
    ledger.write_bytes(ledger.read_bytes()[:17] + bytes(17))
    journal = opened(tmp_path)
    assert [journal.outcome(name) for name in "abc"] == [Outcome.ANSWERED, Outcome.ANSWERED, None]
    journal.settle("b", Outcome.ANSWERED, LINE)
    journal.close()
    assert captures(tmp_path) == ["a", "b"]
    ledger.write_bytes(bytes(17) + ledger.read_bytes()[17:])
    with pytest.raises(SpoolError, match="damaged"):
        opened(tmp_path)


@pytest.mark.parametrize("torn", [1, 10, 30])
def test_a_torn_line_is_cut_off_and_a_torn_mark_too(tmp_path: Path, torn: int) -> None:
    journal = opened(tmp_path)
    journal.settle("a", Outcome.ANSWERED, LINE)
    journal.settle("b", Outcome.ANSWERED, LINE)
    journal.close()
    os.truncate(tmp_path / "answers.jsonl", (tmp_path / "answers.jsonl").stat().st_size - torn)
    os.truncate(tmp_path / "ledger", 17 + torn % 17)
    journal = opened(tmp_path)
    assert journal.outcome("b") is None
    journal.settle("b", Outcome.ANSWERED, LINE)
    journal.close()
    assert captures(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("broken", ["pwrite", "fsync"])
@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_a_full_disk_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, turn: int) -> None:
    journal = opened(tmp_path)
    journal.settle("a", Outcome.ANSWERED, LINE)
    real, calls = getattr(os, broken), 0

    def sometimes(handle: int, *rest: object) -> object:
        nonlocal calls
        calls += 1
        if calls == turn:
            if broken == "pwrite":
                real(handle, b"{half", rest[1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, *rest)

    failures = 0
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, sometimes)
        for name in ("b", "b", "c", "c"):
            try:
                journal.settle(name, Outcome.ANSWERED, LINE)
            except OutputError:
                failures += 1
    assert failures == 1
    journal.close()
    assert captures(tmp_path) == ["a", "b", "c"]
    journal = opened(tmp_path)
    assert all(journal.outcome(name) is Outcome.ANSWERED for name in "abc")
    journal.close()


@pytest.mark.parametrize("content", [b'{"mine": 1}\n', b'{"mine": 1}', b"\xff\xd8\n\0\n picture", b"\nnotes"])
def test_an_answers_file_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    """What stood behind its last newline was cut off as a torn line: all of a file of one line."""
    (tmp_path / "answers.jsonl").write_bytes(content)
    with pytest.raises(SpoolError, match="none that `watch` writes"):
        opened(tmp_path)
    assert (tmp_path / "answers.jsonl").read_bytes() == content


def test_a_file_of_one_endless_line_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_LONGEST_LINE", 50)
    (tmp_path / "answers.jsonl").write_bytes(b"{" * 51)
    with pytest.raises(SpoolError, match="longer than 50 bytes"):
        opened(tmp_path)
    assert (tmp_path / "answers.jsonl").read_bytes() == b"{" * 51


@pytest.mark.parametrize("torn", [b"{", b'{"capture":"b","pict', b"\0\0\0", b'{"cap\0\0'])
def test_a_torn_first_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "answers.jsonl").write_bytes(torn)
    journal = opened(tmp_path)
    journal.settle("a", Outcome.ANSWERED, LINE)
    journal.close()
    assert captures(tmp_path) == ["a"]


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all_or_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, real, left = opened(tmp_path), os.pwrite, 1000
    journal.settle("a", Outcome.ANSWERED, LINE)

    def few(handle: int, data: bytes, at: int) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left -= 7
        return real(handle, data[:7], at)

    monkeypatch.setattr(os, "pwrite", few)
    journal.settle("b", Outcome.ANSWERED, LINE)
    before, left = (tmp_path / "answers.jsonl").read_bytes(), 20
    with pytest.raises(OutputError, match="No space left"):
        journal.settle("c", Outcome.ANSWERED, LINE)
    assert (tmp_path / "answers.jsonl").read_bytes() == before
    journal.close()
    assert captures(tmp_path) == ["a", "b"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(SpoolError, match="another process"):
        Journal(tmp_path / "answers.jsonl", tmp_path / "other")
    first.close()


@pytest.mark.parametrize("name", ["/dev/null", "pipe", "ledger"])
def test_answers_that_cannot_be_kept_are_refused_at_once(name: str, tmp_path: Path) -> None:
    """Into /dev/null no line could be brought to a disk: the packet was sent, answered and sent again for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=f"{name}: no file that answers can be kept in; choose another --answers"):
        Journal(tmp_path / name, tmp_path / "ledger")
    os.close(lock_file(tmp_path / "ledger"))


def test_answers_may_be_truncated_by_log_rotation(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.settle("a", Outcome.ANSWERED, LINE)
    os.truncate(tmp_path / "answers.jsonl", 0)
    journal.settle("b", Outcome.ANSWERED, LINE)
    journal.settle("a", Outcome.ANSWERED, LINE)
    journal.close()
    assert captures(tmp_path) == ["b"]


def test_the_ledger_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_RECORDS", 10)
    for begin in range(0, 44, 4):
        journal = opened(tmp_path)
        for number in range(begin, begin + 4):
            journal.settle(str(number), Outcome.ANSWERED, LINE)
        journal.close()
    assert (tmp_path / "ledger").stat().st_size <= 14 * 17
    journal = opened(tmp_path)
    assert [journal.outcome(str(n)) for n in (0, 43, 42, 41)] == [None, *[Outcome.ANSWERED] * 3]
    journal.close()


def settled(journal: Journal, numbers: range) -> None:
    for number in numbers:
        journal.settle(str(number), Outcome.ANSWERED, LINE)
        journal.forget()


def remembered(journal: Journal, numbers: range) -> list[int]:
    return [number for number in numbers if journal.outcome(str(number)) is Outcome.ANSWERED]


def test_the_ledger_is_bounded_within_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory grew by some 150 bytes a capture for as long as `watch` ran."""
    monkeypatch.setattr(journals, "MOST_RECORDS", 10)
    journal = opened(tmp_path)
    settled(journal, range(103))
    assert remembered(journal, range(103)) == list(range(96, 103))
    assert (tmp_path / "ledger").stat().st_size == 7 * 17
    journal.close()
    journal = opened(tmp_path)
    assert journal.unsure == ""
    assert remembered(journal, range(103)) == list(range(96, 103))
    journal.close()
    assert captures(tmp_path) == [str(number) for number in range(103)]


def test_what_is_asked_for_again_and_again_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_RECORDS", 10)
    journal = opened(tmp_path)
    for number in range(60):
        assert remembered(journal, range(min(number, 30))) == list(range(min(number, 30)))
        settled(journal, range(number, number + 1))
    late = remembered(journal, range(30, 60))
    assert late == list(range(60 - len(late), 60))
    assert 5 <= len(late) <= 10
    journal.close()
    assert (tmp_path / "ledger").stat().st_size == (30 + len(late)) * 17
    assert not (tmp_path / "ledger.part").exists()


@pytest.mark.parametrize("broken", ["open", "pwrite", "fsync", "replace"])
def test_a_full_disk_while_the_ledger_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Not at the start either, where it kept `watch` from running at all."""
    monkeypatch.setattr(journals, "MOST_RECORDS", 10)
    journal = opened(tmp_path)
    real = getattr(os, broken)

    def full(*rest: object, **names: object) -> object:
        handle = next((one for one in rest if isinstance(one, int)), None)
        place = str(rest[0] if broken in ("open", "replace") else os.readlink(f"/proc/self/fd/{handle}"))
        if place.endswith("ledger.part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*rest, **names)

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        settled(journal, range(20))
        assert remembered(journal, range(20)) == list(range(12, 20))
        assert (tmp_path / "ledger").stat().st_size == 20 * 17
        journal.close()
        journal = opened(tmp_path)
        assert journal.outcome("14") is None
    assert not (tmp_path / "ledger.part").exists()
    settled(journal, range(20, 26))
    assert (tmp_path / "ledger").stat().st_size == 5 * 17
    journal.close()
    journal = opened(tmp_path)
    assert (remembered(journal, range(26)), journal.unsure) == (list(range(21, 26)), "")
    journal.close()


def test_no_mark_goes_into_a_ledger_whose_name_may_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_RECORDS", 10)
    journal = opened(tmp_path)
    settled(journal, range(11))

    def broken(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(journals, "sync_folder", broken)
        with pytest.raises(OutputError, match="ledger: Input/output error"):
            settled(journal, range(11, 12))
    assert journal.outcome("11") is None
    settled(journal, range(12, 13))
    journal.close()
    assert captures(tmp_path) == [str(number) for number in range(13)]
    assert (tmp_path / "ledger").stat().st_size == 7 * 17


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_kill_at_any_step_of_forgetting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_RECORDS", 10)
    steps, kills = ("open", "pwrite", "fsync", "replace", "close"), 0
    for step in range(20):
        folder = tmp_path / str(step)
        folder.mkdir()
        journal = opened(folder)
        for number in range(11):
            journal.settle(str(number), Outcome.ANSWERED, LINE)
        left = step
        with monkeypatch.context() as patch:

            def dying(name: str, patch: pytest.MonkeyPatch) -> None:
                real = getattr(os, name)

                def wrapped(*rest: object, **names: object) -> object:
                    nonlocal left
                    left -= 1
                    if left < -1:
                        return real(*rest, **names)
                    if left == -1 and name == "pwrite":
                        real(rest[0], b"half a mark", rest[2])
                    if left == -1:
                        raise Killed
                    return real(*rest, **names)

                patch.setattr(os, name, wrapped)

            for name in steps:
                dying(name, patch)
            try:
                journal.forget()
            except Killed:
                kills += 1
        os.close(journal._file)
        journal = opened(folder)
        assert journal.unsure == ""
        assert remembered(journal, range(11))[-5:] == [6, 7, 8, 9, 10]
        for number in range(6, 12):
            journal.settle(str(number), Outcome.ANSWERED, LINE)
        journal.close()
        assert captures(folder) == [str(number) for number in range(12)]
    assert kills == 5
