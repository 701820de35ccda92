"""Fewer hidden channels in the teacher's first layers, with as little lost as possible.

The hidden channels of an inverted residual lie around its depthwise convolution: a convolution in front makes them, a
pointwise one behind takes them. Those that the others tell best go, one after the other (backward elimination: the
squared error rises by W_i^2 / (G^-1)_ii, as in Hassibi and Stork's "Optimal brain surgeon", 1992), and the layer behind
is regressed anew on those that stay. Blocks are done in order, so each makes good what the ones before it lost.
A network may end behind a depthwise convolution; of its channels those stay that tell all of them best.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor, fx, nn

PLACES: Final = 250
"""Pixels of each picture that a layer is regressed on."""
BATCH: Final = 16
"""Pictures at a time."""
_RIDGE: Final = 1e-4
_AT_ONCE: Final = 12  # a twelfth of what is still to go, goes at once


class Hidden(NamedTuple):
    """Some hidden channels: the names of the convolution that makes them, the depthwise one, and the one behind."""

    before: str
    depthwise: str
    behind: str
    source: str
    """The graph's value that goes into the convolution behind."""
    sum: str | None
    """The sum of the block's output and its shortcut, if there is one."""
    shortcut: str | None
    target: str
    """The value that comes out of the convolution behind."""


class Ending(NamedTuple):
    """The hidden channels that a network ends with: names of the convolution that makes them, and the depthwise one."""

    before: str
    depthwise: str
    value: str
    """The graph's value that comes out."""


class Narrow(NamedTuple):
    """Some layers with fewer channels between their blocks, and the matrices that take the old ones to them.

    By the name of the convolution that makes them, each (fewer, channels).
    """

    stem: fx.GraphModule
    down: dict[str, Tensor]


def hidden_layers(stem: fx.GraphModule) -> list[Hidden]:
    """Return the hidden channels of a traced network with batch norm folded, in order."""
    found = []
    for node in stem.graph.nodes:
        layer = conv_of(stem, node)
        if layer is None or layer.groups == 1 or layer.groups != layer.in_channels != 1:
            continue
        before, behind = _back(stem, node), _on(stem, node)
        if before is None or behind is None or conv_of(stem, behind).kernel_size != (1, 1):  # type: ignore[union-attr]  # a convolution stands there
            continue
        last, add = behind, None
        while len(last.users) == 1:
            (user,) = last.users
            if user.op != "call_module":
                add = user if user.op == "call_function" and len(user.all_input_nodes) == 2 else None
                break
            if conv_of(stem, user) is not None:
                break
            last = user
        other = next((n for n in add.all_input_nodes if n is not last), None) if add is not None else None
        found.append(
            Hidden(
                str(before.target),
                str(node.target),
                str(behind.target),
                behind.all_input_nodes[0].name,
                add.name if add is not None else None,
                other.name if other is not None else None,
                behind.name,
            )
        )
    return found


def ending(stem: fx.GraphModule) -> Ending | None:
    """Return the hidden channels that come out of a traced network, batch norm folded; None where it ends otherwise."""
    (node,) = next(n for n in stem.graph.nodes if n.op == "output").all_input_nodes
    value = node.name
    while node.op == "call_module" and conv_of(stem, node) is None:
        (node,) = node.all_input_nodes
    layer = conv_of(stem, node)
    if layer is None or layer.groups != layer.in_channels or layer.groups == 1:
        return None
    before = _back(stem, node)
    return Ending(str(before.target), str(node.target), value) if before is not None else None


def pruned(stem: fx.GraphModule, counts: Sequence[int]) -> fx.GraphModule:
    """Return a copy with so many hidden channels in each block, the first ones.

    A count more is for those that the network ends with. Raises ValueError.
    """
    out = copy.deepcopy(stem)
    blocks, end = hidden_layers(stem), ending(stem)
    if len(counts) not in (len(blocks), len(blocks) + (end is not None)):
        also = " and an end" if end is not None else ""
        raise ValueError(f"{len(counts)} counts of hidden channels; these layers have {len(blocks)} blocks{also}")
    layers: list[Hidden | Ending] = [*blocks]
    if end is not None and len(counts) > len(blocks):
        layers.append(end)
    for count, layer in zip(counts, layers, strict=True):
        whole = layer_of(out, layer.depthwise).in_channels
        if count > whole:
            raise ValueError(f"{count} hidden channels at {layer.depthwise}; it has {whole}")
        if count < whole:
            _keep(out, layer, torch.arange(count))
    return out


@torch.no_grad()
def fitted(
    stem: fx.GraphModule, counts: Sequence[int], images: Tensor, *, narrow: Narrow | None = None
) -> fx.GraphModule:
    """Return what `pruned` returns, with the channels that matter most for some images (B, 3, H, W), and refitted.

    `narrow` is the stem with fewer channels between its blocks; see `model.narrowing`.
    """
    out = copy.deepcopy(stem if narrow is None else narrow.stem)
    for count, layer in zip(counts, hidden_layers(stem), strict=False):
        down = None if narrow is None else narrow.down.get(layer.behind)
        if count == layer_of(out, layer.depthwise).in_channels and down is None:
            continue
        kept, weight_ok, bias_o = _regressed(*_samples(stem, out, layer, images, down=down), count=count)
        _keep(out, layer, kept)
        behind = layer_of(out, layer.behind)
        behind.weight.copy_(weight_ok[:, :, None, None])
        if behind.bias is not None:
            behind.bias.copy_(bias_o)
    end = ending(stem)
    if end is not None and len(counts) > len(hidden_layers(stem)):
        both = pixels_of(out, end.value, images), pixels_of(stem, end.value, images)
        _keep(out, end, _regressed(*both, count=counts[-1])[0])
    return out


