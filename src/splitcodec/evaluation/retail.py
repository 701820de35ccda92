"""A bundle + another tail -> a bundle of other classes, for the same devices.

The tail reads what the decoder makes of a packet. Neither it nor the class names are part of the fingerprint, so the
packets of devices in the field are answered by the new bundle without anything changing on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import splitcodec
from splitcodec.edge.decoder import Decoder
from splitcodec.errors import BundlePart, GraphError, SettingsError
from splitcodec.evaluation.card import card_with
from splitcodec.evaluation.golden import remade
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle, derive, open_bundle, write_folder
from splitcodec.wire.durable import check_free
from splitcodec.wire.graphs import check_graph
from splitcodec.wire.task import file_name

TAIL = "tail_classify.onnx"
JOINT = "tail_classify"  # as a task's backbone
_MOST = 64 << 20  # bytes of a tail or of a list of names


def retail(
    bundle: str | Path | Bundle,
    *,
    tail: str | Path | bytes,
    classes: Sequence[str],
    name: str,
    version: int = 1,
    out: str | Path,
) -> Bundle:
    """Write the bundle with another tail and other classes as a new folder `out`. As `retailed`, and OutputError."""
    check_free(out)
    return write_folder(retailed(bundle, tail=tail, classes=classes, name=name, version=version), out)


def retailed(
    bundle: str | Path | Bundle,
    *,
    tail: str | Path | bytes,
    classes: Sequence[str],
    name: str,
    version: int = 1,
    note: Mapping[str, Any] | None = None,
) -> Bundle:
    """Return the bundle with the ONNX file `tail` in place of its own, and other classes; nothing is written.

    The tail takes the decoder's output, float32 (B, C', H', W'), and gives one logit per class, float32 (B, classes).
    Everything else is the old bundle's, the fingerprint too; golden vectors get the new answers. Tasks that took maps
    from the old tail take them from the new one where it gives the same, else the old one stays as their backbone.
    `note` (JSON values) goes into the provenance.

    Raises GraphError for a tail that does not fit decoder or classes, BundlePart for a device's half, SettingsError
    for a file that cannot be read, BundleFormat for a name or classes that no manifest takes, BundleUnsafe.
    """
    old = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if old.is_device_half:
        raise BundlePart(f"{old.ident}: the device's half of a bundle has no tail to replace; give the whole one")
    graph = tail if isinstance(tail, bytes) else _bytes(tail, what="a tail in ONNX")
    told = TAIL if isinstance(tail, bytes) else str(tail)
    check_graph(graph, name=told)
    opened, feature_bchw = Graph(graph, name=told), _feature_bchw(old)
    _check_tail(opened, feature_bchw, classes=len(classes))
    known = {key: value for key, value in old.manifest.provenance.items() if key != "wnids"}  # of the old classes
    told_of = {"from": old.ident, "classes": len(classes), "splitcodec": splitcodec.__version__, **(note or {})}
    manifest = replace(
        old.manifest,
        name=name,
        version=version,
        classes=tuple(classes),
        tasks=tuple(dict.fromkeys((*old.manifest.tasks, "classify"))),
        provenance={**known, "retailed": told_of},
    )
    files = {TAIL: graph, **({} if _gives_same_maps(old, opened, feature_bchw) else _backbones(old))}
    files |= card_with(
        old,
        f"This is {manifest.ident}: {old.ident} as described above, but with another tail, for {len(classes)} "
        "classes of a user. Scores and class names above are not its own.",
    )
    new = derive(old, manifest, files=files)
    return derive(new, new.manifest, files=remade(old, new))


def _gives_same_maps(bundle: Bundle, tail: Graph, feature_bchw: NDArray[np.float32]) -> bool:
    """Say whether a new tail gives tasks what the old one gave them: it differs in its last layer alone."""
    theirs = Graph(bundle.graph(JOINT), name=f"{bundle.ident}: {TAIL}").outputs(feature_bchw)
    ours = tail.outputs(feature_bchw)
    del theirs[next(iter(theirs))]  # the logits
    return all(
        name in ours
        and ours[name].shape == value.shape
        and np.allclose(ours[name], value, atol=1e-3 * float(np.abs(value).max(initial=0)))
        for name, value in theirs.items()
    )


def _backbones(bundle: Bundle) -> dict[str, bytes]:
    """Return the old classifier as the backbone of tasks that took their maps from it; nothing where none did."""
    files: dict[str, bytes] = {}
    for task in bundle.manifest.tasks:
        if task == "classify":
            continue
        spec = bundle.task(task)
        name = f"backbone_{task}" if bundle.has("backbone.onnx") else "backbone"
        ours = name if spec.backbone == JOINT else spec.backbone
        teachers = name if spec.teacher_backbone == JOINT else spec.teacher_backbone
        if JOINT in (spec.backbone, spec.teacher_backbone):
            files[f"{name}.onnx"] = bundle.read(TAIL)
            files[file_name(task)] = replace(spec, backbone=ours, teacher_backbone=teachers).to_json()
    return files


def read_classes(path: str | Path) -> list[str]:
    """Return the class names in a text file, one a line; empty lines do not count. Raises SettingsError."""
    try:
        lines = _bytes(path, what="class names").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 ({error.reason}); expected one class name a line") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise SettingsError(f"{path}: empty; expected one class name a line")
    return names


def _feature_bchw(bundle: Bundle) -> NDArray[np.float32]:
    """Return what the decoder gives for a crop of zeros."""
    side = max(1, bundle.manifest.crop // bundle.manifest.stride)
    return Decoder(bundle).feature_bchw(np.zeros((bundle.manifest.channels, side, side), np.int32), 0)


def _check_tail(tail: Graph, feature_bchw: NDArray[np.float32], *, classes: int) -> None:
    takes, shape = tail.input_shape, feature_bchw.shape
    fits = len(takes) == 4 and all(
        isinstance(side, str) or side in (None, n) for side, n in zip(takes, shape, strict=True)
    )
    if tail.input_type != "tensor(float)" or not fits:
        raise GraphError(
            f"{tail.name}: takes {tail.input_type} {list(takes)}; the decoder gives tensor(float) {list(shape)}, "
            "so make the tail for that"
        )
    logit_bn = tail.outputs(feature_bchw)[tail.output_names[0]]  # others are maps for tasks
    if logit_bn.ndim != 2 or logit_bn.dtype != np.float32 or logit_bn.shape != (1, classes):
        raise GraphError(
            f"{tail.name}: gives {logit_bn.dtype} {list(logit_bn.shape)} for one feature, expected float32 "
            f"{[1, classes]}, one logit for each of the {classes} names"
        )
    if not np.isfinite(logit_bn).all():
        raise GraphError(f"{tail.name}: gives logits that are not finite; export it again")


def _bytes(path: str | Path, *, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror or error}); expected {what}") from None
    if len(data) > _MOST:
        raise SettingsError(f"{path}: more than {_MOST >> 20} MiB; expected {what}")
    return data
