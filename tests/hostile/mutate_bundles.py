"""Mutated bundles with right hashes, as somebody who means harm would make them, opened in bounded memory.

    python -m tests.hostile.mutate_bundles --count 2000 --seed 1

Each is refused, or opens and answers a packet or refuses it. Prints counts as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from random import Random

from splitcodec.edge.answer import Edge
from splitcodec.errors import SplitcodecError
from splitcodec.wire.bundle import open_bundle
from tests.hostile.mutate import seeds

_FILES = ("manifest.json", "tables.npz", "decoder.onnx", "tail_classify.onnx", "zip")


def main() -> int:
    """Open the mutants under a limit on address space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="tests/data/tiny")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--room-mib", type=int, default=768)
    options = parser.parse_args()
    bundle, random = open_bundle(options.bundle), Random(options.seed)
    files = {"manifest.json": bundle.manifest.to_json(), **{name: bundle.read(name) for name in bundle.manifest.files}}
    packet = seeds(bundle, pictures=1)[0]
    Edge(bundle, threads=1).answer(packet)
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (options.room_mib << 20),) * 2)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.zip"
        for _ in range(options.count):
            name = random.choice(_FILES)
            path.write_bytes(_mutant(files, name, random))
            try:
                edge = Edge(path, threads=1)
            except SplitcodecError as error:
                counts[f"{name}: {type(error).__name__}"] += 1
                continue
            try:
                edge.answer(packet)
                counts[f"{name}: answers"] += 1
            except SplitcodecError as error:
                counts[f"{name}: opens, {type(error).__name__}"] += 1
    told = {"bundles": options.count, "seed": options.seed, "outcomes": dict(sorted(counts.items()))}
    print(json.dumps({**told, "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
    return 0


def _mutant(files: dict[str, bytes], name: str, random: Random) -> bytes:
    changed = dict(files)
    if name != "zip":
        data = bytearray(changed[name])
        for _ in range(random.choice((1, 1, 2, 5))):
            _change(data, random)
        changed[name] = bytes(data)
        if name != "manifest.json":
            manifest = json.loads(changed["manifest.json"])
            manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            changed["manifest.json"] = json.dumps(manifest).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for one, content in changed.items():
            archive.writestr(one, content)
    packed = bytearray(file.getvalue())
    if name == "zip":
        _change(packed, random)
    return bytes(packed)


def _change(data: bytearray, random: Random) -> None:
    at = random.randrange(max(1, len(data)))
    kind = random.random()
    if kind < 0.4:
        data[at : at + 1] = bytes((data[at] ^ 1 << random.randrange(8),)) if data else b"\0"
    elif kind < 0.6:
        data[at : at + 1] = random.randbytes(1)
    elif kind < 0.75:
        data[at : at + 8] = random.choice((b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f", random.randbytes(8)))
    elif kind < 0.85:
        del data[at : at + random.randrange(1, 64)]
    elif kind < 0.95:
        data[at:at] = data[at : at + random.randrange(1, 64)]
    else:
        del data[at:]


if __name__ == "__main__":
    sys.exit(main())
