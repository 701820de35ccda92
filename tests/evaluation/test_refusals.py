"""What the scripts in benchmarks/ are plainly given wrong, or lack: one line that says so, and exit code 2."""

from __future__ import annotations

import base64
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.errors import MissingExtra, OutputError
from splitcodec.wire.bundle import Bundle

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("splitcodec: ")
    return line


@pytest.fixture(params=["browser", "screenshots"])
def shower(request: pytest.FixtureRequest, load: Load, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs a benchmark that wants Chromium, as far as that."""

    def run(bundle: Path, photos: Path, out: Path) -> int:
        script = load(request.param)
        monkeypatch.setattr(script, "find_ort", object)
        monkeypatch.setattr(script, "mount", lambda *_, **__: None)
        words = ["--data", str(photos)] if request.param == "browser" else []
        code: int = script.main(["--bundle", str(bundle), "--out", str(out), *words])
        return code

    return run


def fake_chromium(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str = "exit 1") -> None:
    folder.mkdir()
    if script:
        (folder / "chromium").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_chromium_it_says_what_to_install(
    shower: Callable[..., int],
    tiny_folder: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_chromium(tmp_path / "bin", monkeypatch, script="")
    assert shower(tiny_folder, photos, tmp_path / "out") == 2
    assert "MissingExtra: needs Chromium, which is missing here; apt-get install chromium" in only_line(capsys)


def test_without_playwright_it_says_what_to_install(
    shower: Callable[..., int],
    tiny_folder: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("browser", "screenshots", "chromium"):  # what another test has imported
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "playwright", None)
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    fake_chromium(tmp_path / "bin", monkeypatch)
    assert shower(tiny_folder, photos, tmp_path / "out") == 2
    assert "MissingExtra: needs Playwright, which is missing here; pip install playwright" in only_line(capsys)


def test_a_chromium_that_does_not_start_is_refused(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("playwright")
    fake_chromium(tmp_path / "bin", monkeypatch)
    with pytest.raises(OutputError, match="Chromium failed: "), load("chromium").chromium():
        pytest.fail("it started")


class Tab:
    """What the page's browser says, made by the device's own code."""

    def __init__(self, bundle: Bundle, *, seen: Callable[[], None]) -> None:
        self._device, self._seen = Device(bundle, threads=1), seen

    def evaluate(self, _: str, given: list[str]) -> dict[str, Any]:
        self._seen()
        data = base64.b64decode(given[0])
        packets = [self._device.encode(data, level=level) for level in range(3)]
        texts = [base64.b64encode(one).decode() for one in (self._device.crop(data).tobytes(), *packets)]
        return {"crop": texts[0], "packets": texts[1:], "ms": {"encoder": 1.0}}


def test_pictures_that_no_browser_could_show_are_left_out(
    load: Load,
    tiny: Bundle,
    tiny_folder: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    browser, out = load("browser"), tmp_path / "browser.json"

    @contextmanager
    def tab(_: object) -> Iterator[Tab]:
        yield Tab(tiny, seen=lambda: (photos / "2.png").unlink(missing_ok=True))  # it vanishes meanwhile

    monkeypatch.setattr(browser, "_tab", tab)
    (photos / "0.png").write_bytes(b"no picture")
    words = ["--bundle", str(tiny_folder), "--data", str(photos), "--out", str(out)]
    assert browser.main(words) == 0
    broken, gone = capsys.readouterr().err.splitlines()
    assert broken.startswith("splitcodec: 0.png: ")
    assert gone.startswith("splitcodec: 2.png: ")
    assert json.loads(out.read_bytes())["images"] == 1
    (photos / "1.png").unlink()
    assert browser.main(words) == 2
    assert "none of 1 pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("", "--python '': no such program"),
        ("'python", "No closing quotation"),
        ("nosuchpython -x", "no such program"),
        ("true", "is true a Python?"),
        ("false", "the other processor failed"),
    ],
)
def test_another_processor_that_is_none_is_refused(
    load: Load, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], python: str, message: str
) -> None:
    words = ["--bundle", str(tiny_folder), "--most", "1", "--out", str(tmp_path / "x.json"), "--python", python]
    assert load("other_processor").main(words) == 2
    assert message in only_line(capsys)


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("coder", ["--compressai", "."], "cannot be imported (.*); is it of this Python"),
        ("coder", ["--turns", "0"], "--turns 0; expected at least 1"),
        ("encode", ["--rates", "rd.json", "--bundles", " ,"], "--bundles names no bundle"),
        ("int8", ["--photos", ".", "--threads", "-2"], "--threads -2; expected at least 1"),
        ("footprint", ["--wheel", "none.whl"], "--wheel none.whl: no such file"),
        ("footprint", ["--bundle", "none"], "BundleNotFound: none"),
        ("latency", ["--within", "nan"], "--within nan; expected 0 or more"),
        ("latency", ["--within=-3"], "--within -3; expected 0 or more"),
        ("large_pictures", ["--quality", "0"], "--quality 0; expected 1 to 100"),
        ("own_classes", ["--photos", "none", "--threads", "0"], "--threads 0; expected at least 1"),
        ("task_cost", ["--turns", "0"], "--turns 0; expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    load: Load,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compressai").mkdir()
    (tmp_path / "compressai" / "ans.so.so").write_bytes(b"cut short")
    (tmp_path / "rd.json").write_text('{"images": 1, "teacher_top1": 50, "points": []}')
    few = ["--bundle", str(tiny_folder), "--most", "1", "--turns", "1"] if script == "coder" else []
    assert load(script).main([*few, *words]) == 2
    line = only_line(capsys)
    start, _, rest = message.partition(".*")
    assert start in line
    assert rest in line


def test_where_pip_is_missing_it_says_what_to_install(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pip(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, ["python", "-m", "ensurepip"])

    footprint = load("footprint")
    monkeypatch.setattr(footprint.venv, "create", no_pip)
    options = footprint.argparse.Namespace(wheel=None, bundle="efficientnet-lite0")
    with pytest.raises(MissingExtra, match="apt-get install python3-venv"):
        footprint.measure(options)


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("{", "not JSON"), ("\xff", "not JSON")])
def test_pages_want_reports(
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    message: str,
) -> None:
    results = load("results")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    if text is not None:
        (tmp_path / results.RATE).parent.mkdir(parents=True)
        (tmp_path / results.RATE).write_text(text, encoding="latin-1")
    assert results.main() == 2
    assert f"rd.json: {message}" in only_line(capsys)
