"""Changes of low rank of the layers of a network (LoRA), trained in place of its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.errors import ParameterError, require, require_whole

__all__ = [
    "LowRank",
    "LowRankConvolution",
    "LowRankLinear",
    "add_low_rank",
    "fresh_changes",
    "low_rank_layers",
    "merge_low_rank",
]

_APPLY: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


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
        layer.register_parameter("bias", None if self.bias is None else nn.Parameter(self.bias, requires_grad=False))
        return layer


class LowRankConvolution(nn.Module):
    """A frozen convolution with a trained change of low rank; see `LowRankLinear`.

    A is a convolution to r channels with the kernel of the layer, and B one of kernel 1 from there: the weights as a
    matrix, (out_channels, in_channels * positions), change by (alpha / r) B A.

    Args:
        layer: The convolution, of one group and padded with zeros, whose weights are shared.
        rank: r.
        alpha: The scale of the change is alpha / r.
    """

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, rank: int, alpha: float) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.requires_grad_(False)
        self.kind: Any = type(layer)
        self.kernel, self.axes = layer.kernel_size, len(layer.kernel_size)
        self.geometry: dict[str, Any] = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        fan_in = layer.weight[0].numel()
        self.lora_A = nn.Parameter(layer.weight.new_empty(rank, *layer.weight.shape[1:]).normal_(std=fan_in**-0.5))
        self.lora_B = nn.Parameter(layer.weight.new_zeros(len(layer.weight), rank, *[1] * self.axes))
        self.factor = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """The output, (B, out_channels, *sizes)."""
        apply = _APPLY[self.axes]
        change = apply(apply(x, self.lora_A, **self.geometry), self.lora_B)
        output: Tensor = apply(x, self.weight, self.bias, **self.geometry) + self.factor * change
        return output

    def merged(self) -> nn.Module:
        """One convolution with the same output, its weights made in float64."""
        outputs, inputs = self.weight.shape[:2]
        with torch.device("meta"):
            layer: nn.Module = self.kind(inputs, outputs, self.kernel, bias=self.bias is not None, **self.geometry)
        change = self.factor * (self.lora_B.double().flatten(1) @ self.lora_A.double().flatten(1))
        weight = (self.weight.double() + change.view_as(self.weight)).to(self.weight)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.register_parameter("bias", None if self.bias is None else nn.Parameter(self.bias, requires_grad=False))
        return layer


@dataclass(frozen=True)
class LowRank:
    """Which layers of a network learn a change of low rank (LoRA, Hu et al. 2022); all other weights are frozen.

    Args:
        rank: Rank of each change, from 1.
        alpha: The scale of a change is alpha / rank; None for 1.
        layers: Names of linear layers and convolutions, with `*` and `?` as wildcards; or what their names end with.
    """

    rank: int = 4
    alpha: float | None = None
    layers: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        _check(self.rank, self.alpha, "rank", "alpha")
        require(len(self.layers) > 0, "layers", list(self.layers), "a list of at least one name")

    def add(self, network: nn.Module) -> None:
        """Freeze a network and add the changes, in place; a ParameterError if no layer has such a name."""
        _add(network, self.rank, self.alpha, self.layers, "layers")


def add_low_rank(network: nn.Module, rank: int, alpha: float | None, layers: Sequence[str]) -> None:
    """Freeze a network and let some linear layers or convolutions learn a change of low rank, in place.

    Args:
        network: The network.
        rank: Rank of each change, from 1.
        alpha: Its scale is alpha / rank; None for 1.
        layers: Names of the layers, with `*` and `?` as wildcards; or what their names end with.

    Raises:
        ParameterError: If the rank is not one, or no such layer has such a name.
    """
    _check(rank, alpha, "lora", "lora_alpha")
    _add(network, rank, alpha, layers, "lora_layers")


def _check(rank: int, alpha: float | None, rank_name: str, alpha_name: str) -> None:
    require_whole(rank_name, rank, 1, 4096)
    require(alpha is None or 0 < alpha < float("inf"), alpha_name, alpha, "a number > 0, or null")


def _takes(layer: nn.Module) -> bool:
    """Whether this layer can have a change; a subclass of a convolution may do more than that with its input."""
    plain = getattr(layer, "groups", 1) == 1 and getattr(layer, "padding_mode", "zeros") == "zeros"
    return plain and (isinstance(layer, nn.Linear) or type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _add(network: nn.Module, rank: int, alpha: float | None, layers: Sequence[str], parameter: str) -> None:
    network.requires_grad_(False)
    chosen = [
        name
        for name, layer in network.named_modules()
        if _takes(layer) and any(fnmatchcase(f".{name}", f"*.{pattern}") for pattern in layers)
    ]
    if not chosen:
        raise ParameterError(
            parameter, f"no linear layer or convolution of the network is called {' or '.join(layers)}"
        )
    for name in chosen:
        layer: Any = network.get_submodule(name)
        kind: Any = LowRankLinear if isinstance(layer, nn.Linear) else LowRankConvolution
        _replace(network, name, kind(layer, rank, rank if alpha is None else alpha))


def low_rank_layers(network: nn.Module) -> dict[str, LowRankLinear | LowRankConvolution]:
    """The layers of a network that learn a change, by name."""
    layers: dict[str, Any] = dict(network.named_modules())
    return {name: layer for name, layer in layers.items() if "lora_A" in layer._parameters}


def fresh_changes(network: nn.Module) -> dict[str, Tensor]:
    """Weights of the changes of a network by name, always the same: A is random, and B is zero."""
    generator, weights = torch.Generator().manual_seed(0), dict[str, Tensor]()
    for name, layer in low_rank_layers(network).items():
        shape = layer.lora_A.shape
        weights[f"{name}.lora_A"] = torch.randn(shape, generator=generator) / math.prod(shape[1:]) ** 0.5
        weights[f"{name}.lora_B"] = torch.zeros(layer.lora_B.shape)
    return weights


def merge_low_rank(network: nn.Module) -> None:
    """Add the changes to the weights, in place; the layers are plain ones then."""
    for name, layer in low_rank_layers(network).items():
        _replace(network, name, layer.merged())


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, layer)
