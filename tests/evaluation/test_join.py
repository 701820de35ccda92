from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundlePart, OutputError, SettingsError
from splitcodec.evaluation.golden import FILE, make_golden, read_golden
from splitcodec.evaluation.join import _difference, join
from splitcodec.evaluation.replay import replay
from splitcodec.wire.bundle import Bundle, derive, device_half, open_bundle, write_folder

Make = Callable[..., Bundle]


@pytest.fixture(scope="module")
def whole(tiny: Bundle, pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the tiny bundle with golden vectors and a card."""
    vectors = make_golden(Device(tiny, threads=1), Edge(tiny, threads=1), pictures[:2])
    files = {FILE: vectors, "MODEL_CARD.md": b"# tiny@1\n"}
    return write_folder(derive(tiny, tiny.manifest, files=files), tmp_path_factory.mktemp("whole") / "tiny")


def _nudged(bundle: Bundle, by: float, graph: str = "decoder") -> bytes:
    """Return a graph of the bundle with every weight changed a little."""
    model = onnx.load_from_string(bundle.graph(graph))
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            changed = (array * (1 + by * random.normal(size=array.shape))).astype(array.dtype)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    data: bytes = model.SerializeToString()
    return data


def test_the_edge_s_half_is_the_other_s(whole: Bundle, pictures: list[Image.Image], tmp_path: Path) -> None:
    trained = derive(whole, replace(whole.manifest, name="thin"), files={"decoder.onnx": _nudged(whole, 1e-3)})
    made = join(trained, whole, tmp_path / "thin")
    assert made.ident == "thin@1"
    assert made.fingerprint == whole.fingerprint
    assert made.graph("decoder") == whole.graph("decoder") != trained.graph("decoder")
    assert made.manifest.tasks == whole.manifest.tasks
    assert made.manifest.provenance["joined"]["edge"] == "tiny@1"
    assert b"those of `tiny@1`" in made.read("MODEL_CARD.md")
    assert replay(made).answers
    packet = Device(made, threads=1).encode(pictures[3])
    assert packet == Device(whole, threads=1).encode(pictures[3])
    assert Edge(open_bundle(tmp_path / "thin"), threads=1).answer(packet)["answers"]


def test_a_decoder_of_its_own_stays(whole: Bundle, pictures: list[Image.Image], tmp_path: Path) -> None:
    trained = derive(whole, replace(whole.manifest, name="own"), files={"decoder.onnx": _nudged(whole, 0.5)})
    made = join(trained, whole, tmp_path / "own", keep_decoder=True)
    assert made.graph("decoder") == trained.graph("decoder") != whole.graph("decoder")
    assert made.graph("tail_classify") == whole.graph("tail_classify")
    assert made.manifest.provenance["joined"] == {"edge": "tiny@1", "heads_apart": 0.0}
    assert b"Head, tails and tasks are those of `tiny@1`." in made.read("MODEL_CARD.md")
    assert Edge(made, threads=1).answer(Device(made, threads=1).encode(pictures[3]))["answers"]
    with pytest.raises(SettingsError, match=r"heads .* differ by .* one teacher, cut alike"):
        join(
            trained,
            derive(whole, whole.manifest, files={"head.onnx": _nudged(whole, 0.5, "head")}),
            tmp_path / "no",
            keep_decoder=True,
        )
    assert not (tmp_path / "no").exists()


def test_what_does_not_fit_is_refused(whole: Bundle, tmp_path: Path) -> None:
    other = derive(whole, whole.manifest, files={"decoder.onnx": _nudged(whole, 0.5)})
    with pytest.raises(SettingsError, match=r"decoders .* differ by .* of the variance"):
        join(other, whole, tmp_path / "no")
    with pytest.raises(BundlePart, match="half"):
        join(whole, device_half(whole), tmp_path / "no")
    with pytest.raises(SettingsError, match="differ in resize"):
        join(whole, derive(whole, replace(whole.manifest, resize=whole.manifest.resize + 8), files={}), tmp_path / "no")
    with pytest.raises(OutputError, match="exists"):
        join(whole, whole, tmp_path)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("field", ["colour", "crop", "classes", "stride", "channels"])
def test_bundles_that_are_not_made_alike_are_refused(whole: Bundle, field: str, tmp_path: Path) -> None:
    ours = whole.manifest
    other = {
        "colour": replace(ours.colour, offset=0.0),
        "crop": ours.crop - ours.stride,
        "classes": ours.classes[::-1],
        "stride": 2 * ours.stride,
        "channels": ours.channels + 1,
    }
    edge = replace(whole, manifest=replace(ours, **{field: other[field]}))  # type: ignore[arg-type]  # each of its own
    with pytest.raises(SettingsError, match=f"differ in {field}; both must be made alike"):
        join(whole, edge, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_decoder_that_is_a_tenth_off_is_another(whole: Bundle, tmp_path: Path) -> None:
    other = derive(whole, whole.manifest, files={"decoder.onnx": _nudged(whole, 0.1)})
    with pytest.raises(SettingsError, match=r"decoders .* differ by 0\.0"):
        join(other, whole, tmp_path / "no")
    assert _difference(np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)) == float("inf")


@pytest.mark.parametrize("less", ["device", "edge"])
def test_what_is_told_of_both_is_of_the_right_one(whole: Bundle, less: str, tmp_path: Path) -> None:
    """The smaller limits, the device's own words and a name of one's own; golden answers are those of the new tail."""
    ours, files = whole.manifest, {"MODEL_CARD.md": b"# mine\n"}
    small = replace(ours, max_symbols=ours.max_symbols // 2, max_side=ours.max_side // 2)
    device = derive(whole, replace(small if less == "device" else ours, provenance={"recipe": "mine"}), files=files)
    tail = {"tail_classify.onnx": _nudged(whole, 30.0, "tail_classify")}
    edge = derive(whole, replace(small if less == "edge" else ours, provenance={"recipe": "theirs"}), files=tail)
    made = join(device, edge, tmp_path / "made", name="other", version=7)
    assert made.ident == "other@7"
    assert (made.manifest.max_symbols, made.manifest.max_side) == (small.max_symbols, small.max_side)
    assert made.manifest.provenance["recipe"] == "mine"
    assert made.read("MODEL_CARD.md").startswith(b"# mine\n")
    assert replay(made).answers
    assert read_golden(made, FILE).top_ln.tolist() != read_golden(device, FILE).top_ln.tolist()


def test_heads_that_differ_in_contrast_alone_are_two(whole: Bundle, tmp_path: Path) -> None:
    model = onnx.load_from_string(whole.graph("head"))
    kernel = next(one for one in model.graph.initializer if one.name.startswith("kernel"))
    array = numpy_helper.to_array(kernel)
    stripes = (-1.0) ** np.arange(array.shape[3]) * np.abs(array).max()  # whose sum is nought
    kernel.CopyFrom(numpy_helper.from_array((array + stripes).astype(array.dtype), kernel.name))
    other = derive(whole, whole.manifest, files={"head.onnx": model.SerializeToString()})
    with pytest.raises(SettingsError, match=r"heads .* differ by"):
        join(whole, other, tmp_path / "no", keep_decoder=True)


def test_tasks_come_with_the_edge_and_none_goes(tmp_path: Path) -> None:
    both = open_bundle("efficientnet-lite0")
    words = ("detect", "segment", "golden")  # golden vectors take their time
    gone = [name for name in both.manifest.files if any(word in name for word in words)]
    plain = derive(both, replace(both.manifest, tasks=("classify",)), files={}, without=gone)
    made = join(plain, both, tmp_path / "made")
    assert made.manifest.tasks == both.manifest.tasks != plain.manifest.tasks
    for name in ("task_detect.json", "tail_detect.onnx", "task_segment.json"):
        assert made.read(name) == both.read(name)
    with pytest.raises(SettingsError, match=r"does not detect, segment, as .* does; its tasks would go"):
        join(both, plain, tmp_path / "no")


def test_a_task_that_decodes_for_itself_goes_with_no_other_encoder(tmp_path: Path) -> None:
    small, large = open_bundle("efficientnet-lite0"), open_bundle("efficientnet-lite0-large")
    spec = replace(large.task("detect"), decoder="decoder_detect")
    files = {"decoder_detect.onnx": large.graph("decoder"), "task_detect.json": spec.to_json()}
    with pytest.raises(SettingsError, match=r"detect of efficientnet-lite0-large@.* has a decoder of its own"):
        join(small, derive(large, large.manifest, files=files), tmp_path / "no", keep_decoder=True)
    assert not (tmp_path / "no").exists()
