"""Ways to an answer: on the device; image codecs and the whole network at the edge; packets of bundles.

Each is two functions, one for each shore, that say what they send and how long each stage took. A video codec is timed
by the picture more: starting ffmpeg costs more than coding, and a device would call a library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from latency_parts.choose import Choice
from latency_parts.cores import Cores
from splitcodec.device.client import Device
from splitcodec.device.encoder import Precision
from splitcodec.device.view import Fit
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.agreement import KINDS, has_int8
from splitcodec.evaluation.codecs import Codec
from splitcodec.evaluation.sweep import scaled
from splitcodec.wire.answer import Answer, dump_answer
from splitcodec.wire.bundle import Bundle

MORE = 4  # pictures that a video codec codes beside the first
ONE, SEVERAL = " of one", " of several"


class Sent(NamedTuple):
    """What leaves the device for a picture, and milliseconds per stage."""

    data: bytes
    ms: dict[str, float]


@final
@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to an answer. `edge` is None where the device answers itself; what it sends is then the answer."""

    name: str
    kind: str  # "device", "codec", "rival", "ours"
    device: Callable[[bytes], Sent]
    edge: Callable[[bytes], Sent] | None = None
    choice: Choice | None = None
    bundle: str | None = None
    encoder: Precision | None = None
    coder: str | None = None
    tasks: tuple[str, ...] = ("classify",)
    warm: bool = field(default=True)  # run once before it is timed, to have its data in the caches


def on_device(bundle: Bundle, tasks: Sequence[str], *, top: int, cores: Cores) -> Strategy:
    """Return the whole network on the device, for all `tasks` at once. `top` is the number of guesses of a class."""
    several = tuple(tasks) != ("classify",)
    with cores.on(cores.device):
        device, network = Device(bundle, threads=1), Edge(bundle, threads=1)

    def answer(picture: bytes) -> Sent:
        begin = time.perf_counter()
        image_bhwc = _view(device, picture, fit="letterbox" if several else "crop")
        seen = time.perf_counter()
        told = network.picture_answer(image_bhwc, tasks=list(tasks) if several else None, top=top)
        return Sent(dump_answer(told), {"preprocess": _ms(begin, seen), "network": _ms(seen, time.perf_counter())})

    words = "on the device" + (f", {' + '.join(tasks)}" if several else "")
    return Strategy(words, "device", answer, bundle=bundle.ident, tasks=tuple(tasks))


def image_codec(codec: Codec, choice: Choice, *, top: int, device: Device, edge: Edge) -> Strategy:
    """Return an image codec on the device, and the whole network at the edge."""
    value, side = choice.dial
    crop = device.bundle.manifest.crop
    several = codec.at_once > 1

    def encode(picture: bytes) -> Sent:
        begin = time.perf_counter()
        image_hwc = _view(device, picture, fit="crop")[0]
        seen = time.perf_counter()
        (data,) = codec.encode(scaled([image_hwc], side), value)
        ms = {"preprocess": _ms(begin, seen), "coding" + ONE * several: _ms(seen, time.perf_counter())}
        if several:
            seen = time.perf_counter()
            codec.encode(scaled([image_hwc] * (1 + MORE), side), value)
            ms["coding" + SEVERAL] = _ms(seen, time.perf_counter())
        return Sent(data, ms)

    def decode(data: bytes, *, count: int) -> NDArray[np.uint8]:
        return scaled(codec.decode([data] * count), None if side is None else crop)[0]

    def answer(data: bytes) -> Sent:
        begin = time.perf_counter()
        image_hwc = decode(data, count=1)
        seen = time.perf_counter()
        told = dump_answer(edge.picture_answer(image_hwc[None], top=top))
        ms = {"decode" + ONE * several: _ms(begin, seen), "network": _ms(seen, time.perf_counter())}
        if several:
            begin = time.perf_counter()
            decode(data, count=1 + MORE)
            ms["decode" + SEVERAL] = _ms(begin, time.perf_counter())
        return Sent(told, ms)

    name = f"{codec.name}, network at the edge"
    return Strategy(name, "codec", encode, answer, choice=choice, warm=not several)


def packets(
    bundle: Bundle,
    choice: Choice,
    *,
    kind: str,
    name: str,
    top: int,
    cores: Cores,
    tasks: Sequence[str] = ("classify",),
) -> list[Strategy]:
    """Return a bundle's encoders with either coder (of rivals fp32 with constriction alone), answered by its edge."""
    with cores.on(cores.edge):
        edge = Edge(bundle, threads=len(cores.edge))
    ours = kind == "ours" and tuple(tasks) == ("classify",)
    encoders = KINDS if ours and has_int8(bundle) else KINDS[:1]
    found = []
    for encoder in encoders:
        for plain in (False, True) if ours else (False,):
            with cores.on(cores.device):
                device = Device(bundle, threads=1, encoder=encoder, plain_coder=plain)
            coder = "plain" if plain else "constriction"
            words = f"{name} {encoder}, {coder}" if ours else name
            found.append(
                Strategy(
                    words if tuple(tasks) == ("classify",) else f"{name}, {' + '.join(tasks)}",
                    kind,
                    partial(_encode, device, level=choice.level[1], fit=_fit(tasks)),
                    partial(_answer, edge, tasks=list(tasks), top=top),
                    choice=choice,
                    bundle=bundle.ident,
                    encoder=encoder,
                    coder=coder,
                    tasks=tuple(tasks),
                )
            )
    return found


def folded(ms: dict[str, float]) -> dict[str, float]:
    """Return stages in which one and several pictures were timed as the time of a picture more."""
    found = {}
    for stage, spent in ms.items():
        if stage.endswith(ONE):
            name = stage.removesuffix(ONE)
            found[name] = max(0.0, (ms[name + SEVERAL] - spent) / MORE)
        elif not stage.endswith(SEVERAL):
            found[stage] = spent
    return found


def _encode(device: Device, picture: bytes, *, level: int, fit: Fit) -> Sent:
    encoded = device.encode_timed(picture, level=level, fit=fit)
    return Sent(encoded.packet, dict(encoded.ms))


def _answer(edge: Edge, packet: bytes, *, tasks: Sequence[str], top: int) -> Sent:
    begin = time.perf_counter()
    told: Answer = edge.answer(packet, tasks=tasks, top=top)
    data = dump_answer(told)
    decode_ms = told["ms"]["decode"] + told["ms"]["decoder"]
    return Sent(data, {"decode": decode_ms, "tail": max(0.0, _ms(begin, time.perf_counter()) - decode_ms)})


def _view(device: Device, picture: bytes, *, fit: Fit) -> NDArray[np.uint8]:
    return device.view(picture, fit=fit)[0]  # the file itself: a large JPEG is decoded smaller, as for our packets


def _fit(tasks: Sequence[str]) -> Fit:
    return "crop" if tuple(tasks) == ("classify",) else "letterbox"


def _ms(begin: float, end: float) -> float:
    return 1000 * (end - begin)
