"""What image codecs gave before, kept in a file of lines, so that a long run may be killed.   used by: bench.py

One line per picture and setting: a hash of all that the result depends on, the class that the teacher saw, the bytes.
Ours is never remembered: it is measured anew by every run.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import OutputError
from splitcodec.evaluation import codecs, sweep, video
from splitcodec.evaluation.machine import machine
from splitcodec.evaluation.rivals import HEAD, TAIL
from splitcodec.evaluation.versions import codec_versions
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.durable import check_folder

_END = "ok"  # a line that was cut off by a kill does not end so


@final
class Memory:
    """The lines of one file, safe to share between threads. Raises OutputError if it cannot be read or written.

    The file is made when there is something to keep, so a run that is refused leaves none behind.
    A result counts again only with the same teacher, processor, packages, libraries of the codecs and code around them.
    """

    def __init__(self, path: str | Path, *, teacher: Bundle) -> None:
        files = teacher.manifest.files
        code = [inspect.getsource(part).encode() for part in (codecs, video, sweep.scaled, sweep.resized)]
        here = {name: said for name, said in machine().items() if name != "cores"}  # which change no result
        known = {
            "teacher": [files[name].sha256 for name in (HEAD, TAIL) if name in files],
            "machine": here,
            "codecs": codec_versions(),
            "code": [hashlib.sha256(data).hexdigest() for data in code],
        }
        self._salt = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).digest()
        self._path = Path(path)
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, int]] = {}
        self.recalled = 0
        check_folder(self._path.parent)
        lines: list[str] = []
        try:
            if self._path.exists():
                lines = self._path.read_text("ascii").split("\n")
                self._path.open("a").close()
            for line in lines:
                words = line.split()
                if len(words) == 4 and words[3] == _END:
                    self._found[words[0]] = int(words[1]), int(words[2])
            if not self._found and any(map(str.strip, lines)):
                raise ValueError("it holds something else")
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot remember in it ({error}); remove it or name another file") from None

    def key(self, image_hwc: NDArray[np.uint8], *, codec: str, value: int, side: int | None) -> str:
        """Return the name of a crop, uint8 (H, W, 3), under a codec's setting."""
        said = json.dumps([codec, value, side, image_hwc.shape]).encode()
        return hashlib.sha256(self._salt + said + image_hwc.tobytes()).hexdigest()[:32]

    def recall(self, key: str) -> tuple[int, int] | None:
        """Return the class and the bytes that were kept under a name, or None."""
        with self._lock:
            found = self._found.get(key)
            self.recalled += found is not None
            return found

    def keep(self, found: Mapping[str, tuple[int, int]]) -> None:
        """Keep classes and numbers of bytes under their names. Raises OutputError."""
        if not found:
            return
        text = "".join(f"\n{key} {top} {size} {_END}" for key, (top, size) in found.items())
        with self._lock:
            self._found.update(found)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="ascii") as file:
                    file.write(text)  # which begins by ending a line that a kill cut off
            except OSError as error:
                reason = error.strerror or error
                raise OutputError(f"{self._path}: cannot be written ({reason}); name another file") from None
