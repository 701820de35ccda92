from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from splitcodec.model.pruning import _regressed, ending, fitted, hidden_layers, pruned


class _Net(nn.Module):
    """A depthwise block, and an inverted residual with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.narrow = nn.Conv2d(8, 6, 1)
        self.wide = nn.Conv2d(6, 16, 1)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.back = nn.Conv2d(16, 6, 1, bias=False)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(self.act(self.first(self.act(self.stem(x)))))
        out: Tensor = x + self.back(self.act(self.second(self.act(self.wide(x)))))
        return out


@pytest.fixture
def net() -> fx.GraphModule:
    torch.manual_seed(4)
    return fx.symbolic_trace(_Net()).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(40, 3, 24, 24, generator=torch.Generator().manual_seed(5))


def _apart(one: fx.GraphModule, other: fx.GraphModule, images: Tensor) -> float:
    with torch.no_grad():
        first, second = one(images), other(images)
    return float((first - second).square().mean() / first.var())


def test_hidden_channels_are_found_in_order(net: fx.GraphModule) -> None:
    first, second = hidden_layers(net)
    assert first[:3] == ("stem", "first", "narrow")
    assert (first.sum, first.shortcut) == (None, None)
    assert second[:3] == ("wide", "second", "back")
    assert (second.sum, second.shortcut) == ("add", "narrow")


def test_pruned_layers_are_smaller(net: fx.GraphModule, images: Tensor) -> None:
    thin = pruned(net, (5, 7))
    shapes = {name: tuple(value.shape[:2]) for name, value in thin.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "stem.weight": (5, 3),
        "first.weight": (5, 1),
        "narrow.weight": (6, 5),
        "wide.weight": (7, 6),
        "second.weight": (7, 1),
        "back.weight": (6, 7),
    }
    assert thin(images).shape == net(images).shape
    assert net.get_parameter("first.weight").shape[0] == 8  # the whole one stays as it is
    for name, shape in shapes.items():  # the first ones
        assert torch.equal(thin.get_parameter(name), net.get_parameter(name)[: shape[0], : shape[1]])


@pytest.mark.parametrize(
    ("counts", "said"), [((5,), "1 counts of hidden channels; these layers have 2 blocks"), ((9, 7), "it has 8")]
)
def test_counts_that_do_not_fit_are_refused(net: fx.GraphModule, counts: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pruned(net, counts)


def test_nothing_pruned_is_nothing_changed(net: fx.GraphModule, images: Tensor) -> None:
    assert _apart(net, fitted(net, (8, 16), images), images) == 0


def test_channels_that_others_tell_go_without_loss(net: fx.GraphModule, images: Tensor) -> None:
    with torch.no_grad():
        for name, half in (("stem", 4), ("first", 4), ("wide", 8), ("second", 8)):
            for kind in ("weight", "bias"):
                values = net.get_parameter(f"{name}.{kind}")
                values[half:] = values[:half]
    assert _apart(net, fitted(net, (4, 8), images), images) < 1e-3


def test_regression_makes_good_what_pruning_lost(net: fx.GraphModule, images: Tensor) -> None:
    new = torch.randn(40, 3, 24, 24, generator=torch.Generator().manual_seed(6))
    thin = fitted(net, (5, 9), images)
    assert {name: value.shape for name, value in thin.state_dict().items()} == {
        name: value.shape for name, value in pruned(net, (5, 9)).state_dict().items()
    }
    assert _apart(net, thin, new) < 0.7 * _apart(net, pruned(net, (5, 9)), new)


class _Grouped(_Net):
    """The first block's middle has groups of two, the second's end sees more than its own pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.back = nn.Conv2d(16, 6, 3, padding=1)


