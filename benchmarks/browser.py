"""The page's browser against the device's own code: the same crops, symbols, packets and answers?

    python benchmarks/browser.py --data DIR --images 200 --out reports/browser.json

Pictures are taken evenly from all below DIR. Each is encoded at all levels in a headless Chromium by the page's own
modules (splitcodec demo-assets must have been run) and by Device; packets of both are decoded and answered by Edge.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from outcome import exit_code

import numpy as np
from numpy.typing import NDArray

from chromium import chromium
from report import at_least_one, ready, write
from splitcodec import Device, Edge
from splitcodec.cli.show import complain, progress
from splitcodec.demo.assets import VERSION, find_ort
from splitcodec.demo.web import mount
from splitcodec.edge.decoder import Decoder
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.errors import DataError, MissingExtra, PictureError
from splitcodec.evaluation.golden import top_of
from splitcodec.wire.bundle import open_bundle
from splitcodec.wire.packet import unpack

if TYPE_CHECKING:
    from playwright.sync_api import Page

_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
_OPEN = """async () => {
    const { openEncoder } = await import("/demo/static/encoder.js");
    globalThis.bundle = await (await fetch("/demo/bundle")).json();
    globalThis.encoder = await openEncoder(bundle);
    return encoder.where + " " + encoder.reason;
}"""
_ENCODE = """async ([data, type]) => {
    const { cropPicture, openPicture } = await import("/demo/static/picture.js");
    const toText = (bytes) => {
        let text = "";
        for (const byte of bytes) text += String.fromCharCode(byte);
        return btoa(text);
    };
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const begin = performance.now();
    const crop = cropPicture(await openPicture(new Blob([bytes], {type}), 64e6), bundle);
    const { packets, ms } = await encoder.encode({ crop, cropMs: performance.now() - begin });
    return { crop: toText(crop.rgb), packets: packets.map(toText), ms };
}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, default=Path("reports/browser.json"))
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--images", options.images)
    ready(options.out)
    report = _measure(options)
    write(report, options.out, name="browser.py", options=options)
    print(json.dumps(report, indent=1))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report. Pictures that cannot be read are left out, and complained of."""
    files = _pictures(options.data, options.images)
    bundle = open_bundle(options.bundle)
    device, edge, decoder = Device(bundle, threads=1), Edge(bundle, threads=1), Decoder(bundle, threads=1)
    sums = _Sums()
    with _tab(edge) as page, progress() as bar:
        task = bar.add_task("pictures", total=len(files), note="")
        for file in files:
            bar.advance(task)
            try:
                data = file.read_bytes()
                crop_bhwc = device.crop(data)
            except (OSError, PictureError) as error:
                complain(f"{file.name}: {error}; left out")
                continue
            told = page.evaluate(_ENCODE, [base64.b64encode(data).decode(), _TYPES[file.suffix.lower()]])
            theirs = np.frombuffer(base64.b64decode(told["crop"]), np.uint8).reshape(crop_bhwc.shape)
            sums.add_crop(crop_bhwc.astype(np.int16) - theirs)
            for level, text in enumerate(told["packets"]):
                ours, packet = device.encode(data, level=level), base64.b64decode(text)
                apart_chw = decoder.symbols(unpack(ours)) - decoder.symbols(unpack(packet))
                same_top = ours == packet or top_of(edge, ours) == top_of(edge, packet)
                sums.add_packets(ours, packet, apart_chw=apart_chw, same_top=same_top)
            sums.add_times(told["ms"], device.encode_timed(data).ms)
    if not sums.pictures:
        raise DataError(f"none of {len(files)} pictures in {options.data} can be read; give others")
    return {
        "bundle": bundle.ident,
        "images": sums.pictures,
        "data": options.data.name,
        "onnxruntime_web": VERSION,
        **sums.told(),
    }


class _Sums:
    def __init__(self) -> None:
        self._crops: list[tuple[bool, int]] = []
        self._packets: list[dict[str, float]] = []
        self._times: list[tuple[dict[str, float], dict[str, float]]] = []

    @property
    def pictures(self) -> int:
        return len(self._crops)

    def add_crop(self, apart_bhwc: NDArray[Any]) -> None:
        self._crops.append((not apart_bhwc.any(), int(np.abs(apart_bhwc).max())))

    def add_packets(self, ours: bytes, theirs: bytes, *, apart_chw: NDArray[Any], same_top: bool) -> None:
        one: dict[str, float] = {
            "packets_equal": ours == theirs,
            "symbols_equal": float((apart_chw == 0).mean()),
            "symbols_apart": int(np.abs(apart_chw).max()),
            "top_equal": same_top,
            "bytes_apart": len(theirs) - len(ours),
        }
        self._packets.append(one)

    def add_times(self, theirs: dict[str, float], ours: dict[str, float]) -> None:
        self._times.append((theirs, ours))

    def told(self) -> dict[str, Any]:
        every = self._packets
        return {
            "crops_equal_percent": _percent(equal for equal, _ in self._crops),
            "crop_largest_difference": max(apart for _, apart in self._crops),
            "symbols_equal_percent": _percent(one["symbols_equal"] for one in every),
            "symbol_largest_difference": max(one["symbols_apart"] for one in every),
            "packets_equal_percent": _percent(one["packets_equal"] for one in every),
            "top1_equal_percent": _percent(one["top_equal"] for one in every),
            "bytes_apart_mean": round(float(np.mean([one["bytes_apart"] for one in every])), 3),
            "browser_ms_median": self._medians(0),
            "device_ms_median": self._medians(1),
        }

    def _medians(self, which: int) -> dict[str, float]:
        stages = self._times[0][which]
        return {stage: round(median(times[which][stage] for times in self._times), 2) for stage in stages}


def _percent(values: Any) -> float:
    return round(100 * float(np.mean(list(values))), 6)


@contextmanager
def _tab(edge: Edge) -> Iterator[Page]:
    """Yield a tab of the demo's origin with the encoder open. Raises MissingExtra."""
    ort = find_ort()
    if ort is None:
        raise MissingExtra("needs onnxruntime-web, which is missing here; splitcodec demo-assets")
    app = create_app(edge, read_settings())
    mount(app, edge, ort=ort)
    with BackgroundServer(app) as server, chromium() as browser:
        page = browser.new_page()
        page.goto(f"{server.url}/demo/bundle")
        if (where := page.evaluate(_OPEN)).split()[0] != "browser":
            raise MissingExtra(f"the browser does not encode: {where}")
        yield page


def _pictures(folder: Path, count: int) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _TYPES)
    if not found:
        raise DataError(f"{folder}: no pictures (.jpg, .png, .webp) in there")
    return list(_evenly(found, count))


def _evenly(found: list[Path], count: int) -> Iterator[Path]:
    count = min(count, len(found))
    return (found[i * len(found) // count] for i in range(count))


if __name__ == "__main__":
    sys.exit(main())
