"""An encoder's graph before and after quantising: the same network, laid out for 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitcodec.session import Graph
from splitcodec.training.int8_graph import View, aligned, equalised, group_of, window
from splitcodec.training.int8_pixels import on_pixels
from splitcodec.training.quantise import quantise_encoder
from splitcodec.training.rounding import Window
from splitcodec.wire.tables import Tables, quantise_mass
from tests.training.test_int8_pixels import Stem, quantised

Layer = tuple[
    str, str, tuple[int, ...], int, tuple[int, int, int, int], int
]  # name, activation, shape, stride, pads, group
TF_SAME, SAME, NONE = (0, 0, 1, 1), (1, 1, 1, 1), (0, 0, 0, 0)
MOBILE: list[Layer] = [
    ("stem", "Clip", (28, 3, 3, 3), 2, TF_SAME, 1),
    ("dw", "Clip", (28, 1, 3, 3), 1, SAME, 28),
    ("pw", "", (16, 28, 1, 1), 1, NONE, 1),
    ("expand", "Relu", (40, 16, 1, 1), 1, NONE, 1),
    ("dw2", "Relu", (40, 1, 3, 3), 2, SAME, 40),
    ("project", "", (8, 40, 1, 1), 1, NONE, 1),
]


def network(
    layers: Sequence[Layer] = MOBILE, *, seed: int = 1, scaling: Sequence[str] = ("Mul", "Add")
) -> onnx.ModelProto:
    """Return an encoder with channels of very different ranges."""
    random = np.random.default_rng(seed)
    constants = {"low": np.array(0.0), "high": np.array(6.0), "Mul": np.array(1 / 127.5), "Add": np.array(-1.0)}
    constants |= {"Div": np.array(127.5), "Sub": np.array(1.0)}
    nodes = [
        helper.make_node("Transpose", ["image_bhwc"], ["bytes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["bytes"], ["x"], to=TensorProto.FLOAT),
    ]
    name = "x"
    for word in scaling:
        nodes.append(helper.make_node(word, [name, word], [f"{name}_{word}"]))
        name = f"{name}_{word}"
    for layer, activation, shape, stride, pads, group in layers:
        spread = np.exp(random.normal(size=shape[0]))
        fan = shape[1] * shape[2] * shape[3]
        constants[f"{layer}_w"] = random.normal(size=shape) * spread[:, None, None, None] / np.sqrt(fan)
        constants[f"{layer}_b"] = random.normal(size=shape[0]) / 4
        attributes = {"strides": [stride, stride], "pads": list(pads), "group": group, "kernel_shape": shape[2:]}
        nodes.append(
            helper.make_node("Conv", [name, f"{layer}_w", f"{layer}_b"], [layer], name=f"conv_{layer}", **attributes)
        )
        name = layer
        if activation:
            bounds = ["low", "high"] if activation == "Clip" else []
            nodes.append(helper.make_node(activation, [name, *bounds], [f"{name}_a"]))
            name = f"{name}_a"
    nodes.append(helper.make_node("Identity", [name], ["latent_bchw"]))
    used = {one for node in nodes for one in node.input}
    body = helper.make_graph(
        nodes,
        "mobile",
        [helper.make_tensor_value_info("image_bhwc", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("latent_bchw", TensorProto.FLOAT, ["batch", layers[-1][2][0], "rows", "cols"])],
        [
            numpy_helper.from_array(np.asarray(value, np.float32), key)
            for key, value in constants.items()
            if key in used
        ],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto | bytes, image_bhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return Graph(data, name="encoder.onnx", threads=1)(image_bhwc)


def tops(
    model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]
) -> Callable[[Sequence[str]], list[NDArray[np.float32]]]:
    def largest(names: Sequence[str]) -> list[NDArray[np.float32]]:
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        opened.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        graph = Graph(opened.SerializeToString(), name="opened", threads=1)
        seen = [graph.outputs(image) for image in images]
        return [np.max([one[name].max(axis=(0, 2, 3)) for one in seen], axis=0) for name in names]

    return largest


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(7)
    coarse = [random.integers(0, 256, (1, 6, 6, 3), np.uint8) for _ in range(8)]
    return [one.repeat(8, axis=1).repeat(8, axis=2) for one in coarse]


def test_an_equalised_network_is_the_same_and_uses_its_range(images: list[NDArray[np.uint8]]) -> None:
    model = network()
    made = equalised(model, tops(model, images))
    for image in images:
        assert np.allclose(run(made, image), run(model, image), rtol=1e-3, atol=1e-3)
    names = ["stem_a", "expand_a"]  # in front of depthwise convolutions
    for before, after in zip(tops(model, images)(names), tops(made, images)(names), strict=True):
        alive = before > 0.01
        assert after[alive].min() / after.max() > 0.85 > before[alive].min() / before.max()


def _in_a_row(activation: str, second: tuple[int, ...], group: int) -> onnx.ModelProto:
    """Return a network of two convolutions, the first of which gives four channels."""
    return network([("stem", activation, (4, 3, 3, 3), 2, TF_SAME, 1), ("next", "", second, 1, NONE, group)])


@pytest.mark.parametrize(("activation", "wanted"), [("Relu", [1 / 1.1, 64, 1, 2 / 1.1]), ("Clip", [1, 64, 1, 2 / 1.1])])
def test_channels_before_a_depthwise_convolution_come_to_the_range_of_the_largest(
    activation: str, wanted: list[float]
) -> None:
    """One that is as good as nothing stays, no other is scaled by more than 64, none away from a clip's bound."""
    model = _in_a_row(activation, (4, 1, 3, 3), 4)
    made, top_c = View(equalised(model, lambda _: [np.array([2.0, 0.004, 0.0015, 1.0], np.float32)])), View(model)
    for name, sign in (("stem_w", 1), ("stem_b", 1), ("next_w", -1)):
        ratio = made.constant(name) / top_c.constant(name)  # type: ignore[operator]  # both have one
        np.testing.assert_allclose(ratio.reshape(4, -1)[:, 0], np.array(wanted) ** sign, rtol=1e-5)


