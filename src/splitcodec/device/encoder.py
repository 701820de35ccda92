"""Stage 2 of 7: uint8 picture -> latent.   before: device/placed.py   after: wire/tables.py

The graph takes 8-bit pixels and scales colours itself, so nothing about colour can differ between training and device.
Its output is float and never leaves the device: gain and rounding (wire/tables.py) turn it into symbols.
"""

from __future__ import annotations

from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import BundlePart, GraphError, SettingsError
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle

Precision = Literal["fp32", "int8"]

FILES: Final[dict[Precision, str]] = {"fp32": "encoder.onnx", "int8": "encoder.int8.onnx"}


@final
class Encoder:
    """The bundle's `encoder.onnx` or `encoder.int8.onnx`, opened; safe to share between threads.

    Raises BundlePart, BundleHash or BundleUnsafe for the file, GraphError if it does not open, SettingsError for
    another `precision` than "fp32" or "int8".
    """

    def __init__(self, bundle: Bundle, *, precision: Precision = "fp32", threads: int | None = None) -> None:
        file = FILES.get(precision)
        if file is None:
            raise SettingsError(f"encoder {precision!r}; expected {' or '.join(FILES)}")
        if precision != "fp32" and not bundle.has(file):
            raise BundlePart(f"{bundle.ident} holds no {file}; make one with `splitcodec quantise`, or use fp32")
        self._graph = Graph(bundle.read(file), name=f"{bundle.ident}: {file}", threads=threads)
        self._stride = bundle.manifest.stride
        self._channels = bundle.manifest.channels

    def latent_chw(self, image_bhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the latent of one picture, uint8 (1, H, W, 3) -> float32 (C, H / stride, W / stride), before gain.

        Convolutions without padding may lose or gain a row and a column.
        """
        if len(image_bhwc) != 1:
            raise GraphError(f"{len(image_bhwc)} pictures; expected 1, use latents_bchw for more")
        latent_chw: NDArray[np.float32] = self.latents_bchw(image_bhwc)[0]
        return latent_chw

    def latents_bchw(self, image_bhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the latents of several pictures, uint8 (B, H, W, 3) -> float32 (B, C, H / stride, W / stride).

        H and W are multiples of the stride. Raises GraphError for other input, or a graph that breaks its contract.
        """
        _check(image_bhwc, stride=self._stride)
        batch, height, width, _ = image_bhwc.shape
        latent_bchw: NDArray[np.float32] = self._graph(np.ascontiguousarray(image_bhwc))
        rows, cols = height // self._stride, width // self._stride
        expected = (batch, self._channels, rows, cols)
        extra = latent_bchw.shape[2] - rows if latent_bchw.ndim == 4 else 0
        shape = (batch, self._channels, rows + extra, cols + extra)
        if latent_bchw.shape != shape or abs(extra) > 1 or latent_bchw.dtype != np.float32:
            raise GraphError(
                f"{self._graph.name} gave {latent_bchw.dtype} {latent_bchw.shape}, expected float32 {expected}; "
                "the bundle is wrong, export it again"
            )
        return latent_bchw


def _check(image_bhwc: NDArray[Any], *, stride: int) -> None:
    right = image_bhwc.dtype == np.uint8 and image_bhwc.ndim == 4 and image_bhwc.shape[3] == 3 and image_bhwc.size > 0
    if not right or image_bhwc.shape[1] % stride or image_bhwc.shape[2] % stride:
        raise GraphError(
            f"an image of {image_bhwc.dtype} {image_bhwc.shape}; expected uint8 (B, H, W, 3) "
            f"with H and W multiples of {stride}"
        )
