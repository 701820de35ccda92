from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundlePart, DataError, MissingExtra, SettingsError
from splitcodec.evaluation.bench import Bench
from splitcodec.evaluation.codecs import HEVC, JPEG, Codec
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.result import Report
from splitcodec.evaluation.sweep import Setting
from splitcodec.wire.bundle import Bundle, split_device
from tests.evaluation.conftest import COUNT
from tests.evaluation.test_codecs import able


def test_the_json_is_that_of_the_design(report: Report) -> None:
    body = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (body["bundle"], body["task"], body["images"]) == ("tiny@1", "classify", COUNT)
    assert body["teacher_top1"] == pytest.approx(100 * (COUNT - 1) / COUNT, abs=1e-3)
    ours = [point for point in body["points"] if point["method"] == "splitcodec"]
    assert [point["setting"] for point in ours] == ["level 0", "level 1", "level 2"]
    jpeg = [point for point in body["points"] if point["method"] == "jpeg"]
    assert [point["setting"] for point in jpeg if point["resolution"] == 64] == [f"quality {q}" for q in JPEG.sweep]
    assert [point["setting"] for point in jpeg if point["resolution"] < 64] == [
        f"quality {q}, {side} px" for side in (48, 32, 24) for q in JPEG.few
    ]
    assert all(0 < point["payload_mean"] < point["bytes_mean"] for point in ours + jpeg)
    assert all(point["encode_ms"] > 0 for point in body["points"] if point["method"] != "other")
    assert set(body["bd_rate"]) == {"jpeg", "other"}
    assert set(body["bd_rate_payload"]) == set(body["bd_accuracy"]) == set(body["bd_rate"])
    assert body["bd_rate"]["other"] is body["bd_rate_payload"]["other"] is body["bd_accuracy"]["other"] is None
    assert all(0 < extra <= 16 for extra in body["overhead_bytes"].values())
    assert len(body["overhead_bytes"]) == 3


def test_bytes_and_scores_are_those_of_device_and_edge(report: Report, tiny: Bundle, labelled: Path) -> None:
    device, edge = Device(tiny, threads=1), Edge(tiny, threads=1)
    for level in range(3):
        sizes, right = [], []
        for path in sorted(labelled.glob("*.png")):
            packet = device.encode(path, level=level)
            sizes.append(len(packet))
            right.append(edge.answer(packet)["answers"]["classify"][0]["index"] == int(path.name[:4]))
        point = next(one for one in report.points if one.name == f"splitcodec level {level}")
        assert point.bytes_mean == pytest.approx(np.mean(sizes))
        assert point.top1 == pytest.approx(100 * np.mean(right))


def test_the_codecs_files_are_what_is_counted(report: Report, tiny: Bundle, labelled: Path) -> None:
    device = Device(tiny, threads=1)
    crops = [device.crop(path)[0] for path in sorted(labelled.glob("*.png"))]
    point = next(one for one in report.points if one.name == "jpeg quality 50")
    assert point.bytes_mean == pytest.approx(np.mean([len(data) for data in JPEG.encode(crops, 50)]))
    (flat,) = JPEG.encode([np.full((64, 64, 3), 128, np.uint8)], 50)
    assert point.payload_mean == pytest.approx(point.bytes_mean - len(flat))


def test_lower_resolutions_are_scaled_up_for_the_same_network(report: Report, tiny: Bundle, labelled: Path) -> None:
    device, edge, right = Device(tiny, threads=1), Edge(tiny, threads=1), []
    for path in sorted(labelled.glob("*.png")):
        small = Image.fromarray(device.crop(path)[0]).resize((32, 32), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=40, optimize=True)
        image = np.asarray(Image.open(file).resize((64, 64), Image.Resampling.BICUBIC))
        right.append(edge.picture_answer(image[None])["answers"]["classify"][0]["index"] == int(path.name[:4]))
    point = next(one for one in report.points if one.name == "jpeg quality 40, 32 px")
    assert point.top1 == pytest.approx(100 * np.mean(right))


