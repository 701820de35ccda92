from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundleFormat, BundleHash, BundlePart, GoldenMismatch, MissingExtra
from splitcodec.evaluation.golden import FILE, anew, apart, make_golden, read_golden, remade
from splitcodec.evaluation.replay import replay
from splitcodec.wire.bundle import Bundle, derive, split_device, write_bundle, write_folder

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def vectors(tiny: Bundle, pictures: list[Image.Image]) -> bytes:
    return make_golden(Device(tiny, threads=1), Edge(tiny, threads=1), pictures[:5])


def with_golden(tiny: Bundle, folder: Path, data: bytes) -> Bundle:
    files = {name: tiny.read(name) for name in tiny.manifest.files}
    return write_bundle(folder, replace(tiny.manifest, files={}), files=files | {FILE: data})


def changed(data: bytes, change: Change) -> bytes:
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    change(arrays)
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def test_what_was_made_here_replays_here_with_both_coders(tiny: Bundle, tmp_path: Path, vectors: bytes) -> None:
    bundle = with_golden(tiny, tmp_path / "b", vectors)
    steps: list[tuple[int, int]] = []
    result = replay(bundle, threads=1, on_step=lambda done, of: steps.append((done, of)))
    of = 5 * 3 * (len(result.coders) + 1)
    assert steps == [(done, of) for done in range(1, of + 1)], "it took a quarter of a minute without a sign of life"
    assert result.to_json() == {
        "bundle": "tiny@1",
        "ok": True,
        "pictures": 5,
        "levels": 3,
        "coders": list(result.coders),
        "symbols_equal": 1.0,
        "answers": True,
    }
    assert "plain" in result.coders
    try:
        Device(tiny, plain_coder=False)
    except MissingExtra:
        assert result.coders == ("plain",)
    else:
        assert result.coders == ("plain", "constriction")


@pytest.mark.parametrize("name", ["head.onnx", "MODEL_CARD.md"])
def test_a_file_that_no_vector_needs_is_held_against_its_hash(
    tiny: Bundle, tmp_path: Path, vectors: bytes, name: str
) -> None:
    """`check` says that it looks at hashes, and passed a bundle whose head had rotted on the card."""
    bundle = with_golden(derive(tiny, tiny.manifest, files={"MODEL_CARD.md": b"# tiny@1"}), tmp_path / "b", vectors)
    data = bytearray(bundle.read(name))
    data[len(data) // 2] ^= 1
    (tmp_path / "b" / name).write_bytes(data)
    with pytest.raises(BundleHash, match=f"{name} differs from its hash"):
        replay(tmp_path / "b", threads=1)


def test_the_devices_half_replays_without_answers(tiny: Bundle, tmp_path: Path, vectors: bytes) -> None:
    half = split_device(with_golden(tiny, tmp_path / "b", vectors), tmp_path / "half")
    assert not replay(half, threads=1).answers


def test_the_same_pictures_give_the_same_file(tiny: Bundle, pictures: list[Image.Image], vectors: bytes) -> None:
    assert make_golden(Device(tiny, threads=1), Edge(tiny, threads=1), pictures[:5]) == vectors


def test_a_bundle_without_vectors_is_told(tiny: Bundle) -> None:
    with pytest.raises(BundlePart, match=FILE):
        replay(tiny)


def _packet(arrays: dict[str, Any]) -> None:
    arrays["packets"] = arrays["packets"] ^ np.eye(1, arrays["packets"].size, 9, dtype=np.uint8)[0]


def _answer(arrays: dict[str, Any]) -> None:
    arrays["top_ln"] = (arrays["top_ln"] + np.eye(3, 5, 1, dtype=np.int32)) % 10


def _pictures(arrays: dict[str, Any]) -> None:
    arrays["image_bhwc"] = np.roll(arrays["image_bhwc"], 1, axis=0)


def _noise(arrays: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(-6, 7, arrays["image_bhwc"].shape)
    arrays["image_bhwc"] = np.clip(arrays["image_bhwc"] + noise + 9, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_packet, "picture 0, level 0, coder plain: symbols gave another packet"),
        (_answer, "picture 1, level 0: answer ., expected ."),
        (_pictures, "a symbol is off by"),
        (_noise, "of the symbols are equal, expected 99"),
    ],
)
def test_what_differs_is_named(tiny: Bundle, tmp_path: Path, vectors: bytes, change: Change, message: str) -> None:
    bundle = with_golden(tiny, tmp_path / "b", changed(vectors, change))
    with pytest.raises(GoldenMismatch, match=message):
        replay(bundle, threads=1)


def _lengths(arrays: dict[str, Any]) -> None:
    arrays["packet_len_ln"] = arrays["packet_len_ln"] + np.eye(3, 5, dtype=np.int32)


def _fewer_levels(arrays: dict[str, Any]) -> None:
    arrays["symbols_lnchw"] = arrays["symbols_lnchw"][:2]


def _no_pictures(arrays: dict[str, Any]) -> None:
    for name in ("symbols_lnchw", "packet_len_ln", "top_ln"):
        arrays[name] = arrays[name][:, :0]
    arrays["image_bhwc"], arrays["packets"] = arrays["image_bhwc"][:0], arrays["packets"][:0]


def _pickles(arrays: dict[str, Any]) -> None:
    arrays["packets"] = np.array([{}], dtype=object)


@pytest.mark.parametrize("change", [_lengths, _fewer_levels, _no_pictures, _pickles])
def test_a_file_that_does_not_parse_is_refused(tiny: Bundle, tmp_path: Path, vectors: bytes, change: Change) -> None:
    bundle = with_golden(tiny, tmp_path / "b", changed(vectors, change))
    with pytest.raises(BundleFormat, match=FILE):
        replay(bundle, threads=1)


def test_pictures_may_have_a_file_of_their_own(tiny: Bundle, vectors: bytes, tmp_path: Path) -> None:
    whole = with_golden(tiny, tmp_path / "whole", vectors)
    parted = write_folder(apart(whole), tmp_path / "parted")
    assert parted.fingerprint == whole.fingerprint
    assert len(parted.read(FILE)) < len(vectors)
    ours, theirs = read_golden(parted, FILE), read_golden(whole, FILE)
    assert np.array_equal(ours.image_bhwc, theirs.image_bhwc)
    assert ours.packet_ln == theirs.packet_ln
    for files in (remade(parted, parted), anew(parted, parted)):  # where they are they stay
        assert len(files[FILE]) < len(vectors)
        again = read_golden(derive(parted, parted.manifest, files=files), FILE)
        assert np.array_equal(again.image_bhwc, theirs.image_bhwc)
    assert replay(write_folder(apart(parted), tmp_path / "twice")).pictures == len(theirs.image_bhwc)


def test_golden_vectors_without_pictures_are_refused(tiny: Bundle, vectors: bytes, tmp_path: Path) -> None:
    whole = with_golden(tiny, tmp_path / "whole", vectors)
    bare = derive(whole, whole.manifest, files={FILE: apart(whole).read(FILE)})
    with pytest.raises(BundleFormat, match="image_bhwc"):
        read_golden(bare, FILE)
