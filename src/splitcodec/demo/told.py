"""What a browser is told of a bundle, as JSON.   used by: demo/web.py   read by: static/encoder.js, contexts.js"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitcodec.demo.assets import MODULE, VERSION, WASM, Ort
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.edge.tail import TASKS
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.contexts import Contexts


def tasks_of(bundle: Bundle) -> tuple[str, ...]:
    """Return the tasks of a bundle that this version knows."""
    return tuple(task for task in bundle.manifest.tasks if task in TASKS)


def about(
    bundle: Bundle,
    *,
    ort: Ort | None,
    limits: Mapping[str, float],
    assets: Mapping[str, bytes],
    jpeg_tasks: tuple[str, ...],
) -> bytes:
    """Return what the page must know of the bundle, as JSON; `assets` are the files that it may ask for."""
    manifest = bundle.manifest
    told: dict[str, Any] = {
        "bundle": bundle.ident,
        "fingerprint": bundle.fingerprint.hex(),
        "resize": manifest.resize,
        "crop": manifest.crop,
        "levels": manifest.levels,
        "default_level": manifest.default_level,
        "tasks": tasks_of(bundle),
        "jpeg_tasks": jpeg_tasks,
        **{f"{name}_sha256": hashlib.sha256(data).hexdigest() if data else None for name, data in assets.items()},
        "ort": {"version": VERSION, "module": MODULE, "wasm": WASM} if ort else None,
        "limits": dict(limits),
        "photographs": [asdict(one) for one in PHOTOGRAPHS],
    }
    return json.dumps(told).encode()


def tables_of(bundle: Bundle) -> bytes:
    """Return table set 0 as JSON, in the form of tests/golden/packets.json: rows without padding, gains as binary32."""
    tables = bundle.tables[0]
    told = {
        "freq": [row[:size].tolist() for row, size in zip(tables.freq_ks, tables.size_k, strict=True)],
        "offset": tables.offset_k.tolist(),
        "table_of_lxc": tables.table_of_lxc.tolist(),
        "gain_lc": tables.gain_lc.astype(np.float64).tolist(),
    }
    return json.dumps(told, separators=(",", ":")).encode()


def contexts_of(contexts: Contexts) -> bytes:
    """Return the contexts as JSON for contexts.js: weights in base64, little-endian."""
    tables = contexts.rows()

    def packed(array: NDArray[Any], dtype: str) -> str:
        return base64.b64encode(array.astype(dtype).tobytes()).decode()

    told = {
        "levels": contexts.levels,
        "widths": contexts.widths,
        "hidden": contexts.into_lha.shape[1],
        "order": contexts.order_c.tolist(),
        "group": contexts.group_g.tolist(),
        "passes": contexts.passes_g.tolist(),
        "base": contexts.base_lkc.tolist(),
        "into": packed(contexts.into_lha, "|i1"),
        "into_bias": packed(contexts.into_bias_lsh, "<i4"),
        "out": packed(contexts.out_lkcht, "|i1"),
        "out_bias": packed(contexts.out_bias_lkc, "<i4"),
        "freq": [row[:size].tolist() for row, size in zip(tables.freq_ks, tables.size_k, strict=True)],
        "offset": tables.offset_k.tolist(),
    }
    return json.dumps(told, separators=(",", ":")).encode()
