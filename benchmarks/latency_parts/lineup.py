"""Who takes part, each at its operating point; and who does not, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latency_parts.choose import Rates
from latency_parts.cores import Cores
from latency_parts.strategies import Strategy, image_codec, on_device, packets
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.edge.tail import TASKS
from splitcodec.errors import DataError, MissingExtra, SettingsError
from splitcodec.evaluation.codecs import CODECS
from splitcodec.evaluation.rivals import Rival, rivals_below
from splitcodec.wire.bundle import Bundle, open_bundle

LeftOut = list[tuple[str, str]]
RIVALS = ("paper", "reduced")  # the paper's student, and channel reduction with quantised numbers (CR+BQ)


def lineup(
    bundles: Sequence[Bundle],
    rates: Rates,
    *,
    codecs: Sequence[str],
    rivals: Path,
    within: float,
    top: int,
    cores: Cores,
) -> tuple[list[Strategy], LeftOut]:
    """Return the strategies, ours last, and what is left out and why.

    The first bundle's teacher is the network on the device, and at the edge behind image codecs. Raises SettingsError
    for a codec that is not known, DataError where the first bundle is not in rd.json.
    """
    left_out: LeftOut = []
    main = bundles[0]
    ours = [
        one
        for bundle in bundles
        for one in _ours(bundle, rates, within=within, top=top, cores=cores, left_out=left_out)
    ]
    if not any(one.bundle == main.ident for one in ours):
        raise DataError(f"{rates.path} has no point of {main.ident}; measure it first with benchmarks/rate_accuracy.py")
    found = [on_device(main, ("classify",), top=top, cores=cores)]
    tasks = [task for task in TASKS if task in main.manifest.tasks]
    teachers = [task for task in tasks if task == "classify" or main.has(f"teacher_{task}.onnx")]
    if len(teachers) > 1:
        found.append(on_device(main, teachers, top=top, cores=cores))
    else:
        left_out.append(("several tasks on the device", f"{main.ident} has networks for {', '.join(teachers)} alone"))
    found += _codecs(codecs, main, rates, within=within, top=top, cores=cores, left_out=left_out)
    found += _rivals(rivals, rates, within=within, top=top, cores=cores, left_out=left_out)
    return [*found, *ours], left_out


def _codecs(
    names: Sequence[str], main: Bundle, rates: Rates, *, within: float, top: int, cores: Cores, left_out: LeftOut
) -> list[Strategy]:
    known = {codec.name: codec for codec in CODECS}
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(f"codec {unknown[0]!r:.40}; expected some of {', '.join(known)}")
    with cores.on(cores.device):
        device = Device(main, threads=1)
    with cores.on(cores.edge):
        edge = Edge(main, threads=len(cores.edge))
    found = []
    for name in names:
        choice = rates.choose(name, within=within)
        if choice is None:
            left_out.append((name, f"no point in {rates.path.name}"))
            continue
        try:
            known[name].require()
        except (MissingExtra, SettingsError) as error:
            left_out.append((name, str(error)))
            continue
        found.append(image_codec(known[name], choice, top=top, device=device, edge=edge))
    return found


def _rivals(folder: Path, rates: Rates, *, within: float, top: int, cores: Cores, left_out: LeftOut) -> list[Strategy]:
    below = rivals_below(folder)[0] if folder.is_dir() else []
    there = {rival.method: rival for rival in below if rival.method}
    found = []
    for method in dict.fromkeys([*RIVALS, *there]):
        choice = rates.choose(method, within=within)
        if choice is None:
            left_out.append((method, f"no point in {rates.path.name}"))
        elif method not in there:
            left_out.append((method, "no bundle of it among the rivals here"))
        else:
            here = _measured(there[method], rates.idents_of(method))
            if choice.level[0] not in here:
                best = rates.choose(method, within=within, names=here)
                stands_in = "" if best is None else f"; of those that are, {best.setting!r} stands in"
                left_out.append((method, f"its bundle of {choice.setting!r} is not among the rivals here{stands_in}"))
                choice = best
            if choice is not None:
                found += packets(here[choice.level[0]], choice, kind="rival", name=method, top=top, cores=cores)
    return found


def _measured(rival: Rival, idents: Sequence[str]) -> dict[str | None, Bundle]:
    """Return a rival's bundles that were measured, by what settings may call them: a name, name@version, or nothing."""
    opened = [one if isinstance(one, Bundle) else open_bundle(one) for one in rival.bundles]
    known = [one for one in opened if one.ident in idents]
    named: dict[str | None, Bundle] = {word: one for one in known for word in (one.ident, one.manifest.name)}
    return named | ({None: known[0]} if len(opened) == len(known) == 1 else {})


def _ours(bundle: Bundle, rates: Rates, *, within: float, top: int, cores: Cores, left_out: LeftOut) -> list[Strategy]:
    method = rates.method_of(bundle.ident)
    choice = None if method is None else rates.choose(method, within=within)
    if choice is None:
        left_out.append((bundle.ident, f"no point in {rates.path.name}"))
        return []
    found = packets(bundle, choice, kind="ours", name=bundle.manifest.name, top=top, cores=cores)
    tasks = [task for task in TASKS if task in bundle.manifest.tasks]
    if len(tasks) > 1:
        found += packets(bundle, choice, kind="ours", name=bundle.manifest.name, top=top, cores=cores, tasks=tasks)
    return found
