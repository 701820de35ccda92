"""`encode` and `ask` within bytes, a deadline or an average rate, and with a chosen encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.cli.limits import Limits
from splitcodec.device import client, links, meter
from splitcodec.device.client import Device, Encoded
from splitcodec.device.image import Picture
from splitcodec.device.link import airtime_ms, slow
from splitcodec.device.links import AROUND_HTTP, AROUND_UDP
from splitcodec.edge.answer import Edge
from splitcodec.errors import SettingsError
from splitcodec.wire.answer import Answer, dump_answer, parse_answer
from splitcodec.wire.brief import restore, shorten
from splitcodec.wire.bundle import Bundle, derive, write_folder
from splitcodec.wire.packet import unpack


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def photos(tmp_path: Path, pictures: list[Image.Image]) -> list[Path]:
    paths = []
    for number, picture in enumerate(pictures[-3:]):
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
    return paths


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def encoded(photos: list[Path], bundle: Path, out: Path, *options: object, code: int = 0) -> list[dict[str, Any]]:
    done = run("encode", *photos, "-b", bundle, "-o", out, "--json", *options)
    assert done.exit_code == code, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_max_bytes_takes_the_best_level_that_fits(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    sizes = [Device(tiny_folder).prices(photo) for photo in photos]
    most = max(size[1] for size in sizes)
    found = encoded(photos, tiny_folder, tmp_path / "out", "--max-bytes", most)
    assert [one["level"] for one in found] == [max(n for n in range(3) if size[n] <= most) for size in sizes]
    assert all(Path(one["packet"]).stat().st_size == one["bytes"] <= most for one in found)


def test_what_does_not_fit_is_reported_and_the_others_are_done(
    tiny_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    smallest = [min(Device(tiny_folder).prices(photo)) for photo in photos]
    assert len(set(smallest)) > 1
    done = run("encode", *photos, "-b", tiny_folder, "-o", tmp_path / "out", "--json", "--max-bytes", min(smallest))
    assert done.exit_code == 2
    assert len(json.loads(done.stdout)) == smallest.count(min(smallest))
    refusals = [line for line in done.stderr.splitlines() if "BudgetTooSmall" in line]
    assert len(refusals) == 3 - smallest.count(min(smallest))
    assert f"the smallest packet of this picture has {max(smallest)} bytes" in done.stderr
    assert "Traceback" not in done.stderr


def test_force_fit_drops_symbols(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    smallest = {photo: min(Device(tiny_folder).prices(photo)) for photo in photos}
    worst = max(photos, key=lambda photo: smallest[photo])
    most = smallest[worst] - 1
    (one,) = encoded([worst], tiny_folder, tmp_path / "out", "--max-bytes", most, "--force-fit")
    assert one["bytes"] <= most
    assert (one["side"], one["level"]) == (64, 0)
    assert one["dropped"] > 0
    assert Edge(tiny_folder).answer(Path(one["packet"]).read_bytes())["level"] == 0


def test_a_deadline_over_a_known_link(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    fast = encoded(photos, tiny_folder, tmp_path / "a", "--deadline-ms", 60_000, "--kbit-per-s", 1000, "--rtt-ms", 5)
    assert {one["level"] for one in fast} == {2}
    done = run("encode", *photos, "-b", tiny_folder, "-o", tmp_path / "b", "--deadline-ms", 1, "--kbit-per-s", 1)
    assert done.exit_code == 2
    assert "bytes are left of 1 ms at 1 kbit/s" in done.stderr
    assert "set a later deadline" in done.stderr
    assert "allow that many" not in done.stderr


def test_what_runs_for_the_first_time_takes_nothing_from_a_deadline(
    tiny_folder: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of several pictures took five times as long as the others, and was refused or sent at a low level."""
    seen: list[object] = []
    plain = Device.encode_timed

    def watched(self: Device, picture: Picture, **options: Any) -> Encoded:
        seen.append(picture)
        return plain(self, picture, **options)

    monkeypatch.setattr(Device, "encode_timed", watched)
    encoded(photos[:1], tiny_folder, tmp_path / "without", "--max-bytes", 5000)
    assert seen == photos[:1]
    encoded(photos[:1], tiny_folder, tmp_path / "with", "--deadline-ms", 60_000, "--kbit-per-s", 1000)
    grey, last = seen[1:]
    assert isinstance(grey, bytes)
    assert last == photos[0]


