"""Stage 5 of 7: packet -> the edge -> answer.   before: wire/packet.py   after: edge/answer.py

A link is a function, bytes -> bytes: a packet goes in, the answer's JSON comes out. `http` reaches a server,
`Edge.respond` is a link without any network, and `slow` puts a simulated radio in front of either. Whatever else
carries bytes (MQTT, a serial line) is written as one more such function.
"""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import final

import httpx

from splitcodec.device.outgoing import no_cookies, open_client, trusted
from splitcodec.device.status import shown_address
from splitcodec.errors import LinkDown, LinkGarbled, LinkRefused, SettingsError, TaskError, one_line
from splitcodec.wire.answer import MAX_BYTES
from splitcodec.wire.brief import MEDIA_TYPE, restore
from splitcodec.wire.problem import MEDIA_TYPE as PROBLEM
from splitcodec.wire.problem import Told, told_by
from splitcodec.wire.request import (
    BRIEF,
    KEYS,
    backoff_s,
    check_tries,
    said,
    tries_told,
    wanted_from,
    without_password,
)

Link = Callable[[bytes], bytes]

LONGEST_WAIT_S = 30.0  # whatever Retry-After says
_PASSING = frozenset({429, 502, 503, 504})
_PATH = "; check the path in the address, an edge has none of its own"
_HINTS = {401: "; give --token-file, or set SPLITCODEC_TOKEN (a bridge: --server-token-file)", 404: _PATH, 405: _PATH}
_PAGE_S = 10.0


