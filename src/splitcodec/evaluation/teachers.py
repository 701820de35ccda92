"""Whether a rival stands on the same network as ours: a comparison between two networks would say nothing of codecs.

Equal hashes of head and tail settle it. A rival that is cut elsewhere, as the paper's student is, has other graphs of
the same network: then both networks must give the same answers to uncompressed pictures (so must a head whose file is
another before the same tail). One whose tail was tuned
answers otherwise by intent: then all weights of its head must occur among those of our head and tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from splitcodec.edge.answer import Edge
from splitcodec.errors import PictureError
from splitcodec.evaluation.result import ANOTHER, ELSEWHERE, SAME, TUNED
from splitcodec.evaluation.rivals import HEAD, TAIL, Entrant
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.graphs import weight_digests

_ASKED: Final = 3  # pictures
_APART: Final = 2e-3  # largest difference of a probability; sums in another order, and weights of 16 bits


def teachers(entrants: Sequence[Entrant], pictures: Sequence[Path]) -> dict[str, str]:
    """Return for each method but the first how its network relates to the first's: of several bundles, the worst."""
    main, *others = entrants
    crops = _crops(main, pictures)
    order = (SAME, ELSEWHERE, TUNED, ANOTHER)
    found: dict[str, str] = {}
    for one in others:
        here = relation(one.bundle, main.bundle, edges=(one.edge, main.edge), crops=crops)
        found[one.method] = max(here, found.get(one.method, SAME), key=order.index)
    return found


def relation(rival: Bundle, main: Bundle, *, edges: tuple[Edge, Edge], crops: Sequence[NDArray[np.uint8]]) -> str:
    """Return how a rival's network relates to the main bundle's. Crops are uint8 (H, W, 3)."""
    theirs, ours = ([one.manifest.files[name].sha256 for name in (HEAD, TAIL)] for one in (rival, main))
    if theirs == ours:
        return SAME
    if theirs[0] == ours[0]:
        return TUNED
    if crops and all(_alike(edges, image_hwc) for image_hwc in crops):
        return SAME if theirs[1] == ours[1] else ELSEWHERE  # the same tail: cut at the same layer
    known = weight_digests(main.read(HEAD), name=HEAD) | weight_digests(main.read(TAIL), name=TAIL)
    head = weight_digests(rival.read(HEAD), name=HEAD)
    return TUNED if head and head <= known else ANOTHER


def _alike(edges: tuple[Edge, Edge], image_hwc: NDArray[np.uint8]) -> bool:
    first, second = (
        {guess["index"]: guess["p"] for guess in edge.picture_answer(image_hwc[None], top=5)["answers"]["classify"]}
        for edge in edges
    )
    missing = min(first.values()) + _APART  # what is not among one's five may be among the other's, but no higher
    return all(abs(p - second.get(index, min(p, missing))) <= _APART for index, p in first.items())


def _crops(main: Entrant, pictures: Sequence[Path]) -> list[NDArray[np.uint8]]:
    crops: list[NDArray[np.uint8]] = []
    for path in pictures:
        try:
            crops.append(main.device.crop(path)[0])
        except PictureError:
            continue
        if len(crops) == _ASKED:
            break
    return crops
