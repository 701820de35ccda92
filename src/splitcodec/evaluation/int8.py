"""A bundle + an INT8 graph -> the same bundle with `encoder.int8.onnx`, and golden vectors for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import splitcodec
from splitcodec.device.encoder import FILES, Encoder
from splitcodec.evaluation.card import card_with
from splitcodec.evaluation.golden import FILE, FILE_INT8, int8_golden
from splitcodec.wire.bundle import Bundle, derive


def with_int8(bundle: Bundle, graph: bytes, *, note: Mapping[str, Any]) -> Bundle:
    """Return the bundle with an INT8 encoder beside its own; nothing is written. An older one is replaced.

    `note` goes into the manifest's provenance. Name, version, fingerprint and all other files stay. Raises GraphError
    for a graph that does not give what the bundle's encoder gives, BundleUnsafe, and BundlePart for a device's half.
    """
    provenance = {**bundle.manifest.provenance, "int8": {**note, "splitcodec": splitcodec.__version__}}
    files = {FILES["int8"]: graph}
    if not bundle.has(FILES["int8"]):
        files |= card_with(
            bundle,
            f"`encoder.int8.onnx` is the same encoder in INT8 (`splitcodec quantise`, {note.get('photographs')} "
            "photographs). Which of the two made a packet does not matter to the edge.",
        )
    new = derive(bundle, replace(bundle.manifest, provenance=provenance), files=files)
    Encoder(new, precision="int8", threads=1)  # opens it, as a check
    return derive(new, new.manifest, files={FILE_INT8: int8_golden(new)}) if new.has(FILE) else new
