from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from splitcodec.model.narrowing import narrow_to, narrowed, trunks
from splitcodec.model.pruning import fitted, pruned


class _Net(nn.Module):
    """Two inverted residuals, the second with a shortcut, and the first half of a third."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.narrow = nn.Conv2d(8, 6, 1)
        self.idle = nn.Identity()
        self.wide = nn.Conv2d(6, 16, 1)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.back = nn.Conv2d(16, 6, 1)
        self.last = nn.Conv2d(6, 12, 1)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.idle(self.narrow(self.act(self.first(self.act(self.stem(x))))))
        x = x + self.back(self.act(self.second(self.act(self.wide(x)))))
        out: Tensor = self.act(self.last(x))
        return out


class _Ended(_Net):
    """What runs between blocks comes out as well."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(self.act(self.first(self.act(self.stem(x)))))
        out: Tensor = x + self.back(self.act(self.second(self.act(self.wide(x)))))
        return out


class _Early(_Net):
    """The first block has a shortcut already, around what the stem makes (FBNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.deep, self.end = (
            nn.Conv2d(8, 16, 1),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.Conv2d(16, 8, 1),
        )
        self.wider = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.end(self.act(self.deep(self.act(self.begin(x)))))
        x = self.narrow(self.act(self.first(self.act(self.wider(x)))))
        out: Tensor = self.act(self.last(x + self.back(self.act(self.second(self.act(self.wide(x)))))))
        return out


@pytest.fixture
def net() -> fx.GraphModule:
    torch.manual_seed(4)
    return fx.symbolic_trace(_Net()).eval().requires_grad_(requires_grad=False)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(40, 3, 24, 24, generator=torch.Generator().manual_seed(5))


def _apart(one: fx.GraphModule, other: fx.GraphModule, images: Tensor) -> float:
    with torch.no_grad():
        first, second = one(images), other(images)
    return float((first - second).square().mean() / first.var())


def _shapes(net: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def test_what_runs_between_blocks_is_found_with_all_that_makes_and_takes_it(net: fx.GraphModule) -> None:
    (trunk,) = trunks(net)
    assert trunk.made_by == ("narrow", "back")
    assert trunk.taken_by == (("wide", "idle"), ("last", "add"))


def test_what_comes_out_of_the_layers_stays_as_wide_as_it_is() -> None:
    assert trunks(fx.symbolic_trace(_Ended()).eval()) == []


def test_narrowed_layers_are_smaller(net: fx.GraphModule, images: Tensor) -> None:
    thin = narrowed(net, (4,))
    changed = {name: shape[:2] for name, shape in _shapes(thin).items() if shape != _shapes(net)[name]}
    assert changed == {
        "narrow.weight": (4, 8),
        "narrow.bias": (4,),
        "wide.weight": (16, 4),
        "back.weight": (4, 16),
        "back.bias": (4,),
        "last.weight": (12, 4),
    }
    assert thin(images).shape == net(images).shape
    assert net.get_parameter("narrow.weight").shape[0] == 6  # the whole one stays as it is
    for name, shape in changed.items():  # the first ones
        cut = tuple(slice(count) for count in shape)
        assert torch.equal(thin.get_parameter(name), net.get_parameter(name)[cut])


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((4, 4), "2 counts of channels between blocks; these layers have 1"),
        ((7,), "7 channels behind narrow; it has 6"),
    ],
)
def test_counts_that_do_not_fit_are_refused(net: fx.GraphModule, counts: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        narrowed(net, counts)


def test_channels_that_others_tell_go_without_loss(net: fx.GraphModule, images: Tensor) -> None:
    with torch.no_grad():  # six channels that are four
        mix = torch.randn(6, 4) @ torch.randn(4, 6)
        for name in ("narrow", "back"):
            layer = net.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight.copy_(torch.einsum("ko,ocrs->kcrs", mix, layer.weight))
            layer.bias.copy_(mix @ layer.bias)
    narrow = narrow_to(net, (4,), images)
    assert _shapes(narrow.stem) == _shapes(narrowed(net, (4,)))
    assert _apart(net, narrow.stem, images) < 1e-6
    assert set(narrow.down) == {"narrow", "back"}
    assert narrow.down["narrow"].shape == (4, 6)


def test_all_channels_are_left_alone(net: fx.GraphModule, images: Tensor) -> None:
    assert _shapes(narrow_to(net, (5,), images).stem)["narrow.weight"] == (5, 8, 1, 1)
    narrow = narrow_to(net, (6,), images)
    assert not narrow.down
    assert _apart(net, narrow.stem, images) == 0


def test_the_channels_that_tell_most_are_taken_and_regression_makes_good_the_rest(
    net: fx.GraphModule, images: Tensor
) -> None:
    new = torch.randn(40, 3, 24, 24, generator=torch.Generator().manual_seed(6))
    first, best = narrowed(net, (4,)), narrow_to(net, (4,), images)
    assert _apart(net, best.stem, new) < 0.5 * _apart(net, first, new)
    both = fitted(net, (6, 10), images, narrow=best)
    assert _shapes(both) == _shapes(pruned(best.stem, (6, 10)))
    assert _apart(net, both, new) < 0.5 * _apart(net, pruned(best.stem, (6, 10)), new)


def _listening(net: fx.GraphModule, **channels: tuple[float, ...]) -> fx.GraphModule:
    """Let convolutions that take the trunk listen to its channels with so much of each channel's spread."""
    with torch.no_grad():
        for name, weight in channels.items():
            layer = net.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            layer.weight.copy_(
                torch.tensor(weight)[None, :, None, None] * torch.randn(layer.out_channels, 6, 1, 1).sign()
            )
    return net


