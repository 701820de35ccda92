"""Beside listen.py: which addresses are listened on, by how many at once, and TLS.   inside: listen.py, grow.py

A name is listened on under all of its addresses, `localhost` as IPv6 and as IPv4, and `::` stands for every address of
both: sockets of their own, so that clients and proxies of IPv4 keep the addresses that they are known by.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import weakref
from typing import Any, Final, final

from splitcodec.edge.settings import Settings
from splitcodec.errors import SettingsError

_BACKLOG: Final = 2048
_TRIES: Final = 10  # ports that are free for one family and taken for the other
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})  # of a family that the machine does not have
_Place = tuple[socket.AddressFamily, tuple[Any, ...]]


def is_loopback(host: str) -> bool:
    """Say whether a host stands for this machine alone, under every address that it has."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        return bool(found) and all(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback for one in found)
    except (OSError, ValueError):
        return False


def listen(host: str, port: int, *, most: int | None = None) -> list[socket.socket]:
    """Return sockets that listen on every address of a host, on one port; port 0 takes one that is free for all.

    Of more than `most` open connections (none: any number), the newest is hung up on at once, however far it has come.
    Raises SettingsError.
    """
    try:
        places = _places(host, port)
        for left in reversed(range(_TRIES)):
            try:
                opened = _opened(places)
                break
            except OSError as error:
                if port or not left or error.errno != errno.EADDRINUSE:
                    raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingsError(f"cannot listen on {host}:{port} ({reason}); choose another host or port") from None
    if most is None:
        return opened
    room = _Room(most)
    return [_Bounded(one, room) for one in opened]


def _places(host: str, port: int) -> list[_Place]:
    """Return families and addresses of a host."""
    found = [
        (entry[0], entry[4])
        for one in (host, *(["0.0.0.0"] if host == "::" else []))  # noqa: S104 - who asked for all gets all
        for entry in socket.getaddrinfo(one, port, type=socket.SOCK_STREAM)
        if entry[0] in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(found))


def _opened(places: list[_Place]) -> list[socket.socket]:
    """Return a listening socket for each place that this machine has. Raises OSError where it has none of them."""
    opened, missing = list[socket.socket](), OSError(errno.EADDRNOTAVAIL, "no address")
    try:
        for family, (host, port, *rest) in places:
            taken = opened[0].getsockname()[1] if opened else port
            try:
                opened.append(socket.create_server((host, taken, *rest), family=family, backlog=_BACKLOG))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                missing = error
        if not opened:
            raise missing
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


@final
class _Room:
    """Counts connections that are open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = weakref.WeakSet[socket.socket]()

    def takes(self, one: socket.socket) -> bool:
        """Count one more, if there is room for it; those that are closed are forgotten when it gets scarce."""
        if len(self._open) >= self._most:
            self._open = weakref.WeakSet(other for other in self._open if other.fileno() >= 0)
        if len(self._open) >= self._most:
            return False
        self._open.add(one)
        return True


@final
class _Bounded(socket.socket):
    """A listening socket that hangs up on connections for which there is no room."""

    def __init__(self, of: socket.socket, room: _Room) -> None:
        super().__init__(of.family, of.type, of.proto, fileno=of.detach())
        self._room = room

    def accept(self) -> tuple[socket.socket, Any]:
        """Take a connection. Raises ConnectionAbortedError, which asyncio passes over, where there is no room."""
        one, address = super().accept()
        if self._room.takes(one):
            return one, address
        one.close()
        raise ConnectionAbortedError(errno.ECONNABORTED, "too many connections are open")


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the URL of a listening socket."""
    host, port, *rest = listener.getsockname()
    if rest and rest[-1]:  # the zone of a link-local address, which is reached with it alone
        host = f"{host}%{rest[-1]}"
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what TLS needs, None without TLS. Raises SettingsError for files that do not load."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"TLS files {settings.tls_cert} and {settings.tls_key}: {error.strerror or error}; "
            "expected a certificate chain and its key, both PEM"
        ) from None
    return context


def renew(context: ssl.SSLContext, settings: Settings) -> None:
    """Read the TLS files again, for connections from now on. Raises SettingsError, then the old ones stay in use."""
    if settings.tls_cert is not None and tls_context(settings) is not None:  # whole, and made for each other
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
