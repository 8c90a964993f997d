"""The averaged weights that generate the samples."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["EMA", "GivenAverage"]


class EMA:
    """An exponential moving average of a network's weights, updated in one fused pass (foreach).

    Args:
        network: The network to follow; the average starts as a copy of it.

    Attributes:
        network: The averaged network, in evaluation mode, without gradients.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._followed = network
        self._lists = _tensors(self.network), _tensors(network)  # walking a network costs as much as averaging it

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """One step: average <- decay average + (1 - decay) weights; buffers are copied."""
        own, other = self._lists if network is self._followed else (_tensors(self.network), _tensors(network))
        torch._foreach_lerp_(own[0], other[0], 1 - decay)
        for average, current in zip(own[1], other[1]):
            average.copy_(current)

    def gather(self) -> None:
        """Complete the network, for an average that is divided between processes; all of them call it together."""


class GivenAverage(EMA):
    """An average that the optimiser keeps itself, in the weights of `network`."""

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """Copy the buffers; see `EMA.update`."""
        for average, current in zip(self.network.buffers(), network.buffers()):
            average.copy_(current)


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The weights and the buffers of a network."""
    return list(network.parameters()), list(network.buffers())
