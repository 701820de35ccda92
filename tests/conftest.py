"""What every room's tests share: the tiny bundle and a few generated pictures. No network, no torch, no onnx."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from splitcodec.wire.bundle import Bundle, open_bundle

# a busy machine is no failure; the same examples everywhere, so that nobody's change fails by chance
settings.register_profile("house", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None)  # others each time
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name no test by bytes: a gzip's hold the second it was made, and workers side by side collected other tests."""
    return argname if isinstance(val, bytes | bytearray) else None


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Take back how a command in this process has set up the logs, lest tests that read them depend on their order."""
    loggers = [logging.getLogger(name) for name in ("splitcodec", "uvicorn", "uvicorn.error", "asyncio")]
    before = [(one, one.level, one.propagate, one.handlers[:], one.filters[:]) for one in loggers]
    yield
    for one, level, propagate, handlers, filters in before:
        one.setLevel(level)
        one.propagate, one.handlers[:], one.filters[:] = propagate, handlers, filters


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    """Return the folder of the committed bundle `tiny@1`; copy it before changing anything."""
    return Path(__file__).parent / "data" / "tiny"


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Bundle:
    """Return the bundle `tiny@1`: crop 64, stride 16, 4 channels, 3 levels, classes c0 to c9."""
    return open_bundle(tiny_folder)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Return RGB pictures of several sizes and contents: flat colours, gradients, noise."""
    random = np.random.default_rng(11)
    wide = np.linspace(0, 255, 120).astype(np.uint8)
    level = np.full((90, 120), 128, np.uint8)
    gradient = np.stack(np.broadcast_arrays(wide, wide[::-1], level), axis=2)
    noise = random.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    blocks = random.integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(30, axis=0).repeat(30, axis=1)
    flat = [Image.new("RGB", (100, 75), colour) for colour in ((220, 30, 30), (20, 200, 60), (30, 60, 230), (0, 0, 0))]
    return [*flat, *(Image.fromarray(array) for array in (gradient, noise, blocks))]
