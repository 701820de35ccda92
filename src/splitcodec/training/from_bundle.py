"""A bundle -> the weights of a student, so that a run may begin with, or be led by, what ships.

Graphs hold convolutions with batch norm folded in, under the names of the student's own layers; gains lie in the
tables as they are. Two things are not in a bundle and are made anew: batch norm's statistics, measured on some crops
so that every layer goes on giving what it gave, and the learned priors, fitted to the tables' frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from splitcodec.errors import BundleError, RecipeError
from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.student import Student
from splitcodec.model.transforms import Decoder
from splitcodec.training.from_onnx import FromOnnx
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.tables import TOTAL, Tables

_ENCODER: Final = "network.1."  # behind the pixels' scaling and the teacher's stem: see export.py
_NEW: Final = "film."  # of a decoder; begins as nothing where the bundle's decoder has none
_SAME: Final = 0.02  # of a feature's spread: float16 weights
_FIT_STEPS: Final = 400


def opened(key: str, place: Path) -> Bundle:
    """Return the bundle that `start` or `lead` names: a zoo name, a folder or a .zip. Raises RecipeError."""
    try:
        return open_bundle(str(place))
    except BundleError as error:
        raise RecipeError(f"{key}: no run in {place}, nor a bundle ({error}); train that recipe first") from error


def check_teacher(key: str, bundle: Bundle, image_u8: Tensor, feature_bchw: Tensor) -> None:
    """Refuse a bundle whose uncompressed feature of some crops uint8 (B, 3, H, W) is another. Raises RecipeError."""
    head = FromOnnx(bundle.graph("head"), name="head.onnx")
    with torch.no_grad():
        theirs = head.to(image_u8.device)(image_u8.permute(0, 2, 3, 1).contiguous()).to(feature_bchw.device)
    if theirs.shape != feature_bchw.shape or float((theirs - feature_bchw).std() / feature_bchw.std()) > _SAME:
        raise RecipeError(f"{key}: {bundle.ident} has another teacher, or cuts it elsewhere; both must be the same")


@torch.no_grad()
def begin_from_bundle(
    key: str, bundle: Bundle, student: Student, taken_bchw: Tensor, *, encoder_alone: bool = False
) -> None:
    """Give a student the weights of a bundle, all or the encoder's; `taken_bchw` is what it takes of some crops.

    Raises RecipeError where kinds, sizes or levels differ.
    """
    if not encoder_alone:
        adopt_bundle(key, bundle, student)
    _load(key, bundle, "encoder", student.squeeze, prefix=_ENCODER)
    student.eval()
    if encoder_alone:
        settle(student.squeeze, lambda: student.latent(taken_bchw))
        return
    settle(student, lambda: student(_whole(taken_bchw, student.bottleneck.levels), quantise="round"))


@torch.no_grad()
def adopt_bundle(key: str, bundle: Bundle, student: Student, latent_bchw: Tensor | None = None) -> None:
    """Give a student the decoder, gains and priors of a bundle.

    With `latent_bchw`, what the bundle's encoder makes of some crops, batch norm is settled here and now.
    """
    bottleneck = student.bottleneck
    if not isinstance(bottleneck, Bottleneck) or not isinstance(student.decoder, Decoder):
        raise RecipeError(f"{key}: a bundle serves students of kind squeeze, patch and thinned alone")
    tables, manifest = bundle.tables[0], bundle.manifest
    if (tables.levels, tables.channels) != (bottleneck.levels, bottleneck.channels):
        raise RecipeError(
            f"{key}: {manifest.ident} has {tables.levels} levels and {tables.channels} channels, the recipe "
            f"{bottleneck.levels} and {bottleneck.channels}; make them the same"
        )
    _load(key, bundle, "decoder", student.decoder)
    bottleneck.log_gain_lc.copy_(torch.from_numpy(np.log(tables.gain_lc)))
    fit_prior(bottleneck, tables)
    if latent_bchw is not None:
        student.decoder.eval()
        whole = _whole(latent_bchw, bottleneck.levels)
        settle(student.decoder, lambda: student.decoder(bottleneck(whole, quantise="round").latent_bchw))


def fit_prior(bottleneck: Bottleneck, tables: Tables) -> float:
    """Fit the priors to the tables' frequencies; returns what they cost above these, in bits a symbol on average."""
    reach = int(max(tables.offset_k.max() + tables.size_k.max(), -tables.offset_k.min()))
    share_ks = np.zeros((tables.levels * tables.channels, 2 * reach + 1), np.float32)
    for place, k in enumerate(tables.table_of_lxc[:, 0].ravel()):
        size, offset = int(tables.size_k[k]), int(tables.offset_k[k])
        share_ks[place, offset + reach : offset + reach + size] = tables.freq_ks[k, :size] / TOTAL
    device = bottleneck.log_gain_lc.device
    wanted = torch.from_numpy(share_ks).to(device)
    grid = torch.arange(-reach, reach + 1, dtype=torch.float32, device=device)
    entropy = -(wanted * wanted.clamp_min(1e-12).log2()).sum(1).mean()
    optimizer = torch.optim.Adam(bottleneck.prior.parameters(), lr=0.03)
    cost = entropy
    with torch.enable_grad():
        for step in range(_FIT_STEPS):
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / _FIT_STEPS)
            mass = bottleneck.prior.likelihood(grid.expand(len(wanted), -1))
            cost = -(wanted * mass.log2()).sum(1).mean()
            optimizer.zero_grad()
            torch.autograd.backward(cost)
            optimizer.step()
    bottleneck.zero_grad()
    return float(cost.detach() - entropy)


