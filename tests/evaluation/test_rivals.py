from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundleNotFound, BundlePart, DataError, SettingsError
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.result import OURS, EncoderCost, Report
from splitcodec.evaluation.rivals import Rival, costs, open_entrants, parse_rival, rivals_below
from splitcodec.wire.bundle import Bundle, derive, split_device, write_zip
from tests.evaluation.conftest import COUNT, Make


def test_a_rival_is_one_method_or_one_per_bundle() -> None:
    assert parse_rival("paper=a/b20, a/b80.zip") == [Rival(("a/b20", "a/b80.zip"), "paper")]
    assert parse_rival("zoo@1,./here") == [Rival(("zoo@1",)), Rival(("./here",))]
    assert parse_rival("./odd=name") == [Rival(("./odd=name",))]
    for text in ("", " , ", "paper= ,"):
        with pytest.raises(SettingsError, match=r"expected \[METHOD=\]BUNDLE"):
            parse_rival(text)


def test_bundles_of_a_folder_that_differ_in_the_rate_are_one_method(
    tiny: Bundle, like_tiny: Make, tmp_path: Path
) -> None:
    for name in ("paper_beta20", "paper_beta80", "end_to_end_0.02", "end_to_end", "reduced_3"):
        like_tiny("x", folder=tmp_path / name / ("bundle" if name == "paper_beta80" else ""))
    write_zip(tiny, tmp_path / "reduced_12.zip")
    (tmp_path / "notes").mkdir()
    (tmp_path / "log.txt").touch()
    rivals, others = rivals_below(tmp_path)
    assert {one.method: [Path(str(b)).relative_to(tmp_path).as_posix() for b in one.bundles] for one in rivals} == {
        "end_to_end": ["end_to_end", "end_to_end_0.02"],
        "paper": ["paper_beta20", "paper_beta80/bundle"],
        "reduced": ["reduced_12.zip", "reduced_3"],
    }
    assert others == ["log.txt", "notes"]
    with pytest.raises(DataError, match="no such folder"):
        rivals_below(tmp_path / "none")


def test_rivals_are_methods_of_the_same_run(arena: Report, tiny: Bundle) -> None:
    body = json.loads(json.dumps(arena.to_json(), allow_nan=False))
    methods = ["splitcodec", "tiny-large", "paper", "tuned", "jpeg", "webp"]
    assert arena.methods == methods
    assert set(body["bd_rate"]) == set(body["bd_rate_payload"]) == set(body["bd_accuracy"]) == set(methods[1:])
    assert all(set(row["bytes"]) == set(methods) for row in body["bytes_at_equal_score"])
    assert {row["b"].split()[0] for row in body["differences"]} == {"teacher", *methods[1:]}
    assert set(body["overhead_bytes"]) == {"level 0", "level 1", "level 2"}
    assert [one.setting for one in arena.points if one.method == "paper"] == [
        f"tiny-{k} level {level}" for k in range(2) for level in range(3)
    ]
    ours, twin = arena.of(OURS), arena.of("tiny-large")
    assert [one.setting for one in twin] == ["level 0", "level 1", "level 2"]
    assert [(a.bytes_mean, a.top1, a.payload_mean) for a in ours] == [
        (b.bytes_mean, b.top1, b.payload_mean) for b in twin
    ]


def test_a_rival_answers_with_its_own_tail_and_the_teacher_stays_ours(arena: Report, report: Report) -> None:
    assert arena.teacher_top1 == report.teacher_top1
    assert [(one.name, one.top1) for one in arena.of("jpeg")] == [(one.name, one.top1) for one in report.of("jpeg")]
    ours, tuned = arena.of(OURS)[-1], arena.of("tuned")[-1]
    assert tuned.bytes_mean == ours.bytes_mean
    assert tuned.top1 < ours.top1


