"""Task heads from end to end on small generated data: train, resume, export, answer, evaluate."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from PIL import Image
from typer.testing import CliRunner

from splitcodec import Device, Edge
from splitcodec.cli import app
from splitcodec.device.overlay import mask_of
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.edge.tasks import Tasks
from splitcodec.errors import DataError, MissingExtra, OutputError, RecipeError, RunError, SettingsError, TaskError
from splitcodec.evaluation.golden import make_golden
from splitcodec.evaluation.retail import retail
from splitcodec.evaluation.rivals import Rival
from splitcodec.evaluation.task_report import task_markdown, write_task_report
from splitcodec.evaluation.task_result import TaskReport
from splitcodec.evaluation.tasks import evaluate_task
from splitcodec.model.pyramid import Level
from splitcodec.session import Graph
from splitcodec.training.distill import Progress
from splitcodec.training.export import export
from splitcodec.training.last_layer import below_last_layer
from splitcodec.training.own_classes import Layer, with_classes
from splitcodec.training.processes import holding
from splitcodec.training.run import Run
from splitcodec.training.task_export import export_task
from splitcodec.training.task_networks import Networks, build_task_teacher
from splitcodec.training.task_recipe import TaskRecipe, read_task_recipe
from splitcodec.training.task_run import TaskRun, put_weights
from splitcodec.training.task_train import train_task
from splitcodec.wire.bundle import Bundle, derive, open_bundle, split_device, write_folder
from tests.labelled import draw, write_camvid, write_coco, write_voc
from tests.training.conftest import COMMITTED, TASK_RECIPES

Make = Callable[..., TaskRecipe]
TASKS = ("classify", "detect", "segment")


def _golden(bundle: Bundle) -> bytes:
    file = io.BytesIO()
    np.savez(file, name=np.frombuffer(bundle.ident.encode(), np.uint8))
    return file.getvalue()


@pytest.fixture(scope="module")
def base(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the bundle of the tiny run: stride 8, its feature 24 channels of stride 4."""
    return export(finished, tmp_path_factory.mktemp("bundles") / "base", golden=_golden)


