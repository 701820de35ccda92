"""What the benchmarks of the device share: pictures to run on, and a report that says where and how it was measured."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.image import load_picture
from splitcodec.errors import OutputError, SettingsError
from splitcodec.evaluation.calibrate import shuffled
from splitcodec.evaluation.machine import commit, machine
from splitcodec.evaluation.output import write_whole
from splitcodec.wire.durable import made_folder


def pictures_of(folder: Path | None, *, most: int) -> Sequence[Any]:
    """Return up to `most` photographs of a folder, opened; without one those of the demo.

    Raises SettingsError for fewer than one, DataError for a folder without any, PictureError for a file that is none.
    """
    at_least_one("--most", most)
    if folder is None:
        return [load_picture(photograph.read()) for photograph in PHOTOGRAPHS[:most]]
    return [load_picture(path) for path in shuffled([folder])[:most]]


def files_of(folder: Path | None, *, most: int) -> list[bytes]:
    """Return up to `most` photographs of a folder as their files' bytes; without one those of the demo.

    Raises SettingsError for fewer than one, DataError for a folder without any, PictureError for a file that is none.
    """
    at_least_one("--most", most)
    if folder is None:
        return [photograph.read() for photograph in PHOTOGRAPHS[:most]]
    paths = shuffled([folder])[:most]
    for path in paths:
        load_picture(path)
    return [path.read_bytes() for path in paths]


def ready(path: Path) -> None:
    """Refuse now a place that would lose the report at its end. Raises OutputError."""
    if not path.name or path.is_dir():
        raise OutputError(f"{path}: is a folder; name the file that the report goes to, such as {path / 'report.json'}")
    made_folder(path.parent)


def write(report: Mapping[str, Any], path: Path, *, name: str, options: argparse.Namespace) -> None:
    """Write a report as JSON; folders outside the checkout are the reader's own. Raises OutputError."""
    save({**report, "machine": machine(), "commit": commit(), "command": command(name, options)}, path)


def save(body: Mapping[str, Any], path: Path) -> None:
    """Write JSON, whole or not at all. Raises OutputError."""
    write_whole(path.parent, {path.name: (json.dumps(body, indent=1) + "\n").encode()})


def at_least_one(option: str, number: int | None) -> None:
    """Refuse numbers below one. Raises SettingsError."""
    if number is not None and number < 1:
        raise SettingsError(f"{option} {number}; expected at least 1")


def command(name: str, options: argparse.Namespace) -> str:
    """Return what repeats a run, without naming places of this machine."""
    words = [f"python benchmarks/{name}"]
    for key, value in vars(options).items():
        if isinstance(value, Path) and value.is_absolute():
            value = value.name if value.suffix else "DIR"  # noqa: PLW2901
        if isinstance(value, str) and os.sep in value:
            value = Path(value).name  # noqa: PLW2901
        if value is not None and value is not False and value != []:  # 0 is an answer
            words.append(f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}"))
    return " ".join(words)