def http(
    url: str,
    *,
    tasks: Sequence[str] = (),
    top: int | None = None,
    score: float | None = None,
    timeout_s: float = 10.0,
    retries: int = 2,
    token: str | None = None,
    brief: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> HttpLink:
    """Return a link to the edge server at `url`, such as "http://192.168.0.7:8080".

    `timeout_s` is for each try, `retries` are on top of the first try and follow lost connections, time-outs, the
    statuses 429, 502, 503 and 504, and a 500 that is a proxy's (waiting as Retry-After asks, at most 30 s). `tasks` are
    the answers to ask for and `top` how many guesses of a classification (none: the edge's default, five; on a weak
    link one saves some 90 bytes of answer), `score` the least of the boxes to send (none: 0.05), `token` is sent as a
    bearer token. `brief`: the answer crosses the link in a third of its bytes and is restored here; an edge that does
    not know how sends it as it is.

    Calling it raises LinkDown, LinkRefused or LinkGarbled. SettingsError for arguments that make no sense.
    """
    words = said(tasks=tasks, top=top, score=score) | ({BRIEF: "1"} if brief else {})
    return HttpLink(url, words=words, timeout_s=timeout_s, retries=retries, token=token, sleep=sleep)


@final
class HttpLink:
    """A link over HTTP that keeps its connection. Close it, or use it in `with`.

    Threads may share it, and so may a process and those that fork from it: each opens a connection of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        words: Mapping[str, str],
        timeout_s: float,
        retries: int,
        token: str | None,
        sleep: Callable[[float], None],
    ) -> None:
        check_tries(timeout_s=timeout_s, retries=retries)
        self._address = _checked_url(url)
        self.url = shown_address(self._address)
        self._tries = 1 + retries
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._params = dict(words)
        self.tasks = wanted_from(words).tasks
        headers = {"user-agent": "splitcodec", **_authorization(token)}
        self._open = partial(open_client, headers, timeout_s, tls=httpx.URL(self._address).scheme == "https")
        self._connect()

    def __call__(self, packet: bytes, *, idempotency_key: str | None = None) -> bytes:
        """Send one packet and return the body of the answer, at most 1 MiB.

        Under an `idempotency_key` (1 to 128 letters, digits, '_' and '-', a new one for each packet) the edge computes
        an answer once, however often the packet is sent. Raises SettingsError for another key.
        """
        if idempotency_key is not None and not KEYS.fullmatch(idempotency_key):
            raise SettingsError(
                f"idempotency key {idempotency_key[:40]!r}; expected 1 to 128 letters, digits, '_' and '-'"
            )
        trouble = ""
        for turn in range(self._tries):
            wait_s = backoff_s(turn + 1)
            try:
                status, headers, body = self._post(packet, idempotency_key)
            except httpx.TimeoutException:
                trouble = f"no answer within {self._timeout_s:g} s"
            except httpx.TransportError as error:
                trouble = one_line(error)
            else:
                if status == 200:
                    return self._answer(headers, body)
                if not _passing(status, headers):
                    raise self._refusal(status, headers, body)
                trouble = f"status {status}" + (f", {told.detail}" if (told := _told(headers, body)).detail else "")
                wait_s = _retry_after_s(headers.get("retry-after"), otherwise=wait_s)
            if turn + 1 < self._tries:
                self._sleep(wait_s)
        raise LinkDown(f"{self.url} does not answer after {tries_told(self._tries)} ({trouble}); {_advice(trouble)}")

    def close(self) -> None:
        """Close the connection; the next packet opens another."""
        self._client.close()

    def __enter__(self) -> HttpLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._client, self._process = self._open(), os.getpid()
        weakref.finalize(self, self._client.close)  # for a link that is used once and dropped

    def _post(self, packet: bytes, key: str | None) -> tuple[int, httpx.Headers, bytes]:
        if self._process != os.getpid() or self._client.is_closed:
            self._connect()  # forked: two processes on one connection read each other's answers
        # httpx times each read; a server that drips would hold us for ever without a clock (a head still may).
        deadline = time.monotonic() + self._timeout_s
        headers = {} if key is None else {"idempotency-key": key}
        with self._client.stream(
            "POST", f"{self._address}/v1/answer", content=packet, params=self._params, headers=headers
        ) as response:
            return response.status_code, response.headers, _read(response, self.url, deadline=deadline)

    def _answer(self, headers: httpx.Headers, body: bytes) -> bytes:
        if (coding := headers.get("content-encoding", "identity").lower()) != "identity":
            raise LinkGarbled(
                f"{self.url} sent an answer coded as {coding[:20]!r}, which nobody asked for; "
                "let the proxy leave answers as they are"
            )
        return restore(body) if headers.get("content-type") == MEDIA_TYPE else body

    def _refusal(self, status: int, headers: httpx.Headers, body: bytes) -> LinkRefused | LinkGarbled:
        if (told := _told(headers, body)).detail:
            what = f"{self.url} refused the packet ({status}): {told.detail}{_hint(status, told.reason)}"
            return LinkRefused(what, status=status, reason=told.reason)
        if 300 <= status < 400:
            place = headers.get("location", "nowhere")[:200]
            return LinkGarbled(f"{self.url} answered {status} and points to {place}; give that address instead")
        kind = headers.get("content-type", "no content type")[:80]
        return LinkGarbled(f"{self.url} answered {status} with {kind}, expected JSON from an edge; {_advice(kind)}")


def page(url: str, *, token: str | None = None) -> Callable[[], str]:
    """Return a function that gets the text at `url` anew each time it is called, over one connection.

    It raises LinkDown, LinkRefused for any status but 200, or LinkGarbled for more than 1 MiB. SettingsError for a URL
    or token that makes no sense.
    """
    address = _checked_url(url)
    place, headers = shown_address(address), {"accept-encoding": "identity", **_authorization(token)}
    context = trusted() if httpx.URL(address).scheme == "https" else False
    client = httpx.Client(headers=headers, cookies=no_cookies(), timeout=_PAGE_S, trust_env=False, verify=context)

    def get() -> str:
        try:
            with client.stream("GET", address) as response:
                body = _read(response, place, deadline=time.monotonic() + _PAGE_S)
        except httpx.HTTPError as error:
            reason = one_line(error)
            raise LinkDown(f"{place}: {reason}; {_advice(reason)}") from None
        if (status := response.status_code) != 200:
            raise LinkRefused(f"{place} answered {status}{_hint(status)}", status=status)
        return body.decode(errors="replace")

    weakref.finalize(get, client.close)
    return get


def _read(response: httpx.Response, place: str, *, deadline: float) -> bytes:
    """Return what an edge sends. Raises LinkGarbled for more than any edge does, httpx.ReadTimeout."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise LinkGarbled(f"{place} sent more than {MAX_BYTES} bytes; is this an edge? Check the address")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer drips")
    return bytes(body)


