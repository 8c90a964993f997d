"""The averaged weights that generate the samples."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["EMA"]


class EMA:
    """An exponential moving average of a network's weights, updated in one fused pass (foreach).

    Args:
        network: The network to follow; the average starts as a copy of it.

    Attributes:
        network: The averaged network, in evaluation mode, without gradients.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """One step: average <- decay average + (1 - decay) weights; buffers are copied."""
        get_ema_multi_avg_fn(decay)(list(self.network.parameters()), list(network.parameters()), 0)
        for average, current in zip(self.network.buffers(), network.buffers()):
            average.copy_(current)