def test_what_encoders_cost_is_told(arena: Report, tiny: Bundle) -> None:
    encoders = arena.to_json()["encoders"]
    assert list(encoders) == ["splitcodec", "tiny-large", "paper", "tuned"]
    assert encoders["paper"] == {
        "macs": 500_000_000,
        "parameters": 9_000,
        "bytes": 20_000,
        "images_seen": 4000,
        "images_each": 3000,
        "seconds": 360_000.0,
        "processor_seconds": None,
        "device_seconds": {},
        "levelled": False,
        "trained": "undertrained",
        "ours": False,
        "teacher": "same",
        "bundles": ["tiny-0@1", "tiny-1@1"],
    }
    assert encoders["splitcodec"]["macs"] == tiny.manifest.encoder["macs"]
    assert encoders["splitcodec"]["images_seen"] is encoders["splitcodec"]["seconds"] is None
    assert {name: cost["trained"] for name, cost in encoders.items()} == {
        "splitcodec": "unknown",
        "tiny-large": "unknown",
        "paper": "undertrained",
        "tuned": "trained",
    }
    assert [name for name, cost in encoders.items() if cost["ours"]] == ["splitcodec", "tiny-large"]
    assert arena.label("paper") == "paper (undertrained)"
    assert arena.label("tuned") == "tuned"
    assert arena.label("jpeg") == "jpeg"


def test_every_method_with_an_encoder_is_held_against_every_other(arena: Report) -> None:
    matrix = arena.to_json()["bd_rate_matrix"]
    assert list(matrix) == ["splitcodec", "tiny-large", "paper", "tuned"]
    assert matrix["splitcodec"] == arena.to_json()["bd_rate"]
    assert "paper" not in matrix["paper"]


@pytest.mark.parametrize(
    ("percent", "levelled", "ours", "verdict"),
    [
        (-40.0, False, False, "trained"),
        (-39.9, False, False, "undertrained"),
        (None, False, False, "undertrained"),
        (None, True, False, "trained"),
        (20.0, True, False, "trained"),
        (-70.0, False, True, "trained"),
        (-10.0, False, True, "unknown"),
    ],
)
def test_a_rival_counts_only_when_it_is_trained(
    percent: float | None, levelled: bool, ours: bool, verdict: str
) -> None:
    cost = EncoderCost(1, 1, 1, None, None, levelled=levelled, ours=ours)
    assert costs([], {"it": cost}, against_hevc={"it": percent}, teachers={})["it"].trained == verdict


def test_pictures_of_runs_that_others_began_from_count_once(tiny: Bundle, like_tiny: Make) -> None:
    def run(name: str, **report: object) -> Bundle:
        return like_tiny(name, provenance={"report": {"images": 1000, "seconds": 10.0, **report}})

    first = [{"key": "start", "recipe": "first", "images": 1000, "seconds": 10.0}]
    one, two = run("first"), run("second", images_cumulative=2000, builds_on=first)
    both = costs(open_entrants(tiny, [Rival((one, two), "it")], taken=[]), {}, against_hevc={}, teachers={})["it"]
    alone = costs(open_entrants(tiny, [Rival((two,), "it")], taken=[]), {}, against_hevc={}, teachers={})["it"]
    assert (both.images_seen, both.images_each, both.seconds) == (2000, 2000, 20.0)
    assert (alone.images_seen, alone.images_each, alone.seconds) == (2000, 2000, 20.0)


def test_runs_further_below_count_once_too(tiny: Bundle, like_tiny: Make) -> None:
    """Two rates, each from a run of its own that began from a third: its pictures counted twice."""
    root = {"recipe": "root", "images": 1000, "seconds": 10.0}

    def rate(name: str) -> Bundle:
        below = {"recipe": f"{name}-first", "images": 200, "seconds": 2.0}
        whole = {**below, "images_cumulative": 1200, "seconds_cumulative": 12.0}
        told = {"images": 30, "seconds": 3.0, "images_cumulative": 1230, "seconds_cumulative": 15.0}
        near = [{"key": "start", **below, "images": 1200, "seconds": 12.0}]
        return like_tiny(name, provenance={"report": {**told, "builds_on": near, "lineage": [whole, root]}})

    cost = _cost(tiny, rate("one"), rate("two"))
    assert (cost.images_seen, cost.images_each, cost.seconds) == (2 * 230 + 1000, 1230, 20.0)
    began = {"recipe": "one", "images": 30, "seconds": 3.0, "images_cumulative": 1230, "seconds_cumulative": 15.0}
    told = {"images": 4, "seconds": 1.0, "images_cumulative": 1234, "seconds_cumulative": 16.0}
    next_of = {**told, "lineage": [began, {**root, "recipe": "root@1"}]}
    assert _cost(tiny, rate("one"), like_tiny("next", provenance={"report": next_of})).images_seen == 1234


