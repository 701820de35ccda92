"""A few lines of protobuf, enough to write small ONNX graphs, harmless and hostile, without the package onnx."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Return a base-128 number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def number(field: int, value: int) -> bytes:
    """Return an integer field."""
    return varint(field << 3) + varint(value)


def part(field: int, value: bytes) -> bytes:
    """Return a field of bytes, text or an inner message."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    """Return a text field."""
    return part(field, value.encode())


def value_info(name: str) -> bytes:
    """Return a ValueInfoProto: float32, one dimension of any length."""
    shape = part(2, part(1, text(2, "n")))
    return text(1, name) + part(2, part(1, number(1, 1) + shape))


def model(nodes: bytes, *, inputs: tuple[str, ...], outputs: tuple[str, ...], more: bytes = b"") -> bytes:
    """Return a ModelProto of opset 18; `nodes` and `more` are fields of its graph."""
    ends = b"".join(part(11, value_info(name)) for name in inputs) + b"".join(part(12, value_info(n)) for n in outputs)
    return number(1, 8) + part(8, number(2, 18)) + part(7, nodes + text(2, "g") + more + ends)


def node(operator: str, source: str, target: str) -> bytes:
    """Return a graph's node field with one input and one output."""
    return part(1, text(1, source) + text(2, target) + text(4, operator))


EXTERNAL = part(13, text(1, "location") + text(2, "/etc/passwd")) + number(14, 1)
"""The fields of a tensor whose numbers lie in another file."""
