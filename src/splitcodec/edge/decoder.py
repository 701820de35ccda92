"""Stage 6 of 7: packet -> symbols -> features.   before: wire/packet.py   after: edge/tail.py

The entropy coder turns the payload into exactly the symbols that the device rounded; the decoder graph then guesses the
teacher's features at the cut. The graph may be as large as it pays to be, and may change without any device noticing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import GraphError, SplitcodecError
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.codings import Codings
from splitcodec.wire.packet import Packet, admit


@final
class Decoder:
    """The bundle's tables and `decoder.onnx`, opened; safe to share between threads.

    Raises BundlePart for a device's half, BundleHash or BundleUnsafe for the file, GraphError if it does not open.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, max_symbols: int | None = None) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._graph = Graph(bundle.graph("decoder"), name=f"{bundle.ident}: decoder.onnx", threads=threads)
        self._codings_t = tuple(Codings(tables, bundle.contexts) for tables in bundle.tables)
        self._ids = frozenset(manifest.codings) & self._codings_t[0].ids
        self._max_symbols = manifest.max_symbols if max_symbols is None else min(max_symbols, manifest.max_symbols)

    @property
    def batches(self) -> bool:
        """Say whether the graph takes several latents at once: its first axis is dynamic."""
        return self._graph.batches

    def check(self, packet: Packet) -> int:
        """Return the number of symbols that the packet announces; nothing is allocated.

        Raises PacketBundle, PacketLevel, PacketCoding, PacketTableSet or PacketGrid.
        """
        channels = self._bundle.manifest.channels
        admit(
            packet,
            fingerprint=self._bundle.fingerprint,
            levels=self._bundle.manifest.levels,
            codings=self._ids,
            table_sets=len(self._codings_t),
            channels=channels,
            max_symbols=self._max_symbols,
            max_grid=self._bundle.manifest.max_grid,
        )
        return packet.symbols(channels)

    def symbols(self, packet: Packet) -> NDArray[np.int32]:
        """Return the packet's symbols: int32 (C, rows, columns).

        Raises as `check` before anything is allocated, then PacketPayload.
        """
        self.check(packet)
        shape_chw = (self._bundle.manifest.channels, packet.rows, packet.cols)
        codings = self._codings_t[packet.table_set]
        return codings.decode(packet.payload, shape_chw, level=packet.level, coding=packet.coding)

    def symbols_many(self, packets: Sequence[Packet]) -> list[NDArray[np.int32] | SplitcodecError]:
        """Return every packet's symbols, or why it has none; packets of one level, coding and grid side by side."""
        found: dict[int, NDArray[np.int32] | SplitcodecError] = {}
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, packet in enumerate(packets):
            try:
                self.check(packet)
            except SplitcodecError as error:
                found[number] = error
                continue
            key = (packet.table_set, packet.coding, packet.level, packet.rows, packet.cols)
            alike.setdefault(key, []).append(number)
        for (table_set, coding, level, rows, cols), numbers in alike.items():
            shape_chw = (self._bundle.manifest.channels, rows, cols)
            payloads = [packets[number].payload for number in numbers]
            outcomes = self._codings_t[table_set].decode_many(payloads, shape_chw, level=level, coding=coding)
            found |= zip(numbers, outcomes, strict=True)
        return [found[number] for number in range(len(packets))]

    def latent_chw(self, symbols_chw: NDArray[np.int32], level: int, *, table_set: int = 0) -> NDArray[np.float32]:
        """Return what the decoder graph takes, float32 (C, rows, columns), from int32 symbols."""
        return self._bundle.tables[table_set].dequantise(symbols_chw, level)

    def features_bchw(self, latent_bchw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features at the cut, float32 (B, C', H', W'), of latents (B, C, rows, columns).

        Raises GraphError.
        """
        feature_bchw: NDArray[np.float32] = self._graph(np.ascontiguousarray(latent_bchw))
        if feature_bchw.ndim != 4 or feature_bchw.dtype != np.float32 or len(feature_bchw) != len(latent_bchw):
            raise GraphError(
                f"{self._graph.name} gave {feature_bchw.dtype} {feature_bchw.shape}, expected float32 "
                f"({len(latent_bchw)}, C, H, W); the bundle is wrong, export it again"
            )
        return feature_bchw

    def feature_bchw(self, symbols_chw: NDArray[np.int32], level: int) -> NDArray[np.float32]:
        """Return the features at the cut, float32 (1, C', H', W'), from one packet's symbols. Raises GraphError."""
        return self.features_bchw(self.latent_chw(symbols_chw, level)[None])
