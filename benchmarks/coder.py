"""Entropy coding speed on the shipped symbols and tables, against CompressAI's `ans`, in one run on one thread.

    python benchmarks/coder.py [--bundle B] [--photos DIR] [--compressai FOLDER] --out reports/coder.json

CompressAI pins numpy below 2, so it cannot share our environment. Its coder is one compiled module that needs neither
numpy nor torch:   pip install --no-deps --target FOLDER compressai==1.2.8

CompressAI's coder has frequencies of 16 bits and an escape symbol; our rows are rounded to that, and it gets the rows
of the level alone. It is given Python lists that are ready made ("ans"), and, as its own models call it, arrays that
have to be turned into lists first, tables included ("ans, as its models call it"). Ours (constriction and the plain
twin) is timed as the device calls it: integer array in, payload out, ranges checked; where the bundle codes by context,
that too, networks included. Times are the best of several
turns per picture and level, summed up.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from outcome import exit_code

import numpy as np
from numpy.typing import NDArray

from report import at_least_one, pictures_of, ready, write
from splitcodec.cli.show import print_table
from splitcodec.device.client import Device
from splitcodec.errors import MissingExtra
from splitcodec.wire.coder import Coder
from splitcodec.wire.context_coder import ContextCoder
from splitcodec.wire.tables import Tables, quantise_mass

LISTS, MODELS = "compressai ans", "compressai ans, as its models call it"
TARGETS = {"encode_times": 20.0, "decode_times": 10.0, "plain_symbols_per_s": 0.5e6}


class Work(NamedTuple):
    """One picture's symbols at one level, and the same as CompressAI's lists."""

    symbols_chw: NDArray[np.int32]
    level: int
    flat: list[int]
    channels: list[int]


class Ans:
    """CompressAI's coder with a bundle's tables."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        found = sorted(folder.glob("**/compressai/ans.*.so")) + sorted(folder.glob("**/compressai/ans.*.pyd"))
        if not found:
            raise MissingExtra(f"{folder}: no compressai in it; pip install --no-deps --target {folder} compressai")
        spec = importlib.util.spec_from_file_location("ans", found[0])
        if spec is None or spec.loader is None:
            raise MissingExtra(f"{found[0]} cannot be imported; is it of this Python?")
        try:
            self._ans = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self._ans)
        except ImportError as error:  # of another Python or processor, or cut short
            raise MissingExtra(f"{found[0]} cannot be imported ({error}); is it of this Python?") from None
        self.version = next(
            (path.name.split("-")[1].removesuffix(".dist") for path in folder.glob("compressai-*.dist-info")), "unknown"
        )
        self._lists = [_lists(tables, level) for level in range(tables.levels)]
        self._arrays = [_arrays(*lists) for lists in self._lists]

    def encode(self, symbols: list[int], channels: list[int], level: int) -> bytes:
        payload: bytes = self._ans.RansEncoder().encode_with_indexes(symbols, channels, *self._lists[level])
        return payload

    def decode(self, payload: bytes, channels: list[int], level: int) -> list[int]:
        symbols: list[int] = self._ans.RansDecoder().decode_with_indexes(payload, channels, *self._lists[level])
        return symbols

    def encode_arrays(self, symbols_chw: NDArray[np.int32], channel_n: NDArray[np.int32], level: int) -> bytes:
        tables = [array.tolist() for array in self._arrays[level]]
        payload: bytes = self._ans.RansEncoder().encode_with_indexes(
            symbols_chw.ravel().tolist(), channel_n.tolist(), *tables
        )
        return payload

    def decode_arrays(self, payload: bytes, channel_n: NDArray[np.int32], level: int) -> NDArray[np.int32]:
        tables = [array.tolist() for array in self._arrays[level]]
        return np.array(self._ans.RansDecoder().decode_with_indexes(payload, channel_n.tolist(), *tables), np.int32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    parser.add_argument("--most", type=int, default=16, metavar="N", help="photographs")
    parser.add_argument("--compressai", type=Path, metavar="FOLDER", help="none: ours alone")
    parser.add_argument("--turns", type=int, default=20, help="of which the best counts")
    parser.add_argument("--out", type=Path, default=Path("reports/coder.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    ready(options.out)
    report = measure(options)
    write(report, options.out, name="coder.py", options=options)
    rows = [
        (
            one["coder"],
            f"{one['encode_symbols_per_s'] / 1e6:.1f}",
            f"{one['decode_symbols_per_s'] / 1e6:.1f}",
            one["bytes"],
        )
        for one in report["coders"]
    ]
    print_table(f"{report['bundle']}: M symbols/s", ("coder", "encode", "decode", "bytes"), rows)
    print(json.dumps(report["ratios"], indent=1))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report. Raises SettingsError, and MissingExtra without CompressAI where it is asked for."""
    at_least_one("--turns", options.turns)
    device = Device(options.bundle, threads=1)
    tables = device.bundle.tables[0]
    works = _works(device, pictures_of(options.photos, most=options.most))
    symbols = sum(work.symbols_chw.size for work in works)
    coders = []
    for name, plain in (("constriction", False), ("plain", True)):
        coder = Coder(tables, plain=plain)
        turns = max(3, options.turns // (4 if plain else 1))
        coders.append(_ours(name, coder, works, turns=turns))
        if (contexts := device.bundle.contexts) is not None:
            by_context = ContextCoder(contexts, plain=plain)
            coders.append(_ours(f"{name}, by context", by_context, works, turns=max(3, turns // 4)))
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
            channels = np.repeat(np.arange(tables.channels), symbols_chw[0].size).tolist()
            works.append(Work(symbols_chw, level, symbols_chw.ravel().tolist(), channels))
    return works


def _ours(name: str, coder: Coder | ContextCoder, works: Sequence[Work], *, turns: int) -> dict[str, Any]:
    encode_s = decode_s = size = 0.0
    for work in works:
        payload = coder.encode(work.symbols_chw, work.level)
        shape = (work.symbols_chw.shape[0], work.symbols_chw.shape[1], work.symbols_chw.shape[2])
        back = coder.decode(payload, shape, level=work.level)
        assert np.array_equal(back, work.symbols_chw)
        encode_s += _best(partial(coder.encode, work.symbols_chw, work.level), turns)
        decode_s += _best(partial(coder.decode, payload, shape, level=work.level), turns)
        size += len(payload)
    return {"coder": name, "encode_s": encode_s, "decode_s": decode_s, "bytes": int(size)}


def _theirs(ans: Ans, works: Sequence[Work], *, turns: int, arrays: bool) -> dict[str, Any]:
    encode_s = decode_s = size = 0.0
    for work in works:
        channel_n, level = np.array(work.channels, np.int32), work.level
        payload = ans.encode(work.flat, work.channels, level)
        assert ans.decode(payload, work.channels, level) == work.flat
        calls: tuple[Callable[[], Any], Callable[[], Any]] = (
            partial(ans.encode, work.flat, work.channels, level),
            partial(ans.decode, payload, work.channels, level),
        )
        if arrays:
            calls = (
                partial(ans.encode_arrays, work.symbols_chw, channel_n, level),
                partial(ans.decode_arrays, payload, channel_n, level),
            )
        encode_s += _best(calls[0], turns)
        decode_s += _best(calls[1], turns)
        size += len(payload)
    name = MODELS if arrays else LISTS
    return {"coder": name, "encode_s": encode_s, "decode_s": decode_s, "bytes": int(size)}


def _ratios(coders: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ours, plain = coders["constriction"], coders["plain"]
    found: dict[str, Any] = {
        "plain_encode_symbols_per_s": plain["encode_symbols_per_s"],
        "plain_decode_symbols_per_s": plain["decode_symbols_per_s"],
    }
    for name, word in ((LISTS, "lists"), (MODELS, "models")):
        for way in ("encode", "decode") if name in coders else ():
            key = f"{way}_symbols_per_s"
            found[f"{way}_times_compressai_{word}"] = ours[key] / coders[name][key]
            found[f"plain_{way}_times_compressai_{word}"] = plain[key] / coders[name][key]
    return found


def _lists(tables: Tables, level: int) -> tuple[list[list[int]], list[int], list[int]]:
    """Return cumulative frequencies, their lengths and offsets of a level's channels, as CompressAI wants them."""
    rows = tables.rows_of(level).tolist()
    freqs = [tables.freq_ks[k, : tables.size_k[k]].tolist() for k in rows]
    cdfs = [[0, *itertools.accumulate(_sixteen_bits(freq))] for freq in freqs]
    return cdfs, [len(cdf) for cdf in cdfs], tables.offset_k[rows].tolist()


def _arrays(cdfs: list[list[int]], sizes: list[int], offsets: list[int]) -> tuple[NDArray[np.int32], ...]:
    """Return the same as its models hold it: rectangular, padded with zeros."""
    padded = np.zeros((len(cdfs), max(sizes)), np.int32)
    for row, cdf in zip(padded, cdfs, strict=True):
        row[: len(cdf)] = cdf
    return padded, np.array(sizes, np.int32), np.array(offsets, np.int32)


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