def test_an_average_rate_is_kept(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    stream = photos * 8
    kbit = 8 * max(min(Device(tiny_folder).prices(photo)) for photo in photos) / 1000 * 1.2
    options = ("--kbit-per-s", kbit, "--fps", 1, "--window-s", 2)
    found = encoded(stream, tiny_folder, tmp_path / "out", *options)
    assert len(found) == 24
    sent = 0
    for second, one in enumerate(found):
        sent += one["bytes"]
        assert sent <= kbit * 125 * (second + 2) + 1
    assert len({one["level"] for one in found}) > 1
    again = encoded(stream, tiny_folder, tmp_path / "again", *options)
    assert [one["level"] for one in again] == [one["level"] for one in found]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--deadline-ms", "5"], "--kbit-per-s"),
        (["--kbit-per-s", "5"], "--fps"),
        (["--fps", "5"], "--kbit-per-s"),
        (["--rtt-ms", "5"], "--deadline-ms"),
        (["--window-s", "5"], "--fps"),
        (["--force-fit"], "to what"),
        (["--kbit-per-s", "5", "--fps", "0"], "--fps 0"),
        (["--kbit-per-s", "5", "--fps", "1", "--deadline-ms", "9"], "--fps"),
        (["--kbit-per-s", "0", "--fps", "1"], "more than 0"),
        (["--deadline-ms", "1e200", "--kbit-per-s", "1e200"], "--deadline-ms 1e+200"),
        (["--kbit-per-s", "1e308", "--fps", "1", "--window-s", "100"], "--kbit-per-s 1e+308"),
        (["--encoder", "int4"], "fp32, int8 or tuned"),
        (["--encoder", "int8"], r"encoder.int8.onnx"),
    ],
)
def test_options_that_make_no_sense(
    tiny_folder: Path, photos: list[Path], tmp_path: Path, options: list[str], words: str
) -> None:
    done = run("encode", photos[0], "-b", tiny_folder, "-o", tmp_path / "out", *options)
    assert done.exit_code != 0
    assert words in str(done.exception)
    assert isinstance(done.exception, SettingsError) or "int8" in options[1]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def server(tiny_folder: Path) -> Iterator[str]:
    from splitcodec.edge.server import BackgroundServer, Settings, create_app

    with BackgroundServer(create_app(Edge(tiny_folder), Settings())) as background:
        yield background.url


def test_ask_takes_the_best_level_that_a_quick_link_has_time_for(
    server: str, tiny_folder: Path, photos: list[Path]
) -> None:
    done = run("ask", *photos, "--url", server, "-b", tiny_folder, "--deadline-ms", 60_000, "--json")
    assert done.exit_code == 0, done.output
    assert {one["level"] for one in json.loads(done.stdout)} == {2}
    done = run("ask", photos[0], "--url", server, "-b", tiny_folder, "--max-bytes", 1000, "--level", 1, "--json")
    assert json.loads(done.stdout)["level"] == 1


