"""What runs inside the two namespaces of shaped.py: `relay DELAY_S` beside the server, `ask` as the device."""

from __future__ import annotations

import base64
import http.client as http_client
import json
import queue
import socket
import sys
import threading
import time
from typing import NamedTuple

from splitcodec.device.link import http
from splitcodec.device.udp import udp
from splitcodec.wire.answer import parse_answer
from splitcodec.wire.brief import shorten

DEVICE, EDGE = "10.213.7.1", "10.213.7.2"
SERVER_PORT, RELAY_PORT, SINK_PORT = 8080, 8081, 9
FRAME = 1472  # bytes of a datagram that fills an Ethernet frame
PATIENCE_S = 120.0
AWAKE_S = 0.001


class Late(NamedTuple):
    """Bytes that wait for their time; the first ones of an answer find an empty bucket."""

    due: float
    data: bytes
    begins_answer: bool


def relay(delay_s: float) -> None:
    """Carry connections from the cable to the server, each way `delay_s` late; empty the bucket before an answer."""
    _sink(EDGE)
    _await_server()
    threading.Thread(target=_relay_datagrams, args=(delay_s,), daemon=True).start()
    with socket.create_server((EDGE, RELAY_PORT)) as listener:
        print("ready", flush=True)
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", SERVER_PORT))
            asked = threading.Event()
            for source, target, is_answer in ((near, far, False), (far, near, True)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                later: queue.Queue[Late] = queue.Queue()
                arguments = (source, later, delay_s, asked, is_answer)
                threading.Thread(target=_take, args=arguments, daemon=True).start()
                threading.Thread(target=_give, args=(target, later), daemon=True).start()


def _relay_datagrams(delay_s: float) -> None:
    """Carry datagrams between the cable and the bridge, as `relay` carries connections."""
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    near.bind((EDGE, RELAY_PORT))
    far.connect(("127.0.0.1", SERVER_PORT))
    up: queue.Queue[Late] = queue.Queue()
    down: queue.Queue[Late] = queue.Queue()
    asked = threading.Event()
    data, device = near.recvfrom(65_536)
    near.connect(device)
    up.put(Late(time.monotonic() + delay_s, data, False))
    asked.set()
    for source, target, later, is_answer in ((near, far, up, False), (far, near, down, True)):
        threading.Thread(target=_take, args=(source, later, delay_s, asked, is_answer), daemon=True).start()
        threading.Thread(target=_give, args=(target, later), daemon=True).start()


def ask() -> None:
    """Send packets over the real link and print, for each, the fastest milliseconds and the answer's bytes.

    What the edge says that it computed is taken off.
    """
    task = json.load(sys.stdin)
    packets = [base64.b64decode(one) for one in task["packets"]]
    _sink(DEVICE)
    found = [{"ms": float("inf"), "answer_bytes": 0.0} for _ in packets]
    scheme, link_to = ("udp", udp) if task["carrier"] == "UDP" else ("http", http)
    with link_to(f"{scheme}://{EDGE}:{RELAY_PORT}", top=task["top"], timeout_s=PATIENCE_S, retries=0) as link:
        for turn in range(-1, task["turns"]):
            for packet, least in zip(packets, found, strict=True):
                time.sleep(task["pause_s"])
                empty_bucket(EDGE)
                begin = time.perf_counter()
                answer = link(packet)
                spent_ms = 1000 * (time.perf_counter() - begin) - sum(parse_answer(answer)["ms"].values())
                if turn >= 0 and spent_ms < least["ms"]:
                    least.update(ms=spent_ms, answer_bytes=float(len(shorten(answer))))
    print(json.dumps(found))


def empty_bucket(address: str) -> None:
    """Send a frame that nobody reads: what a token bucket has saved up is gone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(bytes(FRAME), (address, SINK_PORT))


def _take(
    source: socket.socket,
    later: queue.Queue[Late],
    delay_s: float,
    asked: threading.Event,
    is_answer: bool,
) -> None:
    while data := source.recv(65536):
        begins = is_answer and asked.is_set()
        if begins:
            asked.clear()
        elif not is_answer:
            asked.set()
        later.put(Late(time.monotonic() + delay_s, data, begins))
    later.put(Late(time.monotonic() + delay_s, b"", False))


def _give(target: socket.socket, later: queue.Queue[Late]) -> None:
    while True:
        due, data, begins = later.get()
        _await(due)
        if not data:
            target.shutdown(socket.SHUT_WR)
            return
        if begins:
            empty_bucket(DEVICE)
        target.sendall(data)


def _await(due: float) -> None:
    """Wait until then, the end of it awake: a processor that sleeps comes back up to half a millisecond late."""
    time.sleep(max(0.0, due - AWAKE_S - time.monotonic()))
    while time.monotonic() < due:
        pass


def _sink(address: str) -> None:
    """Take datagrams that empty buckets, so that no "port unreachable" comes back."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((address, SINK_PORT))
    threading.Thread(target=_swallow, args=(one,), daemon=True).start()


def _swallow(one: socket.socket) -> None:
    while True:
        one.recv(65536)


def _await_server() -> None:
    """Wait until the edge has opened its bundle, not only its port."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            asked = http_client.HTTPConnection("127.0.0.1", SERVER_PORT, timeout=5)
            asked.request("GET", "/readyz")
            status = asked.getresponse().status
            asked.close()
            if status == 200:
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"the edge was not ready within {PATIENCE_S} s")
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        relay(float(sys.argv[2]))
    else:
        ask()