def _cost(tiny: Bundle, *rivals: Bundle) -> EncoderCost:
    found = costs(open_entrants(tiny, [Rival(rivals, "it")], taken=[]), {}, against_hevc={}, teachers={})
    return found["it"]


def test_what_a_run_began_with_counts_though_it_has_the_same_name(tiny: Bundle, like_tiny: Make) -> None:
    """As efficientnet-lite0-tiny@5 and -small@6 tell it: a run's folder by name, a bundle with its version."""
    for name in ("tiny-x", "tiny-x@5"):
        first = {"key": "start", "recipe": name, "images": 1_234_728, "seconds": 16847.1}
        report = {"images": 36_000, "seconds": 963.7, "images_cumulative": 1_270_728, "seconds_cumulative": 17810.8}
        cost = _cost(tiny, like_tiny("tiny-x", version=5, provenance={"report": {**report, "builds_on": [first]}}))
        assert (cost.images_seen, cost.images_each) == (1_270_728, 1_270_728)
        assert cost.seconds == pytest.approx(17810.8)


def test_versions_of_one_bundle_all_count_and_do_not_vouch_for_each_other(tiny: Bundle, like_tiny: Make) -> None:
    def version(number: int, **report: object) -> Bundle:
        return like_tiny("x", version=number, provenance={"report": report})

    before = {"key": "start", "recipe": "x", "images": 500, "seconds": 5.0}
    one = version(1, images=1000, seconds=10.0, images_cumulative=1500, seconds_cumulative=15.0, builds_on=[before])
    first = {"key": "start", "recipe": "x@1", "images": 1500, "seconds": 15.0}
    told = {"images": 2000, "seconds": 20.0, "images_cumulative": 3500, "seconds_cumulative": 35.0}
    two = version(2, **told, builds_on=[first], levelled=True)
    for pair in ((one, two), (two, one)):
        cost = _cost(tiny, *pair)
        assert (cost.images_seen, cost.images_each, cost.seconds) == (3500, 3500, 35.0)
        assert not cost.levelled
    assert _cost(tiny, two).levelled
    other = version(3, **told, builds_on=[{**first, "images": 1499}])  # began with another x@1 than the one here
    assert _cost(tiny, one, other).images_seen == 1000 + 500 + 2000 + 1499


def test_processor_time_is_told_where_every_run_counted_it(tiny: Bundle, like_tiny: Make) -> None:
    def run(name: str, **report: object) -> Bundle:
        return like_tiny(name, provenance={"report": {"images": 10, "seconds": 60.0, **report}})

    gpu = run("gpu", processor_seconds=90.0, device_seconds={"H100": 60.0, "odd": "many"})
    first = {"key": "start", "recipe": "first", "images": 5, "seconds": 6.0, "processor_seconds": 12.0}
    later = run("later", processor_seconds=30.0, builds_on=[{**first, "device_seconds": {"H100": 6.0}}])
    cost = _cost(tiny, gpu, later)
    assert (cost.seconds, cost.processor_seconds) == (126.0, 132.0)
    assert cost.device_seconds == {"H100": 66.0}
    assert _cost(tiny, gpu, run("old")).processor_seconds is None
    unknown = {key: value for key, value in first.items() if key != "processor_seconds"}
    assert _cost(tiny, run("next", processor_seconds=30.0, builds_on=[unknown])).processor_seconds is None
    assert _cost(tiny, run("odd", processor_seconds="30", device_seconds=[1])).processor_seconds is None


