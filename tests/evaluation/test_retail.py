from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import (
    BundleFormat,
    BundlePart,
    BundleUnsafe,
    GraphError,
    OutputError,
    SettingsError,
)
from splitcodec.evaluation.golden import FILE, make_golden
from splitcodec.evaluation.replay import replay
from splitcodec.evaluation.retail import JOINT, _backbones, _gives_same_maps, read_classes, retail
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle, derive, device_half, open_bundle, write_folder
from splitcodec.wire.task import TaskSpec
from tests.wire.protobuf import EXTERNAL, part
from tests.wire.test_task import SPEC

NAMES = ["day", "dusk", "night"]


def tail(folder: Path, *, features: int = 8, classes: int = 3, scale: float = 1.0, rank: int = 4) -> Path:
    """Write a tail: mean feature -> linear; its last class is the likelier the darker the picture."""
    weight = np.random.default_rng(1).normal(size=(features, classes)).astype(np.float32) * np.float32(scale)
    nodes = [
        helper.make_node("GlobalAveragePool", ["feature"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["own_logits"]),
    ]
    shape = ["batch", features, "rows", "cols"][:rank]
    body = helper.make_graph(
        nodes if rank == 4 else [helper.make_node("Gemm", ["feature", "weight"], ["own_logits"])],
        "own",
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("own_logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = folder / "own.onnx"
    path.write_bytes(
        helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )
    return path


@pytest.fixture(scope="module")
def whole(tiny: Bundle, pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    vectors = make_golden(Device(tiny, threads=1), Edge(tiny, threads=1), pictures[:4])
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    return write_folder(derive(tiny, tiny.manifest, files={FILE: vectors}), folder)


def test_devices_in_the_field_get_the_new_classes(whole: Bundle, pictures: list[Image.Image], tmp_path: Path) -> None:
    new = retail(whole, tail=tail(tmp_path), classes=NAMES, name="mine", out=tmp_path / "mine")
    assert new.ident == "mine@1"
    assert new.fingerprint == whole.fingerprint
    device, edge = Device(whole, threads=1), Edge(new, threads=1)  # the device has the old bundle
    labels = set()
    for picture in pictures:
        answer = edge.answer(device.encode(picture))
        assert answer["bundle"] == "mine@1"
        guesses = answer["answers"]["classify"]
        assert sorted(guess["label"] for guess in guesses) == NAMES
        labels.add(guesses[0]["label"])
    assert len(labels) > 1


def test_what_stays_and_what_changes(whole: Bundle, tmp_path: Path) -> None:
    own = tail(tmp_path)
    new = retail(whole, tail=own, classes=NAMES, name="mine", version=3, out=tmp_path / "mine")
    assert new.ident == "mine@3"
    assert new.read("tail_classify.onnx") == own.read_bytes()
    assert new.manifest.classes == tuple(NAMES)
    changed = {name for name in whole.manifest.files if whole.read(name) != new.read(name)}
    assert changed == {"tail_classify.onnx", FILE, "MODEL_CARD.md"}
    assert new.manifest.provenance["retailed"]["from"] == "tiny@1"
    assert new.manifest.provenance["seed"] == 7
    assert b"mine@3" in new.read("MODEL_CARD.md")


def test_golden_vectors_keep_their_packets_and_get_new_answers(whole: Bundle, tmp_path: Path) -> None:
    new = retail(whole, tail=tail(tmp_path), classes=NAMES, name="mine", out=tmp_path / "mine")
    assert replay(new, threads=1).answers
    old, made = (dict(np.load(bundle.path / FILE)) for bundle in (whole, new))
    assert made["top_ln"].max() < 3
    for name in ("image_bhwc", "symbols_lnchw", "packets", "packet_len_ln"):
        assert np.array_equal(old[name], made[name])


def test_class_ids_of_the_old_classes_go(tiny: Bundle, tmp_path: Path) -> None:
    manifest = replace(tiny.manifest, provenance={"wnids": ["n00000001"] * 10, "recipe": "r"})
    new = retail(derive(tiny, manifest, files={}), tail=tail(tmp_path), classes=NAMES, name="x", out=tmp_path / "x")
    assert "wnids" not in new.manifest.provenance
    assert new.manifest.provenance["recipe"] == "r"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": 7}, r"takes tensor\(float\) \['batch', 7, 'rows', 'cols'\]; the decoder gives .*\[1, 8, 8, 8\]"),
        ({"rank": 2}, r"takes tensor\(float\) \['batch', 8\]"),
        ({"classes": 4}, r"gives float32 \[1, 4\] for one feature, expected float32 \[1, 3\], .*3 names"),
        ({"scale": np.inf}, "not finite"),
    ],
)
def test_tails_that_do_not_fit(tiny: Bundle, tmp_path: Path, change: dict[str, float], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        retail(tiny, tail=tail(tmp_path, **change), classes=NAMES, name="x", out=tmp_path / "x")  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


def maps_of(scale: float, *, name: str = "map", more: bool = False) -> bytes:
    """Return a tail that gives a map beside its logits, the feature times `scale`, and one more if wanted."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["feature"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
        helper.make_node("Mul", ["feature", "scale"], [name]),
        *([helper.make_node("Neg", ["feature"], ["more"])] if more else []),
    ]
    made = ["logits", name, *(["more"] if more else [])]
    body = helper.make_graph(
        nodes,
        "maps",
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["batch", 2, "rows", "cols"])],
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in made],
        [numpy_helper.from_array(np.full(1, scale, np.float32), "scale")],
    )
    made_by = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = made_by.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        (maps_of(2.0), True),
        (maps_of(2.0, more=True), True),
        (maps_of(2.001), True),  # as float16 rounds it
        (maps_of(2.02), False),  # a tail that was tuned further down: tasks would read other maps
        (maps_of(-2.0), False),
        (maps_of(2.0, name="other"), False),
    ],
)
def test_tasks_take_their_maps_from_a_new_tail_where_it_gives_the_same_alone(
    theirs: bytes, same: bool, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "graph", lambda *_: maps_of(2.0))
    feature_bchw = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    assert _gives_same_maps(tiny, Graph(theirs, name="theirs"), feature_bchw) is same


@pytest.mark.parametrize("shared", [False, True])
def test_the_old_classifier_stays_as_the_backbone_of_what_took_its_maps(shared: bool) -> None:
    """Under a name of its own where other tasks share a backbone already: theirs would have been replaced."""
    detect = replace(SPEC, backbone=JOINT, teacher_backbone=JOINT)
    segment = replace(SPEC, task="segment", backbone="backbone" if shared else "", teacher_backbone=JOINT)
    known = {one.task: one for one in (detect, segment)}
    bundle: Any = SimpleNamespace(
        manifest=SimpleNamespace(tasks=("classify", "detect", "segment")),
        task=known.get,
        has=lambda name: shared and name == "backbone.onnx",
        read=lambda name: f"the old {name}".encode(),
    )
    files = _backbones(bundle)
    made = {task: TaskSpec.from_json(files.pop(f"task_{task}.json"), name=task) for task in known}
    names = {task: f"backbone_{task}" if shared else "backbone" for task in known}
    assert files == {f"{name}.onnx": b"the old tail_classify.onnx" for name in names.values()}
    assert (made["detect"].backbone, made["detect"].teacher_backbone) == (names["detect"], names["detect"])
    assert (made["segment"].backbone, made["segment"].teacher_backbone) == (segment.backbone, names["segment"])


def test_refusals(tiny: Bundle, tmp_path: Path) -> None:
    own, out = tail(tmp_path), tmp_path / "x"
    with pytest.raises(BundlePart, match="device's half"):
        retail(device_half(tiny), tail=own, classes=NAMES, name="x", out=out)
    with pytest.raises(SettingsError, match=r"none\.onnx: cannot be read"):
        retail(tiny, tail=tmp_path / "none.onnx", classes=NAMES, name="x", out=out)
    (tmp_path / "bad.onnx").write_bytes(part(7, part(5, EXTERNAL)))
    with pytest.raises(BundleUnsafe, match="external data"):
        retail(tiny, tail=tmp_path / "bad.onnx", classes=NAMES, name="x", out=out)
    with pytest.raises(BundleFormat, match="name is 'My Birds'"):
        retail(tiny, tail=own, classes=NAMES, name="My Birds", out=out)
    assert not out.exists()
    with pytest.raises(OutputError, match="exists"):  # before the tail is looked at
        retail(tiny, tail=tmp_path / "none.onnx", classes=NAMES, name="x", out=tmp_path)


def test_class_names_come_one_a_line(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\ufeffrobin\n\n great tit \r\nwren\n", encoding="utf-8")
    assert read_classes(names) == ["robin", "great tit", "wren"]
    for bad in (b"", b"\n \n", b"\xff\xfe\x00"):
        names.write_bytes(bad)
        with pytest.raises(SettingsError, match="one class name a line"):
            read_classes(names)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_classes(tmp_path)


def test_the_new_bundle_opens_like_any_other(tiny: Bundle, tmp_path: Path) -> None:
    retail(tiny, tail=tail(tmp_path), classes=NAMES, name="mine", out=tmp_path / "mine")
    assert open_bundle(tmp_path / "mine").ident == "mine@1"