def test_channels_before_a_pointwise_convolution_share_its_weights_range() -> None:
    """Each side takes half of the differences, and none goes beyond the largest."""
    model = _in_a_row("Relu", (3, 4, 1, 1), 1)
    weight = np.array([[1, 0.25, 1, 0], [-0.5, -0.5, 0.1, 0], [0.2, 0.2, 0.2, 0]], np.float32)
    View(model).put("next_w", weight[:, :, None, None])
    made = View(equalised(model, lambda _: [np.array([2.0, 0.2, 0.5, 1.0], np.float32)]))
    ratio = made.constant("stem_b") / View(model).constant("stem_b")  # type: ignore[operator]  # both have one
    np.testing.assert_allclose(ratio, [1 / 1.1, np.sqrt(10 / 1.1 * 0.5), np.sqrt(4 / 1.1), np.sqrt(2 / 1.1)], rtol=1e-5)


def test_what_something_else_takes_too_stays_as_it_is(images: list[NDArray[np.uint8]]) -> None:
    """Another output, another layer or another layer's weights."""
    told, taken, shared = network(), network(), network()
    names = ["stem_a", "dw_a", "pw", "expand_a"]
    told.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    for name in names:
        taken.graph.node.append(helper.make_node("GlobalMaxPool", [name], [f"{name}_top"]))
        taken.graph.output.append(helper.make_tensor_value_info(f"{name}_top", TensorProto.FLOAT, None))
    for name in ("pw", "expand"):
        again = helper.make_node("Conv", [f"{name}_in", f"{name}_w", f"{name}_b"], [f"{name}_again"])
        place = 28 if name == "pw" else 16
        shared.graph.input.append(helper.make_tensor_value_info(f"{name}_in", TensorProto.FLOAT, [1, place, 2, 2]))
        shared.graph.node.append(again)
        shared.graph.output.append(helper.make_tensor_value_info(f"{name}_again", TensorProto.FLOAT, None))
    for model in (told, taken):
        made = aligned(equalised(model, tops(model, images)))
        before, after = (
            Graph(one.SerializeToString(), name="x", threads=1).outputs(images[0]) for one in (model, made)
        )
        assert set(before) == set(after)
        assert all(np.allclose(after[key], before[key], rtol=1e-3, atol=1e-3) for key in before)
    wide, ramp = {"stem_a": 28, "dw_a": 28}, np.linspace(0.1, 1, 40, dtype=np.float32)
    made = aligned(equalised(shared, lambda names: [ramp[: wide.get(name, 40)] for name in names]))
    for name in ("pw_w", "pw_b", "expand_w", "expand_b"):
        assert np.array_equal(View(made).constant(name), View(shared).constant(name))  # type: ignore[arg-type]  # so


