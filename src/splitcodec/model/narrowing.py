"""Fewer channels between the teacher's first blocks, with as little lost as possible.

Between inverted residuals run a few channels without an activation: a block's last convolution makes them, shortcuts
add to them, the next block's first convolution takes them. So any square matrix may be put between the two, and what
the next convolutions take is told by fewer numbers than there are channels: those that explain most of their
pre-activations (reduced-rank regression; see `model.linear`). A pixel then costs less in both blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from splitcodec.model.pruning import Narrow, conv_of, hidden_layers, layer_of, pixels_of


class Trunk(NamedTuple):
    """Channels that run between blocks: names of the convolutions that make them, and of those that take them."""

    made_by: tuple[str, ...]
    taken_by: tuple[tuple[str, str], ...]
    """Each with the graph's value that it takes."""


def trunks(stem: fx.GraphModule) -> list[Trunk]:
    """Return the channels between the blocks of a traced network, in order; what comes out of it is none of them."""
    groups: list[tuple[list[str], set[str]]] = []
    foreign: set[str] = set()  # what shortcuts add to that no block before made
    for layer in hidden_layers(stem):
        added = None if layer.shortcut is None else _origin(stem, layer.shortcut)
        if added is None or not groups or added not in groups[-1][1]:
            groups.append(([], set()))
            foreign.update({layer.target} if added is not None else ())
        groups[-1][0].append(layer.behind)
        groups[-1][1].update({layer.target, *([layer.sum] if layer.sum else ())})
    found = []
    for made_by, values in groups:
        taken: list[tuple[str, str]] = []
        whole = not values & foreign and _spread(stem, values, taken)
        if whole and taken:
            found.append(Trunk(tuple(made_by), tuple(taken)))
    return found


def narrowed(stem: fx.GraphModule, counts: Sequence[int]) -> fx.GraphModule:
    """Return a copy with so many channels between its blocks, the first ones. Raises ValueError."""
    out, found = copy.deepcopy(stem), trunks(stem)
    if len(counts) != len(found):
        raise ValueError(f"{len(counts)} counts of channels between blocks; these layers have {len(found)}")
    for count, trunk in zip(counts, found, strict=True):
        whole = layer_of(out, trunk.made_by[0]).out_channels
        if count > whole:
            raise ValueError(f"{count} channels behind {trunk.made_by[0]}; it has {whole}")
        if count < whole:
            eye = torch.eye(whole)
            _between(out, trunk, eye[:count], eye[:, :count], {})
    return out


@torch.no_grad()
def narrow_to(stem: fx.GraphModule, counts: Sequence[int], images: Tensor) -> Narrow:
    """Return what `narrowed` returns, with the channels that tell the next layers most for some images (B, 3, H, W)."""
    out = copy.deepcopy(stem)
    taken_to: dict[str, Tensor] = {}
    for count, trunk in zip(counts, trunks(stem), strict=True):
        whole = layer_of(out, trunk.made_by[0]).out_channels
        if count == whole:
            continue
        means, square = {}, torch.zeros(whole, whole, dtype=torch.float64, device=images.device)
        covariance = torch.zeros_like(square)
        for name, value in trunk.taken_by:
            x_nc = pixels_of(stem, value, images)
            means[name] = x_nc.mean(0)
            centred = x_nc - means[name]
            weight_oc = layer_of(stem, name).weight.flatten(1).double()
            weight_oc = weight_oc / (centred @ weight_oc.T).std(0).clamp_min(1e-6)[:, None]
            square += weight_oc.T @ weight_oc
            covariance += centred.T @ centred / len(centred)
        root, back = _roots(square)
        vectors = torch.linalg.eigh(root @ covariance @ root).eigenvectors[:, -count:].flip(1)
        down, up = vectors.T @ root, back @ vectors
        scale = (down @ covariance @ down.T).diagonal().sqrt().clamp_min(1e-9)
        down, up = down / scale[:, None], up * scale
        _between(out, trunk, down.float(), up.float(), {name: mean.float() for name, mean in means.items()})
        taken_to.update(dict.fromkeys(trunk.made_by, down.float()))
    return Narrow(out, taken_to)


def _between(stem: fx.GraphModule, trunk: Trunk, down: Tensor, up: Tensor, means: dict[str, Tensor]) -> None:
    """Put the matrices behind what makes a trunk, and in front of what takes it; what is left out stays at its mean."""
    for name in trunk.made_by:
        layer = layer_of(stem, name)
        layer.weight = nn.Parameter(torch.einsum("ko,ocrs->kcrs", down, layer.weight.detach()))
        if layer.bias is not None:
            layer.bias = nn.Parameter(down @ layer.bias.detach())
        layer.out_channels = len(down)
    for name, _ in trunk.taken_by:
        layer = layer_of(stem, name)
        weight = layer.weight.detach()
        layer.weight = nn.Parameter(torch.einsum("ocrs,ck->okrs", weight, up))
        layer.in_channels = len(down)
        if name in means and layer.bias is not None:
            mean = means[name]
            layer.bias = nn.Parameter(layer.bias.detach() + weight.flatten(1) @ (mean - up @ (down @ mean)))


def _spread(stem: fx.GraphModule, values: set[str], taken: list[tuple[str, str]]) -> bool:
    """List the 1 x 1 convolutions that take some values; false where anything but a sum takes them as well."""
    for node in stem.graph.nodes:
        if _idle(stem, node) and node.all_input_nodes[0].name in values:
            values.add(node.name)
        if node.name not in values:
            continue
        for user in node.users:
            layer = conv_of(stem, user)
            if layer is not None and layer.kernel_size == (1, 1) and layer.groups == 1:
                taken.append((str(user.target), node.name))
            elif not (_idle(stem, user) or user.name in values):
                return False
    return True


def _origin(stem: fx.GraphModule, name: str) -> str:
    """Return the value that a value is, behind layers that do nothing."""
    node = next(one for one in stem.graph.nodes if one.name == name)
    while _idle(stem, node):
        (node,) = node.all_input_nodes
    return str(node.name)


def _idle(stem: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(stem.get_submodule(str(node.target)), nn.Identity)


def _roots(square: Tensor) -> tuple[Tensor, Tensor]:
    """Return the root of a positive matrix and that of its inverse."""
    ridge = 1e-6 * square.diagonal().mean()
    found = torch.linalg.eigh(square + ridge * torch.eye(len(square), dtype=square.dtype, device=square.device))
    roots = found.eigenvalues.clamp_min(1e-12).sqrt()
    return (found.eigenvectors * roots) @ found.eigenvectors.T, (found.eigenvectors / roots) @ found.eigenvectors.T
