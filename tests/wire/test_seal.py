from __future__ import annotations

import hashlib
import hmac

import pytest

from splitcodec.errors import SettingsError
from splitcodec.wire.seal import DOWN, UP, Seal

KEY = "sixteen bytes or more"


def test_a_frame_comes_through_its_seal() -> None:
    device, edge = Seal(KEY, writes=UP, reads=DOWN), Seal(KEY, writes=DOWN, reads=UP)
    datagram = device.close(b"frame")
    assert datagram == b"frame" + hmac.new(KEY.encode(), UP + b"frame", hashlib.sha256).digest()[:8]
    assert len(datagram) == 5 + device.overhead
    assert edge.open(datagram) == b"frame"
    assert device.open(datagram) is None, "it was written by this side"


@pytest.mark.parametrize("other", [b"", b"frame", b"framf12345678", b"12345678"])
def test_what_others_wrote_is_nothing(other: bytes) -> None:
    assert Seal(KEY, writes=DOWN, reads=UP).open(other) is None


def test_another_key_is_another() -> None:
    datagram = Seal(KEY, writes=UP, reads=DOWN).close(b"frame")
    assert Seal(KEY + "!", writes=DOWN, reads=UP).open(datagram) is None


def test_no_key_changes_nothing() -> None:
    free = Seal(None, writes=UP, reads=DOWN)
    assert free.close(b"frame") == free.open(b"frame") == b"frame"
    assert (free.closed, free.overhead) == (False, 0)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least 16"):
        Seal("short", writes=UP, reads=DOWN)
    with pytest.raises(SettingsError, match="a token of 15 bytes"):
        Seal("a" * 15, writes=UP, reads=DOWN)
    for just in ("a" * 16, "\u00e9" * 8):
        assert Seal(just, writes=UP, reads=DOWN).closed