def _whole(one_bchw: Tensor, levels: int) -> Tensor:
    """Return as many as make equal shares of all levels."""
    return one_bchw[: max(len(one_bchw) // levels, 1) * levels]


def _load(key: str, bundle: Bundle, graph: str, module: nn.Module, *, prefix: str = "") -> None:
    """Copy a graph's weights into the layers of the same names."""
    load_convolutions(layer_weights(bundle, graph), module, prefix=prefix, graph=f"{key}: {bundle.ident}: {graph}.onnx")


def layer_weights(bundle: Bundle, graph: str) -> dict[str, NDArray[np.float32]]:
    """Return a graph's weights by the names of the layers, batch norm folded into them."""
    return {
        one.name.removesuffix("_f16"): numpy_helper.to_array(one).astype(np.float32)
        for one in onnx.load_from_string(bundle.graph(graph)).graph.initializer
    }


def load_convolutions(values: Mapping[str, NDArray[np.float32]], module: nn.Module, *, prefix: str, graph: str) -> None:
    """Copy values named `prefix` + layer into the layers; a bias goes to batch norm where a convolution has none.

    Raises RecipeError for a name that is missing or of another shape; `graph` says where the values come from.
    """
    found = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    layers = dict(module.named_modules())
    for name, layer in layers.items():
        if not isinstance(layer, nn.Conv2d) or (name.startswith(_NEW) and f"{name}.weight" not in found):
            continue
        layer.weight.copy_(_taken(found, f"{name}.weight", layer.weight, graph=graph))
        bias = found.get(f"{name}.bias")
        if layer.bias is not None:
            layer.bias.copy_(_taken(found, f"{name}.bias", layer.bias, graph=graph))
        elif bias is not None:
            parent, _, last = name.rpartition(".")
            plain(layers[f"{parent}.{int(last) + 1}"], torch.from_numpy(bias))
    for name, buffer in module.named_buffers():
        if name in ("mean", "spread"):
            buffer.copy_(_taken(found, name, buffer, graph=graph))


def _taken(found: Mapping[str, NDArray[np.float32]], name: str, like: Tensor, *, graph: str) -> Tensor:
    """Return the values of a name, which must have the shape of `like`."""
    value = found.get(name)
    if value is None or value.shape != tuple(like.shape):
        has = "nothing" if value is None else f"shape {value.shape}"
        raise RecipeError(
            f"{graph} has {has} where the student's {name} has {tuple(like.shape)}; make the student's sizes those of "
            "the bundle's recipe (in its MODEL_CARD.md)"
        )
    return torch.from_numpy(value)


def plain(norm: nn.Module, bias: Tensor, factor: Tensor | None = None) -> None:
    """Let a batch norm multiply with `factor` (none: 1), add `bias` and do nothing else."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"{type(norm).__name__} is no batch norm")
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.weight.copy_(torch.full_like(bias, float(np.sqrt(1 + norm.eps))) * (1.0 if factor is None else factor))
    norm.bias.copy_(bias)


def settle(module: nn.Module, run: Callable[[], object]) -> None:
    """Give each batch norm the statistics of what comes into it, and weights with which it gives what it gave."""
    norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
    seen: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(norm, nn.BatchNorm2d):
            x = inputs[0].float()
            seen[norm] = x.mean((0, 2, 3)), x.var((0, 2, 3))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    run()
    for hook in hooks:
        hook.remove()
    for norm, (mean, var) in seen.items():
        if norm.running_mean is None or norm.running_var is None:
            continue
        old = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.copy_(norm.bias + old * (mean - norm.running_mean))
        norm.weight.copy_(old * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
