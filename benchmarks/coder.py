"""Entropy coding speed on the shipped symbols and tables, against CompressAI's `ans`, in one run on one thread.

    python benchmarks/coder.py [--bundle B] [--photos DIR] [--compressai FOLDER] --out reports/coder.json

CompressAI pins numpy below 2, so it cannot share our environment. Its coder is one compiled module that needs neither
numpy nor torch:   pip install --no-deps --target FOLDER compressai==1.2.8

CompressAI's coder has frequencies of 16 bits and an escape symbol; our rows are rounded to that. It is given Python
lists that are ready made, as it wants them (`ans`), and, as its own models use it, arrays that it first has to turn
into lists (`ans, from arrays`). Ours (constriction and the plain twin) is timed as the device calls it: integer array
in, payload out, ranges checked. Times are the best of several turns per picture and level, summed up.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from report import pictures_of, write
from splitcodec.cli.show import complain, print_table
from splitcodec.device.client import Device
from splitcodec.errors import MissingExtra, SplitcodecError
from splitcodec.wire.coder import Coder
from splitcodec.wire.tables import Tables, quantise_mass

TARGETS = {"encode_times": 20.0, "decode_times": 10.0, "plain_symbols_per_s": 0.5e6}


class Work(NamedTuple):
    """One picture's symbols at one level, and the same as CompressAI's lists."""

    symbols_chw: NDArray[np.int32]
    level: int
    flat: list[int]
    rows: list[int]


class Ans:
    """CompressAI's coder with a bundle's tables."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        found = sorted(folder.glob("**/compressai/ans.*.so")) + sorted(folder.glob("**/compressai/ans.*.pyd"))
        if not found:
            raise MissingExtra(f"{folder}: no compressai in it; pip install --no-deps --target {folder} compressai")
        spec = importlib.util.spec_from_file_location("ans", found[0])
        if spec is None or spec.loader is None:
            raise MissingExtra(f"{found[0]} cannot be imported; is it of this Python?")
        self._ans = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._ans)
        self.version = next((path.name.split("-")[1] for path in folder.glob("compressai-*.dist-info")), "unknown")
        freqs = [row[:size].tolist() for row, size in zip(tables.freq_ks, tables.size_k, strict=True)]
        self._cdfs = [[0, *itertools.accumulate(_sixteen_bits(freq))] for freq in freqs]
        self._sizes = [len(cdf) for cdf in self._cdfs]
        self._offsets = tables.offset_k.tolist()

    def encode(self, symbols: list[int], rows: list[int]) -> bytes:
        payload: bytes = self._ans.RansEncoder().encode_with_indexes(
            symbols, rows, self._cdfs, self._sizes, self._offsets
        )
        return payload

    def decode(self, payload: bytes, rows: list[int]) -> list[int]:
        symbols: list[int] = self._ans.RansDecoder().decode_with_indexes(
            payload, rows, self._cdfs, self._sizes, self._offsets
        )
        return symbols


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    parser.add_argument("--most", type=int, default=16, metavar="N", help="photographs")
    parser.add_argument("--compressai", type=Path, metavar="FOLDER", help="none: ours alone")
    parser.add_argument("--turns", type=int, default=20, help="of which the best counts")
    parser.add_argument("--out", type=Path, default=Path("reports/coder.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        report = measure(options)
        write(report, options.out, name="coder.py", options=options)
    except SplitcodecError as error:
        complain(error)
        return 2
    rows = [
        (one["coder"], f"{one['encode_symbols_per_s'] / 1e6:.1f}", f"{one['decode_symbols_per_s'] / 1e6:.1f}", one["bytes"])
        for one in report["coders"]
    ]
    print_table(f"{report['bundle']}: M symbols/s", ("coder", "encode", "decode", "bytes"), rows)
    print(json.dumps(report["ratios"], indent=1))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report."""
    device = Device(options.bundle, threads=1)
    tables = device.bundle.tables[0]
    works = _works(device, pictures_of(options.photos, most=options.most))
    symbols = sum(work.symbols_chw.size for work in works)
    coders = []
    for name, plain in (("constriction", False), ("plain", True)):
        coder = Coder(tables, plain=plain)
        coders.append(_ours(name, coder, works, turns=max(3, options.turns // (4 if plain else 1))))
    versions = {}
    if options.compressai is not None:
        ans = Ans(options.compressai, tables)
        versions["compressai"] = ans.version
        coders += [_theirs(ans, works, turns=options.turns, arrays=arrays) for arrays in (False, True)]
    for one in coders:
        one["encode_symbols_per_s"] = symbols / one.pop("encode_s")
        one["decode_symbols_per_s"] = symbols / one.pop("decode_s")
    return {
        "bundle": device.bundle.ident,
        "photographs": len(works) // tables.levels,
        "symbols": symbols,
        "coders": coders,
        "ratios": _ratios({one["coder"]: one for one in coders}),
        "targets": TARGETS,
        "versions": versions,
    }


def _works(device: Device, pictures: Sequence[Any]) -> list[Work]:
    works = []
    for picture in pictures:
        latent_chw = device.encoder.latent_chw(device.crop(picture))
        for level in range(device.bundle.manifest.levels):
            tables = device.bundle.tables[0]
            symbols_chw = tables.quantise(latent_chw, level)
            rows = np.repeat(tables.rows_of(level), symbols_chw[0].size).tolist()
            works.append(Work(symbols_chw, level, symbols_chw.ravel().tolist(), rows))
    return works


def _ours(name: str, coder: Coder, works: Sequence[Work], *, turns: int) -> dict[str, Any]:
    encode_s = decode_s = size = 0.0
    for work in works:
        payload = coder.encode(work.symbols_chw, work.level)
        shape = (work.symbols_chw.shape[0], work.symbols_chw.shape[1], work.symbols_chw.shape[2])
        back = coder.decode(payload, shape, level=work.level)
        assert np.array_equal(back, work.symbols_chw)
        encode_s += _best(lambda w=work: coder.encode(w.symbols_chw, w.level), turns)  # type: ignore[misc]
        decode_s += _best(lambda w=work, p=payload, s=shape: coder.decode(p, s, level=w.level), turns)  # type: ignore[misc]
        size += len(payload)
    return {"coder": name, "encode_s": encode_s, "decode_s": decode_s, "bytes": int(size)}


def _theirs(ans: Ans, works: Sequence[Work], *, turns: int, arrays: bool) -> dict[str, Any]:
    encode_s = decode_s = size = 0.0
    for work in works:
        rows_n = np.array(work.rows, np.int32)
        payload = ans.encode(work.flat, work.rows)
        assert ans.decode(payload, work.rows) == work.flat
        if arrays:
            encode_s += _best(lambda w=work, r=rows_n: ans.encode(w.symbols_chw.ravel().tolist(), r.tolist()), turns)  # type: ignore[misc]
            decode_s += _best(lambda p=payload, r=rows_n: np.array(ans.decode(p, r.tolist()), np.int32), turns)  # type: ignore[misc]
        else:
            encode_s += _best(lambda w=work: ans.encode(w.flat, w.rows), turns)  # type: ignore[misc]
            decode_s += _best(lambda w=work, p=payload: ans.decode(p, w.rows), turns)  # type: ignore[misc]
        size += len(payload)
    name = "compressai ans, from arrays" if arrays else "compressai ans"
    return {"coder": name, "encode_s": encode_s, "decode_s": decode_s, "bytes": int(size)}


def _ratios(coders: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ours, plain, rival = coders["constriction"], coders["plain"], coders.get("compressai ans")
    found: dict[str, Any] = {
        "plain_encode_symbols_per_s": plain["encode_symbols_per_s"],
        "plain_decode_symbols_per_s": plain["decode_symbols_per_s"],
    }
    if rival is not None:
        for way in ("encode", "decode"):
            key = f"{way}_symbols_per_s"
            found[f"{way}_times_compressai"] = ours[key] / rival[key]
            found[f"plain_{way}_times_compressai"] = plain[key] / rival[key]
    return found


def _sixteen_bits(freq: Sequence[int]) -> list[int]:
    """Return frequencies of a row, and of an escape behind them, that sum to 2^16."""
    mass = quantise_mass(np.array([*freq, 1], np.float64)).astype(np.int64)
    small = np.maximum(mass >> 8, 1)
    small[int(small.argmax())] += (1 << 16) - int(small.sum())
    return [int(one) for one in small]


def _best(call: Callable[[], Any], turns: int) -> float:
    best = float("inf")
    for _ in range(turns):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best


if __name__ == "__main__":
    sys.exit(main())
