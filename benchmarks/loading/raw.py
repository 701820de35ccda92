"""Raw ONNX Runtime: decoder and tail of a bundle one after the other, nothing around them.   used by: load.py"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from splitcodec.wire.bundle import Bundle

BATCHES = (1, 2, 4, 8, 16, 32)


class Raw:
    """The two graphs under some thread counts and both option sets; rounds add up, so that they can be spread in time.

    "defaults" are ONNX Runtime's own options, "house" those of `splitcodec.session`.
    """

    def __init__(self, bundle: Bundle, latents: list[NDArray[np.float32]], *, threads: tuple[int, ...]) -> None:
        self._latents = latents
        self._pairs = {
            (kind, count): [
                onnxruntime.InferenceSession(bundle.graph(part), _options(kind, count), ["CPUExecutionProvider"])
                for part in ("decoder", "tail_classify")
            ]
            for kind, count in itertools.product(("defaults", "house"), threads)
        }
        self._spent: dict[tuple[str, int, int], list[float]] = {}

    def round(self, *, seconds: float) -> None:
        """Run every setting once more, each for about `seconds`."""
        for (kind, count), (decoder, tail) in self._pairs.items():
            for batch in BATCHES:
                feed = itertools.cycle(range(len(self._latents)))
                inputs = [np.stack([self._latents[next(feed)] for _ in range(batch)]) for _ in range(8)]
                _once(decoder, tail, inputs[0])
                spent = self._spent.setdefault((kind, count, batch), [0, 0.0, 0.0])
                begin, cpu, turn = time.perf_counter(), time.process_time(), 0
                while time.perf_counter() - begin < seconds:
                    _once(decoder, tail, inputs[turn % 8])
                    turn += 1
                spent[0] += turn * batch
                spent[1] += time.perf_counter() - begin
                spent[2] += time.process_time() - cpu

    def rows(self) -> list[dict[str, Any]]:
        """Return pictures per second of wall and of processor time, for each setting."""
        return [
            {
                "options": kind,
                "threads": count,
                "batch": batch,
                "pictures": int(pictures),
                "per_s": round(pictures / wall, 2),
                "per_cpu_s": round(pictures / cpu, 2),
                "cpu_over_wall": round(cpu / wall, 3),
            }
            for (kind, count, batch), (pictures, wall, cpu) in self._spent.items()
        ]


def _once(decoder: Any, tail: Any, latent_bchw: NDArray[np.float32]) -> None:
    (feature_bchw,) = decoder.run(None, {decoder.get_inputs()[0].name: latent_bchw})
    tail.run([tail.get_outputs()[0].name], {tail.get_inputs()[0].name: feature_bchw})


def _options(kind: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if kind == "house":
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
