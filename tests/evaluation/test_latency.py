"""Latency out of stages and links, and the script in benchmarks/ that measures it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.device.fragmented import fragmented
from splitcodec.device.image import load_picture
from splitcodec.device.link import slow
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, LinkDown, SettingsError
from splitcodec.evaluation.latency import Datagrams, Overhead, Radio, Trip, break_even_kbit_per_s
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.fragment import DATAGRAM, split

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RADIO = Radio(37.5, 200.0, 81.0)
TRIP = Trip({"preprocess": 2.0, "encoder": 3.0}, {"decode": 4.0, "tail": 5.0}, up=1000, down=500)
ALONE = Trip({"preprocess": 2.0, "network": 98.0}, {})


def test_the_link_takes_what_the_simulated_one_waits() -> None:
    waited: list[float] = []
    link = slow(lambda _: bytes(TRIP.down), kbit_per_s=37.5, rtt_ms=200, sleep=waited.append)
    link(bytes(TRIP.up))
    assert TRIP.link_ms(RADIO) == pytest.approx(1000 * sum(waited))
    assert TRIP.total_ms(RADIO) == pytest.approx(14 + 200 + 1500 * 8 / 37.5)
    assert ALONE.link_ms(RADIO) == 0


def test_bytes_on_the_link_have_heads_and_segments_around_them() -> None:
    heads = Overhead(request=200, response=380)
    assert heads.up(1248) == 200 + 1248 + 52
    assert heads.up(1249) == 200 + 1249 + 104
    assert heads.down(0) == 380 + 52


@pytest.mark.parametrize("size", [0, 1, 1182, 1183, 1189, 1190, 5000])
def test_bytes_in_datagrams_are_those_of_the_real_link(size: int) -> None:
    """What two real shores send for a packet of that size, and for an answer of it."""
    up: list[bytes] = []
    down = list(split(bytes(size), frame=DATAGRAM))
    link = fragmented(up.append, lambda _: None, frame=DATAGRAM, top=1, brief=True, timeout_s=0.001)
    with pytest.raises(LinkDown):
        link(bytes(size))
    carrier = Datagrams(7)
    assert carrier.up(size) == sum(28 + len(frame) for frame in up)
    assert carrier.down(size) == sum(28 + 7 + len(piece) for piece in down)


def test_at_the_break_even_rate_both_take_as_long() -> None:
    rate = break_even_kbit_per_s(TRIP, ALONE, rtt_ms=20)
    assert rate is not None
    assert TRIP.total_ms(Radio(rate, 20, 1)) == pytest.approx(ALONE.total_ms(Radio(rate, 20, 1)))
    assert break_even_kbit_per_s(TRIP, ALONE, rtt_ms=90) is None


def test_energy_is_computing_and_bytes() -> None:
    assert TRIP.energy_mj(RADIO, watts=4) == pytest.approx(5 * 4 + 1500 * 0.081)
    assert TRIP.slower(10).energy_mj(RADIO, watts=4) == pytest.approx(50 * 4 + 1500 * 0.081)
    assert TRIP.slower(10).total_ms(RADIO) - TRIP.total_ms(RADIO) == pytest.approx(45)


@pytest.mark.parametrize(("rate", "rtt", "cost"), [(0, 1, 1), (1, -1, 1), (1, 1, -1), (1, 1, float("nan"))])
def test_what_is_no_link_is_refused(rate: float, rtt: float, cost: float) -> None:
    with pytest.raises(SettingsError, match="expected"):
        Radio(rate, rtt, cost)


def test_no_device_is_slower_by_nothing() -> None:
    with pytest.raises(SettingsError, match="0 times as slow"):
        TRIP.slower(0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import latency

    return latency


def point(method: str, setting: str, size: float, top1: float) -> dict[str, Any]:
    return {"method": method, "setting": setting, "bytes_mean": size, "top1": top1}


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """Return an rd.json in which level 1, JPEG at 22, and no setting of WebP come within 3 points of 90 %."""
    points = [
        *(point("splitcodec", f"level {k}", 100 * (k + 1), top1) for k, top1 in enumerate((80.0, 87.0, 89.0))),
        *(point("jpeg", f"quality {k}", 10 * k, 60.0 + k) for k in (10, 27, 28, 29)),
        point("jpeg", "quality 70, 32 px", 279.0, 87.0),
        *(point("webp", f"quality {k}", 10 * k, 60.0 + k) for k in (1, 8)),
        *(point("paper", f"paper-{k} level 0", 90.0 * k, 86.0 + k) for k in (0, 1, 2)),
        point("reduced", "level 0", 90.0, 89.0),
    ]
    encoders = {
        "splitcodec": {"trained": "unknown", "bundles": ["tiny@1"]},
        "paper": {"trained": "undertrained", "bundles": ["paper-0@1", "paper-1@1", "paper-2@1"]},
        "reduced": {"trained": "undertrained", "bundles": ["reduced@1"]},
    }
    path = tmp_path / "rd.json"
    path.write_text(
        json.dumps({"images": 10, "teacher_top1": 90.0, "commit": "abc", "points": points, "encoders": encoders})
    )
    return path


def test_the_cheapest_setting_that_is_good_enough_is_chosen(script: ModuleType, rates: Path) -> None:
    found = script.Rates(rates)
    jpeg, webp, paper = (found.choose(name, within=3) for name in ("jpeg", "webp", "paper"))
    assert (jpeg.setting, jpeg.reaches, jpeg.dial) == ("quality 27", True, (27, None))
    assert (webp.setting, webp.reaches) == ("quality 8", False)
    assert (paper.level, paper.undertrained) == (("paper-1", 0), True)
    assert found.choose("splitcodec", within=3).level == (None, 1)
    assert found.choose("jpeg", within=2.5).dial == (28, None)
    assert found.choose("vvc", within=3) is None
    assert (jpeg.equal_bytes, webp.equal_bytes) == (270.0, 80.0)
    assert found.choose("splitcodec", within=4).equal_bytes == pytest.approx(100 + 100 * 6 / 7)  # between its levels
    assert found.method_of("tiny@1") == "splitcodec"


def test_a_lower_resolution_may_be_the_cheapest(script: ModuleType, rates: Path) -> None:
    body = json.loads(rates.read_bytes())
    body["points"].append(point("jpeg", "quality 40, 112 px", 200.0, 87.5))
    rates.write_text(json.dumps(body))
    assert script.Rates(rates).choose("jpeg", within=3).dial == (40, 112)


@pytest.fixture
def photos(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, picture in enumerate(pictures[4:6]):
        picture.save(folder / f"{k}.png")
    return folder


def test_of_a_rivals_bundles_one_that_is_here_stands_in_for_the_best(
    script: ModuleType, like_tiny: Any, rates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one of its bundles gone, a rival was no longer in the line-up."""
    from latency_parts import lineup

    asked: list[tuple[str, str, float, bool]] = []

    def recorded(bundle: Bundle, choice: Any, *, name: str, **_: object) -> list[object]:
        asked.append((bundle.ident, choice.setting, choice.bytes_mean, choice.reaches))
        return [name]

    monkeypatch.setattr(lineup, "packets", recorded)
    monkeypatch.setattr(lineup, "RIVALS", ("paper",))

    def lined_up(*names: str) -> tuple[list[Any], list[tuple[str, str]]]:
        asked.clear()
        folder, left_out = tmp_path / "-".join(names), list[tuple[str, str]]()
        folder.mkdir()
        for name in names:
            like_tiny(name, folder=folder / name.replace("paper-", "paper_beta"))
        cores: Any = None  # nothing is measured
        return lineup._rivals(folder, script.Rates(rates), within=3, top=1, cores=cores, left_out=left_out), left_out

    assert lined_up("paper-0", "paper-1") == (["paper"], [])
    assert asked == [("paper-1@1", "paper-1 level 0", 90.0, True)]
    found, ((method, why),) = lined_up("paper-0", "paper-2")
    assert (found, method) == (["paper"], "paper")
    assert why.endswith(
        "'paper-1 level 0' is not among the rivals here; of those that are, 'paper-2 level 0' stands in"
    )
    assert asked == [("paper-2@1", "paper-2 level 0", 180.0, True)]
    _, (_,) = lined_up("paper-0")
    assert asked == [("paper-0@1", "paper-0 level 0", 0.0, False)]
    assert lined_up("paper-9") == ([], [("paper", "its bundle of 'paper-1 level 0' is not among the rivals here")])


