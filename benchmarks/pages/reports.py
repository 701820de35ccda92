"""Reports as they are read to be told; what is missing or is none is refused.   used by: results.py, blocks.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splitcodec.errors import DataError


def read_report(path: Path) -> Any:
    """Return what a file in reports/ says. Raises DataError."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); have its benchmark write it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); have its benchmark write it again") from None
