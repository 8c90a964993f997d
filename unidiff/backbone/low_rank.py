"""Low-rank changes of the layers of a network (LoRA), trained in place of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.errors import ParameterError, require, require_whole

__all__ = ["LowRankLinear", "add_low_rank", "low_rank_layers", "merge_low_rank"]


class LowRankLinear(nn.Linear):
    """A frozen linear layer with a trained change: (W + (alpha / r) B A) x + b (Hu et al. 2022, eq. 3).

    B is zero at first, so that the layer begins as it was, bit for bit.

    Args:
        layer: The layer, whose weights are shared.
        rank: r, columns of B and rows of A.
        alpha: Its scale is alpha / r.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        with torch.device("meta"):  # its own weights are not needed
            super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        self.requires_grad_(False)
        self.lora_A = nn.Parameter(layer.weight.new_empty(rank, layer.in_features).normal_(std=layer.in_features**-0.5))
        self.lora_B = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        self.factor = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """The output, (..., out_features)."""
        return super().forward(x) + self.factor * F.linear(F.linear(x, self.lora_A), self.lora_B)

    def merged(self) -> nn.Linear:
        """One layer with the same output, W + (alpha / r) B A made in float64."""
        with torch.device("meta"):
            layer = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        change = self.factor * (self.lora_B.double() @ self.lora_A.double())
        layer.weight = nn.Parameter((self.weight.double() + change).to(self.weight), requires_grad=False)
        layer.bias = self.bias
        return layer


def add_low_rank(network: nn.Module, rank: int, alpha: float | None, layers: Sequence[str]) -> None:
    """Freeze a network and let some linear layers learn a change of low rank, in place.

    Args:
        network: The network.
        rank: Rank of each change, from 1.
        alpha: Its scale is alpha / rank; None for 1.
        layers: Names of the layers, with `*` and `?` as wildcards; or what their names end with.

    Raises:
        ParameterError: If the rank is not one, or no linear layer has such a name.
    """
    require_whole("lora", rank, 1, 4096)
    require(alpha is None or 0 < alpha < float("inf"), "lora_alpha", alpha, "a number > 0, or null")
    network.requires_grad_(False)
    chosen = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and any(fnmatchcase(f".{name}", f"*.{pattern}") for pattern in layers)
    ]
    if not chosen:
        raise ParameterError("lora_layers", f"no linear layer of the network is called {' or '.join(layers)}")
    for name in chosen:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        _replace(network, name, LowRankLinear(layer, rank, rank if alpha is None else alpha))


def low_rank_layers(network: nn.Module) -> dict[str, LowRankLinear]:
    """The layers of a network that learn a change, by name."""
    layers: dict[str, Any] = dict(network.named_modules())
    return {name: layer for name, layer in layers.items() if "lora_A" in layer._parameters}


def merge_low_rank(network: nn.Module) -> None:
    """Add the changes to the weights, in place; the layers are plain ones then."""
    for name, layer in low_rank_layers(network).items():
        _replace(network, name, layer.merged())


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, layer)
