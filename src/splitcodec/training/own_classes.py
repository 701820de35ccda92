"""A bundle + pictures of a user's classes -> the bundle for those classes; devices in the field need nothing new.

The last layer of the bundle's tail is learned anew from what it takes of real packets' symbols at every level, and of
the uncompressed picture: multinomial logistic regression, its weight decay chosen on pictures set aside. Everything
below it stays, so tasks that share the backbone go on sharing it. Pictures held out are then answered by the new
bundle, from packets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitcodec.ahead import ahead
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, PictureError, SplitcodecError
from splitcodec.evaluation.retail import retailed
from splitcodec.training.class_vectors import Picture, Seen
from splitcodec.training.last_layer import with_last_layer
from splitcodec.wire.bundle import Bundle

DECAYS: Final = (1e-4, 1e-3, 1e-2, 1e-1)
_ASIDE: Final = 5  # one picture in so many chooses the weight decay
_CHOOSING, _STEPS = 60, 200  # of L-BFGS, at most, for each weight decay and in the end
_FLAT: Final = 1e-6  # of a spread: a number that is always the same tells nothing


class Layer(NamedTuple):
    """A last layer: weights float32 (K, D), bias (K,), and the weight decay that was chosen."""

    weight_kd: NDArray[np.float32]
    bias_k: NDArray[np.float32]
    decay: float


@final
@dataclass(frozen=True, slots=True)
class LevelScore:
    """At one level (-1: uncompressed): mean bytes of a packet, and right answers in per cent."""

    level: int
    bytes: float | None
    top1: float

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON values."""
        return asdict(self)


@final
@dataclass(frozen=True, slots=True)
class Scores:
    """What a bundle answers on pictures held out, and why some of them are left out."""

    pictures: int
    levels: tuple[LevelScore, ...]
    skipped: tuple[str, ...]


def fit(seen: Seen, *, classes: int, progress: Callable[[int, int], None] | None = None) -> Layer:
    """Learn a last layer. Classes that too few pictures have to set one aside count in the end alone."""
    vector_nd = torch.from_numpy(seen.vector_nd.astype(np.float32))
    label_n = torch.from_numpy(seen.label_n)
    mean_d, spread_d = vector_nd.mean(0), vector_nd.std(0, correction=0)
    scale_d = torch.where(spread_d > _FLAT * spread_d.max().clamp(min=_FLAT), 1 / spread_d, 0.0)
    vector_nd.sub_(mean_d).mul_(scale_d)
    aside_n = torch.from_numpy(_aside(seen))
    layer = nn.Linear(vector_nd.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    decay, best, done = DECAYS[len(DECAYS) // 2], float("inf"), 0
    if bool(aside_n.any()) and not bool(aside_n.all()):
        learned, chosen = (vector_nd[~aside_n], label_n[~aside_n]), layer.state_dict()
        for one in DECAYS[::-1]:  # each begins where a stronger one ended
            _descend(layer, *learned, decay=one, steps=_CHOOSING)
            with torch.no_grad():
                loss = float(nn.functional.cross_entropy(layer(vector_nd[aside_n]), label_n[aside_n]))
            done += 1
            if progress is not None:
                progress(done, len(DECAYS) + 1)
            if loss >= best:
                break  # weaker ones overfit more still
            decay, best, chosen = one, loss, {name: value.clone() for name, value in layer.state_dict().items()}
        layer.load_state_dict(chosen)
    _descend(layer, vector_nd, label_n, decay=decay, steps=_STEPS)
    if progress is not None:
        progress(len(DECAYS) + 1, len(DECAYS) + 1)
    weight_kd = layer.weight.detach() * scale_d
    bias_k = layer.bias.detach() - weight_kd @ mean_d
    return Layer(weight_kd.numpy(), bias_k.numpy(), decay)


def with_classes(
    bundle: Bundle,
    layer: Layer,
    *,
    classes: Sequence[str],
    name: str,
    version: int,
    note: Mapping[str, Any],
) -> Bundle:
    """Return the bundle with that last layer and these classes; nothing is written. Raises as `retailed`."""
    graph = with_last_layer(bundle.graph("tail_classify"), layer.weight_kd, layer.bias_k, name=bundle.ident)
    return retailed(bundle, tail=graph, classes=classes, name=name, version=version, note=note)


def score(
    bundle: Bundle, pictures: Sequence[Picture], *, threads: int, progress: Callable[[int, int], None] | None = None
) -> Scores:
    """Answer pictures from packets of every level and uncompressed, `threads` at a time.

    Raises DataError where none can be read.
    """
    bench = _Bench(bundle)
    rows, skipped = list[_Answered](), list[str]()
    for done, found in enumerate(ahead(bench.answered, pictures, threads=threads), 1):
        if isinstance(found, str):
            skipped.append(found)
        else:
            rows.append(found)
        if progress is not None:
            progress(done, len(pictures))
    if not rows:
        raise DataError(f"none of {len(pictures)} pictures held out can be read; give others")
    bytes_l = np.mean([one.bytes_l for one in rows], axis=0)
    top1_v = 100 * np.mean([one.right_v for one in rows], axis=0)
    levels = [LevelScore(n, float(size), float(top1_v[n])) for n, size in enumerate(bytes_l)]
    return Scores(len(rows), (*levels, LevelScore(-1, None, float(top1_v[-1]))), tuple(skipped))


class _Answered(NamedTuple):
    """One picture: bytes at each level, and whether it was answered right there and uncompressed."""

    bytes_l: list[int]
    right_v: list[bool]


@final
class _Bench:
    """A device and an edge of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._device, self._edge, self._levels = (
            Device(bundle, threads=1),
            Edge(bundle, threads=1),
            bundle.manifest.levels,
        )

    def answered(self, picture: Picture) -> _Answered | str:
        try:
            image_bhwc = self._device.crop(picture.path)
        except PictureError as error:
            return str(error)
        latent_chw, tables = self._device.encoder.latent_chw(image_bhwc), self._device.bundle.tables[0]
        packets = [self._device.pack(tables.quantise(latent_chw, level), level=level) for level in range(self._levels)]
        answers = self._edge.answer_all([self._edge.read(packet, tasks=["classify"], top=1) for packet in packets])
        right = list[bool]()
        for answer in (*answers, self._edge.picture_answer(image_bhwc, top=1)):
            if isinstance(answer, SplitcodecError):
                raise answer
            right.append(answer["answers"]["classify"][0]["index"] == picture.index)
        return _Answered([len(packet) for packet in packets], right)


def _aside(seen: Seen) -> NDArray[np.bool_]:
    """Say which vectors are of pictures that choose the weight decay: one picture in five of every class."""
    aside_n = np.zeros(len(seen.label_n), np.bool_)
    for label in np.unique(seen.label_n):
        pictures = np.unique(seen.picture_n[seen.label_n == label])
        aside_n |= np.isin(seen.picture_n, pictures[_ASIDE - 1 :: _ASIDE])
    return aside_n


def _descend(layer: nn.Linear, vector_nd: Tensor, label_n: Tensor, *, decay: float, steps: int) -> None:
    """Minimise the mean cross entropy and half the decay times the weights' squares, by L-BFGS."""
    optimiser = torch.optim.LBFGS(
        layer.parameters(), max_iter=steps, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        total: Tensor = nn.functional.cross_entropy(layer(vector_nd), label_n) + decay / 2 * layer.weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]  # PyTorch has no types for it
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]  # the same
