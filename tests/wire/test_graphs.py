"""Graphs: references to other files are found wherever a tensor may stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.errors import BundleError, BundleFormat, BundleUnsafe
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.graphs import MAX_DEPTH, check_graph
from tests.wire.protobuf import EXTERNAL, model, node, number, part, text

TENSOR = number(1, 4) + number(2, 1) + text(8, "w")


def in_graph(body: bytes) -> bytes:
    return part(7, body)


def in_attribute(body: bytes) -> bytes:
    return in_graph(part(1, part(5, body)))


def deep(levels: int) -> bytes:
    body = b""
    for _ in range(levels):
        body = part(1, part(5, part(6, body)))
    return in_graph(body)


PLACES = {
    "initializer": in_graph(part(5, TENSOR + EXTERNAL)),
    "initializer, location flag alone": in_graph(part(5, TENSOR + number(14, 1))),
    "initializer, location alone": in_graph(part(5, part(13, b""))),
    "second graph field, merged into the first": in_graph(b"") + in_graph(part(5, EXTERNAL)),
    "values of a sparse initializer": in_graph(part(15, part(1, EXTERNAL))),
    "indices of a sparse initializer": in_graph(part(15, part(2, EXTERNAL))),
    "attribute": in_attribute(part(5, EXTERNAL)),
    "list of tensors in an attribute": in_attribute(part(10, TENSOR) + part(10, EXTERNAL)),
    "sparse attribute": in_attribute(part(22, part(1, EXTERNAL))),
    "list of sparse tensors": in_attribute(part(23, part(2, EXTERNAL))),
    "subgraph": in_attribute(part(6, part(5, EXTERNAL))),
    "list of subgraphs": in_attribute(part(11, part(5, EXTERNAL))),
    "function": part(25, part(7, part(5, part(5, EXTERNAL)))),
    "default attribute of a function": part(25, part(11, part(5, EXTERNAL))),
    "training information": part(20, part(1, part(5, EXTERNAL))),
    "training algorithm": part(20, part(2, part(5, EXTERNAL))),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused(place: str) -> None:
    with pytest.raises(BundleUnsafe, match=r"bad\.onnx: a tensor with external data"):
        check_graph(PLACES[place], name="bad.onnx")


def test_an_explicit_default_location_passes() -> None:
    check_graph(in_graph(part(5, TENSOR + number(14, 0))), name="good.onnx")


def test_graphs_of_a_bundle_pass(tiny: Bundle) -> None:
    for stem in ("encoder", "decoder", "head", "tail_classify"):
        check_graph(tiny.graph(stem), name=stem)


def test_a_small_graph_of_our_own_passes() -> None:
    check_graph(model(node("Abs", "x", "y"), inputs=("x",), outputs=("y",)), name="good.onnx")


def test_nesting_is_bounded() -> None:
    check_graph(deep(10), name="good.onnx")
    with pytest.raises(BundleUnsafe, match=f"more than {MAX_DEPTH} messages"):
        check_graph(deep(200), name="bad.onnx")


def test_empty_fields_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes each, they took a minute of whoever opened a bundle of a hundred megabytes, which pack to nothing."""
    monkeypatch.setattr("splitcodec.wire.graphs.MAX_FIELDS", 1000)
    check_graph(in_graph(part(1, b"") * 900), name="good.onnx")
    for many in (in_graph(part(1, b"") * 1000), in_graph(part(5, number(1, 1) * 500) * 2)):
        with pytest.raises(BundleUnsafe, match=r"bad\.onnx: more than 1,000 fields"):
            check_graph(many, name="bad.onnx")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a graph at all", id="text"),
        pytest.param(part(7, b"abc")[:-1], id="cut in a field"),
        pytest.param(b"\x3a", id="cut in a length"),
        pytest.param(b"\x80" * 11, id="endless varint"),
        pytest.param(b"\x00\x01", id="field number 0"),
        pytest.param(b"\x3b\x00\x3c", id="group"),
        pytest.param(b"\xff\xff\xff\xff\xff\x01\x01", id="field number beyond 29 bits"),
        pytest.param(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", id="length of 2^63"),
    ],
)
def test_what_is_no_protobuf_is_refused(data: bytes) -> None:
    with pytest.raises(BundleFormat, match=r"bad\.onnx"):
        check_graph(data, name="bad.onnx")


def test_onnx_runtimes_own_format_is_refused() -> None:
    with pytest.raises(BundleUnsafe, match="own format"):
        check_graph(b"\x1c\0\0\0ORTM" + bytes(40), name="bad.onnx")


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused_by_name(data: bytes) -> None:
    for candidate in (data, in_graph(data), in_attribute(data)):
        try:
            check_graph(candidate, name="any.onnx")
        except BundleError:
            continue
