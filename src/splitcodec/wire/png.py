"""A label map -> an 8-bit PNG with a palette, and its text in an answer. Plain NumPy and zlib: the edge has no Pillow.

Rows are stored as differences to the row above (filter 2), of which label maps have few.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_UP: Final = 2


def write_png(index_hw: NDArray[np.uint8], palette_k3: NDArray[np.uint8]) -> bytes:
    """Return a PNG of class indices, uint8 (H, W), with a colour per class, uint8 (K, 3), K of 1 to 256."""
    rows, cols = index_hw.shape
    lines = np.empty((rows, cols + 1), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = index_hw[0]
    np.subtract(index_hw[1:], index_hw[:-1], out=lines[1:, 1:])  # modulo 256, as the format has it
    header = struct.pack(">IIBBBBB", cols, rows, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette_k3.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(lines.data, 9)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def palette(count: int) -> NDArray[np.uint8]:
    """Return PASCAL VOC's colours, uint8 (count, 3): black first, then well apart."""
    index = np.arange(count)
    colour = np.zeros((count, 3), np.uint8)
    for shift in range(8):
        for channel in range(3):
            colour[:, channel] |= (((index >> (3 * shift + channel)) & 1) << (7 - shift)).astype(np.uint8)
    return colour
