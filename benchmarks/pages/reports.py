"""Reports as they are read to be told; what is missing or is none is refused.   used by: results.py, blocks.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from splitcodec.errors import DataError


class Told(dict[str, Any]):
    """An object in a report. A key that it lacks is refused by the file's name and the way there; `get` is as ever."""

    def __init__(self, body: dict[str, Any], *, path: Path, way: str, writer: str) -> None:
        super().__init__({key: _told(one, path=path, way=f"{way}{key}.", writer=writer) for key, one in body.items()})
        self._place = f"{path}: no {way}"
        self._writer = writer

    def __missing__(self, key: str) -> NoReturn:
        raise DataError(f"{self._place}{key}, which the pages tell; have {self._writer} write it again")


def read_report(path: Path, *, writer: str = "its benchmark") -> Any:
    """Return what a file in reports/ says, `Told`, and as what `writer` writes. Raises DataError."""
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); have {writer} write it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); have {writer} write it again") from None
    if not isinstance(body, dict):
        raise DataError(f"{path}: {type(body).__name__}, expected an object; have {writer} write it again")
    return _told(body, path=path, way="", writer=writer)


def _told(body: Any, *, path: Path, way: str, writer: str) -> Any:
    """Return a report's value with all its objects `Told`."""
    if isinstance(body, dict):
        return Told(body, path=path, way=way, writer=writer)
    if isinstance(body, list):
        return [_told(one, path=path, way=f"{way}{place}.", writer=writer) for place, one in enumerate(body)]
    return body
