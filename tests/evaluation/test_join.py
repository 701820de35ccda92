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
from splitcodec.evaluation.golden import FILE, make_golden
from splitcodec.evaluation.join import join
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


def test_a_task_that_decodes_for_itself_goes_with_no_other_encoder(tmp_path: Path) -> None:
    small, large = open_bundle("efficientnet-lite0"), open_bundle("efficientnet-lite0-large")
    spec = replace(large.task("detect"), decoder="decoder_detect")
    files = {"decoder_detect.onnx": large.graph("decoder"), "task_detect.json": spec.to_json()}
    with pytest.raises(SettingsError, match=r"detect of efficientnet-lite0-large@.* has a decoder of its own"):
        join(small, derive(large, large.manifest, files=files), tmp_path / "no", keep_decoder=True)
    assert not (tmp_path / "no").exists()