def test_codecs_that_take_many_pictures_at_once_score_as_picture_by_picture(tiny: Bundle, labelled: Path) -> None:
    def brief(codec: Codec, crop: int) -> list[Setting]:
        return [Setting(codec, 33), Setting(codec, 33, 32)]

    able(HEVC)
    told: list[int] = []
    found = evaluate(
        tiny, labelled, codecs=["hevc"], sweep=brief, progress=lambda done, _: told.append(done), threads=2
    )
    assert told == list(range(COUNT + 2))
    assert [name for name, _ in found.skipped] == ["0003_broken.jpg"]
    device, edge = Device(tiny, threads=1), Edge(tiny, threads=1)
    paths = sorted(labelled.glob("*.png"))
    files = [HEVC.encode([device.crop(path)[0]], 33)[0] for path in paths]
    tops = [edge.picture_answer(HEVC.decode([data])[0][None])["answers"]["classify"][0]["index"] for data in files]
    whole, small = found.of("hevc")[::-1]
    assert (whole.setting, small.setting) == ("qp 33", "qp 33, 32 px")
    assert whole.bytes_mean == pytest.approx(np.mean([len(data) for data in files]))
    assert whole.top1 == pytest.approx(100 * np.mean([t == int(p.name[:4]) for t, p in zip(tops, paths, strict=True)]))


def test_broken_pictures_are_left_out_and_listed(report: Report) -> None:
    (name, reason), *others = report.skipped
    assert name == "0003_broken.jpg"
    assert reason.startswith("not a picture")
    assert others == []


def test_every_difference_has_an_interval_around_it(report: Report) -> None:
    assert {(one.a, one.b.split()[0]) for one in report.contrasts} == {
        (f"splitcodec level {level}", rival) for level in range(3) for rival in ("teacher", "jpeg")
    }
    assert all(one.low <= one.top1 <= one.high for one in report.contrasts)
    for point in report.points:
        assert (point.top1_ci95 is None) == (point.method == "other")


def test_every_figure_of_measured_methods_may_have_an_interval_and_of_foreign_ones_none(report: Report) -> None:
    body = json.loads(json.dumps(report.to_json(), allow_nan=False))
    for key in ("bd_rate", "bd_rate_payload", "bd_accuracy"):
        assert list(body[f"{key}_interval"]) == list(body[key]) == ["jpeg", "other"]
        assert body[f"{key}_interval"]["other"] is None
    assert {name: list(row) for name, row in body["bd_rate_matrix_interval"].items()} == {
        name: list(row) for name, row in body["bd_rate_matrix"].items()
    }
    assert body["bd_rate_matrix_interval"]["splitcodec"] == body["bd_rate_interval"]
    for row in body["bytes_at_equal_score"]:
        assert list(row["bytes_interval"]) == list(row["bytes"])
        assert row["bytes_interval"]["other"] is None
        for method, interval in row["bytes_interval"].items():
            assert interval is None or (row["bytes"][method] is not None and interval[0] <= interval[1])


def test_threads_change_nothing_and_progress_reaches_the_end(tiny: Bundle, labelled: Path, report: Report) -> None:
    told: list[tuple[int, int]] = []
    again = evaluate(tiny, labelled, codecs=[], progress=lambda done, total: told.append((done, total)), threads=1)
    ours = [one for one in report.points if one.method == "splitcodec"]
    assert [(one.bytes_mean, one.top1) for one in again.points] == [(one.bytes_mean, one.top1) for one in ours]
    assert told == [(done, COUNT + 1) for done in range(COUNT + 2)]
    assert again.bd == {}


def test_what_makes_no_sense_is_refused_at_once(tiny: Bundle, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="codec 'bpg'"):
        evaluate(tiny, labelled, codecs=["bpg"])
    with pytest.raises(SettingsError, match="threads 0"):
        evaluate(tiny, labelled, threads=0)
    with pytest.raises(DataError, match="no labelled picture"):
        evaluate(tiny, tmp_path)
    with pytest.raises(BundlePart, match="decoder"):
        evaluate(split_device(tiny, tmp_path / "half"), labelled)
    (tmp_path / "0001_a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 pictures can be read"):
        evaluate(tiny, tmp_path, codecs=[])


