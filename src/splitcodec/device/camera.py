"""Stage 0: a camera takes a picture every so many seconds.   after: device/watch.py   beside: device/source.py

OpenCV opens whatever it can: a number is a camera of the system (/dev/video0), anything else a device path, an address
(rtsp://...), a file, or a GStreamer pipeline that ends in `appsink`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, final

from splitcodec.device.journal import Outcome
from splitcodec.device.source import Capture, Known
from splitcodec.errors import CameraError, MissingExtra, SettingsError

_STALE = 4  # frames that drivers keep; they are older than the moment asked for


@final
class Camera:
    """A source that takes one picture every `every_s` seconds; a camera that fails is opened again.

    Raises MissingExtra without OpenCV, CameraError if the camera does not open now.
    """

    def __init__(self, address: str, *, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < every_s < 1e9:
            raise SettingsError(f"a picture every {every_s} s; expected more than 0")
        try:
            import cv2
        except ModuleNotFoundError:
            raise MissingExtra("--camera needs OpenCV; install it with: pip install 'splitcodec[camera]'") from None
        self._cv2 = cv2
        self._address = address
        self._every_s = every_s
        self._clock = clock
        self._due = clock()
        self._session = secrets.token_hex(4)  # clocks without a battery repeat themselves
        self._count = 0
        self._camera: Any = self._open()

    @property
    def pending(self) -> bool:
        """Return False: there is no picture before its moment."""
        return False

    def take(self, known: Known) -> list[Capture]:
        """Return the picture of this moment if one is due. Raises CameraError if the camera gives none."""
        now = self._clock()
        if now < self._due:
            return []
        self._due += self._every_s
        if self._due <= now:
            self._due = now + self._every_s
        image_hwc = self._read()
        self._count += 1
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        ident = f"camera {self._address}@{moment}#{self._session}-{self._count}"
        return [Capture(ident, f"{moment}.camera", lambda: image_hwc)]

    def done(self, ident: str, picture: str, outcome: Outcome) -> None:
        """Nothing is left to be done: the picture was never a file."""

    def close(self) -> None:
        """Let go of the camera."""
        if self._camera is not None:
            self._camera.release()
            self._camera = None

    def _open(self) -> Any:
        cv2 = self._cv2
        if self._address.isdigit():
            camera = cv2.VideoCapture(int(self._address))
        elif "!" in self._address:
            camera = cv2.VideoCapture(self._address, cv2.CAP_GSTREAMER)
        else:
            camera = cv2.VideoCapture(self._address)
        if not camera.isOpened():
            camera.release()
            hint = "; this OpenCV may lack GStreamer" if "!" in self._address else ""
            raise CameraError(
                f"camera {self._address} does not open{hint}; check that it is there (v4l2-ctl --list-devices), "
                "that no other program uses it, and that you may (group video)"
            )
        with contextlib.suppress(Exception):
            camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return camera

    def _read(self) -> Any:
        if self._camera is None:
            self._camera = self._open()
        for _ in range(_STALE if self._count and self._every_s > 1 else 0):
            self._camera.grab()
        there, image_bgr = self._camera.read()
        if not there or image_bgr is None:
            self.close()
            raise CameraError(f"camera {self._address} gives no picture; is it still plugged in?")
        return image_bgr[:, :, ::-1].copy() if image_bgr.ndim == 3 else image_bgr
