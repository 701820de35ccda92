"""Several bundles in one run: who takes part, what is refused, what each encoder costs.   used by: rate.py, bench.py

A rival is measured through the same packets as ours, `Device` -> packet -> `Edge`, and answers with its own tail (that
is the published method where the tail was tuned). The teacher is the main bundle's. A method may be several bundles,
one per rate, as published models are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundlePart, DataError, SettingsError
from splitcodec.evaluation.points import MOST
from splitcodec.evaluation.result import OURS, TEACHER, TRAINED, UNDERTRAINED, UNKNOWN, EncoderCost
from splitcodec.wire.bundle import Bundle, open_bundle

HEAD, TAIL = "head.onnx", "tail_classify.onnx"
_FIGURES = ("images", "seconds")
SAVES = -40.0  # per cent against HEVC, at which a rival counts as trained; the published one saves about as much
_METHOD = re.compile(r"([A-Za-z0-9][A-Za-z0-9 ._+-]{0,79})=(.+)")
_RATE = re.compile(r"(.+)_[A-Za-z]*[0-9][0-9.]*")


@final
@dataclass(frozen=True, slots=True)
class Rival:
    """Bundles (zoo names, folders, zips or opened ones) that are one method, several of them one per rate.

    `method` is its name in reports (none: the bundle's), `ours` says that it is drawn, and judged, as ours.
    """

    bundles: tuple[str | Path | Bundle, ...]
    method: str | None = None
    ours: bool = False


@final
@dataclass(frozen=True, slots=True, eq=False)
class Entrant:
    """One bundle of the run with both of its shores; `prefix` goes in front of "level 3" where a method has several."""

    method: str
    bundle: Bundle
    device: Device
    edge: Edge
    prefix: str = ""
    ours: bool = False


def parse_rival(text: str) -> list[Rival]:
    """Return the rivals of `[METHOD=]BUNDLE[,BUNDLE...]`: one method, or one per bundle where none is named.

    Raises SettingsError where no bundle is named.
    """
    match = _METHOD.fullmatch(text)
    names = tuple(name.strip() for name in (match[2] if match else text).split(",") if name.strip())
    if not names:
        raise SettingsError(f"rival {text!r:.60}; expected [METHOD=]BUNDLE[,BUNDLE...]")
    return [Rival(names, match[1].strip())] if match else [Rival((name,)) for name in names]


def rivals_below(folder: str | Path) -> tuple[list[Rival], list[str]]:
    """Return the rivals in a folder, and the names of what lies there and is no bundle.

    A bundle is FOLDER/NAME/, FOLDER/NAME/bundle/ (a run with its export) or FOLDER/NAME.zip. Names that differ in the
    rate alone, what follows the last "_" and holds a digit, are one method: paper_beta20 and paper_beta80 are "paper".
    Raises DataError for a folder that is not there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; expected one that holds bundles named <method>_<rate>")
    found: dict[str, list[Path]] = {}
    others = []
    for path in sorted(root.iterdir()):
        places = (path, path / "bundle") if path.is_dir() else (path,)
        bundle = next((one for one in places if (one / "manifest.json").is_file() or one.suffix == ".zip"), None)
        if bundle is None:
            others.append(path.name)
            continue
        stem = path.name.removesuffix(".zip")
        match = _RATE.fullmatch(stem)
        found.setdefault(match[1] if match else stem, []).append(bundle)
    return [Rival(tuple(bundles), method) for method, bundles in found.items()], others


def open_entrants(main: Bundle, rivals: Sequence[Rival], *, taken: Iterable[str]) -> list[Entrant]:
    """Return the main bundle and every rival's with both shores open, each graph on one thread.

    Raises SettingsError for a rival with another crop or other classes, for a method that is `taken` or comes twice,
    BundlePart for a bundle without decoder, head or tail; and as `Device` and `Edge`.
    """
    named: dict[str, list[Bundle]] = {}
    _check_whole(main)
    for rival in rivals:
        bundles = [one if isinstance(one, Bundle) else open_bundle(one) for one in rival.bundles]
        for bundle in bundles:
            _check_whole(bundle)
            _check_alike(bundle, main)
        method = bundles[0].manifest.name if rival.method is None else rival.method
        if method in {OURS, TEACHER, *taken, *named}:
            raise SettingsError(f"method {method!r} comes twice in this run; name the rival: --rival OTHER={method}")
        if len({one.ident for one in bundles}) < len(bundles):
            raise SettingsError(f"rival {method}: a bundle comes twice; expected one per rate, with names of their own")
        named[method] = bundles
    ours = [True, *(rival.ours for rival in rivals)]
    entrants = []
    for (method, bundles), own in zip({OURS: [main], **named}.items(), ours, strict=True):
        distinct = len({one.manifest.name for one in bundles}) == len(bundles)
        for bundle in bundles:
            name = bundle.manifest.name if distinct else bundle.ident
            prefix = f"{name} " if len(bundles) > 1 else ""
            shores = Device(bundle, threads=1), Edge(bundle, threads=1)
            entrants.append(Entrant(method, bundle, *shores, prefix=prefix, ours=own))
    return entrants


def costs(
    entrants: Sequence[Entrant],
    foreign: Mapping[str, EncoderCost],
    *,
    against_hevc: Mapping[str, float | None],
    teachers: Mapping[str, str],
) -> dict[str, EncoderCost]:
    """Return what each method's encoder costs on the device and cost to train, and whether it counts as trained.

    Of several bundles the largest encoder counts, and all their training, each run once where one began from another.
    `teachers` says how each method's network relates to ours. A rival counts as trained that says so
    ("levelled" in its report) or saves 40 % against HEVC, `against_hevc`; else it is undertrained. Ours is only said
    to be trained or not known to be.
    """
    groups: dict[str, list[Entrant]] = {}
    for one in entrants:
        groups.setdefault(one.method, []).append(one)
    found = {method: _cost(group, teacher=teachers.get(method)) for method, group in groups.items()} | dict(foreign)
    return {method: cost.judged(_verdict(cost, against_hevc.get(method))) for method, cost in found.items()}


def _verdict(cost: EncoderCost, percent: float | None) -> str:
    if cost.levelled or (percent is not None and percent <= SAVES):
        return TRAINED
    return UNKNOWN if cost.ours else UNDERTRAINED


def _cost(group: Sequence[Entrant], *, teacher: str | None) -> EncoderCost:
    encoders = [one.bundle.manifest.encoder for one in group]
    reports = [report_of(one.bundle.manifest.provenance) for one in group]
    parts = trainings([(one.bundle.manifest.name, report) for one, report in zip(group, reports, strict=True)])
    each = [_number(report.get("images_cumulative", report.get("images"))) for report in reports]
    return EncoderCost(
        macs=max(one["macs"] for one in encoders),
        parameters=max(one["parameters"] for one in encoders),
        bytes=max(one["bytes"] for one in encoders),
        images_seen=total(parts, "images"),
        images_each=None if None in each else max(one or 0 for one in each),
        seconds=total(parts, "seconds"),
        processor_seconds=total(parts, "processor_seconds"),
        device_seconds=held(parts),
        levelled=all(report.get("levelled") is True for report in reports),
        ours=group[0].ours,
        bundles=tuple(one.bundle.ident for one in group),
        teacher=teacher,
    )


def trainings(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Return what adds up to all the training of some runs, (name, report) each: their reports, and earlier runs'.

    What a run builds upon is told by name (a bundle's with its version). It often has the run's own name, or that of a
    later version of another one. So it is one of the others only if its pictures and seconds, with all that it builds
    upon itself, are that one's, too; else it is added, once for all that began from it. A `lineage` tells of every run
    below and of what each took by itself, an older report's `builds_on` of the nearest with all that is below them.
    """
    earlier: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for k, (_, report) in enumerate(runs):
        others = [(name, _whole(told)) for name, told in (*runs[:k], *runs[k + 1 :])]
        built_on = report.get("lineage", report.get("builds_on"))
        for one in built_on if isinstance(built_on, list) else ():
            if not isinstance(one, dict):
                continue
            known = str(one.get("recipe")).partition("@")[0], _whole(one)
            if known not in others and (known not in earlier or "images_cumulative" in one):
                earlier[known] = one
    return [*(report for _, report in runs), *earlier.values()]


def _whole(report: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Return pictures and seconds of a run and all that it builds upon, as a run that builds upon it tells them."""
    return tuple(_number(report.get(f"{key}_cumulative", report.get(key))) for key in _FIGURES)


def total(parts: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the sum of a number over `trainings`; None where one of them does not tell it."""
    values = [_number(one.get(key)) for one in parts]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def held(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return for how many seconds `trainings` held accelerators, by their names; empty where none tells of any."""
    found: dict[str, float] = {}
    for one in parts:
        told = one.get("device_seconds")
        for name, value in told.items() if isinstance(told, dict) else ():
            if (seconds := _number(value)) is not None:
                found[name] = found.get(name, 0.0) + seconds
    return found


def report_of(provenance: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what the run behind a bundle or a task said at its end; empty where nothing is told."""
    report = (provenance or {}).get("report")
    return report if isinstance(report, dict) else {}


def _number(value: object) -> float | None:
    right = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST
    return value if right else None  # type: ignore[return-value]  # `right` says that it is a number


def _check_whole(bundle: Bundle) -> None:
    for name in ("decoder.onnx", HEAD, TAIL):
        if not bundle.has(name):
            raise BundlePart(f"{bundle.ident}: a bundle without {name}; use one that holds it")


def _check_alike(bundle: Bundle, main: Bundle) -> None:
    theirs, ours = bundle.manifest, main.manifest
    if (theirs.crop, theirs.resize) != (ours.crop, ours.resize):
        raise SettingsError(
            f"rival {bundle.ident} takes crops of {theirs.crop} px out of {theirs.resize}, but {main.ident} "
            f"{ours.crop} out of {ours.resize}; compare bundles of one teacher"
        )
    if theirs.classes != ours.classes:
        raise SettingsError(
            f"rival {bundle.ident} knows {len(theirs.classes)} classes that are not the {len(ours.classes)} of "
            f"{main.ident}, or not in their order; compare bundles of one teacher"
        )
