"""From picture to answer: on the device, by an image codec, or by our packets, over links from LoRa's rate to Wi-Fi's.

    python benchmarks/latency.py --bundles efficientnet-lite0 --check-link

Every method stands at its cheapest setting in --rates (an rd.json of rate_accuracy.py) whose top-1 is at most --within
points below the teacher's; its bytes are those measured there. Computing is measured: the device on one thread of one
core, the edge on the others, all methods in turns on the same photographs; of every stage the median over photographs
of the fastest turn counts. The link is modelled (rate, round trip, bytes with HTTP, TCP and IP around them);
--check-link holds the model against a shaped link between two network namespaces. Writes --out and a plot beside it.
`make results` turns it into tables.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from outcome import exit_code

from latency_parts.body import block, strategy_json, target
from latency_parts.choose import Rates
from latency_parts.cores import Cores
from latency_parts.heads import datagrams, overhead
from latency_parts.lineup import lineup
from latency_parts.plot import plot
from latency_parts.power import Rapl, watts
from latency_parts.shaped import check_link
from latency_parts.show import show
from latency_parts.timing import run
from report import files_of, ready, write
from splitcodec.cli.show import progress
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import SettingsError
from splitcodec.evaluation.drawing import check_plots
from splitcodec.evaluation.latency import DATAGRAM_OVERHEAD, SEGMENT, SEGMENT_OVERHEAD, Carrier, Radio
from splitcodec.evaluation.output import write_whole
from splitcodec.wire.bundle import open_bundle
from splitcodec.wire.fragment import DATAGRAM, OVERHEAD

RATES = Path("reports/rate_accuracy/rd.json")
RIVALS = Path("runs/rivals")
OUT = Path("reports/latency.json")
# Round trips: LoRa class, NB-IoT or LTE-M, LTE, Wi-Fi, a wired or close Wi-Fi network. Cost per byte: a LoRa module's
# 115 mA at 3.3 V and +20 dBm while it sends (Microchip's data sheet), LTE and Wi-Fi as measured on a phone by
# Huang et al., MobiSys 2012, table 4, uplink: (438 mW per Mbit/s + 1288 mW) and (283 mW per Mbit/s + 133 mW).
LINKS = {  # kbit/s: ms, uJ per byte
    37.5: (200.0, 81.0),
    250.0: (60.0, 44.7),
    1000.0: (40.0, 13.8),
    10_000.0: (20.0, 2.4),
    100_000.0: (5.0, 2.3),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    options = _options(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    report = _measure(options)
    write(report, options.out, name="latency.py", options=_differing(options))
    write_whole(options.out.parent, {options.out.with_suffix(".png").name: plot(report)})
    show(report)
    print(f"written: {options.out}, {options.out.with_suffix('.png')}")


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    check_plots()
    ready(options.out)
    radios = _radios(options)
    for name in ("most", "turns", "top"):
        if (number := getattr(options, name)) < 1:
            raise SettingsError(f"--{name} {number}; expected at least 1")
    for name in ("device_slowdown", "device_watts"):
        if not 0 < (value := getattr(options, name)) < float("inf"):
            raise SettingsError(f"--{name.replace('_', '-')} {value:g}; expected more than 0")
    if not 0 <= options.within < float("inf"):
        raise SettingsError(f"--within {options.within:g}; expected 0 or more points below the teacher")
    rates = Rates(options.rates)
    names = _names(options.bundles)
    if not names:
        raise SettingsError("--bundles names no bundle; give a zoo name, a folder or a .zip")
    bundles = [open_bundle(name) for name in names]
    pictures = files_of(options.photos, most=options.most)
    cores = Cores()
    chosen, left_out = lineup(
        bundles,
        rates,
        codecs=_names(options.codecs),
        rivals=options.rivals,
        within=options.within,
        top=options.top,
        cores=cores,
    )
    with progress() as bar:
        task = bar.add_task("timing", total=len(pictures), note="")
        timed = run(
            chosen,
            pictures,
            turns=options.turns,
            cores=cores,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    first = next(one for one in chosen if one.kind == "ours")
    packet = first.device(pictures[0]).data
    heads = overhead(Edge(bundles[0], threads=1), packet, top=options.top)
    measured = [watts(one, pictures, rapl=Rapl(), cores=cores) for one in chosen]
    stated = [options.device_watts] * len(chosen)
    here = [power if power is not None else options.device_watts for power in measured]
    slow = [] if options.device_slowdown == 1 else [(options.device_slowdown, stated)]
    carriers: list[Carrier] = [heads, datagrams(packet, top=options.top)]
    blocks = [
        block(timed, radios, carrier=carrier, slowdown=factor, watts=power)
        for carrier in carriers
        for factor, power in [(1.0, here), *slow]
    ]
    return {
        "bundles": [one.ident for one in bundles],
        "rates": {
            "commit": rates.commit,
            "images": rates.images,
            "teacher_top1": rates.teacher_top1,
            "within": options.within,
        },
        "photographs": len(pictures),
        "turns": options.turns,
        "guesses": options.top,
        "cores": cores.to_json(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "links": [{"name": radio.name, **asdict(radio)} for radio in radios],
        "overhead": {
            "request_head_bytes": heads.request,
            "response_head_bytes": heads.response,
            "segment_bytes": SEGMENT,
            "segment_overhead_bytes": SEGMENT_OVERHEAD,
            "udp_request_bytes": carriers[1].up(0) - carriers[1].down(0),
            "datagram_bytes": DATAGRAM,
            "datagram_overhead_bytes": DATAGRAM_OVERHEAD + OVERHEAD,
        },
        "power": {
            "source": "device time x --device-watts"
            if measured[0] is None
            else "RAPL (times 1), --device-watts (else)",
            "device_watts": options.device_watts,
        },
        "strategies": [strategy_json(one) for one in timed],
        "left_out": [{"method": method, "reason": reason} for method, reason in left_out],
        "blocks": blocks,
        "targets": [target(timed, radios, carrier=carrier, main=bundles[0].ident) for carrier in carriers],
        "link_check": _checked(names[0], pictures[0], radios, carriers, options.top) if options.check_link else None,
    }


def _checked(
    name: str, picture: bytes, radios: Sequence[Radio], carriers: Sequence[Carrier], top: int
) -> dict[str, Any]:
    """Hold the link model against a shaped link with a picture's packets at the lowest, default and highest level."""
    device = Device(name, threads=1)
    manifest = device.bundle.manifest
    levels = sorted({0, manifest.default_level, manifest.levels - 1})
    packets = [device.encode(picture, level=level) for level in levels]
    return check_link(name, packets, radios=radios, carriers=carriers, top=top)


