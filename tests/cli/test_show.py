"""Progress where stderr is no terminal: nothing for short work, now and then a plain line for long work."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from splitcodec.cli.show import complain, each, guesses, print_table, progress, task_names, training_room
from splitcodec.cli.tokens import read_token, token_reader
from splitcodec.errors import MissingExtra, PictureError, SettingsError


def test_short_work_prints_nothing_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    with progress() as bar:
        task = bar.add_task("working", total=3, note="")
        bar.advance(task, 3)
    assert each([1, 2], lambda number: number + 1, what="adding") == ([2, 3], 0)
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_refusal_is_the_only_line(capfd: pytest.CaptureFixture[str]) -> None:
    def one(name: str) -> None:
        raise PictureError(f"{name}: no")

    assert each(["a.jpg"], one, what="refusing") == ([], 1)
    assert capfd.readouterr().err == "splitcodec: PictureError: a.jpg: no\n"


def test_long_work_tells_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()  # pytest's own captures cut the file off under the thread that writes
    monkeypatch.setattr(sys, "stderr", told)
    with progress(every_s=0.02) as bar:
        task = bar.add_task("evaluating", total=None, note="")
        bar.update(task, completed=1200, total=5000, note="loss 0.5")
        until = time.monotonic() + 20
        while "loss 0.5\n" not in told.getvalue() and time.monotonic() < until:
            time.sleep(0.02)
    lines = told.getvalue()
    assert "evaluating: 1,200/5,000, loss 0.5\n" in lines
    assert set(lines.splitlines()) <= {"evaluating: 1,200/5,000, loss 0.5", "evaluating: 0"}


def test_a_table_in_a_file_breaks_no_cell(capfd: pytest.CaptureFixture[str]) -> None:
    long = "/".join(["folder"] * 60)
    print_table("packets", ("file", "bytes"), [(long, 7), ("short", 8)])
    lines = capfd.readouterr().out.splitlines()
    assert any(long in line for line in lines)
    assert len({len(line) for line in lines[1:]}) == 1
    print_table("packets", ("file", "bytes"), [("short", 8)])
    assert max(map(len, capfd.readouterr().out.splitlines())) < 40


def test_a_table_prints_what_looks_like_markup(capfd: pytest.CaptureFixture[str]) -> None:
    said = guesses({"answers": {"detect": [{"label": "car", "score": 0.66}, {"label": "cow", "score": 0.31}]}})
    assert "cow" not in said
    assert guesses({"answers": {"detect": [{"label": "cow", "score": 0.31}]}}) == "no objects"
    assert said == "[car] 66 %"
    print_table("answers", ["image", "answer"], [["street.jpg", said]], left=2)
    assert "[car] 66 %" in capfd.readouterr().out


def test_what_a_terminal_would_obey_is_spelled_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Names of files and labels of servers are other people's."""
    label = "\x1b[31mtench\x1b]0;title\x07"
    said = guesses({"answers": {"classify": [{"label": label, "p": 0.5}]}})
    assert said == r"\x1b[31mtench\x1b]0;title\x07 50 %"
    print_table("at \x1b[31m [red]", ["image"], [["a\nb\udcff.jpg"]])
    complain(PictureError("a\x1b[31m\nb\udcff.jpg: no"))
    printed = capfd.readouterr()
    assert r"a\nb\udcff.jpg" in printed.out
    assert r"at \x1b[31m [red]" in printed.out
    assert printed.err == "splitcodec: PictureError: a\\x1b[31m b\\udcff.jpg: no\n"
    assert "\x1b" not in printed.out + printed.err


def test_bytes_that_are_no_text_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """They came as half characters, which nothing can send: a traceback."""
    monkeypatch.setitem(os.environb, b"SPLITCODEC_TOKEN", b"sixteen random \xe9\xff")
    with pytest.raises(SettingsError, match="SPLITCODEC_TOKEN: not UTF-8"):
        read_token(None)
    with pytest.raises(SettingsError, match=r"--tasks 'classify,.udce9'"):
        task_names(os.fsdecode(b"classify,\xe9"))


def test_a_byte_order_mark_is_no_part_of_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("# mine\nsecret\n", encoding="utf-8-sig")
    assert read_token(file) == "secret"


def test_a_token_is_read_anew_from_a_file_and_once_from_a_pipe(tmp_path: Path) -> None:
    """A second look into a pipe would wait for ever for somebody to write."""
    plain, pipe = tmp_path / "plain", tmp_path / "pipe"
    plain.write_text("one\n")
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=("one\n",), daemon=True).start()
    from_plain, from_pipe = token_reader(plain), token_reader(pipe)
    assert (from_plain(), from_pipe()) == ("one", "one")
    plain.write_text("two\n")
    assert (from_plain(), from_pipe()) == ("two", "one")


def test_a_token_file_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    """`--token-file /dev/zero` read until the memory was full."""
    large = tmp_path / "token"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    for endless in (large, Path("/dev/zero")):
        with pytest.raises(SettingsError, match="more than 1048576 letters"):
            read_token(endless)


def test_without_the_training_room_its_commands_say_what_to_install() -> None:
    told = r"training needs nosuch; install it with: pip install 'splitcodec\[train\]'"
    with pytest.raises(MissingExtra, match=told), training_room():
        raise ModuleNotFoundError(name="nosuch")