def test_one_command_measures_all(
    script: ModuleType,
    tiny: Bundle,
    like_tiny: Any,
    rates: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    like_tiny("paper-1", folder=tmp_path / "rivals" / "paper_beta1")
    out = tmp_path / "out" / "latency.json"
    bundle = like_tiny("tiny", files={"encoder.int8.onnx": tiny.read("encoder.onnx")})
    words = ["--bundles", str(bundle.path), "--rates", str(rates), "--photos", str(photos), "--out", str(out)]
    words += ["--rivals", str(tmp_path / "rivals"), "--codecs", "jpeg,webp,vvc", "--most", "2", "--turns", "1"]
    assert script.main(words) == 0
    body = json.loads(out.read_bytes())
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    strategies = {one["name"]: one for one in body["strategies"]}
    ours, jpeg, webp, paper, alone = (
        strategies[name]
        for name in (
            "tiny fp32, constriction",
            "jpeg, network at the edge",
            "webp, network at the edge",
            "paper",
            "on the device",
        )
    )
    others = {"tiny fp32, plain", "tiny int8, constriction", "tiny int8, plain"}
    assert set(strategies) == {one["name"] for one in (ours, jpeg, webp, paper, alone)} | others
    assert all(strategies[name]["bytes_mean"] == 200 for name in ("tiny fp32, constriction", *others))  # as in rd.json
    assert all(12 < strategies[name]["bytes_mean_here"] != 200 for name in others)
    assert (jpeg["bytes_mean"], webp["bytes_mean"]) == (270, 80)
    assert ours["answer_bytes_mean"] < 150  # one guess
    assert "those of the fp32 encoder" in strategies["tiny int8, plain"]["note"]
    assert set(ours["device_ms"]) == {"preprocess", "encoder", "coding"}
    assert set(ours["edge_ms"]) == {"decode", "tail"}
    assert set(jpeg["edge_ms"]) == {"decode", "network"}
    assert alone["edge_ms"] == {}
    assert not webp["reaches"]
    assert not webp["claim"]
    assert not paper["claim"]
    assert {one["method"] for one in body["left_out"]} == {"several tasks on the device", "vvc", "reduced"}
    here, slower, udp_here, udp_slower = body["blocks"]
    assert [block["label"] for block in body["blocks"][1:]] == [
        "over HTTP, device times 10: modelled",
        "over UDP, measured here",
        "over UDP, device times 10: modelled",
    ]
    assert udp_slower["rows"][0]["device_ms"] == slower["rows"][0]["device_ms"]
    assert slower["rows"][0]["device_ms"] == pytest.approx(10 * here["rows"][0]["device_ms"], abs=0.1)
    assert 60 < body["overhead"]["request_head_bytes"] < 150
    assert 60 < body["overhead"]["response_head_bytes"] < 150
    row_name = "tiny fp32, constriction"
    row = next(row for row in here["rows"] if row["strategy"] == row_name)
    assert row["total_ms"]["37.5 kbit/s"] == pytest.approx(
        200 + sum(row["link_bytes"]) * 8 / 37.5 + row["device_ms"] + row["edge_ms"], abs=0.01
    )
    (lean,) = (row for row in udp_here["rows"] if row["strategy"] == row_name)
    assert lean["total_ms"]["37.5 kbit/s"] < row["total_ms"]["37.5 kbit/s"]
    assert lean["link_bytes"][0] == 200 + 7 + 4 + 35
    assert lean["link_bytes"][1] == round(ours["answer_bytes_mean_brief"]) + 4 + 35
    assert [one["carrier"] for one in body["targets"]] == ["HTTP", "UDP"]
    for one in body["targets"]:
        assert one["best_codec"] == "jpeg, network at the edge"
        assert one["times_faster"] > 0
    assert "webp, network at the edge (does not reach" in " ".join(capsys.readouterr().out.split())
    assert str(tmp_path) not in out.read_text()
    assert "--rates rd.json" in body["command"]
    from latency_parts.page import section

    text = "\n".join(section(body))
    assert "| paper (undertrained) | paper-1 level 0 |" in text
    assert "### Picture to answer in ms, over UDP, device times 10: modelled" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rates", "absent.json"], "absent.json: cannot be read"),
        (["--codecs", "gif"], "codec 'gif'; expected some of jpeg"),
        (["--links", "x"], "--links 'x'; expected numbers"),
        (["--rtts-ms", "1,2"], "--rtts-ms has 2 numbers, --links 5"),
        (["--links", "64"], "--links 64: nothing is known of such a link; give --rtts-ms too"),
        (["--links", "0", "--rtts-ms", "1", "--radio-uj-per-byte", "1"], "a rate of 0.0 kbit/s"),
        (["--links", "250,250"], "a rate comes twice"),
        (["--turns", "0"], "--turns 0; expected at least 1"),
        (["--device-slowdown", "0"], "--device-slowdown 0; expected more than 0"),
        (["--bundles", ","], "--bundles names no bundle"),
    ],
)
def test_a_refusal_is_one_line(
    script: ModuleType,
    tiny_folder: Path,
    rates: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    given = ["--bundles", str(tiny_folder), "--rates", str(rates), "--out", str(tmp_path / "out.json"), "--most", "1"]
    given += ["--rivals", str(tmp_path / "none"), "--turns", "1"]
    assert script.main([*given, *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "out.json").exists()


def test_a_bundle_that_was_not_measured_is_refused(
    script: ModuleType, like_tiny: Any, rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other: Bundle = like_tiny("other")
    assert script.main(["--bundles", str(other.path), "--rates", str(rates)]) == 2
    assert "has no point of other@1; measure it first" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"teacher_top1": 1, "images": 1, "points": [{}]}'])
def test_what_is_no_rd_json_is_refused(script: ModuleType, tmp_path: Path, text: str) -> None:
    path = tmp_path / "rd.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"not an rd\.json"):
        script.Rates(path)


def test_the_bars_legend_stands_beside_the_longest_run_of_short_bars(script: ModuleType) -> None:
    """It lay over the bars of three tasks."""
    from latency_parts.plot import _room

    def bars(*ms: float) -> list[dict[str, Any]]:
        return [{"device_ms": {"encoder": one / 2}, "edge_ms": {"tail": one / 2}} for one in ms]

    assert _room(bars(9, 1, 2, 9, 1, 2, 1, 9, 1, 1)) == pytest.approx(5.5 / 10)
    assert _room(bars(1, 1, 9)) == pytest.approx(1 / 3)
    assert 0 <= _room(bars(9)) <= 1


def test_a_video_codec_costs_what_a_picture_more_costs(script: ModuleType) -> None:
    from latency_parts.strategies import folded

    ms = {"preprocess": 2.0, "coding of one": 100.0, "coding of several": 140.0, "decode of one": 9.0}
    assert folded({**ms, "decode of several": 8.0}) == {"preprocess": 2.0, "coding": 10.0, "decode": 0.0}


def test_counters_of_energy_wrap(script: ModuleType, tmp_path: Path) -> None:
    from latency_parts.power import Rapl

    package = tmp_path / "intel-rapl:0"
    (package / "intel-rapl:0:0").mkdir(parents=True)
    (package / "max_energy_range_uj").write_text("1000000\n")
    (package / "energy_uj").write_text("900000\n")
    rapl = Rapl(tmp_path)
    assert rapl.read() == [900_000]
    assert rapl.joules([900_000], [950_000]) == pytest.approx(0.05)
    assert rapl.joules([900_000], [50_000]) == pytest.approx(0.15)
    assert Rapl(tmp_path / "none").read() is None


def test_the_link_check_says_why_it_did_not_run(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from latency_parts import shaped

    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    check = {"link_check": shaped.check_link("tiny", [b"x"], radios=[RADIO], carriers=[Overhead(1, 1)], top=1)}
    monkeypatch.setattr("os.geteuid", lambda: 1)
    found = shaped.check_link("tiny", [b"x"], radios=[RADIO], carriers=[Overhead(1, 1)], top=1)
    assert found["skipped"].endswith("need root")
    from latency_parts.show import check_lines

    assert check_lines(check) == ["The link model was not checked: ip and tc cannot be found (package iproute2)."]
    assert check_lines({"link_check": None}) == []


@pytest.mark.soak
def test_a_shaped_link_takes_what_the_model_says(script: ModuleType, tiny: Bundle, tiny_folder: Path) -> None:
    from latency_parts.heads import datagrams, overhead
    from latency_parts.shaped import check_link

    device = Device(tiny, threads=1)
    noise = Image.effect_noise((80, 80), 90)
    packets = [device.encode(noise, level=level) for level in (0, 2)]
    heads = overhead(Edge(tiny, threads=1), packets[0], top=1)
    found = check_link(str(tiny_folder), packets, radios=[RADIO], carriers=[heads, datagrams(packets[0], top=1)], top=1)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert found["agrees"], found["rows"]


def test_everybody_begins_with_the_same_picture_read_in_the_same_way(script: ModuleType, tiny: Bundle) -> None:
    """Codecs decoded a large JPEG whole, and ours as small as will do."""
    from latency_parts.strategies import _view

    file = io.BytesIO()
    Image.effect_noise((1600, 1200), 80).convert("RGB").save(file, "JPEG")
    device = Device(tiny, threads=1)
    whole, reduced = device.crop(load_picture(file.getvalue())), device.crop(file.getvalue())
    assert (whole != reduced).any()
    assert (_view(device, file.getvalue(), fit="crop") == reduced).all()
