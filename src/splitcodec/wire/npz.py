"""Arrays from an .npz file that nobody vouches for: no pickles, and sizes known before anything is allocated."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import BundleFormat, one_line

_HEADER_BYTES = 4096  # numpy writes 118 bytes for every array of ours
_PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE: Final = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, RuntimeError, ValueError),
    *(TypeError, IndexError, OverflowError, SyntaxError, tokenize.TokenError),  # numpy's, of a header; zipfile's
)


def read_arrays(
    data: bytes,
    *,
    expected: Mapping[str, tuple[str, int]],
    max_bytes: int,
    what: str,
    optional: Collection[str] = (),
) -> dict[str, NDArray[Any]]:
    """Return the arrays of the .npz file `data`, exactly those of `expected`: name -> (dtype as in '<u4', dimensions).

    Those in `optional` may be missing.
    `max_bytes` bounds the unpacked size of all arrays together; it is held against the zip directory and against every
    array header before memory is asked for. `what` names the file in messages. Raises BundleFormat.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            got = [entry.filename for entry in entries]
            want = [f"{name}.npy" for name in expected]
            missing = set(want) - set(got)
            if len(set(got)) != len(got) or set(got) - set(want) or missing - {f"{name}.npy" for name in optional}:
                raise BundleFormat(f"{what}: holds {_listed(got)}, expected {_listed(want)}; export it again")
            if any(entry.compress_type not in _PACKED for entry in entries):  # LZMA has errors and a memory of its own
                raise BundleFormat(f"{what}: packed in another way than numpy packs arrays; export it again")
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > max_bytes:
                raise BundleFormat(f"{what}: unpacks to {unpacked} bytes, at most {max_bytes} are allowed")
            arrays = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                dtype, dimensions = expected[name]
                with archive.open(entry) as file:
                    body = file.read(entry.file_size + 1)
                arrays[name] = _array(body, dtype=np.dtype(dtype), dimensions=dimensions, what=f"{what}: {name}")
    except _UNREADABLE as error:
        raise BundleFormat(f"{what}: not a readable .npz file ({one_line(error)}); export it again") from error
    return arrays


def _array(body: bytes, *, dtype: np.dtype[Any], dimensions: int, what: str) -> NDArray[Any]:
    stream = io.BytesIO(body)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise BundleFormat(f"{what}: .npy version {version}, expected (1, 0)")
    shape, fortran, got = np.lib.format.read_array_header_1_0(stream, max_header_size=_HEADER_BYTES)
    if got != dtype or len(shape) != dimensions or (fortran and dimensions > 1):
        order = ", Fortran order" if fortran else ""
        raise BundleFormat(
            f"{what}: {got.str} with {len(shape)} dimensions{order}, expected {dtype.str} with {dimensions}, C order"
        )
    left = len(body) - stream.tell()
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != left:
        raise BundleFormat(f"{what}: the header announces shape {shape}, but {left} bytes follow")
    return np.frombuffer(body, dtype=dtype, offset=stream.tell()).reshape(shape)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in sorted(names)[:8])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 8 else shown or "nothing"
