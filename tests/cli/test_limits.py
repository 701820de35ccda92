"""`encode` and `ask` within bytes, a deadline or an average rate, and with a chosen encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.cli.limits import Limits
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import SettingsError
from splitcodec.wire.bundle import Bundle, derive, write_folder


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


def test_ask_measures_the_link_and_keeps_a_deadline(server: str, tiny_folder: Path, photos: list[Path]) -> None:
    done = run("ask", *photos, "--url", server, "-b", tiny_folder, "--deadline-ms", 60_000, "--json")
    assert done.exit_code == 0, done.output
    assert {one["level"] for one in json.loads(done.stdout)} == {2}
    done = run("ask", photos[0], "--url", server, "-b", tiny_folder, "--max-bytes", 1000, "--level", 1, "--json")
    assert json.loads(done.stdout)["level"] == 1


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
