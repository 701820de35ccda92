"""The demo: a server on loopback, a device, and a slow radio between them.   before: photos.py   after: page.py

Every photograph is encoded, waits for its bytes to cross the simulated link, and is answered by the server. Beside it,
what would have had to cross otherwise: the JPEG of the same crop whose quality scores as high over many photographs
(equal.py), and the smallest that the same network reads as well, found by trying all.
"""

from __future__ import annotations

import io
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.demo.equal import equal_jpeg
from splitcodec.demo.page import render
from splitcodec.demo.photos import PHOTOGRAPHS, Photograph
from splitcodec.demo.trip import DemoResult, Jpeg, Trip
from splitcodec.device.client import Device
from splitcodec.device.link import HttpLink, airtime_ms, http, slow
from splitcodec.edge.answer import Edge
from splitcodec.wire.answer import Guess, parse_answer
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.durable import check_folder, made_folder, write_atomically

KBIT_PER_S = 37.5  # the fastest setting of LoRa, as in Matsubara et al. 2022
RTT_MS = 60.0
QUALITIES = range(1, 96)


def run_demo(
    bundle: str | Path | Bundle = "efficientnet-lite0",
    *,
    out: str | Path,
    level: int | None = None,
    kbit_per_s: float = KBIT_PER_S,
    rtt_ms: float = RTT_MS,
    threads: int | None = None,
    on_trip: Callable[[Trip], None] | None = None,
) -> DemoResult:
    """Send the shipped photographs over a simulated link and write `out`/index.html and `out`/demo.json.

    `level` is the rate (none: the bundle's default), `on_trip` is called after each photograph. The waiting is real:
    the link sleeps for as long as packet and answer would take.

    Raises OutputError, BundleError, SettingsError, MissingExtra without the server's packages, GraphError, LinkError.
    """
    from splitcodec.edge.server import BackgroundServer, create_app, default_settings

    check_folder(out)  # seen now: the trips take their time
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    device, edge = Device(opened, threads=threads), Edge(opened, threads=threads)
    with BackgroundServer(create_app(edge, default_settings())) as server, http(server.url) as link:
        journey = _Journey(device, edge, link, level=level, kbit_per_s=kbit_per_s, rtt_ms=rtt_ms)
        journey.warm_up(PHOTOGRAPHS[0])
        trips = []
        for photograph in PHOTOGRAPHS:
            trips.append(journey.send(photograph))
            if on_trip is not None:
                on_trip(trips[-1])
    folder = made_folder(out)
    result = DemoResult(opened.ident, kbit_per_s, rtt_ms, tuple(trips), _machine(), str(folder / "index.html"))
    write_atomically(folder / "demo.json", (json.dumps(result.to_json(), indent=1) + "\n").encode())
    write_atomically(folder / "index.html", render(result).encode())
    return result


@final
class _Journey:
    """Both shores and the link between them."""

    def __init__(
        self, device: Device, edge: Edge, link: HttpLink, *, level: int | None, kbit_per_s: float, rtt_ms: float
    ) -> None:
        self._device = device
        self._edge = edge
        self._link = link
        self._level = level
        self._kbit_per_s = kbit_per_s
        self._rtt_ms = rtt_ms
        self._slow = slow(link, kbit_per_s=kbit_per_s, rtt_ms=rtt_ms)

    def warm_up(self, photograph: Photograph) -> None:
        """Do everything once, unwatched: the first run of a graph and the first connection are slow."""
        self._link(self._device.encode(photograph.read(), level=self._level))

    def send(self, photograph: Photograph) -> Trip:
        """Send one photograph's packet and find the JPEG to compare with."""
        file = photograph.read()
        encoded = self._device.encode_timed(file, level=self._level)
        begin = time.perf_counter()
        reply = self._slow(encoded.packet)
        away_ms = 1000 * (time.perf_counter() - begin)
        answer = parse_answer(reply, tasks=("classify",))
        link_ms = round(max(away_ms - sum(answer["ms"].values()), 0.0), 3)
        image_bhwc = self._device.crop(file)
        teacher = self._edge.picture_answer(image_bhwc)["answers"]["classify"]
        equal = equal_jpeg(self._device.bundle.ident, encoded.level)
        return Trip(
            photograph=photograph,
            level=encoded.level,
            packet_bytes=len(encoded.packet),
            answer_bytes=len(reply),
            airtime_ms=self._airtime_ms(len(encoded.packet), len(reply)),
            guesses=tuple(answer["answers"]["classify"]),
            teacher=tuple(teacher),
            ms={**encoded.ms, "link": link_ms, **answer["ms"]},
            jpeg=self._smallest_jpeg(image_bhwc, packet=encoded.packet, teacher=teacher[0], answer_bytes=len(reply)),
            crop_jpeg=_jpeg(image_bhwc[0], 88),
            equal=None if equal is None else (self._of(image_bhwc, equal.quality, answer_bytes=len(reply)), equal),
        )

    def _of(self, image_bhwc: NDArray[np.uint8], quality: int, *, answer_bytes: int) -> Jpeg:
        """Return the crop as JPEG of that quality."""
        data = _jpeg(image_bhwc[0], quality)
        guesses = self._edge.picture_answer(_decoded(data))["answers"]["classify"]
        return Jpeg(quality, data, self._airtime_ms(len(data), answer_bytes), tuple(guesses))

    def _smallest_jpeg(
        self, image_bhwc: NDArray[np.uint8], *, packet: bytes, teacher: Guess, answer_bytes: int
    ) -> Jpeg | None:
        """Return the smallest JPEG that the network reads as well as the packet, trying every quality; None if none.

        As well: the label that the uncompressed crop gets comes first if it does so for the packet, and is at least as
        probable as for the packet (or as for the uncompressed crop, if that is less).
        """
        classes = len(self._device.bundle.manifest.classes)
        ours = self._edge.answer(packet, top=classes)["answers"]["classify"]
        must_be_first = ours[0]["index"] == teacher["index"]
        enough = min(_probability(ours, teacher["index"]), teacher["p"])
        for data, quality in sorted(
            ((_jpeg(image_bhwc[0], quality), quality) for quality in QUALITIES), key=lambda one: len(one[0])
        ):
            guesses = self._edge.picture_answer(_decoded(data), top=classes)["answers"]["classify"]
            first = guesses[0]["index"] == teacher["index"]
            if (first or not must_be_first) and _probability(guesses, teacher["index"]) >= enough:
                return Jpeg(quality, data, self._airtime_ms(len(data), answer_bytes), tuple(guesses[:5]))
        return None

    def _airtime_ms(self, *sizes: int) -> float:
        return airtime_ms(sum(sizes), kbit_per_s=self._kbit_per_s, rtt_ms=self._rtt_ms)


def _jpeg(image_hwc: NDArray[np.uint8], quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_hwc).save(file, "jpeg", quality=quality, optimize=True)
    return file.getvalue()


def _decoded(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)[None]


def _probability(guesses: Sequence[Guess], index: int) -> float:
    return next((guess["p"] for guess in guesses if guess["index"] == index), 0.0)


def _machine() -> dict[str, Any]:
    return {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count() or 1}
