"""splitcodec: send what the model needs, not the picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitcodec.device.client import Device
    from splitcodec.edge.answer import Edge

__version__ = "0.1.0"
__all__ = ["Device", "Edge", "__version__"]

# ONNX Runtime (1.32, say) reports its use to Microsoft unless it is told not to: a device would write a database onto
# its memory card and send over a link that is paid by the byte. Told here, before any room loads it; an operator's own
# word stands.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    """Import a shore only when it is asked for: a device has no use for the edge, nor an edge for the device."""
    if name == "Device":
        from splitcodec.device.client import Device

        return Device
    if name == "Edge":
        from splitcodec.edge.answer import Edge

        return Edge
    raise AttributeError(f"module 'splitcodec' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the shores, too, so that a prompt completes them."""
    return sorted({*globals(), *__all__})
