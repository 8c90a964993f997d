"""Networks from pixels to classes, for classifiers of noisy states."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.arguments import PlainArguments
from unidiff.backbone.axes import (
    CONVOLUTIONS,
    downsample,
    fold_patches,
)
from unidiff.backbone.layers import (
    NoiseEmbedding,
    ResidualBlock,
    apply_layer,
    group_norm,
    zeroed,
)
from unidiff.backbone.mlp import DenseLayers, check_dense
from unidiff.backbone.unet_layers import check_unet
from unidiff.errors import require_whole

__all__ = ["Encoder", "MLPEncoder", "UNetEncoder"]


class Encoder(PlainArguments, nn.Module, ABC):
    """A network from noisy pixels to one number per class.

    Attributes:
        shape: Shape of one sample, without the batch.
        classes: Number of classes; in a recipe they follow from the data.
    """

    shape: tuple[int, ...]
    classes: int

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy samples, (B, *shape).
            c: Noise condition, (B,), in about [0, 1000].

        Returns:
            Logits, (B, classes). They start at exactly 0: all classes are equally probable.
        """

    def with_features(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and features (B, F) in which samples are compared: here the logits again."""
        logits = self(x, c)
        return logits, logits


def _required(classes: int | None) -> int:
    require_whole("classes", classes, 1, 1_000_000)
    return cast(int, classes)


class UNetEncoder(Encoder):
    """The contracting path of the U-Net, and a linear layer on its whole coarsest feature map.

    After Dhariwal & Nichol 2021, section 4, who pool that map by attention. Its mean alone would not suffice: under
    strong noise, classes differ in the spatial arrangement, at every scale of the image.

    Args:
        shape: Shape of one sample: a signal (C, L), an image (C, H, W) or a volume (C, D, H, W); each side divisible by
            patch * 2^(levels - 1).
        width: Channels at the first level, and size of the sinusoidal noise embedding; even.
        multipliers: Channels of each level, in units of `width`; the finest resolution first.
        blocks: Residual blocks per level.
        dropout: Probability of dropping an activation inside a residual block.
        patch: Fold patches of `patch` x `patch` pixels (intervals, cubes) into channels at the input.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 32,
        multipliers: tuple[int, ...] = (1, 2),
        blocks: int = 1,
        dropout: float = 0.0,
        patch: int = 1,
        classes: int | None = None,
    ) -> None:
        sides = check_unet(shape, width, multipliers, blocks, dropout, patch)
        rank = len(sides)
        super().__init__()
        self.shape, self.patch, self.classes = tuple(shape), patch, _required(classes)
        self.embedding = NoiseEmbedding(width, 4 * width)
        self.stem = CONVOLUTIONS[rank](shape[0] * patch**rank, width, 3, padding=1)
        self.levels, h, self._layers = nn.ModuleList(), width, 1 + blocks
        for level, out in enumerate(width * m for m in multipliers):
            self.levels.append(nn.Identity() if level == 0 else downsample(h, rank))
            for _ in range(blocks):
                self.levels.append(ResidualBlock(h, out, 4 * width, dropout, rank=rank))
                h = out
        self.norm = group_norm(h)
        unit = patch * 2 ** (len(multipliers) - 1)
        self.head = zeroed(nn.Linear(h * math.prod(side // unit for side in sides), self.classes))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        return self._head(self._maps(x, c)[-1])

    def with_features(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and the mean over space of each channel, after a SiLU, behind the stem and each level.

        The first levels see noise, contrast and strokes, to which the logits are trained to be blind.
        """
        maps = self._maps(x, c)
        return self._head(maps[-1]), torch.cat([F.silu(h).flatten(2).mean(2) for h in maps], 1)

    def _maps(self, x: Tensor, c: Tensor) -> list[Tensor]:
        """The feature maps behind the stem and each level."""
        e = self.embedding(c)
        h = self.stem(fold_patches(x, self.patch))
        maps = [h]
        for number, layer in enumerate(self.levels, 1):
            h = apply_layer(layer, h, e)
            if number % self._layers == 0:
                maps.append(h)
        return maps

    def _head(self, h: Tensor) -> Tensor:
        logits: Tensor = self.head(F.silu(self.norm(h)).flatten(1))
        return logits


class MLPEncoder(DenseLayers, Encoder):
    """Residual blocks of fully connected layers on the flattened sample, and a linear layer.

    Args:
        shape: Shape of one sample, any number of axes.
        width: Size of the hidden layers, and of the sinusoidal noise embedding; even.
        depth: Number of residual blocks.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 128, depth: int = 3, classes: int | None = None) -> None:
        check_dense(shape, width, depth)
        super().__init__()
        self.shape, self.classes = tuple(shape), _required(classes)
        self._build(self.shape, width, depth, self.classes)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        return self._evaluate(x, c)

    def with_features(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and the last hidden layer."""
        h = self._hidden(x, c)
        return self.head(h), h
