"""Beside stages 2, 6 and 7 of 7: opens an ONNX graph with pinned options. The only door to ONNX Runtime.

Only integers cross the coder, so graphs need not agree between machines; on one machine they should agree with
themselves. Hence deterministic kernels and one optimisation level; threads do not spin, for the device has other work.
What computes is the processor, or what SPLITCODEC_PROVIDERS names: a GPU, say, where ONNX Runtime is built for it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from splitcodec.errors import GraphError, SettingsError, one_line

MOST_THREADS = 1024
PROVIDERS: Final = "SPLITCODEC_PROVIDERS"
CPU: Final = "cpu"
_ENDING: Final = "ExecutionProvider"
_HOW: Final = "see docs/device.md"
# It turns a convolution that was left in fp32 between quantised ones into 8 bits, with one scale for all its channels.
_DISABLED = ("WeightBiasQuantization",)


@final
class Graph:
    """An ONNX graph with one input, ready to run; safe to call from several threads.

    `model` holds the graph's bytes, `name` stands for it in messages, `threads=None` leaves their number to ONNX
    Runtime. Raises GraphError, SettingsError for fewer than one thread or more than 1024, and as `providers`.
    """

    def __init__(self, model: bytes, *, name: str, threads: int | None = None) -> None:
        self.name = name
        self._session = _open(model, name=name, threads=threads)
        inputs, outputs = _ends(self._session, graph=name)
        if len(inputs) != 1:
            raise GraphError(f"{name}: the graph has {len(inputs)} inputs, expected 1")
        self.input_name: str = inputs[0].name
        self.input_shape: tuple[int | str | None, ...] = inputs[0].shape
        self.input_type: str = inputs[0].type
        self.output_names: tuple[str, ...] = tuple(output.name for output in outputs)

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
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            came = f"{array.dtype} {array.shape}"
            takes = f"{self.input_type} {list(self.input_shape)}"
            raise GraphError(
                f"{self.name}: {came} came, the graph takes {takes}: {one_line(error, most=300)}"
            ) from error
        return _arrays(self.output_names, values, graph=self.name)


@final
class JointGraph:
    """An ONNX graph with several inputs, told apart by name; otherwise as `Graph`."""

    def __init__(self, model: bytes, *, name: str, threads: int | None = None) -> None:
        self.name = name
        self._session = _open(model, name=name, threads=threads)
        inputs, outputs = _ends(self._session, graph=name)
        self.input_names: tuple[str, ...] = tuple(one.name for one in inputs)
        self.output_names: tuple[str, ...] = tuple(output.name for output in outputs)

    def outputs(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return all outputs by name. Raises GraphError, for instance for an input that is missing."""
        try:
            values = self._session.run(None, dict(arrays))
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            came = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
            takes = ", ".join(self.input_names)
            raise GraphError(
                f"{self.name}: {came} came, the graph takes {takes}: {one_line(error, most=300)}"
            ) from error
        return _arrays(self.output_names, values, graph=self.name)


class _End(NamedTuple):
    """An input or output of a graph."""

    name: str
    shape: tuple[int | str | None, ...]
    type: str


def _ends(session: Any, *, graph: str) -> tuple[list[_End], list[_End]]:
    """Return inputs and outputs. Raises GraphError for names that are no UTF-8, which cannot even be asked for."""
    try:
        inputs, outputs = (
            [_End(one.name, tuple(one.shape), one.type) for one in ends]
            for ends in (session.get_inputs(), session.get_outputs())
        )
    except ValueError as error:
        raise GraphError(f"{graph}: a name in it is no UTF-8; the bundle is wrong, export it again") from error
    return inputs, outputs


def _arrays(names: Sequence[str], values: Sequence[Any], *, graph: str) -> dict[str, NDArray[Any]]:
    """Return outputs by name. Raises GraphError for texts, sequences and whatever else is no array of numbers."""
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise GraphError(f"{graph}: {name[:80]} is no tensor of numbers; the bundle is wrong, export it again")
    return dict(zip(names, values, strict=True))


