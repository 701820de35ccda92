"""Warnings off in two threads: one lock, whoever asks."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.image import load_picture
from splitcodec.errors import SplitcodecError
from splitcodec.layouts.sample import Sample


def test_a_picture_and_a_label_map_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both at once would each put back the other's filters: the process stays silent for good, or warns within."""
    both = threading.Barrier(2)
    met: list[bool] = []

    def opened(*_: object, **__: object) -> Image.Image:
        try:
            both.wait(timeout=0.5)
        except threading.BrokenBarrierError:
            raise OSError("the other one waits outside") from None
        met.append(True)
        raise OSError("both are inside")

    path = tmp_path / "0.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    monkeypatch.setattr(Image, "open", opened)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as threads:
        answers = threads.submit(load_picture, path), threads.submit(Sample(path, mask=path).mask_hw, classes=2)
        for answer in answers:
            with pytest.raises(SplitcodecError):
                answer.result()
    assert met == []
    assert list(warnings.filters) == before
