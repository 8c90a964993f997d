"""The same network, told the index of a table: one less than what it is told here."""

from __future__ import annotations

import copy

import torch
from torch import nn

from unidiff.backbone.layers import NoiseEmbedding, sinusoidal

__all__ = ["shift_timestep"]


def shift_timestep(network: nn.Module) -> nn.Module:
    """A copy of a network whose answer to the noise condition c - 1 is this one's to c, for every c.

    Entry i of a table of 1000 is told as c = i here and as the index i - 1 in diffusers. Between them lies a rotation:
    sin(c w) and cos(c w) are sin((c-1) w) and cos((c-1) w) turned by the angle w, frequency by frequency, and the layer
    that reads them takes it in. Only that layer's weights differ, by a rounding each.

    Args:
        network: A UNet or DiT: its `embedding` is a NoiseEmbedding.
    """
    twin = copy.deepcopy(network)
    embedding = twin.embedding
    assert isinstance(embedding, NoiseEmbedding)
    weight = embedding.inner.weight
    one = torch.ones(1, dtype=torch.float64, device=weight.device)
    sin, cos = sinusoidal(one, embedding.width, embedding.shift).chunk(2, dim=1)
    of_sin, of_cos = weight.detach().double().chunk(2, dim=1)
    turned = torch.cat([of_sin * cos - of_cos * sin, of_sin * sin + of_cos * cos], dim=1)
    embedding.inner.weight = nn.Parameter(turned.to(weight), requires_grad=weight.requires_grad)
    return twin
