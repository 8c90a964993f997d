"""Networks with random weights in float64, and how closely formulas of such networks agree."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def near(found: Tensor, expected: Tensor) -> None:
    """Some dozen roundings of 2.2e-16 on numbers of about 1."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def randomized(network: nn.Module) -> nn.Module:
    """The network in float64 with all weights drawn, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return network.double()
