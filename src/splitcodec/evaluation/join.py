"""Two bundles with one decoder -> the device's half of one and the edge's half of the other, tasks included.

An encoder that learned beside a decoder that stayed what it was (`tune: encoder`) is exported with that decoder, whose
weights were rounded once more. With the original in its place a zoo keeps one copy, and heads of tasks come with it.
One that learned a decoder of its own keeps it; heads of tasks look at the teacher's feature, whoever decoded it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitcodec.edge.decoder import Decoder
from splitcodec.errors import BundlePart, SettingsError
from splitcodec.evaluation.card import card_with
from splitcodec.evaluation.golden import remade
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle, derive, device_half, renamed, write_folder
from splitcodec.wire.durable import check_free

CLOSE = 1e-3
"""Largest relative squared difference between what both decoders make of the same latents."""
_ALIKE = ("colour", "stride", "resize", "crop", "channels", "classes")


def join(
    device: Bundle,
    edge: Bundle,
    out: str | Path,
    *,
    keep_decoder: bool = False,
    name: str | None = None,
    version: int | None = None,
) -> Bundle:
    """Write `device` with the decoder, head, tails and tasks of `edge` as a new folder `out`; the fingerprint stays.

    `keep_decoder`: with its own decoder; the teachers must be the same, cut alike. `name` and `version` are the new
    bundle's (none: those of `device`). Raises BundleFormat for others than a manifest takes, BundlePart for a device's
    half, SettingsError where crops, channels or classes differ, where `device` has tasks that `edge` lacks or where the
    decoders, or else the teachers' heads, differ, OutputError.
    """
    check_free(out)
    apart = _checked(device, edge, keep_decoder=keep_decoder)
    ours, theirs = device.manifest, edge.manifest
    kept = {name for name in device_half(edge).manifest.files if not name.startswith("task_")}
    kept |= {"decoder.onnx"} if keep_decoder else set()
    files = {name: edge.read(name) for name in theirs.files if name not in kept}
    manifest = replace(
        ours,
        tasks=theirs.tasks,
        max_symbols=min(ours.max_symbols, theirs.max_symbols),
        max_side=min(ours.max_side, theirs.max_side),
        provenance={
            **ours.provenance,
            "joined": {"edge": edge.ident, f"{'heads' if keep_decoder else 'decoders'}_apart": float(f"{apart:.2g}")},
        },
    )
    told = f"Decoder, head, tails and tasks are those of `{edge.ident}`, which this encoder learned beside."
    files |= card_with(device, f"Head, tails and tasks are those of `{edge.ident}`." if keep_decoder else told)
    new = renamed(derive(device, manifest, files=files), name, version)
    return write_folder(derive(new, new.manifest, files=remade(device, new)), out)


def _checked(device: Bundle, edge: Bundle, *, keep_decoder: bool) -> float:
    """Return how far decoders or heads are apart, of two bundles that may be joined."""
    ours, theirs = device.manifest, edge.manifest
    if device.is_device_half or edge.is_device_half:
        half = device if device.is_device_half else edge
        raise BundlePart(f"{half.ident}: the device's half of a bundle; give the whole one")
    differ = [name for name in _ALIKE if getattr(ours, name) != getattr(theirs, name)]
    if differ:
        raise SettingsError(f"{device.ident} and {edge.ident} differ in {', '.join(differ)}; both must be made alike")
    if lost := set(ours.tasks) - set(theirs.tasks):
        raise SettingsError(
            f"{edge.ident} does not {', '.join(sorted(lost))}, as {device.ident} does; its tasks would go"
        )
    own = [task for task in theirs.tasks if task != "classify" and edge.task(task).decoder != "decoder"]
    if own and keep_decoder:
        raise SettingsError(
            f"{', '.join(own)} of {edge.ident} has a decoder of its own, which reads that bundle's latent alone; "
            f"train the task for {device.ident} (lead: {edge.ident})"
        )
    apart = _heads_apart(device, edge) if keep_decoder else _apart(device, edge)
    if apart > CLOSE:
        what, wanted = "decoders", "the encoder must have learned beside that decoder (lead, tune: encoder)"
        if keep_decoder:
            what, wanted = "heads", "both bundles must have one teacher, cut alike"
        raise SettingsError(
            f"the {what} of {device.ident} and {edge.ident} differ by {apart:.2g} of the variance of what they give, "
            f"at most {CLOSE:g}; {wanted}"
        )
    return apart


def _apart(device: Bundle, edge: Bundle) -> float:
    """Return the squared difference of what both decoders make of random symbols, relative to its variance."""
    random, manifest = np.random.default_rng(0), device.manifest
    side = manifest.crop // manifest.stride
    symbols_chw: NDArray[np.int32] = random.integers(-2, 3, (manifest.channels, side, side), dtype=np.int32)
    latent_bchw = device.tables[0].dequantise(symbols_chw, manifest.levels // 2)[None]
    return _difference(*(Decoder(one).features_bchw(latent_bchw) for one in (device, edge)))


def _heads_apart(device: Bundle, edge: Bundle) -> float:
    """Return the squared difference of the heads' features of random pixels, relative to its variance."""
    side = device.manifest.crop
    image_bhwc = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    graphs = (Graph(one.graph("head"), name=f"{one.ident}: head.onnx") for one in (device, edge))
    return _difference(*(graph(image_bhwc) for graph in graphs))


def _difference(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.square(ours - theirs).mean() / max(theirs.var(), 1e-12))
