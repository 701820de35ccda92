"""Curves that TensorBoard reads, and a disk that is full while they are written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from splitcodec.errors import OutputError
from splitcodec.training.board import Board
from splitcodec.training.distill import train
from splitcodec.training.recipe import read_recipe
from splitcodec.training.run import Run


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_reads_what_was_added(tmp_path: Path) -> None:
    for board in (Board(tmp_path / "run"), Board(tmp_path / "run")):  # a run that goes on
        for images in (8, 16):
            board.add({"stage1/loss": 1.0 / images, "stage1/rate": 0.5}, images=images)
    assert len(list((tmp_path / "run").iterdir())) == 2
    assert curves(tmp_path / "run")["stage1/loss"] == [(8, 0.125), (16, 0.0625)] * 2
    assert curves(tmp_path / "run")["stage1/rate"] == [(8, 0.5), (16, 0.5)] * 2


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.add({"loss": 1.0}, images=8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (next(tmp_path.iterdir()).stat().st_size + 10, hard))
    try:
        with pytest.raises(OutputError, match=f"cannot write {tmp_path}: File too large; free some space and start"):
            board.add({"loss": 2.0}, images=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert curves(tmp_path) == {"loss": [(8, 1.0)]}


@contextmanager
def full_disk(place: Path) -> Iterator[None]:
    """Mount a small disk there and fill it."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        with (place / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_ends_training_in_one_line(
    photos: Path, recipe_data: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    """A thread of TensorBoard printed a traceback into it."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump({**recipe_data(), "stage2": None}), encoding="utf-8")
    train(read_recipe(recipe), photos=[photos], out=out, report=lambda _: None, stop_after_s=0.0)
    places = (str(recipe), "--photos", str(photos), "--out", str(out))
    command = [sys.executable, "-m", "splitcodec.cli", "train", *places]
    with full_disk(out / "tensorboard"):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    said = [line for line in done.stderr.splitlines() if not line.startswith("stage1: ")]
    assert (done.returncode, len(said)) == (2, 1), done.stderr
    assert f"OutputError: cannot write {out / 'tensorboard'}: No space left on device; free some space" in said[0]
    assert Run(out).load() is not None
    assert train(read_recipe(recipe), photos=[photos], out=out, report=lambda _: None)["finished"]
