"""Low-rank changes of linear layers: what they are at first, what they can become, and merged."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unidiff.backbone.low_rank import add_low_rank, low_rank_layers, merge_low_rank
from unidiff.errors import ParameterError

F64 = torch.float64


def network() -> nn.Module:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5, bias=False))
    return nn.Sequential(nn.Linear(4, 6), inner).to(F64)


def test_at_first_it_is_the_network_and_merged_it_is_the_same():
    base = network()
    changed = copy.deepcopy(base)
    add_low_rank(changed, 2, 6.0, ["1.0", "1.2"])
    x = torch.randn(9, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(changed(x), base(x))
    # Only the changes are trained: a step changes them, and no weight of the network.
    names = {name for name, p in changed.named_parameters() if p.requires_grad}
    assert names == {"1.0.lora_A", "1.0.lora_B", "1.2.lora_A", "1.2.lora_B"}
    for _ in range(3):
        trained = [p for p in changed.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(changed(x).square().sum(), trained)
        with torch.no_grad():
            for p, gradient in zip(trained, gradients):
                p -= 0.01 * gradient
    assert not torch.equal(changed(x), base(x))
    weights = changed.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in base.state_dict().items())
    # (W + (alpha / r) B A) x: in float64 both sides are sums of at most 7 + 2 * 7 products of order 1.
    merged = copy.deepcopy(changed)
    merge_low_rank(merged)
    assert merged.state_dict().keys() == base.state_dict().keys()
    with torch.no_grad():
        assert (merged(x) - changed(x)).abs().max() < 1e-13
    for name, layer in low_rank_layers(changed).items():
        difference = merged.get_submodule(name).weight - base.get_submodule(name).weight
        expected = 3.0 * layer.lora_B @ layer.lora_A
        assert (difference - expected).abs().max() < 1e-14
        singular = torch.linalg.svdvals(difference.detach())
        assert singular[1] > 1e-6  # its rank is the one that was asked for
        assert singular[2:].max() < 1e-14


def test_layers_that_are_not_there():
    with pytest.raises(ParameterError, match="lora_layers: no linear layer of the network is called to_q or to_k"):
        add_low_rank(network(), 2, None, ["to_q", "to_k"])
    with pytest.raises(ParameterError, match="lora must be an integer from 1 to 4096, got 0"):
        add_low_rank(network(), 0, None, ["*"])
    with pytest.raises(ParameterError, match="lora_alpha must be a number > 0, or null, got -1"):
        add_low_rank(network(), 1, -1.0, ["*"])