def test_a_window_is_what_onnx_says() -> None:
    stem = Stem((2, 6), (2, 1), (0, 1, 3, 4))  # top, left, bottom, right
    conv = next(node for node in quantised(stem).model.graph.node if node.op_type == "Conv")
    weight = np.zeros((5, 3, 2, 6), np.float32)
    assert window(conv, weight) == Window(2, 6, (2, 1), (0, 1, 3, 4), 1)
    plain = helper.make_node("Conv", ["x", "w"], ["y"], group=3)
    assert window(plain, weight) == Window(2, 6, (1, 1), (0, 0, 0, 0), 3)


def test_integers_in_other_steps_are_the_same_convolution() -> None:
    made = quantised(Stem((3, 3), (2, 2), (0, 0, 1, 1)))
    view = View(made.model)
    conv = next(node for node in made.model.graph.node if node.op_type == "Conv")
    old = view.quantised(conv)
    assert old is not None
    assert old.name == "w"
    np.testing.assert_allclose(old.weight_oikk * old.scale_o[:, None, None, None], made.weight_oikk, rtol=1e-6)
    np.testing.assert_allclose(old.bias_o, made.bias_o, rtol=1e-5)
    wider = np.array([1.5, 1.25, 1.0, 2.0, 1.75], np.float32)
    view.requantise(conv, np.round(old.weight_oikk / 2).astype(np.int8), old.scale_o * wider)
    new = view.quantised(conv)
    assert new is not None
    assert np.array_equal(new.weight_oikk, np.round(old.weight_oikk / 2))
    np.testing.assert_allclose(new.scale_o, old.scale_o * wider)
    step_o = view.constant("b_scale")
    assert step_o is not None
    np.testing.assert_allclose(step_o, new.scale_o / 64, rtol=1e-6)  # of products of a byte and a weight
    assert (np.abs(new.bias_o - old.bias_o) <= 0.5001 * new.scale_o / 64).all()
    view.put("w_zero", np.array([0, 0, 1, 0, 0], np.int8))
    assert view.quantised(conv) is None


def test_aligned_channels_are_zeros_more(images: list[NDArray[np.uint8]]) -> None:
    model = network()
    made = aligned(model)
    assert [group_of(node) for node in made.graph.node if node.op_type == "Conv"] == [1, 32, 1, 1, 48, 1]
    assert all(np.allclose(run(made, image), run(model, image), atol=1e-4) for image in images)
    assert [group_of(node) for node in model.graph.node if node.op_type == "Conv"] == [1, 28, 1, 1, 40, 1]  # untouched


@pytest.mark.parametrize(("between", "wanted"), [(9, 16), (18, 32), (12, 12), (24, 24)])
def test_channels_between_two_convolutions_are_multiples_of_four(
    between: int, wanted: int, images: list[NDArray[np.uint8]]
) -> None:
    layers: list[Layer] = [
        *MOBILE[:2],
        ("pw", "", (between, 28, 1, 1), 1, NONE, 1),
        ("expand", "Relu", (40, between, 1, 1), 1, NONE, 1),
        *MOBILE[4:],
    ]
    model = network(layers)
    made = aligned(model)
    assert View(made).constant("pw_w").shape[0] == len(View(made).constant("pw_b")) == wanted  # type: ignore[arg-type,union-attr]
    assert View(made).constant("expand_w").shape[1] == wanted  # type: ignore[union-attr]
    assert all(np.allclose(run(made, image), run(model, image), atol=1e-4) for image in images)