class Slow:
    """An edge behind a radio of 37.5 kbit/s and 200 ms, by a clock of its own; whatever crosses the radio takes time.

    The edge says that it needs 30 ms, and every look at the clock takes 1 ms, so that encoding takes time too.
    """

    url = "http://slow"

    def __init__(self, edge: Edge, *, around: int) -> None:
        self.edge, self.around, self.now_s, self.trips_ms = edge, around, 0.0, list[float]()
        self._link = slow(self._answer, kbit_per_s=37.5, rtt_ms=200.0, sleep=self._sleep)

    def __call__(self, packet: bytes, *, idempotency_key: str | None = None) -> bytes:
        begin_s = self.now_s
        self._sleep(airtime_ms(self.around, kbit_per_s=37.5, rtt_ms=0.0) / 1000)
        body = restore(self._link(packet))
        self.trips_ms.append(1000 * (self.now_s - begin_s))
        return body

    def clock(self) -> float:
        self._sleep(0.001)
        return self.now_s

    def close(self) -> None: ...

    def _answer(self, packet: bytes) -> bytes:
        self._sleep(0.030)
        answer = parse_answer(self.edge.respond(packet))
        return shorten(dump_answer(Answer(**{**answer, "ms": {"decode": 1.0, "decoder": 20.0, "tail": 9.0}})))

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize("said", [("--kbit-per-s", 37.5, "--rtt-ms", 200), ()])
@pytest.mark.parametrize(("url", "around"), [("http://slow", AROUND_HTTP), ("udp://slow", AROUND_UDP)])
def test_over_a_slow_link_answers_arrive_before_the_deadline(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, around: int, said: tuple[object, ...]
) -> None:
    """Of a rate that is said, or measured. 764 to 840 ms of 600 it took when only the bytes up were counted."""
    photos = [tmp_path / f"{number}.png" for number in range(3)]
    for number, photo in enumerate(photos):
        noise = np.random.default_rng(number).integers(0, 256, (320, 320, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photo)
    radio = Slow(Edge(tiny_folder), around=around)
    monkeypatch.setattr(links, "open_link", lambda *_, **__: radio)
    monkeypatch.setattr(meter, "LinkMeter", partial(meter.LinkMeter, clock=radio.clock))
    monkeypatch.setattr(client, "time", SimpleNamespace(perf_counter=radio.clock))
    options = ("--fit", "letterbox", "--side", 512, "--encoder", "fp32", "--json")
    done = run("ask", *photos, "--url", url, "-b", tiny_folder, *options, "--deadline-ms", 600, *said)
    assert done.exit_code == 0, done.output
    asked = json.loads(done.stdout)
    assert [one["level"] for one in asked] == [1, 1, 1]
    for one, trip_ms in zip(asked, radio.trips_ms[-3:], strict=True):
        assert sum(one["ms"][stage] for stage in ("preprocess", "encoder", "coding")) + trip_ms <= 600
    sizes = [len(Device(tiny_folder).encode(photos[0], level=level, fit="letterbox", side=512)) for level in range(3)]
    assert airtime_ms(sizes[2], kbit_per_s=37.5, rtt_ms=200.0) < 600, "level 2 would fit if its bytes were all"


@pytest.mark.parametrize("limit", [("--max-bytes", 40, "--force-fit"), ("--level", 1)])
def test_what_measures_the_link_keeps_the_limits(
    tiny_folder: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch, limit: tuple[object, ...]
) -> None:
    """The first photograph went over the link at the highest level, whatever --max-bytes allowed."""
    edge, sent = Edge(tiny_folder), list[bytes]()

    def link(packet: bytes) -> bytes:
        sent.append(packet)
        return edge.respond(packet)

    monkeypatch.setattr(link, "url", "http://link", raising=False)
    monkeypatch.setattr(link, "close", lambda: None, raising=False)
    monkeypatch.setattr(links, "open_link", lambda *_, **__: link)
    done = run("ask", *photos, "--url", "http://link", "-b", tiny_folder, "--deadline-ms", 60_000, "--json", *limit)
    assert done.exit_code == 0, done.output
    assert len(sent) == 3 + len(photos)
    most, level = (40, 2) if limit[0] == "--max-bytes" else (10_000, 1)
    assert max(len(packet) for packet in sent) <= most
    assert max(unpack(packet).level for packet in sent) <= level


def test_tune_then_encode(tiny: Bundle, photos: list[Path], tmp_path: Path) -> None:
    both = derive(tiny, tiny.manifest, files={"encoder.int8.onnx": tiny.read("encoder.onnx")})
    folder = write_folder(both, tmp_path / "both").path
    told = json.loads(run("tune", folder, "--threads", "1", "--json").stdout)
    assert {one["encoder"] for one in told["timings"]} == {"fp32", "int8"}
    assert (tmp_path / "state" / "splitcodec" / "tune.json").exists()
    text = run("tune", folder, "--threads", "1", "--dry-run").stdout
    assert "nothing recorded" in text
    for options in ([], ["--encoder", "fp32"], ["--encoder", "int8"]):
        assert len(encoded(photos, folder, tmp_path / "out", *options)) == 3
    assert "expected numbers" in str(run("tune", folder, "--threads", "x").exception)


def test_a_wrong_deadline_is_refused_once_and_not_for_each_picture(tiny_folder: Path, photos: list[Path]) -> None:
    wrong = ("--deadline-ms", "-1", "--kbit-per-s", "10")
    done = run("encode", *photos, "-b", tiny_folder, *wrong)
    assert isinstance(done.exception, SettingsError)
    assert "a deadline of -1.0" in str(done.exception)


def test_pictures_ages_apart_are_refused(photos: list[Path]) -> None:
    limits = Limits(None, False, None, 10.0, None, 1e-300, None)
    with pytest.raises(SettingsError, match="--fps 1e-300"):
        limits.check(measures_link=True)