def slow(link: Link, *, kbit_per_s: float, rtt_ms: float, sleep: Callable[[float], None] = time.sleep) -> Link:
    """Return `link` behind a simulated radio: really wait for the bytes both ways and for the round trip.

    `kbit_per_s` counts 1000 bits; only packet and answer bytes are counted, not what HTTP puts around them.
    """
    _check_radio(kbit_per_s=kbit_per_s, rtt_ms=rtt_ms)

    def slowed(packet: bytes) -> bytes:
        sleep(airtime_ms(len(packet), kbit_per_s=kbit_per_s, rtt_ms=rtt_ms / 2) / 1000)
        answer = link(packet)
        sleep(airtime_ms(len(answer), kbit_per_s=kbit_per_s, rtt_ms=rtt_ms / 2) / 1000)
        return answer

    return slowed


def airtime_ms(n_bytes: int, *, kbit_per_s: float, rtt_ms: float) -> float:
    """Return the milliseconds that `n_bytes` take at `kbit_per_s` (1000 bits per second), plus `rtt_ms`."""
    _check_radio(kbit_per_s=kbit_per_s, rtt_ms=rtt_ms)
    return n_bytes * 8 / kbit_per_s + rtt_ms


def _check_radio(*, kbit_per_s: float, rtt_ms: float) -> None:
    if not (math.isfinite(kbit_per_s) and kbit_per_s > 0):
        raise SettingsError(f"a rate of {kbit_per_s} kbit/s; expected more than 0")
    if not (math.isfinite(rtt_ms) and rtt_ms >= 0):
        raise SettingsError(f"a round trip of {rtt_ms} ms; expected 0 or more")


def _authorization(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise SettingsError("the token holds characters that HTTP does not carry; expected printable ASCII")
    return {"authorization": f"Bearer {token}"}


def _hint(status: int, reason: str = "") -> str:
    return "" if reason == TaskError.__name__ else _HINTS.get(status, "")


def _advice(trouble: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in trouble:
        return "name a PEM file with the authority that signed its certificate in SSL_CERT_FILE"
    if "WRONG_VERSION_NUMBER" in trouble or "RECORD_LAYER_FAILURE" in trouble:
        return "nobody speaks TLS there; try http:// in the address"
    if "disconnected without" in trouble:
        return "check the address: does the edge want https://?"
    return "check the address, and that `splitcodec serve` is running there"


def _checked_url(url: str) -> str:
    try:
        parts = httpx.URL(url)
        parts.raw_host.decode("ascii").encode("idna")  # what the socket will do, and it would raise a UnicodeError
    except (httpx.InvalidURL, TypeError, UnicodeError) as error:
        reason = "" if "@" in str(url) else f" ({error})"
        raise SettingsError(
            f"{without_password(url)!r} is no URL{reason}; expected one like http://host:8080"
        ) from None
    wrong_port = (parts.port or 1) > 65_535  # which the system would take for another, modulo 65,536
    if parts.scheme not in ("http", "https") or not parts.host or wrong_port or parts.query or parts.fragment:
        raise SettingsError(f"{without_password(url)!r} is no address of an edge; expected one like http://host:8080")
    return url.rstrip("/")


def _passing(status: int, headers: httpx.Headers) -> bool:
    """Say whether to ask again. An edge's own 500 is a problem document; any other is a proxy's that lost its edge."""
    return status in _PASSING or (status == 500 and not _is_problem(headers))


def _is_problem(headers: httpx.Headers) -> bool:
    return str(headers.get("content-type", "")).startswith(PROBLEM)


def _told(headers: httpx.Headers, body: bytes) -> Told:
    """Return what a problem document (RFC 9457) says, or nothing if this is none."""
    return told_by(body) if _is_problem(headers) else Told()


def _retry_after_s(header: str | None, *, otherwise: float) -> float:
    if header is None or not (header.isascii() and header.isdigit()):
        return otherwise  # the other form, a date, needs a clock that a small device may not have
    return min(float(header[:9]), LONGEST_WAIT_S)
