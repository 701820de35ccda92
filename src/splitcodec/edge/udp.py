"""The edge behind UDP: packets in datagrams, answers back.   around: edge/fragmented.py   asked by: device/udp.py

Without a key only addresses that are not public are answered: a datagram's sender is whoever it says, and an answer may
be longer than its request, so an open port would shoot at strangers. With a key every frame bears a tag under it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Final, final

from splitcodec.edge.fragmented import Peer, asked
from splitcodec.errors import SettingsError, SplitcodecError
from splitcodec.wire.exchange import Limits, Patience
from splitcodec.wire.fragment import DATAGRAM
from splitcodec.wire.request import Respond, Wanted
from splitcodec.wire.seal import DOWN, UP, Seal

_log = logging.getLogger("splitcodec.edge")
PEERS_KEPT: Final = 256
_LIMITS = Limits(messages=2, total_bytes=1 << 17, idle_s=60.0, remembered=16)
_INBOX = 256
_LOOK_S = 0.1
_BUFFER = 1 << 20


@final
@dataclass(slots=True, eq=False)
class _Caller:
    address: tuple[Any, ...]
    peer: Peer
    inbox: deque[bytes] = field(default_factory=lambda: deque(maxlen=_INBOX))
    busy: threading.Lock = field(default_factory=threading.Lock)
    wake: float = float("inf")


@final
class UdpBridge:
    """Answers datagrams at `host` and `port` (0: any free one) with `respond(packet, wanted)`, from entering it on.

    `concurrency` packets are answered at the same time. `token` is the key that devices have as well. `wait_s` is how
    long to wait for a device's word of an answer before asking, more than sending it and a round trip take.
    Raises SettingsError for a port that cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        respond: Respond,
        *,
        concurrency: int = 2,
        token: str | None = None,
        wait_s: float = 2.0,
    ) -> None:
        if concurrency < 1:
            raise SettingsError(f"concurrency {concurrency}; expected at least 1")
        self._respond = respond
        self._patience = Patience(report_s=wait_s)
        self._seal = Seal(token, writes=DOWN, reads=UP)
        self._callers: OrderedDict[tuple[Any, ...], _Caller] = OrderedDict()  # the longest without word first
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told = False
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
                self._socket.bind(address)
            except OSError:
                self._socket.close()
                raise
        except OSError as error:
            raise SettingsError(
                f"cannot listen on UDP port {port} of {host} ({error.strerror or error}); give another"
            ) from None
        self._socket.settimeout(_LOOK_S)
        self.port: int = self._socket.getsockname()[1]
        self._workers = [
            threading.Thread(target=self._work, name=f"splitcodec udp {i}", daemon=True) for i in range(concurrency)
        ]

    def __enter__(self) -> UdpBridge:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what is being answered, and leave."""
        self._stop.set()
        for worker in self._workers:
            worker.join()
        self._socket.close()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                data, address = self._socket.recvfrom(65_536)
            except TimeoutError:
                pass
            except OSError:  # of a datagram before: nobody took it
                continue
            else:
                self._take(data, address)
            self._nudge(time.monotonic())

    def _take(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        if not self._seal.closed and _public(address[0]):
            self._ignored(address)
            return
        if (frame := self._seal.open(datagram)) is None:
            self._ignored(address)
            return
        with self._lock:
            caller = self._callers.get(address)
            if caller is None:
                room = DATAGRAM - self._seal.overhead
                peer = Peer(asked(self._answer), frame=room, patience=self._patience, limits=_LIMITS)
                caller = self._callers[address] = _Caller(address, peer)
            self._callers.move_to_end(address)
            while len(self._callers) > PEERS_KEPT:
                self._callers.popitem(last=False)
        caller.inbox.append(frame)
        self._serve(caller)

    def _serve(self, caller: _Caller) -> None:
        """Do what there is to do for a caller, unless another worker does; that one sees what came meanwhile."""
        while (caller.inbox or caller.wake <= time.monotonic()) and caller.busy.acquire(blocking=False):
            try:
                while caller.inbox:
                    caller.peer.heard(caller.inbox.popleft(), time.monotonic())
                for frame in caller.peer.frames(time.monotonic()):
                    self._send(frame, caller.address)
                caller.peer.sent(time.monotonic())
                wake = caller.peer.wake
                caller.wake = float("inf") if wake is None else wake
            finally:
                caller.busy.release()

    def _nudge(self, now: float) -> None:
        with self._lock:
            due = [caller for caller in self._callers.values() if caller.wake <= now]
        for caller in due:
            self._serve(caller)

    def _send(self, frame: bytes, address: tuple[Any, ...]) -> None:
        try:
            self._socket.sendto(self._seal.close(frame), address)
        except OSError as error:
            _log.warning("to %s: %s", address[0], error)  # as if it had been lost on the way

    def _answer(self, packet: bytes, wanted: Wanted) -> bytes:
        try:
            return self._respond(packet, wanted)
        except SplitcodecError:
            raise
        except Exception:
            _log.exception("a packet of %d bytes", len(packet))
            raise SplitcodecError from None

    def _ignored(self, address: tuple[Any, ...]) -> None:
        if not self._told:
            self._told = True
            why = "without the key's tag" if self._seal.closed else "from a public address, and there is no key"
            _log.warning("datagrams %s are ignored; the first came from %s", why, address[0])


def _public(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global
