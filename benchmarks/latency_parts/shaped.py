"""The link model against a real, shaped link: tc tbf between two network namespaces, delay added in user space.

One namespace holds `splitcodec serve`, `splitcodec bridge --udp` and a relay that passes bytes on half a round trip
late, both ways (kernels without netem cannot); the other the device's link, over HTTP or UDP. Token buckets let their
first bytes pass at once after a pause, which no radio does; so both ends empty them with a datagram before they send.
Needs Linux, root, ip and tc.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from latency_parts.body import NAMES
from latency_parts.shaped_ends import DEVICE, EDGE, SERVER_PORT
from splitcodec.evaluation.latency import Carrier, Radio, Trip

WITHIN_PERCENT = 10.0
BURST = 1540  # bytes in a token bucket: a whole frame, and no more
TURNS = 3
ROUNDS = 6  # on fast links: processes started anew, shaped and not in turn, for some run slower than others all along
UNSHAPED_S = 0.002  # each way, taken off again: a relay that waits wakes up in the same way as with a link's delay
_Server = subprocess.Popen[bytes]
_Found = list[dict[str, float]]
ENDS = Path(__file__).with_name("shaped_ends.py")
_SERVE = ("serve", "--port", str(SERVER_PORT), "--threads", "1", "--requests-per-s", "0", "--symbols-per-s", "0")
_BRIDGE = ("bridge", "--udp", str(SERVER_PORT), "--threads", "1")


def check_link(
    bundle: str, packets: Sequence[bytes], *, radios: Sequence[Radio], carriers: Sequence[Carrier], top: int
) -> dict[str, Any]:
    """Return measured and modelled milliseconds of each packet over each link, or under "skipped" why there are none.

    What the same request takes without shaping (both ends), and what the edge computes, is taken off first.
    """
    if (reason := _missing()) is not None:
        return {"skipped": reason}
    try:
        with (
            _namespaces() as (near, far),
            tempfile.TemporaryFile() as log,
            _process(far, *_SERVE, "--bundle", bundle, log=log) as server,
            _process(far, *_BRIDGE, "--bundle", bundle, log=log) as bridge,
        ):
            rows = []
            for carrier in carriers:
                name = NAMES[type(carrier)]
                asked = partial(
                    _asked, near, far, packets, top=top, name=name, alive=partial(_alive, (server, bridge), log)
                )
                free = list[_Found]()
                shaped: dict[str, list[_Found]] = {radio.name: [] for radio in radios}
                for number in range(ROUNDS):
                    free.append(asked(radio=None))
                    for radio in radios:
                        if number < _rounds(radio):
                            shaped[radio.name].append(asked(radio=radio))
                for radio in radios:
                    rows += _rows(radio, packets, _fastest(free), _fastest(shaped[radio.name]), carrier=carrier)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None)
        words = said.decode(errors="replace") if isinstance(said, bytes) else str(error)
        return {"skipped": f"{type(error).__name__}: {' '.join(words.split())[-200:]}"}
    largest = max(abs(row["off_percent"]) for row in rows)
    return {
        "rows": rows,
        "largest_percent": round(largest, 2),
        "largest_percent_by_link": {
            radio.name: max(abs(row["off_percent"]) for row in rows if row["link"] == radio.name) for radio in radios
        },
        "within_percent": WITHIN_PERCENT,
        "agrees": largest <= WITHIN_PERCENT,
        "turns": [_turns(radio) * _rounds(radio) for radio in radios],
        "rounds": [_rounds(radio) for radio in radios],
    }


def _fastest(rounds: Sequence[_Found]) -> _Found:
    """Return of each packet what took the least time in any round."""
    return [min(one, key=lambda found: found["ms"]) for one in zip(*rounds, strict=True)]


def _rows(
    radio: Radio,
    packets: Sequence[bytes],
    free: _Found,
    shaped: _Found,
    *,
    carrier: Carrier,
) -> list[dict[str, Any]]:
    rows = []
    for packet, without, found in zip(packets, free, shaped, strict=True):
        up, down = carrier.up(len(packet)), carrier.down(round(found["answer_bytes"]))
        modelled = Trip({}, {}, up, down).link_ms(radio)
        measured = found["ms"] - without["ms"]
        rows.append(
            {
                "carrier": NAMES[type(carrier)],
                "link": radio.name,
                "rtt_ms": radio.rtt_ms,
                "packet_bytes": len(packet),
                "unshaped_ms": round(without["ms"], 3),
                "total_ms": round(found["ms"], 3),
                "link_ms": round(measured, 3),
                "modelled_ms": round(modelled, 3),
                "off_percent": round(100 * (measured / modelled - 1), 2),
            }
        )
    return rows


def _missing() -> str | None:
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [name for name in ("ip", "tc") if shutil.which(name) is None]
    return f"{' and '.join(absent)} cannot be found (package iproute2)" if absent else None


@contextmanager
def _namespaces() -> Iterator[tuple[str, str]]:
    """Make two namespaces with a cable between them; whatever happens, take them away again."""
    names = f"splitcodec-{os.getpid()}-device", f"splitcodec-{os.getpid()}-edge"
    made: list[str] = []
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            made.append(name)
        _run(
            "ip", "link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1]
        )
        for name, address in zip(names, (DEVICE, EDGE), strict=True):
            _run("ip", "-n", name, "addr", "add", f"{address}/30", "dev", "cable")
            for device in ("lo", "cable"):
                _run("ip", "-n", name, "link", "set", device, "up")
            # a frame may take longer than TCP would wait for its acknowledgement, and would then be sent twice
            _run("ip", "-n", name, "route", "change", "10.213.7.0/30", "dev", "cable", "src", address, "rto_min", "5s")
            _run("ip", "netns", "exec", name, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_early_retrans")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def _process(namespace: str, *words: str, log: IO[bytes]) -> Iterator[_Server]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "splitcodec.cli", *words]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _alive(servers: Sequence[_Server], log: IO[bytes]) -> None:
    """Raise OSError with the last words of a server that has ended."""
    if any(server.poll() is not None for server in servers):
        log.seek(0)
        words = log.read().decode(errors="replace").split()
        raise OSError(f"the server in its namespace has ended: {' '.join(words)[-160:]}")


def _asked(
    near: str,
    far: str,
    packets: Sequence[bytes],
    *,
    top: int,
    name: str,
    alive: Callable[[], None],
    radio: Radio | None,
) -> _Found:
    """Return for each packet the fastest milliseconds of a few turns, and the answer's bytes."""
    shape = ["noqueue"]
    if radio is not None:
        shape = ["tbf", "rate", f"{round(1000 * radio.kbit_per_s)}bit", "burst", str(BURST), "limit", "1000000"]
    for namespace in (near, far):
        _run("tc", "-n", namespace, "qdisc", "replace", "dev", "cable", "root", *shape)
    half_s = UNSHAPED_S if radio is None else radio.rtt_ms / 2000
    pause_s = 0.0 if radio is None else 1.2 * BURST * 8 / (1000 * radio.kbit_per_s)  # until the buckets are full
    relay = [*_python(far), "relay", str(half_s)]
    with subprocess.Popen(relay, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        try:
            assert running.stdout is not None
            while not select.select([running.stdout], [], [], 0.2)[0]:
                alive()
            task = {
                "packets": [base64.b64encode(one).decode() for one in packets],
                "top": top,
                "carrier": name,
                "turns": _turns(radio),
                "pause_s": pause_s,
            }
            asked = _run(*_python(near), "ask", data=json.dumps(task).encode())
        finally:
            running.kill()
    found: _Found = json.loads(asked)
    if radio is None:
        for one in found:
            one["ms"] -= 2000 * UNSHAPED_S
    return found


def _turns(radio: Radio | None) -> int:
    """Return how often a packet is sent in a round: on a fast link a busy machine hides more, and a turn takes less."""
    if radio is None or radio.kbit_per_s >= 10_000:
        return 10 * TURNS
    return TURNS if radio.kbit_per_s < 1000 else 8 * TURNS


def _rounds(radio: Radio) -> int:
    return ROUNDS if radio.kbit_per_s >= 10_000 else 1


def _python(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, sys.executable, str(ENDS)]


def _run(*command: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=300)
    return done.stdout
