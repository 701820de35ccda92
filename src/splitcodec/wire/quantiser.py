"""Latent -> columns of one level's tables, in a third of the time.   used by: coder.py   as: tables.py, step by step

The device does nothing but this between its graph and its coder, so it counts. 1.5 * 2^23 added to a float32 leaves its
nearest integer, halves to even, in the lowest bits: rounding, the change of type and the check of the range take a pass
each. What does not fit its table, or is no number, goes through `Tables.quantise`, which clips or refuses it.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.wire.tables import Tables

_ROUNDING: Final = np.float32(3 << 22)
_BITS_OF_ZERO: Final = int(_ROUNDING.view(np.int32))


@final
class Quantiser:
    """What one level of the tables needs to quantise. Raises TablesError for a level that the tables do not have."""

    def __init__(self, tables: Tables, level: int) -> None:
        self._tables, self._level = tables, level
        row_c = tables.rows_of(level)
        self._gain_c1 = np.ascontiguousarray(tables.gain_lc[level][:, None])
        self._low_c1 = (tables.offset_k[row_c] + _BITS_OF_ZERO)[:, None]
        self._size_c1 = tables.size_k[row_c].astype(np.uint32)[:, None]

    def columns(self, latent_chw: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return `tables.columns(tables.quantise(latent))`: float32 (C, H, W) -> int32 (C, H * W), C-contiguous.

        Raises TablesError for another shape, and for a latent that holds NaN.
        """
        tables = self._tables
        tables.check_shape(latent_chw)
        if latent_chw.dtype != np.float32 or not latent_chw.size:
            return tables.columns(tables.quantise(latent_chw, self._level), self._level)
        rounded_cn = latent_chw.reshape(tables.channels, -1) * self._gain_c1
        rounded_cn += _ROUNDING
        columns_cn: NDArray[np.int32] = rounded_cn.view(np.int32)
        columns_cn -= self._low_c1
        if bool((columns_cn.view(np.uint32) >= self._size_c1).any()):
            return tables.columns(tables.quantise(latent_chw, self._level), self._level)
        return columns_cn
