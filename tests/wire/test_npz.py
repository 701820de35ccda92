"""Array files from strangers: refused before memory is asked for."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitcodec.errors import BundleFormat
from splitcodec.wire.npz import read_arrays

EXPECTED = {"a_xy": ("<i4", 2), "b_n": ("<f4", 1)}
A, B = np.arange(6, dtype=np.int32).reshape(2, 3), np.ones(4, np.float32)


def saved(**arrays: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def npy(header: str, data: bytes, *, version: bytes = b"\1\0") -> bytes:
    padded = header.ljust(118 - 10 - 1).encode() + b"\n"
    return b"\x93NUMPY" + version + len(padded).to_bytes(2, "little") + padded + data


GOOD_B = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", bytes(4))
A_HEADER = "{'descr': '<i4', 'fortran_order': False, 'shape': %s, }"


def with_a(a: bytes) -> Callable[[], bytes]:
    return lambda: zipped(("a_xy.npy", a), ("b_n.npy", GOOD_B))


def read(data: bytes, *, max_bytes: int = 10_000) -> dict[str, NDArray[Any]]:
    return read_arrays(data, expected=EXPECTED, max_bytes=max_bytes, what="t.npz")


def test_arrays_come_back() -> None:
    got = read(saved(a_xy=A, b_n=B))
    assert np.array_equal(got["a_xy"], A)
    assert np.array_equal(got["b_n"], B)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no zip": (lambda: b"junk", "not a readable .npz"),
    "a list as a key": (with_a(npy("{[]:1}", b"")), "not a readable .npz"),
    "an open bracket": (with_a(npy("(", b"")), "not a readable .npz"),
    "no type in it": (with_a(npy("{'descr': (), 'fortran_order': False, 'shape': (1,), }", b"")), "not a readable"),
    "lines shifted": (with_a(npy("  x\n y", b"")), "not a readable .npz"),
    "cut": (lambda: saved(a_xy=A, b_n=B)[:-30], "not a readable .npz"),
    "an array is missing": (lambda: saved(a_xy=A), "holds 'a_xy.npy', expected"),
    "an array too many": (lambda: saved(a_xy=A, b_n=B, c=B), "expected 'a_xy.npy', 'b_n.npy'"),
    "climbing name": (lambda: zipped(("../a_xy.npy", b""), ("b_n.npy", GOOD_B)), "expected 'a_xy.npy'"),
    "another dtype": (lambda: saved(a_xy=A.astype(np.int64), b_n=B), "a_xy: <i8 with 2 dimensions, expected <i4"),
    "big-endian": (lambda: saved(a_xy=A.astype(">i4"), b_n=B), "a_xy: >i4"),
    "other dimensions": (lambda: saved(a_xy=A[0], b_n=B), "with 1 dimensions"),
    "Fortran order": (lambda: saved(a_xy=np.asfortranarray(A), b_n=B), "Fortran order"),
    "pickled objects": (
        with_a(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }", pickle.dumps(print))),
        "a_xy: \\|O",
    ),
    "a bare pickle": (with_a(pickle.dumps(print)), "not a readable .npz"),
    "announces terabytes": (with_a(npy(A_HEADER % "(1000000, 1000000)", bytes(4))), "announces shape"),
    "announces less than follows": (with_a(npy(A_HEADER % "(1, 1)", bytes(8))), "but 8 bytes follow"),
    "negative sides": (with_a(npy(A_HEADER % "(-1, -1)", bytes(4))), "announces shape"),
    "overflowing product": (with_a(npy(A_HEADER % f"({2**32}, {2**32})", b"")), "announces shape"),
    "code in the header": (with_a(npy("__import__('os').getcwd()", b"")), "not a readable .npz"),
    "no shape in the header": (with_a(npy("{'descr': '<i4'}", b"")), "not a readable .npz"),
    "huge header": (with_a(npy(A_HEADER % ("(1, 1" + " " * 8_000 + ")"), bytes(4))), "not a readable .npz"),
    "later version": (with_a(npy(A_HEADER % "(1, 1)", bytes(4), version=b"\2\0")), "version \\(2, 0\\)"),
    "bomb": (with_a(bytes(1_000_000)), "unpacks to 1000.* bytes, at most 10000"),
    "empty": (with_a(b""), "not a readable .npz"),
}


def test_optional_arrays_may_be_missing_and_no_others() -> None:
    def only(optional: tuple[str, ...], **arrays: NDArray[Any]) -> set[str]:
        return set(read_arrays(saved(**arrays), expected=EXPECTED, max_bytes=10_000, what="t.npz", optional=optional))

    assert only(("b_n",), a_xy=A) == {"a_xy"}
    assert only(("b_n",), a_xy=A, b_n=B) == {"a_xy", "b_n"}
    with pytest.raises(BundleFormat, match=r"holds 'b_n\.npy'"):
        only(("b_n",), b_n=B)
    with pytest.raises(BundleFormat, match="c_n"):
        only(("b_n",), a_xy=A, c_n=B)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_array_twice() -> None:
    with pytest.raises(BundleFormat, match=r"holds 'a_xy\.npy', 'a_xy\.npy', 'b_n\.npy'"):
        read(zipped(("a_xy.npy", b""), ("a_xy.npy", b""), ("b_n.npy", GOOD_B)))


@pytest.mark.parametrize("case", HOSTILE)
def test_refusals_on_one_line(case: str) -> None:
    make, message = HOSTILE[case]
    with pytest.raises(BundleFormat, match=message) as refusal:
        read(make())
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_directory_that_lies_about_sizes_is_no_way_in() -> None:
    data = with_a(bytes(1_000_000))()
    lying = data.replace((1_000_000).to_bytes(4, "little"), (138).to_bytes(4, "little"))
    assert lying != data
    with pytest.raises(BundleFormat):
        read(lying)


@pytest.mark.parametrize("way", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_what_numpy_does_not_pack_is_refused_before_it_is_unpacked(way: int) -> None:
    file, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.arange(4, dtype="<u4"))
    with zipfile.ZipFile(file, "w", way) as archive:
        archive.writestr("a.npy", array.getvalue())
    data = bytearray(file.getvalue())
    data[30 + len("a.npy") + 10] ^= 0xFF  # in the packed bytes: an LZMAError once
    with pytest.raises(BundleFormat, match="packed in another way"):
        read_arrays(bytes(data), expected={"a": ("<u4", 1)}, max_bytes=4096, what="x.npz")
