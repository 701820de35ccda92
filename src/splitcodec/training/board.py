"""A run's curves for TensorBoard, in a file of events.   used by: distill.py, task_train.py

TensorBoard's own writer hands events to a thread, which ends in a traceback where the disk is full. Here they are on
their way when `add` returns, and what goes wrong is said like everything else that a run cannot write.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from splitcodec.errors import OutputError

_count = itertools.count()


@final
class Board:
    """Adds to a file of its own in `folder`, which is made with the first curve."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        self._path = folder / name

    def add(self, values: Mapping[str, float], *, images: int) -> None:
        """Add a point to each curve, after so many pictures. Raises OutputError."""
        now = time.time()
        curves = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        data = _record(Event(wall_time=now, step=images, summary=Summary(value=curves)))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                if file.tell() == 0:
                    data = _record(Event(wall_time=now, file_version="brain.Event:2")) + data
                while data:
                    data = data[file.write(data) :]
        except OSError as error:
            raise OutputError(
                f"cannot write {self._folder}: {error.strerror or error}; free some space and start again"
            ) from error


def _record(event: Event) -> bytes:
    whole = io.BytesIO()
    RecordWriter(whole).write(event.SerializeToString())
    return whole.getvalue()