@pytest.mark.parametrize(
    "layers",
    [
        [("stem", "", (8, 3, 3, 3), 2, TF_SAME, 1), ("last", "", (4, 8, 1, 1), 1, NONE, 1)],
        [("stem", "Relu", (8, 3, 4, 4), 4, NONE, 1), ("last", "Relu", (4, 2, 3, 3), 1, SAME, 4)],
        [("stem", "Relu", (8, 3, 4, 4), 4, NONE, 1), ("last", "Relu", (16, 1, 3, 3), 1, SAME, 8)],
    ],
)
def test_what_is_built_in_another_way_is_left_alone(layers: list[Layer], images: list[NDArray[np.uint8]]) -> None:
    model = network(layers)
    assert aligned(model).graph.node == model.graph.node
    assert equalised(model, tops(model, images)) == model
    assert on_pixels(model) == model  # nothing in it is quantised


def tables(channels: int) -> Tables:
    return Tables(
        freq_ks=quantise_mass(np.ones(9))[None],
        size_k=np.array([9], np.int32),
        offset_k=np.array([-4], np.int32),
        table_of_lxc=np.zeros((1, 1, channels), np.int32),
        gain_lc=np.full((1, channels), 2.0, np.float32),
    )


@pytest.mark.parametrize(
    ("stem", "scaling"),
    [
        (("stem", "Clip", (28, 3, 3, 3), 2, TF_SAME, 1), ("Mul", "Add")),
        (("stem", "Clip", (28, 3, 3, 3), 2, SAME, 1), ("Div", "Sub")),
        (("stem", "Clip", (28, 3, 5, 5), 2, (2, 2, 2, 2), 1), ("Mul", "Add")),
        (("stem", "Clip", (28, 3, 5, 5), 1, (2, 2, 2, 2), 1), ("Mul", "Add")),
        (("stem", "Clip", (28, 3, 4, 4), 4, NONE, 1), ("Mul", "Add")),
        (("stem", "Clip", (28, 3, 7, 7), 4, (3, 3, 3, 3), 1), ("Mul",)),
    ],
)
def test_the_first_convolution_takes_bytes(
    stem: Layer, scaling: tuple[str, ...], images: list[NDArray[np.uint8]]
) -> None:
    model = network([stem, *MOBILE[1:]], scaling=scaling)
    model.graph.node.remove(next(node for node in model.graph.node if node.op_type == "Identity"))
    model.graph.node[-1].output[0] = "latent_bchw"
    int8 = quantise_encoder(model.SerializeToString(), images, tables=tables(8), level=0)
    made = onnx.load_from_string(int8.graph)
    kinds = [node.op_type for node in made.graph.node]
    assert not {"Cast", "Mul", "Add", "Div", "Sub"} & set(kinds)
    assert next(node for node in made.graph.node if "image_bhwc" in node.input).op_type == "Reshape"
    first = next(node for node in made.graph.node if node.op_type == "Conv")
    quantised = View(made).quantised(first)
    assert quantised is not None
    assert quantised.weight_oikk.shape[1] == 12
    wanted = np.concatenate([run(model, image) for image in images])
    found = np.concatenate([run(int8.graph, image) for image in images])
    assert np.sqrt(np.square(found - wanted).mean()) < 0.08 * wanted.std()
    wide = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    assert run(int8.graph, wide).shape == run(model, wide).shape


def test_a_convolution_kept_in_fp32_stays_in_fp32(images: list[NDArray[np.uint8]]) -> None:
    """ONNX Runtime would turn it into 8 bits with one scale for all channels; see session.py."""
    model = network()
    errors = [
        quantise_encoder(model.SerializeToString(), images, tables=tables(8), level=0, keep_float=k).error
        for k in range(4)
    ]
    assert errors == sorted(errors, reverse=True)
