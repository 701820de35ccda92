"""Packets across processors: made there, decoded here, and the other way round, bit for bit.

    python benchmarks/other_processor.py --python "qemu-aarch64-static -L ROOT ROOT/usr/bin/python3" \\
        --packages DIR --out reports/other_processor.json

--python is whatever starts a Python of the other processor (here an emulator; `ssh board python3` will not do, for both
sides read the same files); --packages is a folder of packages for it, at least numpy. Where onnxruntime and Pillow are
in it too, the other side also runs the whole device. docs/device.md says how to get both without a board.

Symbols of pictures at every level are stored with their packets. There, the plain coder must give the same packets and
the same symbols. The packets that it made are decoded here by constriction and answered.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np

import splitcodec
from report import pictures_of, ready, write
from splitcodec.cli.show import print_json
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import OutputError, SettingsError
from splitcodec.evaluation.golden import top_of
from splitcodec.wire.bundle import split_device
from splitcodec.wire.codings import Codings
from splitcodec.wire.packet import unpack

_THERE = """
import json, platform, struct, sys, time
import numpy as np
from splitcodec.wire.codings import Codings
from splitcodec.wire.bundle import open_bundle
from splitcodec.wire.packet import Packet, pack, unpack
folder, whole = sys.argv[1], sys.argv[2] == "whole"
stored = np.load(folder + "/symbols.npz", allow_pickle=False)
bundle = open_bundle(folder + "/bundle")
coder = Codings(bundle.tables[0], bundle.contexts, plain=True)
lengths, data, made = stored["packet_len_ln"], stored["packets"].tobytes(), []
packets_equal = symbols_equal = at = 0
begin = time.perf_counter()
for level in range(lengths.shape[0]):
    for n in range(lengths.shape[1]):
        came = data[at : at + int(lengths[level, n])]
        at += len(came)
        symbols = stored["symbols_lnchw"][level, n].astype(np.int32)
        fields = unpack(came)
        mine = pack(Packet(level, fields.coding, fields.table_set, fields.fingerprint, fields.rows, fields.cols,
                           coder.encode(symbols, level, coding=fields.coding)))
        packets_equal += mine == came
        back = coder.decode(fields.payload, symbols.shape, level=level, coding=fields.coding)
        symbols_equal += bool(np.array_equal(back, symbols))
        made.append(mine)
seconds = time.perf_counter() - begin
found = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__,
         "byteorder": sys.byteorder, "pointer_bits": 8 * struct.calcsize("P"), "packets_equal": packets_equal,
         "symbols_equal": symbols_equal, "seconds": seconds}
if whole:
    from splitcodec.device.client import Device
    from splitcodec.device.encoder import FILES
    found["encoders"] = {}
    for kind in [kind for kind, name in FILES.items() if bundle.has(name)]:
        device = Device(bundle, threads=1, encoder=kind, plain_coder=True)
        latents = [device.encoder.latent_chw(image[None]) for image in stored["image_bhwc"]]
        there = np.array([[bundle.tables[0].quantise(one, level) for one in latents] for level in range(len(lengths))])
        off = np.abs(there - stored["symbols_lnchw_" + kind])
        found["encoders"][kind] = {"symbols_equal": float((off == 0).mean()), "furthest_off": int(off.max())}
        if kind == "fp32":
            made += [device.pack(there[level, n], level=level) for level, n in np.ndindex(*lengths.shape)]
with open(folder + "/made.bin", "wb") as file:
    for packet in made:
        file.write(len(packet).to_bytes(4, "little") + packet)
