"""docs/wire-format.md and docs/bundle-format.md mean what they say: decoder, example and fingerprint are run here."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.coder import Coder
from splitcodec.wire.codings import Codings
from splitcodec.wire.contexts import DTYPES
from splitcodec.wire.packet import HEADER, Packet, pack, unpack
from tests.golden.test_packets import GOLDEN, tables_of

DOCS = Path(__file__).parents[2] / "docs"
WIRE, BUNDLE = ((DOCS / name).read_text(encoding="utf-8") for name in ("wire-format.md", "bundle-format.md"))
Decode = Callable[[bytes, list[list[int]], list[int], list[int], int, int], list[list[list[int]]]]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", WIRE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(block("json"))
    return parsed


@pytest.fixture(scope="module")
def decode() -> Decode:
    """Return the decoder printed in the document."""
    names: dict[str, Any] = {}
    exec(block("python"), names)
    printed: Decode = names["decode"]
    return printed


@pytest.mark.parametrize("plain", [True, None], ids=["plain", "chosen"])
def test_the_worked_example(example: dict[str, Any], plain: bool | None) -> None:
    symbols = np.array(example["symbols_chw"])
    tables = tables_of(example)
    payload = Coder(tables, plain=plain).encode(symbols, example["level"])
    assert payload.hex() == example["payload"]
    padded = payload + bytes(-len(payload) % 4)
    assert [f"{word:08x}" for word in np.frombuffer(padded, "<u4")] == example["words"]
    packet = Packet(example["level"], 0, 0, bytes.fromhex(example["fingerprint"]), rows=2, cols=3, payload=payload)
    assert pack(packet).hex() == example["packet"]
    assert f"{tables.bits(symbols, example['level']):.2f} bits" in WIRE


def test_the_printed_decoder_reads_the_worked_example(example: dict[str, Any], decode: Decode) -> None:
    payload = bytes.fromhex(example["packet"])[HEADER:-4]
    rows_of_channel = example["table_of_lxc"][example["level"]][0]
    assert decode(payload, example["freq"], example["offset"], rows_of_channel, 2, 3) == example["symbols_chw"]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=["level 0", "level 1"])
def test_the_printed_decoder_reads_the_golden_packets(case: dict[str, Any], decode: Decode) -> None:
    got, tables = unpack(bytes.fromhex(case["packet"])), GOLDEN["tables"]
    rows_of_channel = tables["table_of_lxc"][got.level][0]
    symbols = decode(got.payload, tables["freq"], tables["offset"], rows_of_channel, got.rows, got.cols)
    assert symbols == case["symbols_chw"]


@pytest.mark.parametrize("payload", [b"", b"\0\0", b"\1\0", b"\1\2\3\4\5\6\7", bytes(range(1, 40))])
def test_the_printed_decoder_refuses(decode: Decode, payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"payload too long, or none|not canonical|coder not empty"):
        decode(payload, [[1 << 23, 1 << 23]], [0], [0, 0], 1, 1)


def test_the_fingerprint_is_put_together_as_the_document_says(tiny: Bundle) -> None:
    line = re.search(r"`(\{\"channels\".*\})`", BUNDLE)
    assert line is not None
    digest = hashlib.sha256(line[1].encode() + b"\n")
    tables = tiny.tables[0]
    plain, contexts = BUNDLE.split("## 3")[1].split("**Contexts.**")
    for name, dtype in re.findall(r"^\| `(\w+_\w+)` \| `(<\w\w)` ", plain, re.MULTILINE):
        array = getattr(tables, name)
        digest.update(f"{name} {dtype} {','.join(map(str, array.shape))}\n".encode() + array.astype(dtype).tobytes())
    assert digest.digest() == tiny.fingerprint
    known = re.findall(r"^\| `(\w+_\w+)` \| `\\?([<|]\w\w)` ", contexts.split("## 4")[0], re.MULTILINE)
    assert known == list(DTYPES.items())[: len(known)]
    assert [name for name in DTYPES if name not in dict(known)] == ["freq_ks", "size_k", "offset_k"]
    assert tiny.fingerprint.hex() in BUNDLE
    assert f"`freq_ks <u4 {','.join(map(str, tables.freq_ks.shape))}`" in BUNDLE


def test_golden_vectors_lie_as_the_document_says() -> None:
    """Who wrote a decoder from the pages had nothing to hold it against but our code."""
    told = re.findall(r"^\| `(\w+)` \| `\\?([<|]\w\w)` (\(.*?\)) \|", BUNDLE.split("## 2")[0], re.MULTILINE)
    bundle = open_bundle("efficientnet-lite0-tiny")
    with np.load(io.BytesIO(bundle.read("golden/vectors.npz"))) as file:
        arrays = {name: file[name] for name in file.files}
    assert {name: dtype for name, dtype, _ in told} == {name: array.dtype.str for name, array in arrays.items()}
    assert {name: shape.count(",") + (not shape.endswith(",)")) for name, _, shape in told} == {
        name: array.ndim for name, array in arrays.items()
    }
    codings, at = Codings(bundle.tables[0], bundle.contexts), 0
    for symbols_nchw, length_n in zip(arrays["symbols_lnchw"], arrays["packet_len_ln"], strict=True):
        for symbols_chw, length in zip(symbols_nchw, length_n, strict=True):
            got = unpack(arrays["packets"][at : at + length].tobytes())
            at += length
            assert got.coding == max(bundle.manifest.codings)
            found = codings.decode(got.payload, symbols_chw.shape, level=got.level, coding=got.coding)
            assert np.array_equal(found, symbols_chw)
    assert at == len(arrays["packets"])


def test_every_key_of_the_manifest_is_in_the_document(tiny: Bundle) -> None:
    keys = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ", BUNDLE.split("## 2")[1].split("## 3")[0], re.MULTILINE)
    assert {key.strip("` ") for row in keys for key in row.split(",")} == set(json.loads(tiny.manifest.to_json()))
