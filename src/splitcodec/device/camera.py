"""Stage 0: a camera takes a picture every so many seconds.   after: device/watch.py   beside: device/source.py

OpenCV opens whatever it can: a number is a camera of the system (/dev/video0), anything else a device path, an address
(rtsp://...), a file, or a GStreamer pipeline that ends in `appsink`. A stream from an address that nobody reads gives
older and older pictures, so it is read without pause or, between pictures far apart, closed.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, final

from splitcodec.device.journal import Outcome
from splitcodec.device.source import Capture, Known
from splitcodec.device.status import shown_address
from splitcodec.errors import CameraError, MissingExtra, SettingsError

_STALE = 4  # frames that drivers keep; they are older than the moment asked for
_APART_S = 10.0  # pauses from which on opening a stream anew costs less than reading what nobody wants
_PATIENCE_S = 10.0


@final
class Camera:
    """A source that takes one picture every `every_s` seconds; a camera that fails is opened again.

    Raises MissingExtra without OpenCV, CameraError if the camera does not open now.
    """

    def __init__(self, address: str, *, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not address.isprintable():  # OpenCV would end the process at bytes that are no text
            raise SettingsError(f"a camera at {address[:80]!r}; expected a number, a path, an address or a pipeline")
        if not 0 < every_s < 1e9:
            raise SettingsError(f"a picture every {every_s} s; expected more than 0")
        try:
            import cv2
        except ModuleNotFoundError:
            raise MissingExtra("--camera needs OpenCV; install it with: pip install 'splitcodec[camera]'") from None
        self._cv2 = cv2
        self._address = address
        self._shown = shown_address(address)
        self._stream = "://" in address and "!" not in address
        self._every_s = every_s
        self._clock = clock
        self._due = clock()
        self._session = secrets.token_hex(4)  # clocks without a battery repeat themselves
        self._count = 0
        self._camera: Any = self._open()
        self._rest()

    @property
    def pending(self) -> bool:
        """Return False: there is no picture before its moment."""
        return False

    @property
    def trouble(self) -> str:
        """Return "": what hinders a camera, `take` raises."""
        return ""

    def take(self, known: Known) -> list[Capture]:
        """Return the picture of this moment if one is due. Raises CameraError if there is none; it stays due."""
        now = self._clock()
        if now < self._due:
            return []
        image_hwc = self._read()
        self._due += self._every_s
        if self._due <= now:
            self._due = now + self._every_s
        self._count += 1
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        ident = f"camera {self._shown}@{moment}#{self._session}-{self._count}"
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
        if self._address.isascii() and self._address.isdigit() and len(self._address) < 10:
            camera = cv2.VideoCapture(int(self._address))
        elif "!" in self._address:
            camera = cv2.VideoCapture(self._address, cv2.CAP_GSTREAMER)
        else:
            camera = cv2.VideoCapture(self._address)
        if not camera.isOpened():
            camera.release()
            hint = "; this OpenCV may lack GStreamer" if "!" in self._address else ""
            raise CameraError(
                f"camera {self._shown} does not open{hint}; check that it is there (v4l2-ctl --list-devices), "
                "that no other program uses it, and that you may (group video)"
            )
        with contextlib.suppress(Exception):
            camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return _Newest(camera) if self._stream and self._every_s < _APART_S else camera

    def _rest(self) -> None:
        if self._stream and self._every_s >= _APART_S:
            self.close()

    def _read(self) -> Any:
        if self._camera is None:
            self._camera = self._open()
        for _ in range(_STALE if self._count and self._every_s > 1 and not self._stream else 0):
            self._camera.grab()
        there, image_bgr = self._camera.read()
        if not there or image_bgr is None:
            self.close()
            raise CameraError(f"camera {self._shown} gives no picture; is it still plugged in?")
        self._rest()
        return image_bgr[:, :, ::-1].copy() if image_bgr.ndim == 3 else image_bgr


@final
class _Newest:
    """A stream whose frames are taken as they come; `read` gives the next. One thread makes all of OpenCV's calls."""

    def __init__(self, camera: Any) -> None:
        self._camera = camera
        self._frame: tuple[bool, Any] = (False, None)
        self._wanted, self._given, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="splitcodec camera", daemon=True)
        self._thread.start()

    def read(self) -> tuple[bool, Any]:
        """Return whether a frame came, and the frame."""
        self._given.clear()
        self._wanted.set()
        until = time.monotonic() + _PATIENCE_S
        while not self._given.wait(0.05):
            if not self._thread.is_alive() or time.monotonic() > until:
                return False, None
        return self._frame

    def release(self) -> None:
        """End the thread, which lets go of the camera; one that hangs in OpenCV is left to itself."""
        self._stop.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self._camera.grab():
                if self._wanted.is_set():
                    self._wanted.clear()
                    self._frame = self._camera.retrieve()
                    self._given.set()
        finally:
            self._camera.release()