@pytest.fixture(scope="module")
def make(recipe_data: Callable[[], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a maker of tiny recipes, for a task and with changes."""
    folder = tmp_path_factory.mktemp("recipes")

    def recipe(task: str, **changes: Any) -> TaskRecipe:
        teacher = {key: value for key, value in recipe_data()["teacher"].items() if key != "later"}
        head: dict[str, Any] = {"kind": "fcos", "width": 8, "depth": 1}
        if task == "segment":
            head = {"kind": "segmenter", "width": 8, "fine": 4, "dilations": [1, 2], "balance": 0.5}
        stage = {"batch": 3, "learning_rate": 5e-3}
        data = {
            "name": f"tiny-{task}",
            "task": task,
            "teacher": teacher,
            "layers": ["blocks.1", "blocks.2", "blocks.3"],
            "head": head,
            "data": {"side": 64, "scale": [0.9, 1.2], "mosaic": 0.2 if task == "detect" else 0.0},
            "task_epochs": 2,
            "distil_epochs": 1,
            "teach": stage,
            "distil": stage,
            "learn": {**stage, "distil": 0.5},
            "check_every": 2,
            "precision": "32-true",
            **changes,
        }
        path = folder / f"{task}.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return read_task_recipe(path)

    return recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of generated data sets by task."""
    root = tmp_path_factory.mktemp("labelled")
    return {"detect": write_voc(root / "voc"), "segment": write_camvid(root / "camvid")}


def test_a_teachers_class_names_may_begin_with_a_byte_order_mark(make: Make, tmp_path: Path) -> None:
    """With one on an empty line the task's teacher had a class more than the names, and its weights did not fit."""
    recipe, names = make("detect"), tmp_path / "names.txt"
    names.write_text("\n" + "".join(f"kind {n}\n" for n in range(10)), encoding="utf-8-sig")
    teacher = recipe.teacher.model_copy(update={"classes": names})
    assert build_task_teacher(recipe.model_copy(update={"teacher": teacher})).width > 0


@pytest.fixture(scope="module")
def runs(base: Bundle, make: Make, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return finished runs by task."""
    root = tmp_path_factory.mktemp("runs")
    for task in ("detect", "segment"):
        final = train_task(make(task), data=data[task], bundle=base, out=root / task, report=lambda _: None)
        assert final["finished"]
        assert set(final["scores"]) == {"teach", "distil", "learn"}
    return {task: root / task for task in ("detect", "segment")}


@pytest.fixture(scope="module")
def both(base: Bundle, runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the bundle with both tasks."""
    root = tmp_path_factory.mktemp("tasks")
    first = export_task(runs["detect"], base, root / "one")
    return export_task(runs["segment"], first, root / "both", name="three-tasks", version=2)


def test_a_killed_run_ends_as_one_that_was_not(
    base: Bundle, make: Make, data: dict[str, Path], runs: dict[str, Path], tmp_path: Path
) -> None:
    sessions = 0
    while True:
        final = train_task(
            make("detect"), data=data["detect"], bundle=base, out=tmp_path, report=lambda _: None, stop_after_s=0.0
        )
        sessions += 1
        if final["finished"]:
            break
    assert sessions > 5
    whole, pieces = (_weights(p) for p in (runs["detect"], tmp_path))
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"teach", "distil", "learn"} == {line["stage"] for line in log}


def _weights(run: Path) -> dict[str, torch.Tensor]:
    """Return a run's weights: the final ones, or those of the last checkpoint of a run that was told to stop."""
    return Run(run).weights()


def test_a_task_changes_nothing_for_device_and_classifier(base: Bundle, both: Bundle, tmp_path: Path) -> None:
    assert both.fingerprint == base.fingerprint
    assert both.ident == "three-tasks@2"
    assert both.manifest.tasks == TASKS
    for name, entry in base.manifest.files.items():
        if name != "MODEL_CARD.md":
            assert both.manifest.files[name] == entry, name
    assert both.task("segment").backbone == both.task("detect").backbone == "backbone"
    assert not [name for name in both.manifest.files if name.startswith("backbone_")]
    half = split_device(both, tmp_path / "half")
    assert half.task("detect").side == 64
    assert not half.has("backbone.onnx")
    packet = Device(base, threads=1).encode(draw(1)[0])
    before = Edge(base, threads=1).answer(packet)["answers"]["classify"]
    assert Edge(base, both, threads=1).answer(packet, tasks=TASKS)["answers"]["classify"] == before


def test_one_packet_gets_three_answers_at_every_grid(both: Bundle) -> None:
    device, edge = Device(both, threads=1), Edge(both, threads=1)
    picture = draw(3)[0]
    for side in (32, 72, 104):
        encoded = device.encode_timed(picture, fit="letterbox", side=side)
        assert encoded.packet[6] * 8 == encoded.place.rows
        answer = edge.answer(encoded.packet, tasks=TASKS)
        assert list(answer["answers"]) == list(TASKS)
        assert list(answer["ms"]) == ["decode", "decoder", "tail", "backbone", "detect", "segment"]
        assert mask_of(answer["answers"]["segment"]).shape == (encoded.place.rows, encoded.place.cols)
        assert all(0 <= side <= 1 for box in answer["answers"]["detect"] for side in box["box"])
    mapped = device.ask(picture, link=lambda packet: edge_json(edge, packet), fit="letterbox")
    assert mapped["answers"]["segment"]["size"] == [picture.height, picture.width]
    with pytest.raises(TaskError):
        edge.answer(encoded.packet, tasks=("fly",))


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_heads_may_work_finer_than_the_cut(task: str, make: Make) -> None:
    """A map of stride 8 out of the channels of one of stride 16: exported, it says what torch says at odd grids too."""
    from splitcodec.session import JointGraph
    from splitcodec.training.task_graphs import FcosTail, SegmentTail, folded_in_place, joint_onnx
    from splitcodec.training.task_networks import build_head

    torch.manual_seed(2)
    levels = (Level(6, 8, doubled=True), Level(10, 16), Level(12, 32))
    head = build_head(make(task), levels, 5).eval()
    maps = [torch.randn(2, level.width, *side) for level, side in zip(levels, ((6, 8), (6, 8), (3, 4)), strict=True)]
    tail, outputs = (
        (FcosTail(head), ["scores", "edges"]) if task == "detect" else (SegmentTail(folded_in_place(head)), ["logits"])
    )
    graph = JointGraph(joint_onnx(tail.eval(), maps, ["map_0", "map_1", "map_2"], outputs), name="tail", threads=1)
    maps = [torch.randn(1, level.width, *side) for level, side in zip(levels, ((7, 9), (7, 9), (4, 5)), strict=True)]
    found = graph.outputs({f"map_{place}": one.numpy() for place, one in enumerate(maps)})
    with torch.no_grad():
        raw = head(maps)
    if task == "segment":
        assert found["logits"].shape == (1, 5, 14, 18)
        np.testing.assert_allclose(found["logits"], raw.class_bkhw.numpy(), atol=2e-2)
    else:
        assert found["scores"].shape == (1, 14 * 18 + 7 * 9 + 4 * 5, 5)
        np.testing.assert_allclose(found["edges"], raw.edge_bn4.numpy(), rtol=0.05, atol=0.3)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_first_map_may_lie_behind_the_cut_and_be_doubled(
    task: str, base: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    """Of the cut (stride 4) nothing is taken; two layers of stride 8 and one of 16 make maps of 4, 8 and 16."""
    recipe = make(task, layers=["blocks.2.0.bn2", "blocks.2", "blocks.3"], task_epochs=1)
    train_task(recipe, data=data[task], bundle=base, out=tmp_path / "run", report=lambda _: None)
    bundle = export_task(tmp_path / "run", base, tmp_path / "bundle")
    spec = bundle.task(recipe.task)
    assert (spec.strides, spec.feature_stride, spec.keeps_feature) == ((4, 8, 16), 8, False)
    packet = Device(bundle, threads=1).encode(draw(3)[0], fit="letterbox", side=64)
    feature = np.random.default_rng(1).normal(size=(1, 24, 16, 12)).astype(np.float32)
    tasks = Tasks(bundle)
    assert tasks.heads[task].size(tasks.maps(task, feature)) == (64, 48)
    assert Edge(bundle, threads=1).answer(packet, tasks=(task,))["answers"].keys() == {task}
    report = evaluate_task(bundle, data[task], task=recipe.task, threads=1)
    assert len(report.points) == 2


@pytest.mark.parametrize(
    ("task", "strides", "told"),
    [
        ("detect", (8, 32), r"strides \[8, 32\]; head.kind fcos doubles"),
        ("segment", (4, 8, 32), r"strides \[4, 8, 32\]; head.kind segmenter doubles"),
        ("segment", (8,), "head.kind segmenter takes two or more"),
    ],
)
def test_maps_that_do_not_add_up_are_refused(make: Make, task: str, strides: tuple[int, ...], told: str) -> None:
    """The first step of training ended with a RuntimeError of sizes that do not match, or an IndexError."""
    from splitcodec.training.task_networks import build_head

    with pytest.raises(RecipeError, match=told):
        build_head(make(task), tuple(Level(6, stride) for stride in strides), 5)
    build_head(make("segment"), (Level(6, 4), Level(10, 16), Level(12, 32)), 5)  # the finest may lie further off
    retinanet = make("detect", head={"kind": "retinanet", "width": 8})
    build_head(retinanet, (Level(6, 8), Level(12, 32)), 5)


def test_only_heads_of_ours_work_finer_than_the_cut(make: Make) -> None:
    from splitcodec.training.task_networks import build_head

    recipe = make("detect", head={"kind": "retinanet", "width": 8})
    with pytest.raises(RecipeError, match=r"layers: .* the same stride"):
        build_head(recipe, (Level(6, 8, doubled=True), Level(10, 16), Level(12, 32)), 5)


def test_the_classifier_may_give_the_tasks_their_maps(
    finished: Path, both: Bundle, runs: dict[str, Path], tmp_path: Path
) -> None:
    base = export(finished, tmp_path / "base", golden=_golden, maps=["blocks.2", "blocks.3"])
    one = export_task(runs["detect"], base, tmp_path / "one")
    joint = export_task(runs["segment"], one, tmp_path / "joint")
    assert not joint.has("backbone.onnx")
    assert {joint.task(task).backbone for task in TASKS[1:]} == {"tail_classify"}
    assert joint.fingerprint == both.fingerprint
    apart, edge = Edge(both, threads=1), Edge(joint, threads=1)
    for side in (64, 72):
        packet = Device(both, threads=1).encode(draw(3)[0], fit="letterbox", side=side)
        answers: dict[str, Any] = dict(edge.answer(packet, tasks=TASKS)["answers"])
        if side == 64:  # every map is even: the classifier that drops no odd row says the same
            _alike(answers["classify"], apart.answer(packet)["answers"]["classify"])
        for task in TASKS[1:]:
            assert edge.answer(packet, tasks=(task,))["answers"] == {task: answers[task]}
        assert answers["segment"]["size"] == apart.answer(packet, tasks=("segment",))["answers"]["segment"]["size"]
        assert edge.answer(packet)["answers"]["classify"] == answers["classify"]
        assert list(edge.answer(packet, tasks=("segment", "classify"))["answers"]) == ["segment", "classify"]
    feature = np.random.default_rng(1).normal(size=(1, 24, 15, 22)).astype(np.float32)
    for task in TASKS[1:]:
        for ours, theirs in zip(Tasks(joint).maps(task, feature), Tasks(both).maps(task, feature), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_bundle_of_other_classes_keeps_the_tasks_maps(finished: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    plain = export(finished, tmp_path / "plain", golden=_golden)
    base = export(finished, tmp_path / "base", golden=golden_of, maps=["blocks.2", "blocks.3"])
    joint = export_task(runs["segment"], base, tmp_path / "joint")
    (tmp_path / "tail.onnx").write_bytes(plain.graph("tail_classify"))
    classes = [f"another {n}" for n in range(10)]
    made = retail(joint, tail=tmp_path / "tail.onnx", classes=classes, name="others", out=tmp_path / "others")
    assert made.task("segment").backbone == made.task("segment").teacher_backbone == "backbone"
    packet = Device(joint, threads=1).encode(draw(3)[0])
    found = Edge(made, threads=1).answer(packet, tasks=("classify", "segment"))["answers"]
    assert found["segment"] == Edge(joint, threads=1).answer(packet, tasks=("segment",))["answers"]["segment"]
    assert found["classify"][0]["label"].startswith("another ")


def test_learned_classes_share_the_backbone_with_tasks(finished: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """A tail with the tasks' maps was refused; any other kept the old one beside it, run for every packet."""
    base = export(finished, tmp_path / "base", golden=golden_of, maps=["blocks.2", "blocks.3"])
    joint = export_task(runs["segment"], base, tmp_path / "joint")
    below = Graph(below_last_layer(joint.graph("tail_classify"), name="tail"), name="below")
    numbers = below(np.zeros((1, 24, 16, 16), np.float32)).shape[1]
    layer = Layer(np.eye(2, numbers, dtype=np.float32), np.zeros(2, np.float32), 0.1)
    draft = with_classes(joint, layer, classes=["a", "b"], name="own", version=1, note={})
    made = write_folder(draft, tmp_path / "own")
    assert not made.has("backbone.onnx")
    assert made.task("segment").backbone == "tail_classify"
    packet = Device(joint, threads=1).encode(draw(3)[0])
    found = Edge(made, threads=1).answer(packet, tasks=("classify", "segment"))["answers"]
    assert found["segment"] == Edge(joint, threads=1).answer(packet, tasks=("segment",))["answers"]["segment"]
    assert {one["label"] for one in found["classify"]} == {"a", "b"}


def _alike(ours: Any, theirs: Any) -> None:
    assert [one["index"] for one in ours] == [one["index"] for one in theirs]
    np.testing.assert_allclose([one["p"] for one in ours], [one["p"] for one in theirs], atol=1e-4)


def golden_of(bundle: Bundle) -> bytes:
    return make_golden(Device(bundle), Edge(bundle), [draw(seed)[0] for seed in (1, 2)])


def edge_json(edge: Edge, packet: bytes) -> bytes:
    return json.dumps(edge.answer(packet, tasks=TASKS)).encode()


def test_a_batch_is_answered_as_its_pictures_are(both: Bundle) -> None:
    tasks = Tasks(both, threads=1)
    feature = np.random.default_rng(1).normal(size=(3, 24, 16, 24)).astype(np.float32)
    together = tasks.answer(feature, TASKS).answers
    for place, answers in enumerate(together):
        (alone,) = tasks.answer(feature[place : place + 1], TASKS).answers
        assert alone["segment"] == answers["segment"]
        assert [one["label"] for one in alone["detect"]] == [one["label"] for one in answers["detect"]]


def test_the_edge_says_what_torch_says(
    base: Bundle, both: Bundle, make: Make, runs: dict[str, Path], recipe_data: Callable[[], dict[str, Any]]
) -> None:
    from lightning_fabric import Fabric

    from splitcodec.training.task_networks import Networks
    from splitcodec.training.task_run import put_weights

    recipe = make("detect")
    networks = Networks(recipe, base, Fabric(accelerator="cpu"), classes=20, shares=None)
    put_weights(networks.trained(recipe), _weights(runs["detect"]))
    feature = np.random.default_rng(4).normal(size=(1, 24, 15, 22)).astype(np.float32)
    tasks = Tasks(both, threads=1)
    maps = tasks.maps("detect", feature)
    with torch.no_grad():
        wanted = networks.backbone(torch.from_numpy(feature))
        raw = networks.head.eval()(wanted)
    for ours, theirs in zip(maps, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-2)
    outputs = tasks.heads["detect"]._run(maps)
    score = (raw.class_bnk.sigmoid() * raw.quality_bn.sigmoid()[..., None]).sqrt()
    np.testing.assert_allclose(outputs["scores"], score.numpy(), atol=5e-3)
    np.testing.assert_allclose(outputs["edges"], raw.edge_bn4.numpy(), rtol=0.05, atol=0.3)


@pytest.mark.parametrize(("task", "scores"), [("detect", ["map50", "map"]), ("segment", ["miou", "pixel_accuracy"])])
def test_evaluation_goes_through_packets(
    base: Bundle, both: Bundle, data: dict[str, Path], task: Any, scores: list[str]
) -> None:
    report = evaluate_task(both, data[task], task=task, split="val", codecs=["jpeg"], threads=1).to_json()
    assert report["task"] == task
    assert list(report["teacher"]) == scores
    ours = [point for point in report["points"] if point["method"] == "splitcodec"]
    assert [point["setting"] for point in ours] == ["level 0", "level 1"]
    assert set(ours[0]) == {"method", "setting", "bytes_mean", *scores}
    device = Device(both, threads=1)
    split = [draw(seed)[0] for seed in (6, 7, 8)]
    folder = data[task] / ("JPEGImages" if task == "detect" else "val")
    paths = sorted(folder.iterdir())[-len(split) :]
    sizes = [len(device.encode(path, fit="letterbox", side=64, level=0)) for path in paths]
    assert ours[0]["bytes_mean"] == pytest.approx(np.mean(sizes))
    best = max(
        (point for point in report["points"] if point["method"] == "jpeg"), key=lambda point: point["bytes_mean"]
    )
    assert best["setting"] == "quality 95"
    with pytest.raises(SettingsError):
        evaluate_task(both, data[task], task=task, threads=0)


def test_rivals_of_a_task_are_judged_and_earlier_points_are_taken_over(
    both: Bundle, data: dict[str, Path], tmp_path: Path
) -> None:
    spec = json.loads(both.read("task_segment.json"))
    spec["provenance"]["report"]["task_epochs"] = 1
    few = derive(both, replace(both.manifest, name="few"), files={"task_segment.json": json.dumps(spec).encode()})
    report = both.manifest.provenance["report"] | {"levelled": True}
    level = replace(both.manifest, name="level", provenance={**both.manifest.provenance, "report": report})
    trained = derive(both, level, files={})

    def run(rivals: list[Rival], **more: Any) -> TaskReport:
        return evaluate_task(both, data["segment"], task="segment", rivals=rivals, threads=1, **more)

    first = run([Rival((few,), "paper"), Rival((trained,), "other")], codecs=["jpeg"])
    assert dict(first.trained) == {"paper": "undertrained", "other": "trained"}
    written = {path.name: path for path in write_task_report(first, tmp_path)}
    words = written["segment.md"].read_text()
    assert "| paper (undertrained) | level 0 |" in words
    assert "nothing is claimed against them: paper." in words
    second = run([], points_files=[written["segment.json"]])
    assert [point.to_json() for point in second.points] == [
        point.to_json()
        for name in ("splitcodec", "paper", "other", "jpeg")
        for point in first.points
        if point.method == name
    ]
    assert dict(second.trained) == dict(first.trained)
    assert set(second.to_json()["other_runs"]) == {"paper", "other", "jpeg"}
    assert "Measured by an earlier run" in task_markdown(second)
    older = {**json.loads(written["segment.json"].read_text()), "other_runs": {"jpeg": "0ld"}}
    (tmp_path / "older.json").write_text(json.dumps(older), encoding="utf-8")
    assert run([], points_files=[tmp_path / "older.json"]).other_runs["jpeg"] == "0ld"
    with pytest.raises(SettingsError, match=r"--points .*older.json: an earlier file has points of jpeg too"):
        run(
            [Rival((few,), "paper"), Rival((trained,), "other")],
            points_files=[written["segment.json"], tmp_path / "older.json"],
        )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"side": 96}, "side is 96, this run's 64"),
        ({"images": 5}, "images is 5"),
        ({"teacher": {"miou": 1.0, "pixel_accuracy": 2.0}}, "another task teacher"),
        ({"points": [{"method": "jpeg"}]}, "no report of"),
        ({"teacher": 3}, "no report of"),
    ],
)
def test_points_of_another_measurement_are_refused(
    both: Bundle, data: dict[str, Path], tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    report = evaluate_task(both, data["segment"], task="segment", threads=1).to_json()
    file = tmp_path / "segment.json"
    file.write_text(json.dumps(report | change))
    with pytest.raises(DataError, match=says):
        evaluate_task(both, data["segment"], task="segment", threads=1, points_files=[file])
    with pytest.raises(DataError, match="cannot be read"):
        evaluate_task(both, data["segment"], task="segment", threads=1, points_files=[tmp_path / "none.json"])


def test_it_is_all_on_the_command_line(
    base: Bundle, both: Bundle, runs: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    runner = CliRunner()
    recipe, bundle = runs["segment"] / "recipe.yaml", str(base.path)
    train = ["train-task", str(recipe), "--data", str(data["segment"]), "--bundle", bundle]
    got = runner.invoke(
        app, [*train, "--out", str(tmp_path / "run"), "--set", "task_epochs=1", "--until", "teach", "--json"]
    )
    assert got.exit_code == 0, got.output
    assert json.loads(got.stdout)["finished"] is False
    evaluate = ["evaluate", "--task", "segment", "--data", str(data["segment"]), "--bundle", str(both.path)]
    got = runner.invoke(app, [*evaluate, "--threads", "1", "--out", str(tmp_path / "out")])
    assert got.exit_code == 0, got.output
    assert "| splitcodec | level 0 |" in got.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"segment.json", "segment.md", "segment.png"}
    draw(2)[0].save(tmp_path / "street.png")
    ask = ["ask", str(tmp_path / "street.png"), "--bundle", str(both.path), "--tasks", "classify,detect,segment"]
    with BackgroundServer(create_app(Edge(both, threads=1), read_settings())) as server:
        drawn = tmp_path / "out.png"
        got = runner.invoke(app, [*ask, "--url", server.url, "--draw", str(drawn), "--json"])
    assert got.exit_code == 0, got.output
    answer = json.loads(got.stdout)
    assert set(answer["answers"]) == set(TASKS)
    with Image.open(drawn) as picture:
        assert picture.size == draw(2)[0].size


def test_few_pictures_are_a_step_at_least(base: Bundle, make: Make, data: dict[str, Path], tmp_path: Path) -> None:
    """Half a batch in a stage was no step at all: the run had finished, with a head that had learned nothing."""
    few = make("detect", task_epochs=0.1, distil_epochs=0.1)
    final = train_task(few, data=data["detect"], bundle=base, out=tmp_path, report=lambda _: None)
    assert final["images"] == 3 * 3
    assert set(final["scores"]) == {"teach", "distil", "learn"}


def test_a_second_student_takes_over_the_teacher(
    base: Bundle, make: Make, runs: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    recipe = make("detect", lead=str(runs["detect"]), tune=["decoder", "backbone"], task_epochs=1)
    train_task(recipe, data=data["detect"], bundle=base, out=tmp_path, report=lambda _: None)
    lead, found = _weights(runs["detect"]), _weights(tmp_path)
    assert all(torch.equal(found[key], value) for key, value in lead.items() if key.startswith("teacher."))
    assert any(not torch.equal(found[key], value) for key, value in lead.items() if key.startswith("head."))
    assert {key.partition(".")[0] for key in found} == {"teacher", "head", "decoder", "backbone"}
    stages = {json.loads(line)["stage"] for line in (tmp_path / "log.jsonl").read_text().splitlines()}
    assert stages == {"distil", "learn"}


def test_a_run_that_has_not_finished_cannot_lead(
    base: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    """Its teacher may not have learned yet."""
    brief: dict[str, Any] = {"data": data["detect"], "bundle": base, "report": lambda _: None, "stop_after_s": 0.0}
    train_task(make("detect"), out=tmp_path / "lead", **brief)
    with pytest.raises(RecipeError, match=r"lead: the run in .*lead has not finished; let it go to its end first"):
        train_task(make("detect", lead=str(tmp_path / "lead")), out=tmp_path / "run", **brief)


def test_a_task_that_another_process_trains_is_left_alone(
    base: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    brief: dict[str, Any] = {"data": data["detect"], "bundle": base, "report": lambda _: None, "stop_after_s": 0.0}
    train_task(make("detect"), out=tmp_path, **brief)
    with holding(tmp_path), pytest.raises(RunError, match="another process trains this run"):
        train_task(make("detect"), out=tmp_path, **brief)


def test_a_run_beyond_a_stage_stops_there_at_once(
    base: Bundle, make: Make, runs: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    def go_on(out: Path, until: str) -> dict[str, Any]:
        return train_task(make("detect"), data=data["detect"], bundle=base, out=out, report=lambda _: None, until=until)

    assert not go_on(tmp_path / "run", "distil")["finished"]
    before = _weights(tmp_path / "run")
    assert not go_on(tmp_path / "run", "teach")["finished"]
    after = _weights(tmp_path / "run")
    assert all(torch.equal(after[key], value) for key, value in before.items())
    shutil.copytree(runs["detect"], tmp_path / "done")
    assert go_on(tmp_path / "done", "teach") == Run(runs["detect"]).report()


def test_pictures_of_a_task_that_cannot_serve_are_told(base: Bundle, make: Make, tmp_path: Path) -> None:
    """One that is no picture taught nothing, one of another size than its boxes are of was scored by them."""
    root, told = write_coco(tmp_path / "coco", train=4, val=2), list[Progress]()
    (root / "train2017" / "000000000001.jpg").write_bytes(b"nothing")
    recipe = make("detect", task_epochs=1, distil_epochs=0)
    final = train_task(recipe, data=root, bundle=base, out=tmp_path / "run", report=told.append)
    assert final["pictures"] == 3
    assert [one.message.partition(": ")[0] for one in told if one.stage == "pictures"] == [
        "1 cannot be read and taught nothing"
    ]
    bundle = export_task(tmp_path / "run", base, tmp_path / "bundle")
    assert "3 labelled pictures of coco" in bundle.read("MODEL_CARD.md").decode().replace("\n", " ")
    path = root / "val2017" / "000000000004.jpg"
    with Image.open(path) as opened:
        opened.transpose(Image.Transpose.ROTATE_90).save(path)
    report = evaluate_task(bundle, root, task="detect", threads=1)
    assert (report.images, len(report.skipped)) == (1, 1)
    assert "000000000004.jpg: 64 x 96 once it is upright, its boxes lie in 96 x 64" in report.skipped[0]
    with pytest.raises(DataError, match="its boxes lie in 96 x 64"):  # of the split that is scored
        train_task(recipe, data=root, bundle=base, out=tmp_path / "again", report=told.append)


def test_a_task_exported_before_its_run_has_finished_says_so(
    base: Bundle, make: Make, runs: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    def exported(run: Path) -> tuple[Any, str, Bundle]:
        out = tmp_path / f"{run.name}-out"
        told = CliRunner().invoke(
            app, ["export-task", str(run), "-b", str(tmp_path / "base"), "-o", str(out), "--json"]
        )
        return json.loads(told.stdout), told.stderr, open_bundle(out)

    write_folder(base, tmp_path / "base")
    train_task(
        make("segment"),
        data=data["segment"],
        bundle=base,
        out=tmp_path / "run",
        report=lambda _: None,
        until="teach",
    )
    facts, said, bundle = exported(tmp_path / "run")
    assert (facts["finished"], len(said.splitlines())) == (False, 1)
    assert "has not finished: exported from its last checkpoint, teach; `train-task` again goes on with it" in said
    assert "The run had not finished: the weights are those of its last checkpoint, in teach." in (
        bundle.read("MODEL_CARD.md").decode()
    )
    facts, said, _ = exported(runs["segment"])
    assert (facts["finished"], said) == (True, "")


def test_scores_behind_a_line_that_a_full_disk_cut_short_are_found(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(
        '{"stage": "teach", "scores": {"map": 1.0}}\n{"stage": "distil", "scor', "utf-8"
    )
    run = TaskRun(tmp_path)
    run.run.log({"stage": "learn", "scores": {"map": 3.0}})
    assert run.scores() == {"teach": {"map": 1.0}, "learn": {"map": 3.0}}


def test_a_task_exported_again_leaves_the_other_tasks_of_the_card(
    both: Bundle, runs: dict[str, Path], tmp_path: Path
) -> None:
    again = export_task(runs["detect"], both, tmp_path / "again")
    titles = [line for line in again.read("MODEL_CARD.md").decode().splitlines() if line.startswith("## ")]
    assert titles == ["## Task: detect", "## Task: segment"]
    assert again.read("MODEL_CARD.md") == both.read("MODEL_CARD.md")


@pytest.mark.parametrize("change", ["seed=-1", "levels=[]", "data.scale=[.inf, .inf]"])
def test_values_that_no_run_can_use_are_refused(make: Make, tmp_path: Path, change: str) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(make("segment").model_dump(mode="json")), encoding="utf-8")
    with pytest.raises(RecipeError, match=change.partition("=")[0].replace(".", r"\.")):
        read_task_recipe(tmp_path / "r.yaml", changes=(change,))


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_bundle_that_leads_gives_its_task_teacher(
    task: str, base: Bundle, both: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    """The head says what the bundle's graph says, and goes on learning from there."""
    from splitcodec.session import JointGraph

    lead = tmp_path / "lead"
    write_folder(both, lead)
    recipe = make(task, lead=str(lead), task_epochs=1)
    assert train_task(recipe, data=data[task], bundle=base, out=tmp_path / "run", report=lambda _: None)["finished"]
    stages = {json.loads(line)["stage"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()}
    assert stages == {"distil", "learn"}
    fabric = Fabric(accelerator="cpu", devices=1)
    networks = Networks(recipe, base, fabric, classes=len(both.task(recipe.task).classes), shares=None)
    put_weights(networks.trained(recipe), _weights(tmp_path / "run"))
    head = networks.teacher_head.eval()
    maps = [torch.randn(1, level.width, 64 // level.stride, 80 // level.stride) for level in networks.levels]
    graph = JointGraph(both.graph(f"teacher_{task}"), name="teacher", threads=1)
    found = graph.outputs({f"map_{place}": one.numpy() for place, one in enumerate(maps)})
    with torch.no_grad():
        raw = head(maps)
    if task == "segment":
        np.testing.assert_allclose(found["logits"], raw.class_bkhw.numpy(), atol=2e-2)
    else:
        np.testing.assert_allclose(found["edges"], raw.edge_bn4.numpy(), rtol=0.02, atol=0.1)
        scores = (raw.class_bnk.sigmoid() * raw.quality_bn.sigmoid()[..., None]).sqrt()
        np.testing.assert_allclose(found["scores"], scores.numpy(), atol=1e-2)


def test_boxes_are_not_learned_where_they_cannot_be_scored(
    tiny: Bundle, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ended at its first scores, ten epochs later."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtra, match="faster_coco_eval"):
        train_task(make("detect"), data=tmp_path, bundle=tiny, out=tmp_path / "run", report=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_pictures_larger_than_devices_send_are_not_learned_from(
    base: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    """Hours later the bundle refused every picture for its own task."""
    large = make("segment", data={"side": base.manifest.max_side + 32})
    with pytest.raises(RecipeError, match=r"data\.side: 1056 pixels; a device sends at most 1024 with tiny-run@1"):
        train_task(large, data=data["segment"], bundle=base, out=tmp_path / "run", report=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_pictures_that_are_scored_must_be_there(
    tiny: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    """The same: a copy that broke off was found out after ten epochs, and they were lost."""
    shutil.copytree(data["segment"], tmp_path / "data")
    (tmp_path / "data" / "valannot" / "008.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"008\.png: not a readable label map"):
        train_task(make("segment"), data=tmp_path / "data", bundle=tiny, out=tmp_path / "run", report=lambda _: None)
    (tmp_path / "data" / "val" / "007.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"007\.jpg: not there, or no picture; mend the split that is scored"):
        train_task(make("segment"), data=tmp_path / "data", bundle=tiny, out=tmp_path / "run", report=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_its_own_pictures_alone(
    base: Bundle, make: Make, data: dict[str, Path], runs: dict[str, Path], tmp_path: Path
) -> None:
    """Batches are drawn from a list: with another one the run would be neither the old nor a new one."""
    shutil.copytree(data["segment"], tmp_path / "data")
    shutil.copytree(runs["segment"], tmp_path / "run")
    (tmp_path / "data" / "train" / "001.jpg").unlink()
    with pytest.raises(RunError, match="another list of pictures than this run began with; choose another --out"):
        train_task(make("segment"), data=tmp_path / "data", bundle=base, out=tmp_path / "run", report=lambda _: None)


def test_a_bundle_without_the_task_cannot_lead(
    base: Bundle, both: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    write_folder(base, tmp_path / "base")
    write_folder(both, tmp_path / "both")

    def begin(out: str, **changes: Any) -> None:
        recipe = make("detect", **changes)
        train_task(recipe, data=data["detect"], bundle=base, out=tmp_path / out, report=lambda _: None)

    with pytest.raises(RecipeError, match="has no tail for detect"):
        begin("a", lead=str(tmp_path / "base"))
    with pytest.raises(RecipeError, match="make `layers` the same"):
        begin("b", lead=str(tmp_path / "both"), layers=["blocks.1", "blocks.2"])
    with pytest.raises(RecipeError, match="make the student's sizes those of"):
        begin("c", lead=str(tmp_path / "both"), head={"kind": "fcos", "width": 16, "depth": 1})
    with pytest.raises(RecipeError, match=r"no run in .*, nor a bundle"):
        begin("d", lead=str(tmp_path / "nothing"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be made"):  # before all that
        begin("file/e", lead=str(tmp_path / "nothing"))
    assert {path.name for path in tmp_path.iterdir()} == {"base", "both", "file"}  # no half-made run


def test_a_teacher_waits_for_its_bundle(base: Bundle, make: Make, data: dict[str, Path], tmp_path: Path) -> None:
    recipe = make("detect", task_epochs=1)

    def go_on(bundle: Bundle, *, until: str) -> dict[str, Any]:
        return train_task(
            recipe, data=data["detect"], bundle=bundle, out=tmp_path / "run", report=lambda _: None, until=until
        )

    go_on(base, until="teach")
    taught = _weights(tmp_path / "run")
    decoder = base.graph("decoder")
    other = derive(base, replace(base.manifest, name="other"), files={"decoder.onnx": _commented(decoder)})
    go_on(other, until="distil")
    assert all(torch.equal(value, _weights(tmp_path / "run")[key]) for key, value in taught.items() if "teacher" in key)
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["bundle"] == "other@1"
    with pytest.raises(RunError, match="another decoder than this run began with"):
        go_on(base, until="learn")


def _commented(graph: bytes) -> bytes:
    """Return the same graph with other bytes."""
    model = onnx.load_from_string(graph)
    model.doc_string = "another"
    data: bytes = model.SerializeToString()
    return data


def test_what_does_not_fit_is_refused(
    base: Bundle, make: Make, runs: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"head\.kind fcos does not suit task segment"):
        make("segment", head={"kind": "fcos"})
    with pytest.raises(RecipeError, match=r"head\.width"):
        make("detect", head={"kind": "fcos", "width": 0})
    with pytest.raises(RunError, match=r'holds a run of another recipe: .*task \(was "detect", is "segment"\).*--set'):
        train_task(make("segment"), data=data["segment"], bundle=base, out=runs["detect"], report=lambda _: None)
    teacher = {**make("detect").teacher.model_dump(mode="json"), "cut": "blocks.0"}
    other = make("detect", teacher=teacher, layers=["blocks.1", "blocks.2"])
    with pytest.raises(RunError, match=r"its teacher is not test_efficientnet cut after blocks\.0"):
        train_task(other, data=data["detect"], bundle=base, out=tmp_path / "run", report=lambda _: None)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="holds no run"):
        export_task(tmp_path / "none", base, tmp_path / "out")


@pytest.mark.parametrize("path", TASK_RECIPES, ids=lambda path: path.stem)
def test_committed_recipes_are_valid(path: Path) -> None:
    assert read_task_recipe(path).task == path.stem.partition("_")[0]


PAPER = ("detect_coco_retinanet", "detect_coco_faster_rcnn", "segment_voc2012_deeplabv3")


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_run_from_end_to_end(
    name: str, base: Bundle, make: Make, data: dict[str, Path], tmp_path: Path
) -> None:
    teacher = make("detect").teacher
    layers = {"retinanet": "[blocks.2, blocks.3]", "faster_rcnn": "[blocks.1, blocks.2, blocks.3]"}
    stages = [f"{stage}.batch=3" for stage in ("teach", "distil", "learn")]
    changes = (
        *(f"teacher.{key}={value}" for key, value in teacher.model_dump(mode="json").items() if value != []),
        f"layers={layers.get(name.split('_', 2)[2], '[blocks.3]')}",
        *("head.width=16", "data.side=64", "task_epochs=1", "distil_epochs=1", "check_every=1", *stages),
        *(f"{stage}.learning_rate=1.0e-4" for stage in ("teach", "distil", "learn")),
    )
    recipe = read_task_recipe(COMMITTED / "paper" / f"{name}.yaml", changes=changes)
    segment = recipe.task == "segment"
    folder = data["detect"] if segment else write_coco(tmp_path / "coco")  # VOC's layout holds label maps as well
    told: list[Progress] = []
    final = train_task(recipe, data=folder, bundle=base, out=tmp_path / "run", report=told.append)
    assert final["finished"]
    assert set(final["scores"]["learn"]) == ({"miou", "pixel_accuracy"} if segment else {"map50", "map"})
    if not segment:
        with pytest.raises(RunError, match="not exported"):
            export_task(tmp_path / "run", base, tmp_path / "out")
        return
    bundle = export_task(tmp_path / "run", base, tmp_path / "out")
    spec = bundle.task("segment")
    assert (spec.decoder, spec.backbone) == ("decoder_segment", "backbone_segment")
    assert spec.teacher_backbone == "teacher_backbone_segment"
    packet = Device(bundle, threads=1).encode(draw(1)[0], fit="letterbox")
    answer = Edge(open_bundle(tmp_path / "out"), threads=1).answer(packet, tasks=["segment", "classify"])
    assert answer["answers"]["segment"]["classes"][0]["share"] > 0
    report = evaluate_task(bundle, folder, task="segment", threads=1)
    assert [point.setting for point in report.points] == ["level 0", "level 1"]


def test_several_answers_are_timed_on_the_device_and_through_packets(
    both: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import latency

    Image.new("RGB", (90, 70), (200, 30, 30)).save(tmp_path / "red.png")
    rates = {"images": 1, "teacher_top1": 50.0, "encoders": {"splitcodec": {"bundles": [both.ident]}}}
    points = [{"method": "splitcodec", "setting": "level 0", "bytes_mean": 90.0, "top1": 49.0}]
    (tmp_path / "rd.json").write_text(json.dumps({**rates, "points": points}))
    words = ["--bundles", str(both.path), "--rates", str(tmp_path / "rd.json"), "--photos", str(tmp_path)]
    words += ["--codecs", "jpeg", "--rivals", str(tmp_path / "none"), "--turns", "1", "--out", str(tmp_path / "a.json")]
    assert latency.main(words) == 0
    body = json.loads((tmp_path / "a.json").read_bytes())
    strategies = {one["name"]: one for one in body["strategies"]}
    together = " + ".join(TASKS)
    assert f"on the device, {together}" in strategies
    ours = strategies[f"{both.manifest.name}, {together}"]
    assert ours["answer_bytes_mean"] > strategies[f"{both.manifest.name} fp32, constriction"]["answer_bytes_mean"]
    assert "level chosen for classification" in ours["note"]
    assert [one["times_faster"] for one in body["targets"]] == [None, None]
