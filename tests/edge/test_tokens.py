from __future__ import annotations

import hmac
import logging
import os
import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from splitcodec.edge.tokens import Tokens
from splitcodec.errors import SettingsError

ONE, TWO, THREE = "a" * 20, "b" * 20, "c" * 20


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_tokens_nobody_is_asked() -> None:
    assert not Tokens().required


def test_several_tokens_are_valid_and_have_names_of_their_own() -> None:
    tokens = Tokens(f"{ONE},{TWO} {THREE}")
    assert tokens.required
    names = [tokens.find(f"Bearer {one}") for one in (ONE, TWO, THREE)]
    assert None not in names
    assert len(set(names)) == 3
    assert not any(one in str(name) for one, name in zip((ONE, TWO, THREE), names, strict=True))
    assert tokens.find(f"bearer   {ONE}") == names[0]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {ONE}", f"Bearer {ONE}x", ONE, "Bearer \udcff"]
)
def test_anything_else_is_not(header: str | None) -> None:
    assert Tokens(ONE).find(header) is None


def test_every_token_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def watched(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return real(left, right)

    monkeypatch.setattr("splitcodec.edge.tokens.hmac.compare_digest", watched)
    Tokens(f"{ONE},{TWO},{THREE}").find(f"Bearer {ONE}")
    assert len(compared) == 3


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file, clock = tmp_path / "tokens", Clock()
    file.write_text(f"# the old one\n\n{ONE}\n")
    tokens = Tokens(TWO, file=file, clock=clock)
    assert tokens.find(f"Bearer {ONE}")
    assert tokens.find(f"Bearer {TWO}")
    file.write_text(f"{ONE}\n{THREE}\n")
    assert not tokens.find(f"Bearer {THREE}")  # looked at a moment ago
    clock.now = 2.0
    assert tokens.find(f"Bearer {THREE}")
    file.write_text(f"{THREE}\n")
    tokens.reload()
    assert not tokens.find(f"Bearer {ONE}")


def test_a_file_that_goes_away_or_empties_keeps_the_old_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "tokens", Clock()
    file.write_text(ONE)
    tokens = Tokens(file=file, clock=clock)
    file.unlink()
    clock.now = 2.0
    with caplog.at_level(logging.ERROR):
        assert tokens.find(f"Bearer {ONE}")
    assert "old ones stay" in caplog.text
    file.write_text("# nothing\n")
    clock.now = 4.0
    assert tokens.find(f"Bearer {ONE}")
    assert not tokens.find("Bearer # nothing")


def test_a_file_that_could_not_be_read_for_a_while_is_read_as_soon_as_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its owner was set right nothing told it from before, so a token that was withdrawn stayed valid."""
    file, clock = tmp_path / "tokens", Clock()
    file.write_text(ONE)
    tokens = Tokens(file=file, clock=clock)
    file.write_text(f"{TWO}\n")

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with caplog.at_level(logging.ERROR), monkeypatch.context() as patch:
        patch.setattr(Path, "open", forbidden)
        for clock.now in (2.0, 4.0, 6.0):
            assert tokens.find(f"Bearer {ONE}")
    assert caplog.text.count("Permission denied") == 1
    clock.now = 8.0
    assert not tokens.find(f"Bearer {ONE}")
    assert tokens.find(f"Bearer {TWO}")


def test_a_pipe_is_read_once_and_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A request that found its time changed waited for another writer, and the whole server with it."""
    pipe, clock = tmp_path / "tokens", Clock()
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=(f"{ONE}\n",))
    writing.start()
    tokens = Tokens(file=pipe, clock=clock)
    writing.join()
    os.utime(pipe, (1, 1))
    clock.now = 2.0
    looking = threading.Thread(target=tokens.find, args=(f"Bearer {ONE}",), daemon=True)
    looking.start()
    looking.join(10)
    assert not looking.is_alive()
    tokens.reload()
    assert tokens.find(f"Bearer {ONE}") is not None
    assert "at the start alone" in caplog.text


def test_a_file_may_begin_as_windows_begins_texts(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# of the fleet\n{ONE}\n", encoding="utf-8-sig")
    assert Tokens(file=file).find(f"Bearer {ONE}")


@pytest.mark.parametrize("content", [b"", b"# only this\n", b"\xff\xfe", b"two words\n"])
def test_files_without_tokens_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokens").write_bytes(content)
    with pytest.raises(SettingsError, match="tokens"):
        Tokens(file=tmp_path / "tokens")
    with pytest.raises(SettingsError, match="nowhere"):
        Tokens(file=tmp_path / "nowhere")


def test_a_file_too_long_to_read_whole_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"#{'x' * ((1 << 20) - 2 - 20)}\n{40 * 'a'}\n")  # cut after 20 letters of the token
    with pytest.raises(SettingsError, match="more than 1048576 bytes"):
        Tokens(file=file)


def test_an_empty_environment_is_refused_and_a_short_token_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError, match="SPLITCODEC_TOKENS"):
        Tokens(" , ")
    with caplog.at_level(logging.WARNING):
        Tokens("short")
    assert "guessed" in caplog.text
    assert "short" not in caplog.text.replace("shorter", "")
