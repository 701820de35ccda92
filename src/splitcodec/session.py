"""Beside stages 2, 6 and 7 of 7: opens an ONNX graph with pinned options. The only door to ONNX Runtime.

Only integers cross the coder, so graphs need not agree between machines; on one machine they should agree with
themselves. Hence deterministic kernels and one optimisation level; threads do not spin, for the device has other work.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from splitcodec.errors import GraphError, SettingsError


@final
class Graph:
    """An ONNX graph with one input, ready to run; safe to call from several threads.

    `model` holds the graph's bytes, `name` stands for it in messages, `threads=None` leaves their number to ONNX
    Runtime. Raises GraphError, SettingsError for fewer than one thread.
    """

    def __init__(self, model: bytes, *, name: str, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise SettingsError(f"{threads} threads, expected at least 1")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # fatal: what it refuses is raised, and said once
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self.name = name
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )  # without the fallback, which would try the same again and say so on stdout
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise GraphError(f"{name}: ONNX Runtime refuses the graph: {_one_line(error)}") from error
        try:
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
            names = [(one.name, tuple(one.shape), one.type) for one in (*inputs, *outputs)]
        except ValueError as error:
            raise GraphError(f"{name}: a name in it is no UTF-8; the bundle is wrong, export it again") from error
        if len(inputs) != 1:
            raise GraphError(f"{name}: the graph has {len(inputs)} inputs, expected 1")
        self.input_name: str = names[0][0]
        self.input_shape: tuple[int | str | None, ...] = names[0][1]
        self.input_type: str = names[0][2]
        self.output_names: tuple[str, ...] = tuple(output for output, _, _ in names[1:])

    @property
    def batches(self) -> bool:
        """Say whether the first axis of the input is dynamic, or nothing is said of its shape."""
        return not (self.input_shape and isinstance(self.input_shape[0], int))

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the graph's only output for `array`. Raises GraphError."""
        if len(self.output_names) != 1:
            raise GraphError(f"{self.name}: outputs {', '.join(self.output_names)}, expected one; ask for `outputs`")
        return self.outputs(array)[self.output_names[0]]

    def outputs(self, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return all outputs by name. Raises GraphError, for instance for another shape or dtype."""
        try:
            values = self._session.run(None, {self.input_name: array})
        except Exception as error:  # as above
            came = f"{array.dtype} {array.shape}"
            takes = f"{self.input_type} {list(self.input_shape)}"
            raise GraphError(f"{self.name}: {came} came, the graph takes {takes}: {_one_line(error)}") from error
        return {name: np.asarray(value) for name, value in zip(self.output_names, values, strict=True)}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
