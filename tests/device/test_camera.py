"""The camera: a film instead of a camera, a made-up OpenCV, and none at all."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitcodec.device.camera import Camera
from splitcodec.device.journal import Outcome
from splitcodec.errors import CameraError, MissingExtra, SettingsError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class MadeUp(types.ModuleType):
    """An OpenCV with one camera, blue as OpenCV orders it: the first byte of a pixel."""

    CAP_GSTREAMER = 1800
    CAP_PROP_BUFFERSIZE = 38

    def __init__(self) -> None:
        super().__init__("cv2")
        self.opens = True
        self.gives = True
        self.opened: list[tuple[Any, ...]] = []
        self.grabbed = 0
        self.released = 0
        self.VideoCapture = self._capture

    def _capture(self, *where: Any) -> types.SimpleNamespace:
        self.opened.append(where)
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :, 0] = 255

        def grab() -> bool:
            if "://" in str(where[0]):
                time.sleep(0.001)  # the next frame of a stream comes when it comes
            self.grabbed += 1
            return self.gives

        def release() -> None:
            self.released += 1

        return types.SimpleNamespace(
            isOpened=lambda: self.opens,
            release=release,
            set=lambda *_: True,
            grab=grab,
            retrieve=lambda: (True, np.full((2, 2, 3), self.grabbed)),
            read=lambda: (self.gives, image if self.gives else None),
        )


@pytest.fixture
def cv2(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    made = MadeUp()
    monkeypatch.setitem(sys.modules, "cv2", made)
    return made


def never(_: str, __: str) -> bool:
    return False


def test_a_picture_every_so_many_seconds_red_first(cv2: MadeUp) -> None:
    clock = Clock()
    camera = Camera("0", every_s=10.0, clock=clock)
    (first,) = camera.take(never)
    assert camera.take(never) == []
    clock.now = 9.9
    assert camera.take(never) == []
    clock.now = 10.0
    (second,) = camera.take(never)
    clock.now = 55.0  # late: one picture, not four
    assert len(camera.take(never)) == 1
    assert camera.take(never) == []
    assert first.ident != second.ident
    assert first.ident.startswith("camera 0@")
    assert (first.load()[0, 0] == (0, 0, 255)).all()
    assert cv2.opened == [(0,)]
    assert cv2.grabbed == 8
    assert not camera.pending
    camera.done(first.ident, first.picture, Outcome.ANSWERED)
    camera.close()
    camera.close()


def test_where_cameras_are(cv2: MadeUp) -> None:
    for address in ("/dev/video2", "rtsp://host/stream", "videotestsrc ! appsink"):
        Camera(address, every_s=1.0).close()
    assert cv2.opened == [("/dev/video2",), ("rtsp://host/stream",), ("videotestsrc ! appsink", 1800)]


def test_a_stream_is_read_all_the_time_so_that_its_picture_is_of_now(cv2: MadeUp) -> None:
    before, clock = threading.active_count(), Clock()
    camera = Camera("rtsp://host/stream", every_s=1.0, clock=clock)
    for turn in range(3):
        seen = cv2.grabbed
        while cv2.grabbed < seen + 20:
            time.sleep(0.001)  # nobody asks, and it is read all the same
        clock.now, least = float(turn), cv2.grabbed
        (capture,) = camera.take(never)
        assert least < capture.load()[0, 0, 0] <= cv2.grabbed
    camera.close()
    assert (threading.active_count(), cv2.released, len(cv2.opened)) == (before, 1, 1)


def test_a_stream_that_ends_is_opened_again(cv2: MadeUp) -> None:
    clock = Clock()
    camera = Camera("rtsp://host/stream", every_s=1.0, clock=clock)
    cv2.gives = False
    with pytest.raises(CameraError, match="gives no picture"):
        camera.take(never)
    cv2.gives, clock.now = True, 1.0
    assert len(camera.take(never)) == 1
    camera.close()
    assert (cv2.released, len(cv2.opened)) == (2, 2)


def test_a_stream_is_closed_between_pictures_far_apart(cv2: MadeUp) -> None:
    clock = Clock()
    camera = Camera("rtsp://host/stream", every_s=60.0, clock=clock)
    for turn in range(3):
        assert (cv2.released, len(cv2.opened)) == (turn + 1, turn + 1)
        clock.now = 60.0 * turn
        assert len(camera.take(never)) == 1
    assert cv2.grabbed == 0


def test_passwords_of_cameras_are_not_shown(cv2: MadeUp) -> None:
    address, clock = "rtsp://admin:s3cret@host/stream", Clock()
    camera = Camera(address, every_s=60.0, clock=clock)
    (capture,) = camera.take(never)
    assert capture.ident.startswith("camera rtsp://host/stream@")
    assert cv2.opened[0] == (address,)
    cv2.gives, clock.now = False, 60.0
    with pytest.raises(CameraError, match=r"^camera rtsp://host/stream gives no picture"):
        camera.take(never)
    cv2.opens = False
    with pytest.raises(CameraError, match=r"^camera rtsp://host/stream does not open"):
        Camera(address, every_s=60.0)
    with pytest.raises(CameraError, match=r"^camera rtspsrc location=rtsp://host/a ! appsink does not open"):
        Camera("rtspsrc location=rtsp://admin:p@ss@host/a ! appsink", every_s=60.0)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://host/video.cgi?user=admin&pwd=s3cret", "http://host/video.cgi?..."),
        (
            'rtspsrc location=rtsp://host/a user-id=admin user-pw="s3 cret" ! appsink',
            "rtspsrc location=rtsp://host/a user-id=... user-pw=... ! appsink",
        ),
        (
            "souphttpsrc location=http://host/a?k=s3cret proxy-pw=s3cret ! appsink",
            "location=http://host/a?... proxy-pw=... !",
        ),
    ],
)
def test_passwords_in_other_places_of_an_address_are_not_shown(cv2: MadeUp, address: str, shown: str) -> None:
    (capture,) = Camera(address, every_s=60.0).take(never)
    assert cv2.opened[0][0] == address
    assert shown in capture.ident
    assert not re.search("admin|cret", capture.ident)


@pytest.mark.parametrize("address", ["²", "99999999999999999999"])
def test_a_number_that_no_camera_has_is_a_name(cv2: MadeUp, address: str) -> None:
    Camera(address, every_s=60.0)
    assert cv2.opened == [(address,)]


def test_bytes_that_are_no_text_are_no_address(cv2: MadeUp) -> None:
    """OpenCV 5.0 ends the process at them."""
    with pytest.raises(SettingsError, match="expected a number, a path"):
        Camera(os.fsdecode(b"/dev/v\xe9"), every_s=60.0)
    assert cv2.opened == []


def test_a_camera_that_does_not_open_says_so(cv2: MadeUp) -> None:
    cv2.opens = False
    with pytest.raises(CameraError, match=r"camera 3 does not open.*group video"):
        Camera("3", every_s=1.0)
    with pytest.raises(CameraError, match="may lack GStreamer"):
        Camera("a ! appsink", every_s=1.0)


def test_a_camera_that_is_unplugged_is_opened_again(cv2: MadeUp) -> None:
    clock = Clock()
    camera = Camera("0", every_s=1.0, clock=clock)
    cv2.gives = False
    with pytest.raises(CameraError, match="plugged in"):
        camera.take(never)
    cv2.opens = False
    clock.now = 1.0
    with pytest.raises(CameraError, match="does not open"):
        camera.take(never)
    cv2.opens = cv2.gives = True
    clock.now = 2.0
    assert len(camera.take(never)) == 1
    assert len(cv2.opened) == 3


def test_a_picture_that_failed_stays_due(cv2: MadeUp) -> None:
    """It was tried again an hour later, and meanwhile an unplugged camera gave no pictures and no trouble."""
    clock = Clock()
    camera = Camera("0", every_s=3600.0, clock=clock)
    cv2.opens = cv2.gives = False
    for second in range(5):
        clock.now = float(second)
        with pytest.raises(CameraError):
            camera.take(never)
    cv2.opens = cv2.gives = True
    clock.now = 5.0
    assert len(camera.take(never)) == 1
    assert camera.take(never) == []
    clock.now = 3599.0
    assert camera.take(never) == []
    clock.now = 3600.0  # the hours are where they were
    assert len(camera.take(never)) == 1


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"splitcodec\[camera\]"):
        Camera("0", every_s=1.0)


def test_a_moment_that_makes_no_sense(cv2: MadeUp) -> None:
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="more than 0"):
            Camera("0", every_s=bad)


def test_a_film_through_the_real_opencv(tmp_path: Path) -> None:
    real = pytest.importorskip("cv2")
    film = tmp_path / "film.avi"
    writer = real.VideoWriter(str(film), real.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(3):
        image_bgr = np.zeros((48, 64, 3), np.uint8)
        image_bgr[:, :, 2] = 255
        writer.write(image_bgr)
    writer.release()
    clock = Clock()
    camera = Camera(str(film), every_s=0.5, clock=clock)
    for turn in range(3):
        clock.now = 0.5 * turn
        (capture,) = camera.take(never)
        image_hwc = capture.load()
        assert image_hwc.shape == (48, 64, 3)
        assert image_hwc[20, 20, 0] > 200 > 50 > image_hwc[20, 20, 2]
    clock.now = 2.0
    with pytest.raises(CameraError, match="gives no picture"):
        camera.take(never)
    with pytest.raises(CameraError, match="does not open"):
        Camera(str(tmp_path / "none.avi"), every_s=1.0)
    camera.close()