def _open(model: bytes, *, name: str, threads: int | None) -> Any:
    if threads is not None and not _is_count(threads):
        raise SettingsError(f"{threads!r:.40} threads, expected at least 1 and at most {MOST_THREADS}")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # fatal: what it refuses is raised, and said once
    options.enable_mem_pattern = (
        False  # it keeps a plan for every shape of input: 70 MB after 361 of them, no time saved
    )
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    wanted = {one: _available()[one] for one in providers()}
    chosen = [
        (full, {"num_of_threads": str(threads)} if one == "openvino" and threads else {})
        for one, full in wanted.items()
    ]
    try:
        # without the fallback, which would try the same again and say so on stdout
        session = onnxruntime.InferenceSession(
            model, options, providers=chosen, disabled_optimizers=list(_DISABLED), enable_fallback=0
        )
        started = session.get_providers()
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        where = "" if list(wanted) == [CPU] else f" on {', '.join(wanted)} (try without {PROVIDERS})"
        raise GraphError(f"{name}: ONNX Runtime refuses the graph{where}: {one_line(error, most=300)}") from error
    if absent := [one for one, full in wanted.items() if full not in started]:  # of which it says so, and goes on
        raise SettingsError(
            f"{PROVIDERS}: {absent[0]} does not start, its libraries or device are missing; leave it out, or {_HOW}"
        )
    return session


def providers() -> tuple[str, ...]:
    """Return the execution providers that graphs run on: what SPLITCODEC_PROVIDERS names, first choice first, and cpu.

    Names are ONNX Runtime's without their ending: cuda, tensorrt, openvino, coreml ... What one cannot compute the next
    does. Raises SettingsError for one that this build of ONNX Runtime does not have.
    """
    named = os.environ.get(PROVIDERS, "").replace(",", " ").lower().split()
    wanted = [one.removesuffix(_ENDING.lower()) for one in named]
    for one in wanted:
        if one not in _available():
            has = ", ".join(sorted(_available()))
            raise SettingsError(f"{PROVIDERS}: {one!r:.40} is none of what this ONNX Runtime runs on ({has}); {_HOW}")
    return tuple(dict.fromkeys((*wanted, CPU)))


def other_providers() -> str:
    """Return what graphs run on beside the processor, such as "cuda"; "" for the processor alone. Raises likewise."""
    return ", ".join(one for one in providers() if one != CPU)


def _available() -> dict[str, str]:
    """Return ONNX Runtime's full names by what we call them; Azure's, which sends its input away, is left out."""
    full = onnxruntime.get_available_providers()
    return {one.removesuffix(_ENDING).lower(): one for one in full if one != f"Azure{_ENDING}"}


def _is_count(threads: object) -> bool:
    whole = isinstance(threads, int | np.integer) and not isinstance(threads, bool)
    return whole and 1 <= threads <= MOST_THREADS  # type: ignore[operator]


def runtime_version() -> str:
    """Return the version of ONNX Runtime, and what it runs on if not the processor alone: "1.32.0 (cuda)"."""
    others = other_providers()
    return f"{onnxruntime.__version__} ({others})" if others else str(onnxruntime.__version__)


_INSTRUCTIONS: Final = {
    "AVX-512": {"avx512f"},
    "AVX2": {"avx2"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "dotprod": {"asimddp"},
}


def processor() -> str:
    """Return what this machine calls its processor (boards that do not say: the board), and what it can do.

    Virtual processors of one name may differ several times in 8 bits: "AMD EPYC (AVX-512, VNNI)", "AMD EPYC (AVX2)".
    """
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), " ".join(value.split()))
    except OSError:
        pass
    name = found.get("model name") or found.get("Model") or platform.processor() or platform.machine()
    flags = set((found.get("flags") or found.get("Features") or "").split())
    told = [word for word, needed in _INSTRUCTIONS.items() if needed & flags]
    told = [word for word in told if word != "AVX2" or "AVX-512" not in told]
    return f"{name} ({', '.join(told)})" if told else name
