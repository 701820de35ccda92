"""The coders of one table set, by coding id.   inside: coder.py, context_coder.py   used by: both shores"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import PacketCoding, PacketPayload
from splitcodec.wire.coder import BY_CHANNEL, BY_CONTEXT, Coder
from splitcodec.wire.context_coder import ContextCoder
from splitcodec.wire.contexts import Contexts
from splitcodec.wire.tables import Tables


@final
class Codings:
    """Encodes and decodes under every coding id that a bundle has; `contexts` is None where it has but one.

    `plain` is as for `Coder`.
    """

    def __init__(self, tables: Tables, contexts: Contexts | None = None, *, plain: bool | None = None) -> None:
        self.by_channel = Coder(tables, plain=plain)
        self._by_context = None if contexts is None else ContextCoder(contexts, plain=plain)

    @property
    def ids(self) -> frozenset[int]:
        """Return the coding ids."""
        return frozenset((BY_CHANNEL,) if self._by_context is None else (BY_CHANNEL, BY_CONTEXT))

    @property
    def plain(self) -> bool:
        """Say whether the coder is the one in plain Python."""
        return self.by_channel.plain

    def encode(self, symbols_chw: NDArray[Any], level: int, *, coding: int) -> bytes:
        """Return the payload of symbols (C, H, W). Raises PacketCoding, TablesError."""
        return self._of(coding).encode(symbols_chw, level)

    def decode(self, payload: bytes, shape_chw: tuple[int, int, int], *, level: int, coding: int) -> NDArray[np.int32]:
        """Return the symbols of a payload: int32 (C, H, W). Raises PacketCoding, PacketPayload, TablesError."""
        return self._of(coding).decode(payload, shape_chw, level=level)

    def decode_many(
        self, payloads: Sequence[bytes], shape_chw: tuple[int, int, int], *, level: int, coding: int
    ) -> list[NDArray[np.int32] | PacketPayload]:
        """Do as `decode` for payloads of one shape, level and coding; a wrong one fails alone."""
        coder = self._of(coding)
        if isinstance(coder, ContextCoder):
            return coder.decode_many(payloads, shape_chw, level=level)
        found = list[NDArray[np.int32] | PacketPayload]()
        for payload in payloads:
            try:
                found.append(coder.decode(payload, shape_chw, level=level))
            except PacketPayload as error:
                found.append(error)
        return found

    def _of(self, coding: int) -> Coder | ContextCoder:
        if coding == BY_CHANNEL:
            return self.by_channel
        if coding == BY_CONTEXT and self._by_context is not None:
            return self._by_context
        raise PacketCoding(f"coding id {coding}, the bundle has {', '.join(map(str, sorted(self.ids)))}")