def _radios(options: argparse.Namespace) -> list[Radio]:
    rates = _numbers(options.links, "--links")
    if len(set(rates)) < len(rates):
        raise SettingsError(f"--links {options.links}: a rate comes twice; give each once")
    rtts, costs = (
        _per_link(rates, getattr(options, option), f"--{option.replace('_', '-')}", place=place)
        for place, option in enumerate(("rtts_ms", "radio_uj_per_byte"))
    )
    return [Radio(*one) for one in zip(rates, rtts, costs, strict=True)]


def _per_link(rates: Sequence[float], text: str | None, option: str, *, place: int) -> list[float]:
    """Return one number for each link: those given (one for all, or one each), else the default ones."""
    if text is None:
        if unknown := [rate for rate in rates if rate not in LINKS]:
            raise SettingsError(f"--links {unknown[0]:g}: nothing is known of such a link; give {option} too")
        return [LINKS[rate][place] for rate in rates]
    values = _numbers(text, option)
    if len(values) not in (1, len(rates)):
        raise SettingsError(f"{option} has {len(values)} numbers, --links {len(rates)}; give one, or one for each")
    return values * (len(rates) // len(values))


def _numbers(text: str, option: str) -> list[float]:
    try:
        found = [float(word) for word in _names(text)]
    except ValueError:
        found = []
    if not found:
        raise SettingsError(f"{option} {text!r:.60}; expected numbers with commas between them")
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bundles", default="efficientnet-lite0", metavar="B,...", help="ours; the first is the main one")
    add("--codecs", default="jpeg,webp,avif,hevc", help="image codecs")
    add("--rivals", type=Path, metavar="FOLDER", default=RIVALS, help=f"bundles of rivals; default: {RIVALS}")
    add("--rates", type=Path, default=RATES, metavar="FILE", help=f"default: {RATES}")
    add("--within", type=float, default=3.0, metavar="POINTS", help="of top-1 below the teacher")
    add("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    add("--most", type=int, default=10, metavar="N", help="photographs")
    add("--turns", type=int, default=8)
    add("--top", type=int, default=1, metavar="K", help="guesses in an answer, of every method")
    add("--links", default=_words(LINKS), metavar="KBIT,...", help=f"kbit/s; default: {_words(LINKS)}")
    add("--rtts-ms", metavar="MS,...", help=f"per link; default: {_words(rtt for rtt, _ in LINKS.values())}")
    add("--radio-uj-per-byte", metavar="UJ,...", help=f"per link; default: {_words(uj for _, uj in LINKS.values())}")
    add("--device-watts", type=float, default=4.0, help="under load, where RAPL cannot be read; a board's: 4")
    add("--device-slowdown", type=float, default=10.0, metavar="F", help="a second block for such a device; 1: none")
    add("--check-link", action="store_true", help="hold the link model against a shaped link (root, ip, tc)")
    add("--out", type=Path, default=OUT, metavar="FILE")
    return parser.parse_args(arguments)


def _differing(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options that are not as they are by default."""
    default = vars(_options([]))
    return argparse.Namespace(**{key: value for key, value in vars(options).items() if value != default[key]})


def _words(numbers: Iterable[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
