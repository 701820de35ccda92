"""Coding id 2 as it was when it began: networks, symbols, payloads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from splitcodec.wire.context_coder import ContextCoder
from splitcodec.wire.contexts import Contexts

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "contexts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("plain", [None, True])
@pytest.mark.parametrize("level", [0, 1])
def test_symbols_give_the_golden_payload_and_back(level: int, plain: bool | None) -> None:
    contexts = Contexts.load((HERE / "contexts.npz").read_bytes())
    assert hashlib.sha256(contexts.shared_bytes()).hexdigest() == GOLDEN["sha256"]
    symbols_chw = np.array(GOLDEN["symbols"], np.int32)
    coder = ContextCoder(contexts, plain=plain)
    payload = bytes.fromhex(GOLDEN["payloads"][level])
    assert coder.encode(symbols_chw, level) == payload
    assert np.array_equal(coder.decode(payload, symbols_chw.shape, level=level), symbols_chw)
