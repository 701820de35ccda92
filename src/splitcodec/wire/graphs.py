"""ONNX files that nobody vouches for: refuse those that would read other files.

A tensor of a graph may say that its numbers lie in another file (`external_data`), by any path; ONNX Runtime would open
it. A bundle's graphs are self-contained, so such a tensor is refused. This walks the protobuf itself: the device has no
package `onnx`. Field numbers are those of onnx.proto (IR version 3 and later).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

from splitcodec.errors import BundleFormat, BundleUnsafe

MAX_DEPTH = 64  # messages within messages; subgraphs of subgraphs
MAX_FIELDS = 500_000  # a hundred times those of a large network, looked at in seconds

# message -> field number -> message; fields that are not named here cannot lead to a tensor
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MODEL_GRAPH, _GRAPH_INITIALIZER, _RAW_DATA = 7, 5, 9
_LARGE = 256  # bytes; smaller tensors are shapes and the like, and alike in many networks


def check_graph(model: bytes, *, name: str) -> None:
    """Raise BundleUnsafe if the ONNX file `model` refers to any other file, BundleFormat if it does not parse."""
    if model[4:8] == b"ORTM":
        raise BundleUnsafe(f"{name}: a graph in ONNX Runtime's own format, expected plain ONNX")
    if not model:
        raise BundleFormat(f"{name}: an empty file, expected an ONNX graph")
    _walk(memoryview(model), message="Model", name=name, depth=0, seen=itertools.count(1))


def weight_digests(model: bytes, *, name: str) -> frozenset[bytes]:
    """Return the SHA-256 of each large tensor of a graph's weights, whatever it is called. Raises BundleFormat."""
    found = set()
    for number, wire, graph in _fields(memoryview(model), name=name):
        if number != _MODEL_GRAPH or wire != 2 or not isinstance(graph, memoryview):
            continue
        for inner, _, tensor in _fields(graph, name=name):
            if inner != _GRAPH_INITIALIZER or not isinstance(tensor, memoryview):
                continue
            raw = [value for field, _, value in _fields(tensor, name=name) if field == _RAW_DATA]
            found |= {
                hashlib.sha256(data).digest() for data in raw if isinstance(data, memoryview) and len(data) >= _LARGE
            }
    return frozenset(found)


def _walk(data: memoryview, *, message: str, name: str, depth: int, seen: Iterator[int]) -> None:
    if depth > MAX_DEPTH:
        raise BundleUnsafe(f"{name}: more than {MAX_DEPTH} messages within each other")
    inner = _FIELDS[message]
    for number, wire, value in _fields(data, name=name):
        if next(seen) > MAX_FIELDS:
            raise BundleUnsafe(f"{name}: more than {MAX_FIELDS} fields, which no network has")
        if message == "Tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            raise BundleUnsafe(f"{name}: a tensor with external data; save the graph with its weights inside")
        if wire == 2 and number in inner and isinstance(value, memoryview):
            _walk(value, message=inner[number], name=name, depth=depth + 1, seen=seen)


def _fields(data: memoryview, *, name: str) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, value); value is an int for varints and else the field's bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at, name=name)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >> 32:
            raise BundleFormat(f"{name}: not an ONNX file (field number {number})")
        if wire == 0:
            value, at = _varint(data, at, name=name)
            yield number, wire, value
            continue
        if wire == 2:
            size, at = _varint(data, at, name=name)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise BundleFormat(f"{name}: not an ONNX file (wire type {wire})")
        if size > end - at:
            raise BundleFormat(f"{name}: not an ONNX file, or cut short")
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int, *, name: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise BundleFormat(f"{name}: not an ONNX file, or cut short")
