from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.demo.page import SHORES
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.demo.run import run_demo
from splitcodec.demo.trip import DemoResult, Trip
from splitcodec.device.client import Device
from splitcodec.device.link import airtime_ms
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundlePart, OutputError, SettingsError
from splitcodec.wire.bundle import Bundle, derive, split_device, write_folder

RATE, RTT = 400.0, 5.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "new" / "out"


@pytest.fixture(scope="module")
def result(tiny: Bundle, folder: Path) -> DemoResult:
    told: list[Trip] = []
    made = run_demo(tiny, out=folder, level=2, kbit_per_s=RATE, rtt_ms=RTT, threads=1, on_trip=told.append)
    assert tuple(told) == made.trips
    return made


def test_every_photograph_made_the_trip(result: DemoResult, tiny: Bundle) -> None:
    device = Device(tiny, threads=1)
    assert [trip.photograph for trip in result.trips] == list(PHOTOGRAPHS)
    for trip in result.trips:
        assert trip.level == 2
        assert trip.packet_bytes == len(device.encode(trip.photograph.read(), level=2))
        assert trip.airtime_ms == airtime_ms(trip.packet_bytes + trip.answer_bytes, kbit_per_s=RATE, rtt_ms=RTT)
        assert tuple(trip.ms) == tuple(SHORES)
        assert trip.ms["link"] >= trip.airtime_ms - 2
        assert trip.guesses[0]["label"] in tiny.manifest.classes


def test_the_jpeg_is_the_smallest_that_is_read_as_well(result: DemoResult, tiny: Bundle) -> None:
    device, edge = Device(tiny, threads=1), Edge(tiny, threads=1)

    def probability(image_bhwc: np.ndarray, index: int) -> tuple[bool, float]:
        guesses = edge.picture_answer(image_bhwc, top=10)["answers"]["classify"]
        return guesses[0]["index"] == index, next(one["p"] for one in guesses if one["index"] == index)

    assert result.compared
    for trip, jpeg in result.compared:
        index = trip.teacher[0]["index"]
        ours = next((one["p"] for one in trip.guesses if one["index"] == index), 0.0)
        enough = min(ours, trip.teacher[0]["p"])
        with Image.open(io.BytesIO(jpeg.data)) as picture:
            first, p = probability(np.asarray(picture.convert("RGB"))[None], index)
        assert first or not trip.reads_alike
        assert p >= enough
        crop = Image.fromarray(device.crop(trip.photograph.read())[0])
        for quality in range(1, jpeg.quality, 7):
            file = io.BytesIO()
            crop.save(file, "jpeg", quality=quality, optimize=True)
            if len(file.getvalue()) < len(jpeg.data):
                first, p = probability(np.asarray(Image.open(file).convert("RGB"))[None], index)
                assert p < enough or (trip.reads_alike and not first)


def test_the_page_needs_nothing_from_outside(result: DemoResult, folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert not re.search(r"https?://|<script|<link|url\(|@import", page)
    assert page.count('src="data:image/jpeg;base64,') == len(result.trips) + len(result.compared)
    for photograph in PHOTOGRAPHS:
        assert photograph.title in page
        assert photograph.credit in page
    assert "400 kbit/s" in page
    assert result.page == str(folder / "index.html")


def test_the_json_says_the_same(result: DemoResult, folder: Path) -> None:
    body = json.loads((folder / "demo.json").read_bytes())
    assert body == json.loads(json.dumps(result.to_json()))
    assert body["link"] == {"kbit_per_s": RATE, "rtt_ms": RTT}
    assert [one["bytes"] for one in body["images"]] == [trip.packet_bytes for trip in result.trips]
    assert sorted(path.name for path in folder.iterdir()) == ["demo.json", "index.html"]


def test_the_lines_name_bytes_answers_and_stages(result: DemoResult) -> None:
    for trip in result.trips:
        text = "\n".join(trip.lines())
        assert f"{trip.packet_bytes:,} bytes" in text
        assert trip.guesses[0]["label"] in text
        assert all(stage in text for stage in trip.ms)


def test_labels_of_a_bundle_do_not_reach_the_terminal_as_they_are(tiny: Bundle, tmp_path: Path) -> None:
    """A terminal obeys what follows an escape; other commands print labels legibly."""
    classes = tuple(f"\x1b[2J{label}" for label in tiny.manifest.classes)
    bundle = write_folder(derive(tiny, replace(tiny.manifest, classes=classes), files={}), tmp_path / "b")
    words = ["demo", "-b", str(bundle.path), "-o", str(tmp_path / "out"), "--kbit-per-s", "1e6", "--rtt-ms", "0"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "\\x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_link_that_no_clock_can_wait_for_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    words = ["demo", "-b", str(tiny_folder), "-o", str(tmp_path), "--rtt-ms"]
    for wait in ("1e20", "inf"):
        with pytest.raises(SettingsError, match="--rtt-ms"):
            CliRunner().invoke(app, [*words, wait], catch_exceptions=False, standalone_mode=False)


def test_what_makes_no_sense_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        run_demo(tiny, out=tmp_path / "file")
    with pytest.raises(SettingsError, match="level 3"):
        run_demo(tiny, out=tmp_path / "new", level=3)
    assert not (tmp_path / "new").exists()
    with pytest.raises(SettingsError, match="0 kbit/s"):
        run_demo(tiny, out=tmp_path, kbit_per_s=0)
    with pytest.raises(BundlePart):
        run_demo(split_device(tiny, tmp_path / "half"), out=tmp_path)
