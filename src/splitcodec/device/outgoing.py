"""Beside link.py: what httpx sends, with a request's head and body in one write.   inside: link.py

httpx writes the head, then the body; each becomes a segment of its own, and 52 bytes of TCP and IP around the second
are a tenth of a small packet. Here the head waits for its body: one segment where both fit, one record under TLS.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, cast, final
from urllib.request import getproxies

import httpcore
import httpx

from splitcodec.errors import SettingsError

# A proxy from the environment is for the world outside: never send loopback through it.
_LOOPBACK: Final = ("all://localhost", "all://127.0.0.1", "all://[::1]")


def trusted() -> ssl.SSLContext:
    """Return what TLS trusts: authorities in SSL_CERT_FILE or SSL_CERT_DIR, else certifi's. Raises SettingsError."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise SettingsError(
            f"SSL_CERT_FILE or SSL_CERT_DIR: {error.strerror or error}; name a PEM file of authorities, or unset it"
        ) from None


def no_cookies() -> CookieJar:
    """Return a jar that stays empty: an edge sets no cookies, and those of others would go to it with every packet."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def open_client(headers: dict[str, str], timeout_s: float, *, tls: bool) -> httpx.Client:
    """Return a client that sends `headers` and no others of its own. Raises SettingsError for a proxy of no use."""
    try:
        direct, jar = OneWrite(trusted() if tls else None), no_cookies()
        if getproxies():
            mounts = dict.fromkeys(_LOOPBACK, direct)
            made = httpx.Client(headers=headers, timeout=timeout_s, cookies=jar, mounts=mounts)
        else:
            made = httpx.Client(headers=headers, timeout=timeout_s, cookies=jar, transport=direct)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        hint = "SOCKS needs: pip install socksio" if isinstance(error, ImportError) else "expected http://host:port"
        raise SettingsError(
            f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names a proxy of no use ({hint}); correct it, or unset it"
        ) from None
    for name in ("accept", "accept-encoding", "connection"):  # say what goes without saying; weak links pay for it
        del made.headers[name]
    return made


@final
class OneWrite(httpx.BaseTransport):
    """A transport without a proxy for HTTP/1.1; it keeps connections, and threads may share it."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=100,  # these three as httpx has them
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Network(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, whose body is still to be read. Raises httpx.TransportError."""
        url = request.url
        with _as_httpx():
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=cast("Iterable[bytes]", request.stream),
                    extensions=request.extensions,
                )
            )
        body = _Body(response)
        return httpx.Response(response.status, headers=response.headers, stream=body, extensions=response.extensions)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


@final
class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


@final
class _Network(httpcore.NetworkBackend):
    """httpcore's own network, its streams wrapped."""

    def __init__(self) -> None:
        self._network = httpcore.SyncBackend()

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._network.connect_tcp(*args, **options))

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


@final
class _Stream(httpcore.NetworkStream):
    """A connection that holds what is written back until more comes: a request ends with a write, if need be of none.

    Heads begin with their method, bodies with a packet's own first letters.
    """

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._head = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not self._head and buffer.startswith(b"POST "):
            self._head = buffer
            return
        head, self._head = self._head, b""
        self._stream.write(head + buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise httpcore's errors as httpx's of the same name."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error