print(json.dumps(found))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 where anything differs or is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, metavar="COMMAND")
    parser.add_argument("--packages", type=Path, metavar="DIR")
    parser.add_argument("--whole", action="store_true", help="also run the encoder there (onnxruntime, Pillow)")
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    parser.add_argument("--most", type=int, default=40, metavar="N", help="photographs")
    parser.add_argument("--out", type=Path, default=Path("reports/other_processor.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    command = _command(options.python)
    ready(options.out)
    report = measure(options, command)
    options.python = Path(command[0]).name
    write(report, options.out, name="other_processor.py", options=options)
    print_json(report)
    return 0 if report["bit_for_bit"] else 2


def measure(options: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """Return the report; `command` starts the other Python."""
    device, edge = Device(options.bundle, threads=1), Edge(options.bundle, threads=1)
    crops = [device.crop(picture) for picture in pictures_of(options.photos, most=options.most)]
    levels = device.bundle.manifest.levels
    symbols = _symbols(device, crops)
    ids = sorted(device.bundle.manifest.codings)
    by_coding = [Device(device.bundle, threads=1, coding=coding) for coding in ids]  # the photographs take turns
    packets = [
        [by_coding[n % len(ids)].pack(one, level=level) for n, one in enumerate(symbols[level])]
        for level in range(levels)
    ]
    arrays = {"image_bhwc": np.concatenate(crops), "symbols_lnchw": symbols, "symbols_lnchw_fp32": symbols}
    if device.bundle.has("encoder.int8.onnx"):
        arrays["symbols_lnchw_int8"] = _symbols(Device(device.bundle, threads=1, encoder="int8"), crops)
    with tempfile.TemporaryDirectory() as folder:
        split_device(device.bundle, Path(folder) / "bundle")
        np.savez(
            Path(folder) / "symbols.npz",
            **arrays,
            packet_len_ln=np.array([[len(packet) for packet in row] for row in packets]),
            packets=np.frombuffer(b"".join(packet for row in packets for packet in row), np.uint8),
        )
        begin = time.perf_counter()
        there = _there(options, folder, command)
        seconds = time.perf_counter() - begin
        made = _read(Path(folder) / "made.bin")
    count = levels * len(crops)
    coder, same = Codings(device.bundle.tables[0], device.bundle.contexts), 0
    for packet, (level, n) in zip(made, np.ndindex(levels, len(crops)), strict=False):
        shape = (symbols.shape[2], symbols.shape[3], symbols.shape[4])
        fields = unpack(packet)
        back = coder.decode(fields.payload, shape, level=level, coding=fields.coding)
        same += bool(np.array_equal(back, symbols[level, n]))
    answers = _answers(edge, made[count:], [packet for row in packets for packet in row])
    whole = there["packets_equal"] == there["symbols_equal"] == same == count
    return {
        "bundle": device.bundle.ident,
        "here": {"coder": "plain" if coder.plain else "constriction"},
        "there": there,
        "photographs": len(crops),
        "levels": levels,
        "codings": ids,
        "packets": count,
        "symbols": int(symbols.size),
        "made_there_decoded_here": same,
        "bit_for_bit": whole,
        "answers_equal": answers,
        "seconds": seconds,
    }


def _symbols(device: Device, crops: Sequence[Any]) -> Any:
    tables = device.bundle.tables[0]
    latents = [device.encoder.latent_chw(crop) for crop in crops]
    found = [[tables.quantise(one, level) for one in latents] for level in range(tables.levels)]
    return np.array(found, np.int32)


def _command(text: str) -> list[str]:
    """Return the words of --python. Raises SettingsError for what no shell would start."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"--python {text!r:.80}: {error}; expected what a shell would start") from None
    if not words or shutil.which(words[0]) is None:
        raise SettingsError(f"--python {text!r:.80}: no such program; expected what starts the other Python")
    return words


def _there(options: argparse.Namespace, folder: str, python: Sequence[str]) -> dict[str, Any]:
    code = Path(folder) / "there.py"
    code.write_text(_THERE, encoding="utf-8")
    source = str(Path(splitcodec.__file__).parent.parent)
    paths = [source, *([str(options.packages)] if options.packages is not None else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*python, str(code), folder, "whole" if options.whole else "wire"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise OutputError(f"the other processor failed: {' '.join(done.stderr.split())[-400:]}")
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise OutputError(f"the other processor said {done.stdout!r:.80}; is {python[0]} a Python?") from None
    return found


def _read(path: Path) -> list[bytes]:
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _answers(edge: Edge, made: Sequence[bytes], packets: Sequence[bytes]) -> float | None:
    """Return the share of packets from the other side's encoder that get the answer of ours."""
    if not made:
        return None
    pairs = zip(made, packets, strict=True)
    same = [top_of(edge, theirs) == top_of(edge, ours) for theirs, ours in pairs]
    return float(np.mean(same))


if __name__ == "__main__":
    sys.exit(main())
