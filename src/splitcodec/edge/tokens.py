"""Beside server.py: who may ask. Bearer tokens, from a file or the environment.   asked by: guard.py

A file holds one token a line; blank lines and lines that begin with # count for nothing. Several tokens are valid at
the same time, so that a new one can be handed out before the old one goes. The file is read again when it changes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from splitcodec.errors import SettingsError

_log = logging.getLogger("splitcodec.edge")
_LARGEST_FILE = 1 << 20
_MOST = 1000
_LOOK_AGAIN_S = 1.0
_SHORT = 16


@final
class Tokens:
    """The tokens that are valid now.

    `text` holds tokens separated by commas or white space, `file` one a line; both may be given. With neither,
    nobody is asked for a token. Raises SettingsError for a file that cannot be read, or no token where one was meant.
    """

    def __init__(
        self, text: str | None = None, *, file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._clock = clock
        self._looked = clock()
        self._given = _digests((text or "").replace(",", " ").split(), where="SPLITCODEC_TOKENS")
        if text is not None and not self._given:
            raise SettingsError("SPLITCODEC_TOKENS holds no token; put one there, or unset it")
        self._trouble = ""  # why the file could not be read again
        self._seen = self._stamp()
        self._from_file = self._read()

    @property
    def required(self) -> bool:
        """Say whether a token is asked for."""
        return bool(self._given or self._file)

    def find(self, authorization: str | None) -> str | None:
        """Return a name for the token in an Authorization header (never the token itself), None if it is not valid.

        Every valid token is compared, each in constant time.
        """
        self._look()
        scheme, _, came = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not came.strip():
            return None
        digest = hashlib.sha256(came.strip().encode("utf-8", "replace")).digest()
        found: str | None = None
        for known in (*self._given, *self._from_file):
            if hmac.compare_digest(digest, known):
                found = known.hex()[:16]
        return found

    def reload(self) -> None:
        """Read the file again, now; if it cannot be read, or holds no token, the tokens before it stay valid.

        Then it is tried again at each look, for what was in the way may go without a trace in the file: too many open
        files, or an owner that is set right.
        """
        self._trouble = ""
        if self._file is not None:
            self._read_again()

    def _read_again(self) -> None:
        stamp = self._stamp()
        try:
            if self._waits():
                raise SettingsError(f"tokens file {self._file}: no regular file, so it is read at the start alone")
            self._from_file = self._read()
        except SettingsError as error:
            if str(error) != self._trouble:  # said once
                _log.error("tokens not read again, the old ones stay valid: %s", error)
            self._trouble = str(error)
        else:
            self._seen, self._trouble = stamp, ""
            _log.info("tokens read again: %d in %s", len(self._from_file), self._file)

    def _look(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked < _LOOK_AGAIN_S:
            return
        self._looked = now
        if self._trouble or self._stamp() != self._seen:
            self._read_again()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat() if self._file else None
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)

    def _waits(self) -> bool:
        """Say whether reading may wait for somebody to write, as a pipe's does, and all requests with it."""
        try:
            return self._file is not None and not stat.S_ISREG(self._file.stat().st_mode)
        except OSError:
            return False

    def _read(self) -> tuple[bytes, ...]:
        if self._file is None:
            return ()
        try:
            with self._file.open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
            lines = data.decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise SettingsError(f"tokens file {self._file}: {reason}; give a file with one token a line") from None
        if len(data) > _LARGEST_FILE:  # the last token may be cut, and what is left of it would be one
            raise SettingsError(f"tokens file {self._file}: more than {_LARGEST_FILE} bytes; take out what is no token")
        tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not tokens:
            raise SettingsError(f"tokens file {self._file} holds no token; put one on each line")
        return _digests(tokens, where=str(self._file))


def _digests(tokens: list[str], *, where: str) -> tuple[bytes, ...]:
    if len(tokens) > _MOST:
        raise SettingsError(f"{where}: {len(tokens)} tokens, at most {_MOST} are taken")
    for token in tokens:
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise SettingsError(f"{where}: a token holds characters that HTTP does not carry; use printable ASCII")
    for token in tokens:
        if len(token) < _SHORT:
            _log.warning("%s: a token of %d characters can be guessed; take 16 or more", where, len(token))
    return tuple(hashlib.sha256(token.encode()).digest() for token in dict.fromkeys(tokens))