def test_an_image_codec_out_of_a_file_is_one_and_the_report_says_where_it_is_from(
    tiny: Bundle, labelled: Path, tmp_path: Path
) -> None:
    point = {"method": "vvc", "setting": "qp 40", "bytes_mean": 300, "top1": 50}
    learned = {"method": "learned", "setting": "a", "bytes_mean": 400, "top1": 60, "encode_ms": 9}
    (tmp_path / "vvc.json").write_text(json.dumps({"points": [point, learned]}))
    report = evaluate(tiny, labelled, codecs=[], points_files=[tmp_path / "vvc.json"], threads=1)
    assert report.codecs == ("vvc",)
    told = "Not measured in this run, but read from a file of another one, encode_ms too: vvc, learned."
    assert report.notes[-1] == told  # of the others than image codecs nothing was said
    assert next(one for one in report.frontier() if one.method == "vvc").macs == 0


def test_points_are_of_the_pictures_that_can_be_read(
    tiny: Bundle, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another program that left the broken one out, too, were refused: it had to count it."""
    file = tmp_path / "points.json"
    point = {"method": "other", "setting": "a", "bytes_mean": 300, "top1": 50}
    file.write_text(json.dumps({"images": COUNT, "points": [point]}))
    found = evaluate(tiny, labelled, codecs=[], points_files=[file], threads=2)
    assert (found.images, found.methods) == (COUNT, ["splitcodec", "other"])
    file.write_text(json.dumps({"images": COUNT + 1, "points": [point]}))
    monkeypatch.setattr(Bench, "read", None)  # it is told before anything is measured
    with pytest.raises(DataError, match=f"measured on {COUNT + 1} images, this run on {COUNT} that can be read"):
        evaluate(tiny, labelled, codecs=[], points_files=[file], threads=2)


def test_what_the_end_needs_is_asked_for_before_anything_is_measured(
    tiny: Bundle, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra a run of hours ended in the advice to install it, and had to be made again."""
    levels = [{"method": "four", "setting": str(k), "bytes_mean": 300 + k, "top1": 50} for k in range(4)]
    (tmp_path / "points.json").write_text(json.dumps({"points": levels, "encoders": {"four": {}}}))
    monkeypatch.setitem(sys.modules, "bjontegaard", None)

    def no_measuring(*_: object, **__: object) -> None:
        raise AssertionError("measured before it was asked for")

    monkeypatch.setattr(Bench, "read", no_measuring)
    with pytest.raises(MissingExtra, match=r"BD-rate needs bjontegaard; install it with: pip install"):
        evaluate(tiny, labelled, codecs=["jpeg"], points_files=[tmp_path / "points.json"])


def test_a_run_outlives_its_pictures(tiny: Bundle, labelled: Path, tmp_path: Path, report: Report) -> None:
    folder = Path(shutil.copytree(labelled, tmp_path / "here"))

    def vanish(done: int, total: int) -> None:
        if done == total:
            shutil.rmtree(folder)

    found = evaluate(tiny, folder, codecs=["jpeg"], progress=vanish, threads=2)
    assert not folder.exists()
    mine = [one for one in report.points if one.method != "other"]
    assert [(one.name, one.bytes_mean, one.top1) for one in found.points] == [
        (one.name, one.bytes_mean, one.top1) for one in mine
    ]
    assert all(one.encode_ms and one.encode_ms > 0 for one in found.points)


def test_a_picture_may_vanish_once_it_is_cropped(
    tiny: Bundle, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, crop, pack_latent = Path(shutil.copytree(labelled, tmp_path / "here")), Device.crop, Device.pack_latent
    cropped: list[Path] = []

    def crop_it(device: Device, picture: Any) -> Any:
        cropped.append(picture)
        return crop(device, picture)

    def pack_and_vanish(device: Device, latent_chw: Any, *, level: int) -> bytes:
        cropped[-1].unlink(missing_ok=True)
        return pack_latent(device, latent_chw, level=level)

    monkeypatch.setattr(Device, "crop", crop_it)
    monkeypatch.setattr(Device, "pack_latent", pack_and_vanish)
    found = evaluate(tiny, folder, codecs=[], threads=1)
    assert found.images == COUNT
    assert [path.name for path in folder.iterdir()] == ["0003_broken.jpg"]