class _Watched(_Net):
    """Something else sees the hidden channels: before the depthwise convolution, and behind it."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.act(self.stem(x))
        x = self.narrow(self.act(self.first(before))) + before.mean()
        behind = self.act(self.second(self.act(self.wide(x))))
        out: Tensor = x + self.back(behind) * behind.mean()
        return out


@pytest.mark.parametrize("kind", [_Grouped, _Watched])
def test_channels_that_others_need_as_they_are_are_none_to_prune(kind: type[nn.Module]) -> None:
    assert hidden_layers(fx.symbolic_trace(kind()).eval()) == []


def test_all_outputs_count_alike_whatever_their_scale_and_the_bias_stays() -> None:
    x_nk = torch.randn(400, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x_nk -= x_nk.mean(0)  # so a bias tells least of all
    y_no = torch.stack((100.0 * x_nk[:, 0] + 90.0 * x_nk[:, 1], x_nk[:, 2]), 1) + 7.0
    kept, weight_ok, bias_o = _regressed(x_nk, y_no, count=2)
    assert kept.tolist() == [0, 2]
    torch.testing.assert_close(weight_ok, torch.tensor([[100.0, 0.0], [0.0, 1.0]]), rtol=0.1, atol=5.0)
    torch.testing.assert_close(bias_o, torch.full((2,), 7.0), rtol=0.01, atol=0.0)
    y_no -= 7.0
    assert _regressed(x_nk, y_no, count=2)[0].tolist() == [0, 2]


class _Open(_Net):
    """It ends behind the second depthwise convolution."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(self.act(self.first(self.act(self.stem(x)))))
        out: Tensor = self.act(self.second(self.act(self.wide(x))))
        return out


@pytest.fixture
def open_net() -> fx.GraphModule:
    torch.manual_seed(4)
    return fx.symbolic_trace(_Open()).eval()


def test_the_channels_that_layers_end_with_are_found(net: fx.GraphModule, open_net: fx.GraphModule) -> None:
    end = ending(open_net)
    assert end is not None
    assert end[:2] == ("wide", "second")
    assert len(hidden_layers(open_net)) == 1
    assert ending(net) is None


def test_the_channels_that_layers_end_with_go_too(open_net: fx.GraphModule, images: Tensor) -> None:
    small = pruned(open_net, (5, 9))
    assert {k: tuple(v.shape) for k, v in small.state_dict().items() if k.startswith(("wide", "second"))} == {
        "wide.weight": (9, 6, 1, 1),
        "wide.bias": (9,),
        "second.weight": (9, 1, 3, 3),
        "second.bias": (9,),
    }
    assert small(images[:1]).shape[1] == 9
    assert pruned(open_net, (5,))(images[:1]).shape[1] == 16
    with pytest.raises(ValueError, match="3 counts of hidden channels; these layers have 1 blocks and an end"):
        pruned(open_net, (5, 9, 9))
    with pytest.raises(ValueError, match="17 hidden channels at second; it has 16"):
        pruned(open_net, (8, 17))


def test_of_the_last_channels_those_stay_that_tell_all(open_net: fx.GraphModule, images: Tensor) -> None:
    with torch.no_grad():
        for name in ("wide", "second"):  # every second channel says again what the one before it says
            layer = open_net.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight[1::2] = layer.weight[::2]
            layer.bias.copy_(layer.bias[::2].repeat_interleave(2))
        whole_nc = open_net(images).permute(0, 2, 3, 1).flatten(0, 2)

    def untold(thin: fx.GraphModule) -> float:
        with torch.no_grad():
            out_nk = thin(images).permute(0, 2, 3, 1).flatten(0, 2)
        with_one = torch.cat([out_nk, torch.ones_like(out_nk[:, :1])], 1).double()
        found = with_one @ torch.linalg.pinv(with_one) @ whole_nc.double()
        return float((found - whole_nc).square().mean() / whole_nc.var(0).mean())

    assert untold(fitted(open_net, (8, 8), images)) < 1e-3
    assert untold(pruned(open_net, (8, 8))) > 0.05