def test_all_layers_that_take_the_channels_are_asked(net: fx.GraphModule, images: Tensor) -> None:
    _listening(net, wide=(1.0, 1.0, 0.0, 0.0, 0.0, 0.0), last=(0.0, 0.0, 0.0, 1.0, 1.0, 0.0))
    assert _apart(net, narrow_to(net, (4,), images).stem, images) < 1e-6


@torch.no_grad()
def _lost(net: fx.GraphModule, count: int, images: Tensor) -> dict[str, float]:
    """Return how much of what two layers make of the channels is lost, as a share of its variance."""
    found = {}
    for name in ("wide", "last"):
        taken: list[Tensor] = []
        for stem in (net, narrow_to(net, (count,), images).stem):
            hook = stem.get_submodule(name).register_forward_hook(lambda *given, taken=taken: taken.append(given[2]))
            stem(images)
            hook.remove()
        whole, thin = taken
        found[name] = float(((whole - thin).square().mean((0, 2, 3)) / whole.var((0, 2, 3))).mean())
    return found


def test_layers_count_alike_whatever_the_scale_of_their_weights(net: fx.GraphModule, images: Tensor) -> None:
    """One takes two channels loudly, the second hardly at all; what the other takes must not go for that."""
    _listening(net, wide=(1000.0, 50.0, 0.0, 0.0, 0.0, 0.0), last=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0))
    assert all(lost < 0.2 for lost in _lost(net, 2, images).values())


def test_three_of_six_channels_tell_nine_tenths(net: fx.GraphModule, images: Tensor) -> None:
    assert sum(_lost(net, 3, images).values()) < 0.17


class _Looking(_Net):
    """What takes the channels sees more than their own pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(6, 12, 3, padding=1)


def test_channels_that_more_than_their_own_pixel_is_made_of_stay() -> None:
    assert trunks(fx.symbolic_trace(_Looking()).eval()) == []


@torch.no_grad()
def test_what_is_left_out_stays_at_its_mean(net: fx.GraphModule, images: Tensor) -> None:
    net.get_parameter("narrow.bias").add_(8.0 * torch.randn(6))  # channels that hardly vary, far from nought
    narrow = narrow_to(net, (3,), images)
    taken: dict[fx.GraphModule, Tensor] = {}
    for stem in (net, narrow.stem):
        stem.get_submodule("wide").register_forward_hook(lambda *given, stem=stem: taken.update({stem: given[2]}))
        stem(images)
    means, spread = [one.mean((0, 2, 3)) for one in taken.values()], taken[net].std((0, 2, 3))
    assert float(((means[0] - means[1]) / spread).abs().max()) < 0.2


def test_channels_that_a_shortcut_brings_from_elsewhere_stay(images: Tensor) -> None:
    """What the stem makes is no block's to narrow; a network that began so ended in an IndexError."""
    net = fx.symbolic_trace(_Early()).eval().requires_grad_(requires_grad=False)
    assert [trunk.made_by for trunk in trunks(net)] == [("narrow", "back")]
    assert narrowed(net, [4])(images).shape == net(images).shape
    assert _apart(narrow_to(net, [5], images).stem, net, images) < 0.5
