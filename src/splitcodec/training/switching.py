"""A decoder that shipped + one that learned on disturbed pictures -> one that is the second where a packet looks so.

The switch between them (`model.switched`) learns from pooled symbols alone: those of photographs, and of the same ones
disturbed, at every level, as the bundle's own encoder makes them. It is wary of calling a clean picture disturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from splitcodec.errors import DataError, RunError
from splitcodec.layouts.folders import find_photographs
from splitcodec.model.film import seen_of
from splitcodec.model.switched import Switch, SwitchedDecoder
from splitcodec.model.transforms import Decoder
from splitcodec.session import Graph
from splitcodec.training.data import Photographs, centre_crops, split_holdout
from splitcodec.training.disturb import disturbed
from splitcodec.training.recipe import Recipe
from splitcodec.wire.bundle import Bundle

CROPS: Final = 4000
_BATCH: Final = 40
_STREAM: Final = 2**30  # of random numbers, apart from those of a run's stages
_HELD: Final = 200
_EPOCHS: Final = 60
_RATE: Final = 2e-3
_WARY: Final = 0.5  # what a disturbed picture that passes for clean counts beside the reverse

Progress = Callable[[int, int], None]


@final
class Told(NamedTuple):
    """What the switch says of photographs that it has not learned from, in per cent of them."""

    photographs: int
    clean_untouched: float
    """Clean ones that are decoded as ever."""
    disturbed_found: float
    """Those that are not, once disturbed: each in one way, by a strength drawn evenly from nothing at all."""


def switched(
    like: Decoder,
    clean: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    *,
    bundle: Bundle,
    recipe: Recipe,
    photos: Sequence[Path],
    progress: Progress | None = None,
) -> tuple[SwitchedDecoder, Told]:
    """Return both decoders as one, weights by name with batch norm folded, and how well its switch tells.

    Photographs are split as the recipe's run split them. Raises RunError where the run has seen clean pictures alone or
    a layer is missing, DataError for no photographs.
    """
    if not recipe.data.disturbed:
        raise RunError("this run has seen clean pictures alone, so there is nothing to switch to; leave --switch out")
    learned, held = split_holdout(sorted(find_photographs(list(photos))), recipe.data.holdout, seed=recipe.seed)
    try:
        made = SwitchedDecoder(like, clean, other)
    except KeyError as error:
        raise RunError(f"{bundle.ident}'s decoder lacks the run's layer {error}; leave --switch out") from error
    source = Photographs.of(recipe, learned)
    look = _Look(bundle)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        pairs, steps = list[tuple[Tensor, Tensor]](), CROPS // _BATCH
        for step, (image_u8, _) in enumerate(source.batches(0, steps, batch=_BATCH, stream=_STREAM)):
            pairs.append((look(image_u8), look(disturbed(image_u8, 1.0))))
            if progress is not None:
                progress(step + 1, steps)
        _learn(made.switch, *(torch.cat(some) for some in zip(*pairs, strict=True)))
        held_u8 = centre_crops(
            held[:_HELD] or learned[:_HELD], resize=recipe.teacher.resize, crop=recipe.teacher.crop
        ).image_u8
        if not len(held_u8):
            raise DataError("none of the photographs held out can be read; mend the folder")
        of_clean, of_disturbed = (made.switch(look(some)) for some in (held_u8, disturbed(held_u8, 1.0)))
    untouched, found = (of_clean == 0).float().mean(), (of_disturbed > 0).float().mean()
    return made, Told(len(held_u8), round(100 * untouched.item(), 1), round(100 * found.item(), 1))


@final
class _Look:
    """Pixels (B, 3, H, W) -> what their packets give away, (B, 2 * channels, 1, 1); levels are dealt out in turn."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder = Graph(bundle.graph("encoder"), name="encoder.onnx", threads=torch.get_num_threads())
        self._tables = bundle.tables[0]

    def __call__(self, image_u8: Tensor) -> Tensor:
        image_bhwc = np.ascontiguousarray(image_u8.permute(0, 2, 3, 1).numpy())
        found = [self._decoded(one[None], place % self._tables.levels) for place, one in enumerate(image_bhwc)]
        return seen_of(torch.from_numpy(np.stack(found)))

    def _decoded(self, image_bhwc: NDArray[np.uint8], level: int) -> NDArray[np.float32]:
        latent_chw = self._encoder(image_bhwc)[0]
        return self._tables.dequantise(self._tables.quantise(latent_chw, level), level)


@torch.enable_grad()
def _learn(switch: Switch, clean: Tensor, found: Tensor) -> None:
    """Fit the switch: logistic regression with one hidden layer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its matrices are small, and threads wait for each other where others run
    switch.requires_grad_(requires_grad=True)
    for layer in (switch.look, switch.say):
        layer.reset_parameters()
    seen, wanted = torch.cat((clean, found)), torch.cat((torch.zeros(len(clean)), torch.ones(len(found))))
    optimizer = torch.optim.Adam(switch.parameters(), lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
    for _ in range(_EPOCHS):
        for some in torch.split(torch.randperm(len(seen)), 64):
            logit = switch.logit(seen[some]).flatten()
            lost = functional.binary_cross_entropy_with_logits(logit, wanted[some], pos_weight=torch.tensor(_WARY))
            optimizer.zero_grad()
            torch.autograd.backward(lost)
            optimizer.step()
        schedule.step()
    switch.requires_grad_(requires_grad=False)
    torch.set_num_threads(threads)
