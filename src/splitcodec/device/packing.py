"""Stages 3 and 4 of 7 on the device: symbols or a latent -> a packet, under one of the bundle's codings.

Inside: wire/codings.py, wire/packet.py. Used by client.py.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import SettingsError, TablesError
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.coder import BY_CHANNEL
from splitcodec.wire.codings import Codings
from splitcodec.wire.packet import Packet, admit, pack


@final
class Packing:
    """Makes packets of table set 0, by coding id `coding` (none: the bundle's best); `plain` is as for `Coder`.

    Raises SettingsError for a coding id that the bundle does not have, MissingExtra.
    """

    def __init__(self, bundle: Bundle, *, coding: int | None, plain: bool | None) -> None:
        self._bundle = bundle
        self._codings = Codings(bundle.tables[0], bundle.contexts, plain=plain)
        self.coding = max(self._codings.ids) if coding is None else coding
        if self.coding not in self._codings.ids:
            known = " or ".join(str(one) for one in sorted(self._codings.ids))
            raise SettingsError(f"coding id {coding!r}; {bundle.ident} has {known}")

    @property
    def plain(self) -> bool:
        """Say whether the entropy coder is the one in plain Python."""
        return self._codings.plain

    def pack(self, symbols_chw: NDArray[Any], level: int) -> bytes:
        """Return the packet of symbols, integers (C, rows, columns) within the tables' range.

        Raises TablesError, or PacketGrid for more symbols than the bundle allows.
        """
        if self.coding != BY_CHANNEL:
            try:
                return self._packed(symbols_chw, level, coding=self.coding)
            except TablesError:
                pass  # a symbol out of its row's range, or wrong symbols, which coding by channel refuses by name
        return self._packed(symbols_chw, level, coding=BY_CHANNEL)

    def pack_latent(self, latent_chw: NDArray[np.float32], level: int) -> bytes:
        """Return the packet of a latent, float32 (C, rows, columns): that of its symbols, in less time. As `pack`."""
        if self.coding != BY_CHANNEL:
            return self.pack(self._bundle.tables[0].quantise(latent_chw, level), level)
        payload = self._codings.by_channel.encode_latent(latent_chw, level)
        return self._of(payload, latent_chw.shape, level, coding=BY_CHANNEL)

    def shortest(self, symbols_chw: NDArray[Any], level: int) -> bytes:
        """Return the packet of the coding that gives the shorter one, for where bytes are limited. As `pack`."""
        packet = self.pack(symbols_chw, level)
        if self.coding == BY_CHANNEL:
            return packet
        return min(packet, self._packed(symbols_chw, level, coding=BY_CHANNEL), key=len)

    def _packed(self, symbols_chw: NDArray[Any], level: int, *, coding: int) -> bytes:
        payload = self._codings.encode(symbols_chw, level, coding=coding)
        return self._of(payload, symbols_chw.shape, level, coding=coding)

    def _of(self, payload: bytes, shape_chw: tuple[int, ...], level: int, *, coding: int) -> bytes:
        packet = Packet(
            level=level,
            coding=coding,
            table_set=0,
            fingerprint=self._bundle.fingerprint[:4],
            rows=shape_chw[1],
            cols=shape_chw[2],
            payload=payload,
        )
        manifest = self._bundle.manifest
        admit(  # as the edge will: what it refuses is not worth the link
            packet,
            fingerprint=self._bundle.fingerprint,
            levels=manifest.levels,
            codings=manifest.codings,
            table_sets=len(self._bundle.tables),
            channels=manifest.channels,
            max_symbols=manifest.max_symbols,
            max_grid=manifest.max_grid,
        )
        return pack(packet)
