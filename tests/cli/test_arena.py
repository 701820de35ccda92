"""`evaluate`: a folder that cannot be written, pictures that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.errors import DataError, OutputError, SettingsError
from splitcodec.evaluation import rate, report, tasks


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *(str(one) for one in arguments)])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(("tomato", "teal")):
        Image.new("RGB", (90, 80), colour).save(folder / f"{number}_{colour}.png")
    return folder


def no_measuring(*_: object, **__: object) -> None:
    raise AssertionError("measured")


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_a_folder_that_cannot_be_made_is_refused_before_measuring(
    tiny_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(rate, "evaluate", no_measuring)
    monkeypatch.setattr(tasks, "evaluate_task", no_measuring)
    taken = photos / "0_tomato.png"
    done = run("-b", tiny_folder, "--data", photos, "--out", taken, "--task", task)
    assert isinstance(done.exception, OutputError), done.exception
    assert f"{taken}: cannot be made" in str(done.exception)


def test_the_report_is_printed_even_if_it_cannot_be_written(
    tiny_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("No space left on device")

    monkeypatch.setattr(report, "write_whole", full)
    done = run("-b", tiny_folder, "--data", photos, "--out", tmp_path / "new" / "out", "--json")
    assert isinstance(done.exception, OutputError)
    assert json.loads(done.stdout)["images"] == 2
    assert not (tmp_path / "new").exists()


def test_what_is_refused_leaves_no_folder(tiny_folder: Path, tmp_path: Path) -> None:
    done = run("-b", tiny_folder, "--data", tmp_path / "none", "--out", tmp_path / "new" / "out")
    assert isinstance(done.exception, DataError), done.exception
    assert list(tmp_path.iterdir()) == []


def test_pictures_left_out_are_told_on_stderr(tiny_folder: Path, photos: Path) -> None:
    (photos / "3_broken.jpg").write_bytes(b"no picture")
    done = run("-b", tiny_folder, "--data", photos, "--json")
    assert done.exit_code == 0
    assert [one["image"] for one in json.loads(done.stdout)["skipped"]] == ["3_broken.jpg"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("splitcodec: 1 picture left out, 2 measured; the first: 3_broken.jpg: ")
    assert "not a picture" in line


def test_a_split_is_refused_where_nothing_is_split(
    tiny_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "evaluate", no_measuring)
    done = run("-b", tiny_folder, "--data", photos, "--split", "val")
    assert isinstance(done.exception, SettingsError), done.exception
    assert "--split 'val' is for --task detect and segment" in str(done.exception)


@pytest.mark.parametrize(("words", "split"), [([], "val"), (["--split", "test"], "test")])
def test_a_task_is_scored_on_its_split(
    tiny_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], split: str
) -> None:
    def told(*_: object, **options: object) -> None:
        raise SettingsError(f"split {options['split']}")

    monkeypatch.setattr(tasks, "evaluate_task", told)
    done = run("-b", tiny_folder, "--data", photos, "--task", "detect", *words)
    assert str(done.exception) == f"split {split}"
