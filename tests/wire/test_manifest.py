"""The manifest: there and back, and a message that names the key for everything else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.errors import BundleFormat
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.manifest import MAX_BYTES, Colour, FileEntry, Manifest, is_file_name, table_set_names

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def body_of(bundle: Bundle) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bundle.manifest.to_json())
    return body


def assert_named(refusal: str, names: list[str]) -> None:
    assert "\n" not in refusal
    assert refusal.startswith("manifest: ")
    assert any(name in refusal for name in names)  # perhaps another key, with which the value clashes


def test_round_trip(tiny: Bundle) -> None:
    assert Manifest.from_json(tiny.manifest.to_json()) == tiny.manifest
    assert tiny.manifest.ident == "tiny@1"


def test_labels_and_provenance_keep_every_letter(tiny: Bundle) -> None:
    provenance = {"data": ["é", 1, 1.5, None, True, {"nested": []}]}
    one = replace(tiny.manifest, classes=('naïve \n "quoted"', "鳥"), provenance=provenance)
    assert Manifest.from_json(one.to_json()) == one


def test_every_key_is_needed_and_no_other_is_known(tiny: Bundle) -> None:
    body = body_of(tiny)
    for key in body:
        with pytest.raises(BundleFormat, match=f"manifest lacks the key '{key}'"):
            Manifest.from_json(json.dumps({k: v for k, v in body.items() if k != key}).encode())
    with pytest.raises(BundleFormat, match="unknown key 'extra'"):
        Manifest.from_json(json.dumps({**body, "extra": 1}).encode())


@given(JSON)
def test_any_value_under_any_key_is_read_or_refused_by_name(tiny: Bundle, value: Any) -> None:
    for key in body_of(tiny):
        try:
            manifest = Manifest.from_json(json.dumps({**body_of(tiny), key: value}).encode())
        except BundleFormat as error:
            refusal = str(error)
            assert_named(refusal, [*body_of(tiny), "JSON"])
        else:
            assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format 2, expected 1; update"),
        ("format", True, "format is True, expected an integer"),
        ("name", "Tiny", "name is 'Tiny'"),
        ("name", "a/b", "name is 'a/b'"),
        ("name", "..", "name is"),
        ("name", "tiny@1", "name is"),
        ("name", "", "name is"),
        ("version", 0, "version is 0, expected an integer of at least 1"),
        ("version", 1.0, "version is 1.0"),
        ("version", "1", "version is '1'"),
        ("colour", {"scale": 1}, "colour lacks the key 'offset'"),
        ("colour", {"scale": 1, "offset": "0"}, "colour.offset is '0', expected a number"),
        ("colour", {"scale": True, "offset": 0}, "colour.scale is True"),
        ("colour", {"scale": 10**400, "offset": 0}, "JSON|too large"),
        ("colour", {"scale": 1e7, "offset": 0}, "colour is"),
        ("stride", 0, "stride is 0, expected an integer from 1 to 256"),
        ("stride", 15, "crop is 64, expected a multiple of the stride 15"),
        ("resize", 63, "resize is 63, expected an integer from 64"),
        ("crop", 10**9, "crop"),
        ("max_side", 63, "max_side"),
        ("channels", 0, "channels"),
        ("levels", 17, "levels is 17, expected an integer from 1 to 16"),
        ("default_level", 3, "default_level is 3, expected an integer from 0 to 2"),
        ("codings", [], "codings"),
        ("codings", [0, 0], "codings"),
        ("codings", [16], "codings is 16"),
        ("codings", [2], r"codings is \(2,\), expected 0, by channel"),
        ("codings", [3, 15], "expected 0, by channel"),
        ("codings", [False], "codings is False"),
        ("codings", 0, "codings is 0, expected a list"),
        ("table_sets", [], "table_sets"),
        ("table_sets", ["tables.1.npz"], "table_sets"),
        ("table_sets", ["tables.npz"] * 2, "table_sets"),
        ("table_sets", list(table_set_names(17)), "table_sets"),
        ("max_symbols", 63, "max_symbols is 63, expected an integer from 64"),
        ("max_symbols", 4 * 255 * 255 + 1, "max_symbols"),
        ("classes", [], "classes"),
        ("classes", ["a", 1], "classes is 1, expected text"),
        ("classes", "abc", "classes is 'abc', expected a list"),
        ("tasks", ["classify", "classify"], "tasks"),
        ("tasks", ["../tail"], "tasks"),
        ("encoder", {"macs": 1, "parameters": 1}, "encoder lacks the key 'bytes'"),
        ("encoder", {"macs": 1, "parameters": 1, "bytes": -1}, "encoder.bytes is -1"),
        ("provenance", [], "provenance is \\[\\], expected an object"),
        ("files", {"../x": {"sha256": "0" * 64, "bytes": 1}}, "files is '../x'"),
        ("files", {"x": {"sha256": "0" * 63, "bytes": 1}}, "files.x.sha256"),
        ("files", {"x": {"sha256": "A" * 64, "bytes": 1}}, "files.x.sha256"),
        ("files", {"x": {"sha256": "0" * 64, "bytes": -1}}, "files.x.bytes"),
        ("files", {"x": {"sha256": "0" * 64}}, "files.x lacks the key 'bytes'"),
        ("files", {"x": 1}, "files.x is 1, expected an object"),
    ],
)
def test_a_wrong_value_is_named(tiny: Bundle, key: str, value: Any, message: str) -> None:
    with pytest.raises(BundleFormat, match=message) as refusal:
        Manifest.from_json(json.dumps({**body_of(tiny), key: value}).encode())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b'{"format": 1 "name"}', "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "manifest is \\[\\], expected an object"),
        (b'{"format": 1, "format": 1}', "a key occurs twice"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b" " * (MAX_BYTES + 1), "at most 4194304 are read"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_json_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleFormat, match=message) as refusal:
        Manifest.from_json(data)
    assert len(str(refusal.value)) < 300


def test_half_a_character_is_refused(tiny: Bundle) -> None:
    for changed in ({"classes": ["\ud800"]}, {"provenance": {"x": "\udfff"}}):
        with pytest.raises(BundleFormat, match="not JSON in UTF-8"):
            Manifest.from_json(json.dumps({**body_of(tiny), **changed}).encode())


def test_provenance_that_is_no_json_is_refused(tiny: Bundle) -> None:
    for value in ({"x": object()}, {"x": float("nan")}, {"x": {1}}):
        with pytest.raises(BundleFormat, match="provenance"):
            replace(tiny.manifest, provenance=value).to_json()


def test_a_manifest_made_in_python_is_checked_too(tiny: Bundle) -> None:
    with pytest.raises(BundleFormat, match="colour"):
        replace(tiny.manifest, colour=Colour(scale=float("nan"), offset=0.0))
    with pytest.raises(BundleFormat, match=r"files\.x\.sha256"):
        replace(tiny.manifest, files={"x": FileEntry(sha256="", bytes=0)})


@pytest.mark.parametrize("name", ["tables.npz", "encoder.int8.onnx", "golden/vectors.npz", "MODEL_CARD.md", "a/b/c"])
def test_names_that_a_file_may_have(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "..", "../x", "a/../b", "/x", "a//b", "a/", ".hidden", "a\\b", "C:x", "x.", "a b", "a/b/c/d", "x\0", "é"),
        *("x\n", "-x", "manifest.json", "a" * 101, "~", 7),
    ],
)
def test_names_that_a_file_may_not_have(name: Any) -> None:
    assert not is_file_name(name)


def test_table_set_names() -> None:
    assert table_set_names(3) == ("tables.npz", "tables.1.npz", "tables.2.npz")
    assert table_set_names(0) == ()


def test_the_largest_grid_is_that_of_the_longest_side_or_one_more_where_symbols_allow(tiny: Bundle) -> None:
    side = 200 // tiny.manifest.stride
    most = tiny.manifest.channels * (side + 1) ** 2
    assert replace(tiny.manifest, max_side=200, max_symbols=most).max_grid == side + 1
    assert replace(tiny.manifest, max_side=200, max_symbols=most - 1).max_grid == side
