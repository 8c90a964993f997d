"""Networks from pixels to classes, for classifiers of noisy states."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.layers import Downsample, NoiseEmbedding, ResidualBlock, group_norm, zeroed
from unidiff.backbone.mlp import DenseBlock
from unidiff.errors import is_whole, require, require_whole

__all__ = ["Encoder", "MLPEncoder", "UNetEncoder"]


class Encoder(nn.Module, ABC):
    """A network from noisy pixels to one number per class.

    Attributes:
        shape: Shape of one sample, without the batch.
        classes: Number of classes.
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


def _whole(classes: int | None) -> int:
    require_whole("classes", classes, 1, 1_000_000)
    assert classes is not None
    return classes


class UNetEncoder(Encoder):
    """The contracting path of the U-Net, and a linear layer on its whole coarsest feature map.

    After Dhariwal & Nichol 2021, section 4, who pool that map by attention. Its mean alone would not suffice: under
    strong noise, classes differ in the spatial arrangement, at every scale of the image.

    Args:
        shape: (C, H, W) of one image; each side divisible by patch * 2^(levels - 1).
        width: Channels at the first level, and size of the sinusoidal noise embedding; even.
        multipliers: Channels of each level, in units of `width`; the finest resolution first.
        blocks: Residual blocks per level.
        dropout: Probability of dropping an activation inside a residual block.
        patch: Fold patches of `patch` x `patch` pixels into channels on the way in.
        classes: Number of classes; in a recipe they follow from the data.
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
        super().__init__()
        triple = isinstance(shape, (tuple, list)) and len(shape) == 3 and all(is_whole(n) for n in shape)
        require(triple, "shape", shape, "(channels, height, width), three integers >= 1")
        require(is_whole(width) and width % 2 == 0, "width", width, "an even number >= 2")
        several = isinstance(multipliers, (tuple, list)) and len(multipliers) > 0 and all(map(is_whole, multipliers))
        require(several, "multipliers", multipliers, "one or more integers >= 1")
        require_whole("blocks", blocks)
        require(0 <= dropout < 1, "dropout", dropout, "a number in [0, 1)")
        require(patch in (1, 2, 4), "patch", patch, "1, 2 or 4")
        unit = patch * 2 ** (len(multipliers) - 1)
        fits = shape[1] % unit == shape[2] % unit == 0
        require(fits, "multipliers", multipliers, f"fewer of them: {shape[1]}x{shape[2]} is not divisible by {unit}")
        self.shape, self.patch, self.classes = tuple(shape), patch, _whole(classes)
        self.embedding = NoiseEmbedding(width, 4 * width)
        self.stem = nn.Conv2d(shape[0] * patch**2, width, 3, padding=1)
        self.levels, h = nn.ModuleList(), width
        for level, out in enumerate(width * m for m in multipliers):
            self.levels.append(nn.Identity() if level == 0 else Downsample(h))
            for _ in range(blocks):
                self.levels.append(ResidualBlock(h, out, 4 * width, dropout))
                h = out
        self.norm = group_norm(h)
        self.head = zeroed(nn.Linear(h * (shape[1] // unit) * (shape[2] // unit), self.classes))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Logits, (B, classes), of noisy images x, (B, C, H, W); see `Encoder.forward`."""
        e = self.embedding(c)
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        for layer in self.levels:
            h = layer(h, e) if isinstance(layer, ResidualBlock) else layer(h)
        logits: Tensor = self.head(F.silu(self.norm(h)).flatten(1))
        return logits


class MLPEncoder(Encoder):
    """Residual blocks of fully connected layers on the flattened sample, and a linear layer.

    Args:
        shape: Shape of one sample, any number of axes.
        width: Size of the hidden layers, and of the sinusoidal noise embedding; even.
        depth: Number of residual blocks.
        classes: Number of classes; in a recipe they follow from the data.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 128, depth: int = 3, classes: int | None = None) -> None:
        super().__init__()
        sizes = isinstance(shape, (tuple, list)) and len(shape) > 0 and all(is_whole(n) for n in shape)
        require(sizes, "shape", shape, "one or more integers >= 1")
        require(is_whole(width) and width % 2 == 0, "width", width, "an even number >= 2")
        require_whole("depth", depth)
        self.shape, self.classes = tuple(shape), _whole(classes)
        self.embedding = NoiseEmbedding(width, width)
        self.stem = nn.Linear(math.prod(shape), width)
        self.blocks = nn.ModuleList([DenseBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = zeroed(nn.Linear(width, self.classes))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Logits, (B, classes), of noisy samples x, (B, *shape); see `Encoder.forward`."""
        e = self.embedding(c)
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        logits: Tensor = self.head(F.silu(self.norm(h)))
        return logits
