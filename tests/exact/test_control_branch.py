"""Networks with control branches: their features add up, and at scale 0 there is nothing but the network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import unidiff as ud
from unidiff.backbone.base import Backbone
from unidiff.backbone.control import ControlBranch, Controlled
from unidiff.errors import ParameterError

F64 = torch.float64
SHAPE = (2, 4, 4)


class Doubling(Backbone):
    """Twice the sample, and a label, with features added on the way."""

    def __init__(self) -> None:
        super().__init__(SHAPE, classes=3)

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        return 2 * x + self._values(cond, x)["label"][:, None, None, None]

    def with_features(self, x: Tensor, c: Tensor, features: Sequence[Tensor], **cond: Tensor) -> Tensor:
        first, second = features
        return self(x + first, c, **cond) + second


class Branch(ControlBranch):
    """The means of an image over its blocks, and the noise condition."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.condition = ud.Control(2, (8, 8), name=name)
        self.calls = 0

    def forward(self, x: Tensor, c: Tensor, image: Tensor, **cond: Tensor) -> list[Tensor]:
        assert cond.keys() == {"label"}
        self.calls += 1
        return [torch.nn.functional.avg_pool2d(image, 2), c[:, None, None, None].expand_as(x)]


def images(seed: int, count: int = 3) -> Tensor:
    return 2 * torch.rand(count, 2, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(seed)) - 1


def test_features_add_up():
    network, branches = Doubling(), [Branch("control"), Branch("control_2")]
    x, c, label = torch.randn(3, *SHAPE, dtype=F64), torch.arange(3.0, dtype=F64), torch.tensor([0, 1, 2])
    both = Controlled(network, branches, (0.5, -2.0))
    assert [condition.name for condition in both.conditions] == ["label", "control", "control_2"]
    one, two = images(1), images(2)
    pool = torch.nn.functional.avg_pool2d
    features = 0.5 * pool(one, 2) - 2 * pool(two, 2)
    expected = 2 * (x + features) + (label - 1.5 * c)[:, None, None, None]
    # Sums of a few numbers of order 10: some roundings of 1e-16 each.
    assert (both(x, c, label=label, control=one, control_2=two) - expected).abs().max() < 1e-14
    plain = Controlled(network, branches, (0.0, 0.0))
    before = [branch.calls for branch in branches]
    assert torch.equal(plain(x, c, label=label, control=one, control_2=two), network(x, c, label=label))
    assert [branch.calls for branch in branches] == before


def test_guidance_leads_to_the_label_and_keeps_the_image():
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.Eps(), Controlled(Doubling(), [Branch("control")], (1.0,)))
    level, u = model.process.level(0.5), torch.randn(3, *SHAPE, dtype=F64)
    cond = {"label": torch.tensor([0, 1, 2]), "control": images(3)}
    guided = ud.ClassifierFree(model, 3.0)
    assert guided.names == ("label",)
    there = model(u, level, **cond).eps
    null = model(u, level, label=torch.full((3,), -1), control=cond["control"]).eps
    # The line through the two predictions, by its equation; numbers up to 2,000 with roundings of 2e-13 each.
    assert (guided(u, level, **cond).eps - (null + 3 * (there - null))).abs().max() < 2e-12
    by_image = ud.ClassifierFree(model, 3.0, names=["control"])
    null = model(u, level, label=cond["label"], control=-torch.ones_like(cond["control"])).eps
    assert (by_image(u, level, **cond).eps - (null + 3 * (there - null))).abs().max() < 2e-12
    with pytest.raises(ParameterError, match="control must be an image of shape"):
        model(u, level, label=cond["label"])


def test_branches_that_do_not_fit():
    with pytest.raises(ParameterError, match="scales must be as many as branches, 1, got 2"):
        Controlled(Doubling(), [Branch("control")], (1.0, 2.0))
    with pytest.raises(ParameterError, match="conditions of different names"):
        Controlled(Doubling(), [Branch("control"), Branch("control")], (1.0, 2.0))
    with pytest.raises(ParameterError, match="scales must be finite numbers, got inf"):
        Controlled(Doubling(), [Branch("control")], (float("inf"),))
    with pytest.raises(NotImplementedError, match="MLP takes no features"):
        ud.MLP((2,)).with_features(torch.zeros(1, 2), torch.zeros(1), [])
