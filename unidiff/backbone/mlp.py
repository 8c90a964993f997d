"""A multilayer perceptron: the network for points and other small data."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.base import Backbone, require_classes
from unidiff.backbone.layers import NoiseEmbedding, zeroed
from unidiff.errors import is_whole, require, require_whole

__all__ = ["MLP"]


class MLP(Backbone):
    """Residual blocks of fully connected layers on the flattened sample. The output starts at exactly 0.

    Args:
        shape: Shape of one sample, any number of axes.
        width: Size of the hidden layers, and of the sinusoidal noise embedding; even.
        depth: Number of residual blocks.
        classes: Number of classes; None is an unconditional network.
        learned_variance: Whether it also predicts the variance of a reverse step, in as many numbers again (Nichol &
            Dhariwal 2021, eq. 15).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        classes: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        sizes = isinstance(shape, (tuple, list)) and len(shape) > 0 and all(is_whole(n) for n in shape)
        require(sizes, "shape", shape, "one or more integers >= 1")
        require(is_whole(width) and width % 2 == 0, "width", width, "an even number >= 2")
        require_whole("depth", depth)
        require_classes(classes)
        self.shape = tuple(shape)
        self.classes = classes
        self.learned_variance = learned_variance
        size = math.prod(shape)
        self.embedding = NoiseEmbedding(width, width, classes)
        self.stem = nn.Linear(size, width)
        self.blocks = nn.ModuleList([DenseBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = zeroed(nn.Linear(width, self.outputs * size // self.shape[0]))

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy samples, (B, *shape).
            c: Noise condition, (B,), in about [0, 1000].
            **cond: `label`, (B,) integers from -1 (no class), if the network was built with classes.

        Returns:
            The network's output, (B, *shape); twice as long in the first axis with a learned variance.
        """
        label = self._label(cond, len(x))
        e = self.embedding(c) if label is None else self.embedding(c, label)
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return self.head(F.silu(self.norm(h))).reshape(len(x), self.outputs, *self.shape[1:])


class DenseBlock(nn.Module):
    """LayerNorm-SiLU-linear twice around the noise embedding, with a shortcut.

    Args:
        width: Features in and out, and size of the noise embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width)
        self.embed = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear2 = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Map x, (B, width), and the noise embedding e, (B, width), to (B, width)."""
        h = self.linear1(F.silu(self.norm1(x))) + self.embed(e)
        return x + self.linear2(F.silu(self.norm2(h)))
