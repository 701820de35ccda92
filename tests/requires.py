"""What a test needs from the system: it skips where that is missing, and fails where it was promised.

SPLITCODEC_REQUIRE holds the promises, separated by commas: "mosquitto,chromium".
"""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str) -> str:
    """Return the path of a program, or skip the test; fail it if SPLITCODEC_REQUIRE names the program."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    if program in os.environ.get("SPLITCODEC_REQUIRE", "").split(","):
        pytest.fail(f"{program} is missing, and SPLITCODEC_REQUIRE names it")
    pytest.skip(f"{program} is not installed")