def _samples(
    whole: fx.GraphModule, thin: fx.GraphModule, layer: Hidden, images: Tensor, *, down: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what goes into the layer behind (N, K), and what should come out of it (N, O), float64.

    `down` takes what comes out of the whole one's to O channels.
    """
    ins: list[Tensor] = []
    outs: list[Tensor] = []
    draw = torch.Generator().manual_seed(0)
    for part in torch.split(images, BATCH):
        wanted = values_of(whole, part, (layer.sum or layer.target,))[layer.sum or layer.target]
        if down is not None:
            wanted = torch.einsum("kc,bchw->bkhw", down, wanted)
        given = values_of(thin, part, (layer.source, *([layer.shortcut] if layer.shortcut else ())))
        if layer.shortcut is not None:
            wanted = wanted - given[layer.shortcut]
        places = torch.randint(wanted.shape[2] * wanted.shape[3], (PLACES,), generator=draw).to(part.device)
        for value, rows in ((given[layer.source], ins), (wanted, outs)):
            rows.append(value.flatten(2)[:, :, places].permute(0, 2, 1).flatten(0, 1).double())
    return torch.cat(ins), torch.cat(outs)


def _regressed(x_nk: Tensor, y_no: Tensor, *, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the channels that stay, and the weights (O, count) and bias (O,) that tell y from them best."""
    scale_o = y_no.std(0).clamp_min(1e-6)
    with_one = torch.cat([x_nk, torch.ones_like(x_nk[:, :1])], 1)
    square, cross = with_one.T @ with_one, with_one.T @ (y_no / scale_o)
    square += _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
    kept = torch.arange(len(square), device=square.device)
    while (left := len(kept) - 1 - count) > 0:
        inverse = torch.linalg.inv(square[kept][:, kept])
        rise = (inverse @ cross[kept]).square().sum(1) / inverse.diagonal()
        rise[-1] = torch.inf  # the bias
        gone = rise.argsort()[: max(1, left // _AT_ONCE)]
        stays = torch.ones(len(kept), dtype=torch.bool, device=kept.device)
        stays[gone] = False
        kept = kept[stays]
    slope = torch.linalg.solve(square[kept][:, kept], cross[kept]) * scale_o
    return kept[:-1], slope[:-1].T.float(), slope[-1].float()


@final
class _Recorder(fx.Interpreter):
    """Runs a graph and keeps some of its values."""

    def __init__(self, module: fx.GraphModule, names: Iterable[str]) -> None:
        super().__init__(module)
        self._names, self.found = set(names), dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        """Keep the value of a node that was asked for; nothing runs once all of them are there."""
        if len(self.found) == len(self._names):
            return None
        value = super().run_node(n)
        if n.name in self._names:
            self.found[n.name] = value
        return value


def values_of(module: fx.GraphModule, images: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Run a graph on some images and return values of it, by their names."""
    recorder = _Recorder(module, names)
    recorder.run(images)
    return recorder.found


def _keep(stem: fx.GraphModule, layer: Hidden | Ending, index: Tensor) -> None:
    depthwise = layer_of(stem, layer.depthwise)
    for conv in (layer_of(stem, layer.before), depthwise):
        conv.weight = nn.Parameter(conv.weight[index].clone())
        if conv.bias is not None:
            conv.bias = nn.Parameter(conv.bias[index].clone())
        conv.out_channels = len(index)
    depthwise.in_channels = depthwise.groups = len(index)
    if isinstance(layer, Ending):
        return
    behind = layer_of(stem, layer.behind)
    behind.in_channels = len(index)
    behind.weight = nn.Parameter(behind.weight[:, index].clone())
    if behind.bias is None:
        behind.bias = nn.Parameter(torch.zeros_like(behind.weight[:, 0, 0, 0]))


def pixels_of(stem: fx.GraphModule, value: str, images: Tensor) -> Tensor:
    """Return some pixels of a value (N, channels), float64."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for part in torch.split(images, BATCH):
        map_bchw = values_of(stem, part, (value,))[value]
        places = torch.randint(map_bchw.shape[2] * map_bchw.shape[3], (PLACES,), generator=draw).to(part.device)
        found.append(map_bchw.flatten(2)[:, :, places].permute(0, 2, 1).flatten(0, 1).double())
    return torch.cat(found)


def layer_of(stem: fx.GraphModule, name: str) -> nn.Conv2d:
    """Return a convolution by its name. Raises TypeError."""
    layer = stem.get_submodule(name)
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"{name} is no convolution")
    return layer


def conv_of(stem: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """Return the convolution that a node calls."""
    layer = stem.get_submodule(str(node.target)) if node.op == "call_module" else None
    return layer if isinstance(layer, nn.Conv2d) else None


def _back(stem: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the convolution in front, if nothing else sees what lies between."""
    while len(node.all_input_nodes) == 1:
        (node,) = node.all_input_nodes
        if len(node.users) != 1 or node.op != "call_module":
            return None
        if (layer := conv_of(stem, node)) is not None:
            return node if layer.groups == 1 else None
    return None


def _on(stem: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the convolution behind, if nothing else sees what lies between."""
    while len(node.users) == 1:
        (node,) = node.users
        if node.op != "call_module" or len(node.all_input_nodes) != 1:
            return None
        if (layer := conv_of(stem, node)) is not None:
            return node if layer.groups == 1 else None
    return None
