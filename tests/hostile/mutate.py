"""A seeded mutator of packets, and a run of many through parser and coder in bounded memory.

    python -m tests.hostile.mutate --bundle tests/data/tiny --count 1000000 --seed 1

Half of the packets get back a valid version, fingerprint and checksum after they were changed, so that they reach what
lies behind those checks. Prints counts by refusal as JSON; ends with a traceback if anything but a refusal came.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import PacketError
from splitcodec.wire.answer import dump_answer, parse_answer
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.codings import Codings
from splitcodec.wire.packet import admit, unpack

_TELLING = (0, 1, 2, 3, 4, 7, 8, 14, 15, 16, 17, 127, 128, 254, 255)


def seeds(bundle: Bundle, *, pictures: int = 4) -> list[bytes]:
    """Return good packets: flat colours, gradients and noise at every level."""
    random = np.random.default_rng(5)
    device, crop = Device(bundle, threads=1), bundle.manifest.crop
    ramp = np.linspace(0, 255, crop)
    arrays = [
        np.full((crop, crop, 3), (200, 30, 30), np.uint8),
        np.stack(np.broadcast_arrays(ramp, ramp[:, None], np.float64(90)), axis=2).astype(np.uint8),
        random.integers(0, 256, (crop, crop, 3), dtype=np.uint8),
        random.integers(0, 256, (crop // 8, crop // 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1),
    ]
    return [device.encode(array, level=level) for array in arrays[:pictures] for level in range(bundle.manifest.levels)]


def mutants(packets: Sequence[bytes], *, seed: int) -> Iterator[tuple[bytes, bool]]:
    """Return changed packets without end, each with whether its version, fingerprint and checksum were put right."""
    random = Random(seed)
    while True:
        base = random.choice(packets)
        for sealed in (False, True):
            data = bytearray(base)
            for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
                _change(data, random, packets)
            if sealed:
                data = bytearray(sealed_again(data, base))
            yield bytes(data), sealed


def sealed_again(data: bytearray, base: bytes) -> bytes:
    """Return changed bytes with a valid version, the fingerprint of `base`, and the right checksum."""
    body = bytes(data[:-4]) if len(data) > 12 else bytes(data).ljust(9, b"\1")
    body = bytes((1 << 4 | body[0] & 15, body[1])) + base[2:6] + body[6:]
    return body + zlib.crc32(body).to_bytes(4, "little")


def receive(data: bytes, bundle: Bundle, coders: Sequence[Codings]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return a packet's symbols, or raise its refusal: what an edge does before its network runs.

    Symbols that were accepted must be those that the very payload codes.
    """
    manifest, packet = bundle.manifest, unpack(data)
    admit(
        packet,
        fingerprint=bundle.fingerprint,
        levels=manifest.levels,
        codings=manifest.codings,
        table_sets=len(coders),
        channels=manifest.channels,
        max_symbols=manifest.max_symbols,
    )
    coder, shape = coders[packet.table_set], (manifest.channels, packet.rows, packet.cols)
    symbols_chw = coder.decode(packet.payload, shape, level=packet.level, coding=packet.coding)
    assert coder.encode(symbols_chw, packet.level, coding=packet.coding) == packet.payload
    return symbols_chw


def survive(bundle: Bundle, *, count: int, seed: int) -> dict[str, Any]:
    """Send `count` mutants through parser and coder; return counts by refusal and what it took.

    AssertionError for a damaged packet that was accepted though its checksum was not put right.
    """
    packets = seeds(bundle)
    good, coders = set(packets), [Codings(tables, bundle.contexts) for tables in bundle.tables]
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    mutant = mutants(packets, seed=seed)
    before, begin = _peak_mb(), time.perf_counter()
    for _ in range(count):
        data, sealed = next(mutant)
        try:
            receive(data, bundle, coders)
        except PacketError as error:
            counts[sealed][type(error).__name__] += 1
        else:
            unchanged = data in good
            assert sealed or unchanged, f"damaged and accepted: {data.hex()}"
            counts[sealed]["unchanged" if unchanged else "accepted"] += 1
    seconds = time.perf_counter() - begin
    return {
        "bundle": bundle.ident,
        "packets": count,
        "seed": seed,
        "as they are": dict(counts[False].most_common()),
        "checksum put right": dict(counts[True].most_common()),
        "seconds": round(seconds, 1),
        "peak_memory_grew_mb": round(_peak_mb() - before, 1),
    }


def answered(edge: Edge, packets: Sequence[bytes], *, count: int, seed: int) -> dict[str, int]:
    """Send `count` mutants through an edge; return counts by refusal. AssertionError as `survive`."""
    counts: Counter[str] = Counter()
    for data, sealed in islice(mutants(packets, seed=seed), count):
        try:
            answer = edge.answer(data)
        except PacketError as error:
            counts[type(error).__name__] += 1
        else:
            assert sealed or data in packets, f"damaged and answered: {data.hex()}"
            assert parse_answer(dump_answer(answer))["answers"]
            counts["answered"] += 1
    return dict(counts.most_common())


def _change(data: bytearray, random: Random, packets: Sequence[bytes]) -> None:
    at = random.randrange(len(data)) if data else 0
    kind = random.random()
    if not data or kind < 0.08:
        data[at:at] = random.randbytes(random.choice((1, 1, 2, 4, 16, 300)))
    elif kind < 0.40:
        data[at] ^= 1 << random.randrange(8)
    elif kind < 0.55:
        data[at] = random.choice(_TELLING)
    elif kind < 0.65:
        data[at : at + 4] = random.randbytes(min(4, len(data) - at))
    elif kind < 0.72:
        del data[at:]
    elif kind < 0.79:
        del data[at : at + random.randrange(1, 9)]
    elif kind < 0.84:
        data[at:at] = data[at : at + random.randrange(1, 17)]
    elif kind < 0.92:
        where = random.randrange(min(8, len(data)))  # the header
        data[where] = random.choice((random.randrange(256), random.choice(_TELLING)))
    elif kind < 0.96:
        other = random.choice(packets)
        data[at:] = other[min(at, len(other)) :]
    else:
        data[8:] = random.randbytes(max(0, len(data) - 8))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> int:
    """Run the mutants under a limit on address space: what is mapped already and so many MiB more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="tests/data/tiny")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--room-mib", type=int, default=128)
    parser.add_argument("--answer", action="store_true", help="through Edge.answer, without the limit")
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    if options.answer:
        counts = answered(Edge(bundle, threads=1), seeds(bundle), count=options.count, seed=options.seed)
        print(json.dumps({"bundle": bundle.ident, "packets": options.count, "seed": options.seed, "outcomes": counts}))
        return 0
    receive(seeds(bundle, pictures=1)[0], bundle, [Codings(tables, bundle.contexts) for tables in bundle.tables])
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (options.room_mib << 20),) * 2)
    print(json.dumps(survive(bundle, count=options.count, seed=options.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
