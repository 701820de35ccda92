from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splitcodec.errors import DataError
from splitcodec.evaluation.points import points_bytes, read_points

POINT: dict[str, Any] = {"method": "bmshj2018", "setting": "quality 1", "bytes_mean": 812.5, "top1": 41.2}


def write(path: Path, body: object) -> Path:
    path.write_text(json.dumps(body))
    return path


def test_points_of_other_scripts_are_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.json", {"images": 500, "points": [POINT | {"encode_ms": 9.5, "payload_mean": 700, "else": 1}]}
    )
    more = write(tmp_path / "b.json", {"points": [POINT | {"setting": "quality 2"}]})
    (first, second), encoders = read_points([file, more], images=500, taken=["splitcodec"])
    assert encoders == {}
    assert (first.method, first.setting, first.bytes_mean, first.top1, first.encode_ms) == (
        "bmshj2018",
        "quality 1",
        812.5,
        41.2,
        9.5,
    )
    assert first.payload_mean == 700
    assert second.encode_ms is second.payload_mean is None


def test_costs_of_encoders_come_with_points(tmp_path: Path) -> None:
    cost = {"macs": 2e9, "parameters": 3_000_000, "images_seen": 224_000, "seconds": 1.5, "levelled": True}
    held = {"processor_seconds": 60.0, "device_seconds": {"H200": 90}, "bundles": ["a@1", "b@2"]}
    file = write(tmp_path / "a.json", {"points": [POINT], "encoders": {"bmshj2018": {**cost, **held}}})
    _, encoders = read_points([file], images=500, taken=[])
    found = encoders["bmshj2018"]
    assert (found.macs, found.parameters, found.bytes, found.images_seen) == (2_000_000_000, 3_000_000, None, 224_000)
    assert (found.seconds, found.levelled, found.ours, found.bundles) == (1.5, True, False, ("a@1", "b@2"))
    assert (found.processor_seconds, found.device_seconds) == (60.0, {"H200": 90.0})  # a GPU's time was left out


@pytest.mark.parametrize("bundles", ["a@1", [1], [""], ["x" * 81], {"a@1": 1}])
def test_names_of_bundles_are_checked(tmp_path: Path, bundles: object) -> None:
    file = write(tmp_path / "a.json", {"points": [POINT], "encoders": {"bmshj2018": {"bundles": bundles}}})
    with pytest.raises(DataError, match=r"bundles is .*, expected a list of name@version"):
        read_points([file], images=500, taken=[])


def test_a_method_has_one_cost_and_a_file_tells_of_its_own_methods(tmp_path: Path) -> None:
    """The last file's counted: what had not levelled off was trained, once a later file said so of its own points."""
    files = []
    for number, levelled in enumerate((False, True, False)):
        point = POINT | {"setting": f"quality {number}"}
        body = {"points": [point], "encoders": {"bmshj2018": {"macs": 5, "levelled": levelled}}}
        files.append(write(tmp_path / f"{number}.json", body))
    with pytest.raises(DataError, match=r"1\.json: encoders\.bmshj2018 is another cost than an earlier file tells"):
        read_points(files[:2], images=500, taken=[])
    assert len(read_points([files[0], files[2]], images=500, taken=[])[0]) == 2
    other = write(tmp_path / "other.json", {"points": [], "encoders": {"bmshj2018": {"macs": 5, "levelled": True}}})
    with pytest.raises(DataError, match="encoders names 'bmshj2018', of which it has no point"):
        read_points([files[0], other], images=500, taken=[])


def test_nothing_and_all_of_it_are_figures_too(tmp_path: Path) -> None:
    points = [POINT | {"top1": top1, "setting": f"quality {top1}", "bytes_mean": 0.5} for top1 in (0, 100)]
    nothing = dict.fromkeys(("macs", "parameters", "seconds"), 0) | {"device_seconds": {"H200": 0}}
    file = write(tmp_path / "a.json", {"points": points, "encoders": {"bmshj2018": nothing}})
    found, encoders = read_points([file], images=500, taken=[])
    assert [(one.top1, one.bytes_mean) for one in found] == [(0, 0.5), (100, 0.5)]
    cost = encoders["bmshj2018"]
    assert (cost.macs, cost.seconds, cost.device_seconds) == (0, 0, {"H200": 0})


@pytest.mark.parametrize("word", ["no", "false", 1, [0]])
def test_what_is_not_said_to_have_levelled_has_not(word: object, tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", {"points": [POINT], "encoders": {"bmshj2018": {"levelled": word}}})
    assert not read_points([file], images=500, taken=[])[1]["bmshj2018"].levelled


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([POINT], "expected a JSON object with a list 'points'"),
        ({"images": 10, "points": [POINT]}, "measured on 10 images, this run on 500"),
        ({"points": [POINT, POINT]}, "'bmshj2018 quality 1' comes twice"),
        ({"points": [POINT | {"method": "jpeg"}]}, "'jpeg' is measured by this run itself"),
        ({"points": [POINT | {"method": 5}]}, r"points\[0\]: method is 5"),
        ({"points": [POINT | {"bytes_mean": 0}]}, "bytes_mean is 0, expected a number above 0"),
        ({"points": [POINT | {"bytes_mean": -1}]}, "bytes_mean is -1, expected a number above 0"),
        ({"points": [POINT | {"top1": float("nan")}]}, "top1 is nan"),
        ({"points": [POINT | {"top1": 100.5}]}, "top1 is 100.5, expected per cent, 0 to 100"),
        ({"points": [POINT | {"top1": -0.5}]}, "top1 is -0.5, expected per cent, 0 to 100"),
        ({"points": [POINT | {"top1": 10**400}]}, "top1 is 1000"),
        ({"points": [POINT | {"top1": True}]}, "top1 is True"),
        ({"points": [POINT | {"payload_mean": "x"}]}, "payload_mean is 'x'"),
        ({"points": ["x"]}, r"points\[0\]: expected an object"),
        ({"points": [POINT], "encoders": []}, "encoders is \\[\\], expected an object"),
        ({"points": [POINT], "encoders": {"else": {}}}, "encoders names 'else', of which it has no point"),
        ({"points": [POINT], "encoders": {"bmshj2018": 5}}, "encoders.bmshj2018: expected an object with macs"),
        ({"points": [POINT], "encoders": {"bmshj2018": {"macs": -1}}}, "macs is -1, expected a number of at least 0"),
        ({"points": [POINT], "encoders": {"bmshj2018": {"device_seconds": 9}}}, "device_seconds is 9, expected"),
        ({"points": [POINT], "encoders": {"bmshj2018": {"device_seconds": {"H": -1}}}}, "device_seconds is {'H': -1}"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, body: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_points([write(tmp_path / "a.json", body)], images=500, taken=["jpeg"])


def test_a_file_that_is_missing_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_points([tmp_path / "none.json"], images=1, taken=[])
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match="not JSON"):
        read_points([tmp_path / "bad.json"], images=1, taken=[])


def test_a_device_without_an_end_is_not_read_whole() -> None:
    """It has no size, and was read until the memory was full."""
    with pytest.raises(DataError, match="more than 16777216 bytes"):
        points_bytes(Path("/dev/zero"))