def test_a_report_that_tells_of_more_seconds_than_a_float_holds_tells_of_none(tiny: Bundle, like_tiny: Make) -> None:
    """A bundle says of its training what it likes; adding that up was a traceback, at the end of hours."""
    much = 10**400
    report = {"images": much, "seconds": much, "processor_seconds": much, "device_seconds": {"H100": much}}
    odd, plain = (
        like_tiny("odd", provenance={"report": report}),
        like_tiny("plain", provenance={"report": {"images": 10, "seconds": 60.5}}),
    )
    cost = _cost(tiny, odd, plain)
    assert (cost.images_seen, cost.seconds, cost.processor_seconds, cost.device_seconds) == (None, None, None, {})


def test_rivals_that_cannot_be_compared_are_refused(
    tiny: Bundle, like_tiny: Make, labelled: Path, tmp_path: Path
) -> None:
    def refused(*rivals: Rival) -> None:
        evaluate(tiny, labelled, codecs=["jpeg"], rivals=rivals)

    with pytest.raises(SettingsError, match=r"small@1 takes crops of 48 px out of 72, but tiny@1 64 out of 72"):
        refused(Rival((like_tiny("small", crop=48),)))
    with pytest.raises(SettingsError, match=r"out of 80, but tiny@1 64 out of 72"):
        refused(Rival((like_tiny("other", resize=80),)))
    with pytest.raises(SettingsError, match="10 classes that are not the 10 of tiny@1"):
        refused(Rival((like_tiny("other", classes=tuple("abcdefghij")),)))
    twin = like_tiny("twin")
    for rivals in ((Rival((twin,), "jpeg"),), (Rival((twin,), OURS),), (Rival((twin,)), Rival((twin,)))):
        with pytest.raises(SettingsError, match=r"method '\w+' comes twice in this run; name the rival"):
            refused(*rivals)
    with pytest.raises(SettingsError, match="rival paper: a bundle comes twice"):
        refused(Rival((twin, twin), "paper"))
    with pytest.raises(BundlePart, match="decoder"):
        refused(Rival((split_device(tiny, tmp_path / "half"),)))
    with pytest.raises(BundleNotFound):
        refused(Rival(("no-such-bundle",)))


def test_versions_of_one_bundle_are_told_apart(tiny: Bundle, like_tiny: Make) -> None:
    entrants = open_entrants(tiny, [Rival((like_tiny("x"), like_tiny("x", version=2)), "both")], taken=[])
    assert [(one.method, one.prefix) for one in entrants] == [(OURS, ""), ("both", "x@1 "), ("both", "x@2 ")]


def test_a_rivals_scores_are_those_of_its_device_and_edge(arena: Report, like_tiny: Make, labelled: Path) -> None:
    point = arena.of("paper")[0]
    twin = like_tiny("again")
    device, edge = Device(twin, threads=1), Edge(twin, threads=1)
    paths = sorted(labelled.glob("*.png"))
    packets = [device.encode(path, level=0) for path in paths]
    tops = [edge.answer(packet)["answers"]["classify"][0]["index"] for packet in packets]
    assert len(paths) == COUNT
    assert point.bytes_mean == pytest.approx(np.mean([len(packet) for packet in packets]))
    assert point.top1 == pytest.approx(100 * np.mean([t == int(p.name[:4]) for t, p in zip(tops, paths, strict=True)]))


def test_a_rival_without_a_head_is_refused_before_anything_is_measured(tiny: Bundle, labelled: Path) -> None:
    headless = derive(tiny, replace(tiny.manifest, name="headless"), files={}, without={"head.onnx"})
    with pytest.raises(BundlePart, match=r"headless@1: a bundle without head\.onnx"):
        open_entrants(tiny, [Rival((headless,))], taken=[])
