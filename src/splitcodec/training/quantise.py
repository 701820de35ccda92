"""A bundle + photographs -> an INT8 twin of its encoder: static QDQ, per-channel weights, calibrated activations.

What is quantised are the convolutions and sums behind which a network goes on. Those that give the latent itself keep
float outputs: its channels differ in scale by orders of magnitude, and one 8-bit scale for all would silence most of
them. Weights are signed, activations unsigned: what comes out of a ReLU has no sign to spend a bit on.

The graph is for `encoder.int8.onnx`; who measures and writes is evaluation/agreement.py and the command `quantise`.
Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from splitcodec.errors import DataError, GraphError, one_line
from splitcodec.session import Graph
from splitcodec.training.int8_graph import ACTIVATIONS, View, aligned, copied, equalised, window
from splitcodec.training.int8_pixels import on_pixels
from splitcodec.training.rounding import LARGEST, Moments, rounded_for_all
from splitcodec.wire.tables import Tables

CALIBRATORS: Final = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
_TYPES = ("Conv", "Add")
_PERCENTILE = 99.999


@final
@dataclass(frozen=True, slots=True)
class Quantised:
    """An INT8 graph, how its ranges were found, which nodes stayed float, and how far its symbols are off.

    `error` is the mean squared difference from the fp32 encoder's scaled latent at the level that was asked for, where
    rounding alone costs 1/12; `tried` has it for every calibrator.
    """

    graph: bytes
    calibrator: str
    kept_float: tuple[str, ...]
    error: float
    tried: dict[str, float]


def quantise_encoder(
    graph: bytes,
    crops: Sequence[NDArray[np.uint8]],
    *,
    tables: Tables,
    level: int,
    keep_float: int = 0,
) -> Quantised:
    """Return the INT8 twin of `encoder.onnx`, calibrated on crops, each uint8 (1, H, W, 3).

    The calibrator is the one with the smaller error at `level`, on a quarter of the crops that it has not seen.
    `keep_float` further convolutions stay float, those that hurt most. Raises DataError for fewer than 4 crops,
    GraphError for a graph that cannot be quantised.
    """
    if len(crops) < 4:
        raise DataError(f"{len(crops)} photographs that can be read; expected at least 4, better 100 or more")
    shown, seen = crops[: len(crops) // 4], crops[len(crops) // 4 :]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        work = _Work(Path(folder), graph, seen, shown, tables.gain_lc[level])
        tried = {name: work.error(work.quantised(name)) for name in CALIBRATORS}
        best = min(tried, key=lambda name: tried[name])
        worst = work.most_sensitive(best, keep_float)
        int8 = work.quantised(best, kept=worst)
        return Quantised(int8, best, worst, work.error(int8), tried)


@final
class _Crops(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Crops as the calibrator asks for them."""

    def __init__(self, crops: Sequence[NDArray[np.uint8]], *, name: str) -> None:
        self._left: Iterator[dict[str, NDArray[np.uint8]]] = iter([{name: crop} for crop in crops])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next crop, or None."""
        return next(self._left, None)


@final
class _Work:
    """One encoder, made ready in a folder, to be quantised in several ways."""

    def __init__(
        self,
        folder: Path,
        graph: bytes,
        seen: Sequence[NDArray[np.uint8]],
        shown: Sequence[NDArray[np.uint8]],
        gain_c: NDArray[np.float32],
    ) -> None:
        self._folder, self._seen, self._shown, self._gain_c11 = folder, seen, shown, gain_c[:, None, None]
        (folder / "fp32.onnx").write_bytes(graph)
        try:
            quant_pre_process(folder / "fp32.onnx", folder / "ready.onnx", skip_symbolic_shape=True)
            model = onnx.load(folder / "ready.onnx")
            for number, node in enumerate(model.graph.node):
                node.name = node.name or f"node_{number}"
            self._model = aligned(equalised(model, partial(_largest, model, seen)))
            onnx.save(self._model, folder / "ready.onnx")
        except Exception as error:  # ONNX Runtime raises nearly anything
            raise GraphError(
                f"encoder.onnx cannot be made ready for quantising: {one_line(error, most=300)}"
            ) from error
        self._nodes = [node for node in self._model.graph.node if node.op_type in _TYPES]
        self._latent = _giving(self._model, {output.name for output in self._model.graph.output})
        if not {node.name for node in self._nodes if node.op_type == "Conv"} - self._latent:
            raise GraphError("encoder.onnx has no convolution but the last, which stays float: nothing to quantise")
        self._wanted = [Graph(graph, name="encoder.onnx", threads=1)(crop) for crop in shown]

    def quantised(self, calibrator: str, *, kept: Sequence[str] = ()) -> bytes:
        return self._made(calibrator, without={*kept, *self._latent, *self._pixels()})

    def error(self, graph: bytes) -> float:
        """Return the mean squared error of the scaled latent on the crops that were not calibrated on."""
        int8 = Graph(graph, name="encoder.int8.onnx", threads=1)
        pairs = zip(self._shown, self._wanted, strict=True)
        return float(np.mean([np.square((int8(crop) - want) * self._gain_c11).mean() for crop, want in pairs]))

    def most_sensitive(self, calibrator: str, number: int) -> tuple[str, ...]:
        """Return the convolutions whose quantising alone makes the largest error, worst first."""
        if number < 1:
            return ()
        others = {node.name for node in self._nodes}
        names = [node.name for node in self._nodes if node.op_type == "Conv" and node.name not in self._latent]
        alone = {name: self.error(self._made(calibrator, without=others - {name})) for name in names}
        return tuple(sorted(names, key=lambda name: -alone[name])[:number])

    def _made(self, calibrator: str, *, without: set[str]) -> bytes:
        out = self._folder / "int8.onnx"
        try:
            quantize_static(
                self._folder / "ready.onnx",
                out,
                _Crops(self._seen, name=self._model.graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*_TYPES, *ACTIVATIONS],  # or a convolution's range is that before its clip
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted(without),
                calibrate_method=CALIBRATORS[calibrator],
                extra_options={"CalibPercentile": _PERCENTILE} if calibrator == "percentile" else {},
                **self._cache(calibrator),
            )
            model = self._corrected(on_pixels(self._rounded(onnx.load(out))))
        except Exception as error:  # as above
            raise GraphError(f"encoder.onnx cannot be quantised: {one_line(error, most=300)}") from error
        return _slim(model)

    def _rounded(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Round the weights of quantised convolutions anew, by what these see, for processors of every kind."""
        view = View(model)
        for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
            if (quantised := view.quantised(conv)) is not None and conv.name in self._moments:
                weight_oikk, moment_gkk = self._moments[conv.name]
                most = int(np.abs(quantised.weight_oikk).max())
                view.requantise(conv, *rounded_for_all(weight_oikk, quantised.scale_o, moment_gkk, most=most))
        return model

    @cached_property
    def _moments(self) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float64] | None]]:
        """Return the weight of convolutions by name; of all but large ones the second moments of what they see too."""
        view = View(self._model)
        weights = {node.name: view.weights(node) for node in self._nodes if node.op_type == "Conv"}
        whole = {name: found.weight_oikk for name, found in weights.items() if found is not None}
        small = [node for node in self._nodes if node.name in whole and whole[node.name][0].size <= LARGEST]
        found = {node.name: Moments(window(node, whole[node.name]), seed=k) for k, node in enumerate(small)}
        names = [str(node.input[0]) for node in small]
        for values in _values(self._model, self._seen, names):
            for moments, name in zip(found.values(), names, strict=True):
                moments.add(values[name])
        return {name: (weight, found[name].mean() if name in found else None) for name, weight in whole.items()}

    def _cache(self, calibrator: str) -> dict[str, Any]:
        """Return where ranges are kept, so that one calibration serves all choices of nodes; older releases do not."""
        known = "calibration_cache_path" in inspect.signature(quantize_static).parameters
        return {"calibration_cache_path": self._folder / f"{calibrator}.cache"} if known else {}

    def _corrected(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Take the mean error of every latent channel off the bias of a convolution that gives the latent."""
        int8 = Graph(model.SerializeToString(), name="encoder.int8.onnx", threads=1)
        fp32 = Graph((self._folder / "ready.onnx").read_bytes(), name="encoder.onnx", threads=1)
        off_c = np.mean([(int8(crop) - fp32(crop)).mean(axis=(0, 2, 3)) for crop in self._seen], axis=0)
        node = next(one for one in model.graph.node if one.op_type == "Conv" and one.name in self._latent)
        bias = next((one for one in model.graph.initializer if len(node.input) > 2 and one.name == node.input[2]), None)
        bias_c = np.zeros_like(off_c, np.float32) if bias is None else numpy_helper.to_array(bias)
        name = f"{node.name}_corrected_bias"
        model.graph.initializer.append(numpy_helper.from_array((bias_c - off_c).astype(np.float32), name))
        node.input[2:] = [name]
        return model

    def _pixels(self) -> set[str]:
        """Return sums before the first convolution: colour scaling, which one 8-bit scale would only blur."""
        names = []
        for node in self._nodes:
            if node.op_type == "Conv":
                break
            names.append(node.name)
        return set(names)


def _largest(
    model: onnx.ModelProto, crops: Sequence[NDArray[np.uint8]], names: Sequence[str]
) -> list[NDArray[np.float32]]:
    """Return the largest number in each channel of some values over crops."""
    found = [np.zeros(0, np.float32)] * len(names)
    for values in _values(model, crops, names):
        tops = [values[name].max(axis=(0, 2, 3)) for name in names]
        found = [np.maximum(old, top) if old.size else top for old, top in zip(found, tops, strict=True)]
    return found


def _values(
    model: onnx.ModelProto, crops: Sequence[NDArray[np.uint8]], names: Sequence[str]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield, for each crop, what a model computes on its way, by name."""
    opened = copied(model)
    del opened.graph.output[:]
    once = dict.fromkeys(names)
    opened.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in once)
    graph = Graph(opened.SerializeToString(), name="encoder.onnx", threads=1)
    for crop in crops:
        yield graph.outputs(crop)


def _giving(model: onnx.ModelProto, wanted: set[str]) -> set[str]:
    """Return the nodes that give these values linearly: back to, and with, the last convolution of every path."""
    names: set[str] = set()
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            names.add(node.name)
            if node.op_type in ("Add", "Identity", "Slice", "Pad"):
                wanted = wanted | set(node.input)
    return names


def _slim(model: onnx.ModelProto) -> bytes:
    """Drop what tells of the machine that made it."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    used = {name for node in model.graph.node for name in node.input}
    for one in [one for one in model.graph.initializer if one.name not in used]:
        model.graph.initializer.remove(one)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's prints and advice to itself."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
