"""Stage 5 of 7, over UDP: small frames in datagrams, for links that are paid by the byte.   far end: edge/udp.py

    link = udp("udp://192.168.0.7:8080", top=1)

A packet goes up in as many datagrams as it needs and its answer comes down in one: no connection, no heads, no
acknowledgement of every segment. What is lost is sent again (`wire/exchange.py`). With a token, every frame bears a tag
under it; nothing is encrypted, so put UDP into a tunnel where strangers may read.

A socket that is connected stays with the addresses that both shores had when it was opened. So where no answer comes,
another is opened: the name is looked up anew, and of its addresses the next is taken if this one never said a word.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Final, final
from urllib.parse import urlsplit

from splitcodec.device.fragmented import FragmentedLink, fragmented
from splitcodec.errors import LinkDown, SettingsError
from splitcodec.wire.exchange import Limits, Patience
from splitcodec.wire.fragment import DATAGRAM
from splitcodec.wire.request import backoff_s, check_tries, tries_told, without_password
from splitcodec.wire.seal import DOWN, UP, Seal

PORT: Final = 8080
_EXPECTED = "expected one like udp://192.168.0.7:8080"
_SHORTEST_WAIT_S = 0.001
_LARGEST_ANSWER = 1 << 20  # more than the 256 datagrams of an answer hold


def udp(
    url: str,
    *,
    tasks: Sequence[str] = (),
    top: int | None = None,
    score: float | None = None,
    brief: bool = True,
    timeout_s: float = 10.0,
    retries: int = 2,
    token: str | None = None,
    datagram: int = DATAGRAM,
    wait_s: float = 2.0,
) -> UdpLink:
    """Return a link to the bridge at `url`: udp://host[:8080].

    `timeout_s` is for each try, `retries` are on top of the first. `tasks` are the answers to ask for, `top` how many
    guesses of a classification, `score` the least of the boxes to send (none: the edge's defaults). `brief`: the answer
    comes in a third of its bytes. `token`: a key of at least 16 bytes that the bridge has as well. `datagram` is the
    most bytes in one, `wait_s` how long to wait for word of the last of them before asking: more than sending them and
    a round trip take.

    Calling it raises LinkDown, LinkRefused or LinkGarbled. SettingsError for arguments that make no sense.
    """
    check_tries(timeout_s=timeout_s, retries=retries)
    line = _Line(url, Seal(token, writes=UP, reads=DOWN))
    frames = fragmented(
        line.send,
        line.receive,
        frame=datagram - line.seal.overhead,
        tasks=tasks,
        top=top,
        score=score,
        brief=brief,
        timeout_s=timeout_s,
        patience=Patience(report_s=min(wait_s, timeout_s / 2)),
        limits=Limits(total_bytes=_LARGEST_ANSWER),
        place=line.url,
    )
    return UdpLink(line, frames, tries=1 + retries)


@final
class UdpLink:
    """A link in datagrams, one packet at a time. Close it, or use it in `with`.

    Threads may share it, and so may a process and those that fork from it: each opens a socket of its own.
    """

    def __init__(self, line: _Line, frames: FragmentedLink, *, tries: int) -> None:
        self.url = line.url
        self.tasks = frames.tasks
        self._line = line
        self._frames = frames
        self._tries = tries
        self._busy = threading.Lock()
        weakref.finalize(self, line.close)  # for a link that is used once and dropped

    def __call__(self, packet: bytes, *, idempotency_key: str | None = None) -> bytes:
        """Send one packet and return the answer. The key is not sent; a packet sent anew may be computed anew."""
        trouble: LinkDown | None = None
        for turn in range(self._tries):
            if turn:
                time.sleep(backoff_s(turn))
            try:
                return self._ask(packet, idempotency_key)
            except LinkDown as error:
                trouble = error
            except OSError as error:
                reason = (
                    "nobody listens there" if isinstance(error, ConnectionRefusedError) else error.strerror or error
                )
                trouble = LinkDown(f"{reason}; check the address, and that `splitcodec bridge --udp` is running there")
        tries = tries_told(self._tries)
        raise LinkDown(
            f"{self.url} does not answer after {tries} ({trouble}); both shores need the same token, or none"
        )

    def _ask(self, packet: bytes, idempotency_key: str | None) -> bytes:
        """Try once, and at once again at the next address where one sends packets back. Raises LinkDown, OSError."""
        with self._busy:
            while True:
                try:
                    return self._frames(packet, idempotency_key=idempotency_key)
                except LinkDown:
                    self._line.leave()
                    raise
                except OSError:
                    if not self._line.leave():
                        raise

    def close(self) -> None:
        """Close the socket."""
        self._line.close()

    def __enter__(self) -> UdpLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class _Line:
    """The socket, opened when it is needed. Apart from the link, which must not keep itself alive."""

    def __init__(self, url: str, seal: Seal) -> None:
        self._host, self._port = _place(url)
        self.seal = seal
        self._socket: socket.socket | None = None
        self._process = os.getpid()  # a socket is of the one that opened it
        self._turn = 0  # which of the name's addresses
        self._addresses = 0  # how many it has, as long as one of them is tried
        self._heard = False  # since the socket was opened

    @property
    def url(self) -> str:
        """Return the address for messages."""
        return f"udp://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def send(self, frame: bytes) -> None:
        """Send a frame. Raises OSError."""
        if self._process != os.getpid():  # forked: each would read what is meant for the other
            self.close()
            self._process = os.getpid()
        if self._socket is None:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
            self._addresses, self._heard = len(found), False
            family, kind, protocol, _, address = found[self._turn % len(found)]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.connect(address)
        self._socket.send(self.seal.close(frame))

    def receive(self, seconds: float) -> bytes | None:
        """Return the next frame that is meant for us; None after that time, and for what others wrote."""
        if self._socket is None:
            return None
        self._socket.settimeout(max(seconds, _SHORTEST_WAIT_S))
        try:
            frame = self.seal.open(self._socket.recv(65_536))
        except TimeoutError:
            return None
        self._heard = self._heard or frame is not None
        return frame

    def leave(self) -> bool:
        """Close the socket. Returns whether the next frame goes to an address that has not had its turn yet.

        An address that has said a word since the socket was opened keeps its turn.
        """
        tried, heard = self._addresses, self._heard
        self.close()
        if not tried or heard:
            return False
        self._turn = (self._turn + 1) % tried
        return self._turn > 0

    def close(self) -> None:
        """Close the socket; the next frame opens another."""
        self._addresses = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # what the socket will do, and it would raise a UnicodeError
    except ValueError as error:
        reason = "" if "@" in url else f" ({error})"
        raise SettingsError(f"{without_password(url)!r} is no URL{reason}; {_EXPECTED}") from None
    said = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "udp" or not parts.hostname or said or port == 0:  # 0 would be the default one
        raise SettingsError(f"{url.rpartition('@')[2][:200]!r} is no address of a UDP bridge; {_EXPECTED}")
    return parts.hostname, port or PORT
