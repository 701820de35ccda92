"""Classes of a user's own: learned on what packets bring, answered from packets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, GraphError, OutputError
from splitcodec.session import Graph
from splitcodec.training import class_vectors, own_classes
from splitcodec.training.class_vectors import Picture, Seen, apart, class_folders, see
from splitcodec.training.last_layer import below_last_layer, with_last_layer
from splitcodec.training.own_classes import fit, score, with_classes
from splitcodec.wire.bundle import Bundle, write_folder

COLOURS = {"brick": (200, 40, 30), "lawn": (30, 170, 40), "sea": (30, 60, 200)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("own"), np.random.default_rng(3)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for n in range(10):
            array = np.asarray(colour) + random.normal(0, 12, (70, 80, 3)) + random.normal(0, 10)
            Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(root / name / f"{n}.png")
    return root


def test_a_bundle_learns_colours_and_the_devices_stay(tiny: Bundle, photos: Path, tmp_path: Path) -> None:
    learned, held = apart(class_folders([photos]), every=5)
    assert (len(learned), len(held)) == (24, 6)
    seen = see(tiny, learned, threads=2)
    assert len(seen.vector_nd) == 24 * (tiny.manifest.levels + 1)
    assert len(seen.of_view(tiny.manifest.levels).vector_nd) == 24
    layer = fit(seen, classes=3)
    draft = with_classes(tiny, layer, classes=list(COLOURS), name="own", version=2, note={"x": 1})
    made = write_folder(draft, tmp_path / "own")
    assert (made.ident, made.fingerprint, made.manifest.classes) == ("own@2", tiny.fingerprint, tuple(COLOURS))
    assert made.manifest.provenance["retailed"]["x"] == 1
    found = score(made, held, threads=1)
    assert [one.level for one in found.levels] == [*range(tiny.manifest.levels), -1]
    assert min(one.top1 for one in found.levels) > 80
    answer = Edge(made, threads=1).answer(Device(tiny, threads=1).encode(photos / "sea" / "0.png"))
    assert answer["answers"]["classify"][0]["label"] == "sea"


def test_a_last_layer_gives_what_it_says(tiny: Bundle) -> None:
    tail = tiny.graph("tail_classify")
    feature = np.random.default_rng(0).normal(size=(2, 8, 4, 4)).astype(np.float32)
    feature = feature[:, : Graph(tail, name="t").input_shape[1]]
    vector = Graph(below_last_layer(tail, name="t"), name="below")(feature)
    weight, bias = np.random.default_rng(1).normal(size=(5, vector.shape[1])), np.arange(5)
    new = with_last_layer(tail, weight.astype(np.float32), bias.astype(np.float32), name="t")
    expected = vector @ weight.astype(np.float16).astype(np.float32).T + bias
    np.testing.assert_allclose(Graph(new, name="new")(feature), expected, rtol=1e-4, atol=1e-4)
    assert len(new) < len(tail) + 5 * vector.shape[1] * 2 + 400  # without the old layer's weights


def test_a_weight_beyond_float16_stays_a_number(tiny: Bundle) -> None:
    """Of a number that is nothing but for a few pictures; infinity times that nothing made every answer NaN."""
    tail = tiny.graph("tail_classify")
    feature = np.zeros((1, 8, 4, 4), np.float32)[:, : Graph(tail, name="t").input_shape[1]]
    vector = Graph(below_last_layer(tail, name="t"), name="below")(feature)
    weight = np.full((5, vector.shape[1]), 1e5, np.float32)
    new = with_last_layer(tail, weight, np.zeros(5, np.float32), name="t")
    assert np.isfinite(Graph(new, name="new")(feature)).all()


def _tail(nodes: list[onnx.NodeProto]) -> bytes:
    weight = np.ones((4, 3), np.float32)
    body = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.ones(3, np.float32), "bias")],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_product_and_a_sum_are_a_last_layer_as_well() -> None:
    tail = _tail(
        [
            helper.make_node("Relu", ["feature"], ["vector"]),
            helper.make_node("MatMul", ["vector", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ]
    )
    below = Graph(below_last_layer(tail, name="t"), name="below")
    np.testing.assert_array_equal(below(np.array([[1, -1, 2, -2]], np.float32)), [[1, 0, 2, 0]])
    new = Graph(with_last_layer(tail, np.eye(2, 4, dtype=np.float32), np.zeros(2, np.float32), name="t"), name="new")
    np.testing.assert_array_equal(new(np.array([[1, -1, 2, -2]], np.float32)), [[1, 0]])


@pytest.mark.parametrize("kind", ["Softmax", "Identity"])
def test_another_ending_is_refused(kind: str) -> None:
    nodes = [
        helper.make_node("Gemm", ["feature", "weight", "bias"], ["scores"]),
        helper.make_node(kind, ["scores"], ["logits"]),
    ]
    with pytest.raises(GraphError, match=f"logits comes of {kind}, expected one matrix product"):
        below_last_layer(_tail(nodes), name="t")
    with pytest.raises(GraphError, match="no ONNX graph"):
        below_last_layer(b"\xff\xff", name="t")


def test_what_was_seen_is_not_seen_again(
    tiny: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, _ = apart(class_folders([photos]), every=5)
    monkeypatch.setattr(class_vectors, "_KEPT_EVERY", 0.0)
    memory = tmp_path / "seen"

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        see(tiny, learned, threads=1, memory=memory, progress=killed)
    looked, real = list[Path](), class_vectors.Views.vector_vd

    def counted(self: class_vectors.Views, path: Path, views: list[int]) -> object:
        looked.append(path)
        return real(self, path, views)

    monkeypatch.setattr(class_vectors.Views, "vector_vd", counted)
    seen = see(tiny, learned, threads=1, memory=memory)
    assert len(looked) == len(learned) - 8  # one round of eight was kept
    np.testing.assert_array_equal(seen.vector_nd, see(tiny, learned, threads=2).vector_nd)
    looked.clear()
    memory.write_bytes(b"cut off")
    see(tiny, learned, threads=1, memory=memory)
    assert len(looked) == len(learned)
    other = see(tiny, learned[1:], threads=1, memory=memory)  # of other pictures
    assert other.picture_n.max() == len(learned) - 2


def test_a_full_disk_says_so(tiny: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_vectors, "_KEPT_EVERY", 0.0)
    pictures = apart(class_folders([photos]), every=5)[0]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        see(tiny, pictures, threads=1, memory=tmp_path / "file" / "seen")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        see(tiny, pictures, threads=1, memory=tmp_path / "seen")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_many_pictures_are_seen_at_fewer_levels(tiny: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_vectors, "MOST_VECTORS", 50)
    learned, _ = apart(class_folders([photos]), every=5)
    assert len(see(tiny, learned, threads=1).vector_nd) == 2 * len(learned)


def test_pictures_that_cannot_be_read_are_left_out(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (70, 70), "red").save(tmp_path / "good.png")
    seen = see(tiny, [Picture(tmp_path / "bad.png", 0), Picture(tmp_path / "good.png", 1)], threads=1)
    assert len(seen.skipped) == 1
    assert set(seen.label_n.tolist()) == {1}
    with pytest.raises(DataError, match="none of 1 pictures can be read"):
        see(tiny, [Picture(tmp_path / "bad.png", 0)], threads=1, memory=tmp_path / "new" / "seen")
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="none of 1 pictures held out"):
        score(tiny, [Picture(tmp_path / "bad.png", 0)], threads=1)


def test_weight_decay_is_chosen_where_pictures_can_be_set_aside() -> None:
    random = np.random.default_rng(5)
    label_n = np.repeat([0, 1], 40)
    noise_nd = random.normal(size=(80, 300))
    noise_nd[:, 0] += 3 * label_n
    noise_nd[:, 1] = 7.0  # tells nothing
    many = fit(Seen(noise_nd.astype(np.float16), label_n, np.arange(80), label_n, ()), classes=2)
    assert many.decay > 1e-3  # 300 numbers, one of which counts
    assert not many.weight_kd[:, 1].any()
    few = fit(
        Seen(noise_nd[[0, 79]].astype(np.float16), label_n[[0, 79]], np.arange(2), label_n[[0, 79]], ()), classes=2
    )
    assert np.isfinite(few.weight_kd).all()


def test_folders_are_classes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in it"):
        class_folders([tmp_path])
    with pytest.raises(DataError, match="no such folder"):
        class_folders([tmp_path / "none"])
    (tmp_path / "empty").rename(tmp_path / "tab\there")
    with pytest.raises(DataError, match="no name for a class"):
        class_folders([tmp_path])


def test_a_picture_comes_once_however_its_folder_is_spelt(photos: Path) -> None:
    """Twice, it was learned from and measured: 100 % right."""
    once = class_folders([photos])
    assert class_folders([photos, photos / ".." / photos.name]) == once


def test_a_last_layer_is_where_its_loss_is_least() -> None:
    """No step leads lower: mean cross entropy, and half the decay times the squares of the weights of unit spreads."""
    random = np.random.default_rng(7)
    label_n = np.repeat([0, 1, 2], 30)
    vector_nd = random.normal(size=(90, 4)) * [1.0, 5.0, 0.2, 1.0] + 2.0
    vector_nd[:, 0] += label_n
    seen = Seen(vector_nd.astype(np.float16), label_n, np.arange(90), np.zeros(90, int), ())
    layer = fit(seen, classes=3)
    x_nd = seen.vector_nd.astype(np.float64)
    logit_nk = x_nd @ layer.weight_kd.T + layer.bias_k
    share_nk = np.exp(logit_nk) / np.exp(logit_nk).sum(axis=1, keepdims=True)
    off_nk = share_nk - np.eye(3)[label_n]
    unit_nd = (x_nd - x_nd.mean(axis=0)) / x_nd.std(axis=0)
    slope_kd = off_nk.T @ unit_nd / 90 + layer.decay * layer.weight_kd * x_nd.std(axis=0)
    assert np.abs(slope_kd).max() < 2e-4
    assert np.abs(off_nk.mean(axis=0)).max() < 2e-4
    assert np.abs(layer.weight_kd * x_nd.std(axis=0)).max() > 0.1


def test_one_picture_in_five_of_every_class_is_set_aside_with_all_its_views() -> None:
    picture_n = np.repeat(np.arange(14), 3)
    label_n = (picture_n >= 5).astype(int)  # five pictures of one class, nine of the other
    seen = Seen(np.zeros((42, 1), np.float16), label_n, picture_n, np.tile(np.arange(3), 14), ())
    assert sorted(set(picture_n[own_classes._aside(seen)])) == [4, 9]
    assert own_classes._aside(seen).sum() == 6
    found = {name: [Path(f"{name}{n}") for n in range(count)] for name, count in (("a", 10), ("b", 9), ("c", 4))}
    learned, held = apart(found, every=5)
    assert [sum(one.index == k for one in held) for k in range(3)] == [2, 1, 0]
    assert [sum(one.index == k for one in learned) for k in range(3)] == [8, 8, 4]
    assert not {one.path for one in learned} & {one.path for one in held}
