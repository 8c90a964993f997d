"""Two networks to one space of vectors, for contrastive models of images and captions (Radford et al. 2021)."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.arguments import PlainArguments
from unidiff.backbone.encoder import UNetEncoder
from unidiff.backbone.text import TextTransformer
from unidiff.condition.base import Condition

__all__ = ["ContrastiveUNet", "PairEncoder"]

_FIRST_SCALE = 1 / 0.07  # Radford et al. 2021, section 2.5


class PairEncoder(PlainArguments, nn.Module, ABC):
    """A network of images and one of conditions, whose unit vectors are compared with a learned scale s.

    Args:
        shape: Shape of one sample, without the batch.
        image: From noisy samples (B, *shape) and the noise condition (B,) to vectors (B, D).
        text: From the conditions, by name, to vectors (B, D).
        conditions: The conditions that `text` takes.
    """

    def __init__(
        self, shape: tuple[int, ...], image: nn.Module, text: nn.Module, conditions: Sequence[Condition]
    ) -> None:
        super().__init__()
        self.shape, self.conditions = tuple(shape), tuple(conditions)
        self.image, self.text = image, text
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """The unit vectors of samples and of conditions, each times sqrt(s), (B, 2, D)."""
        image, text = F.normalize(self.image(x, c), dim=1), F.normalize(self.text(**cond), dim=1)
        return torch.stack([image, text], dim=1) * (self.log_scale / 2).exp()


class ContrastiveUNet(PairEncoder):
    """The contracting path of a U-Net for images, a transformer for captions.

    Args:
        shape: Shape of one sample; see `UNetEncoder`.
        size: Size of the vectors in which images and captions are compared.
        width: Channels at the first level, and size of the sinusoidal noise embedding; even.
        multipliers: Channels of each level, in units of `width`; the finest resolution first.
        blocks: Residual blocks per level.
        dropout: Probability of dropping an activation inside a residual block.
        patch: Fold patches of `patch` x `patch` pixels into channels at the input.
        text_width: Size of a token of the transformer.
        heads: Heads of its attention, a divisor of `text_width`.
        depth: Its layers.
        conditions: What is compared with the images, such as a `Caption`; in a recipe it follows from the data.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        size: int = 32,
        width: int = 32,
        multipliers: tuple[int, ...] = (1, 2),
        blocks: int = 1,
        dropout: float = 0.0,
        patch: int = 1,
        text_width: int = 64,
        heads: int = 4,
        depth: int = 2,
        conditions: tuple[Condition, ...] = (),
    ) -> None:
        text = TextTransformer(conditions, size, text_width, heads, depth)
        image = UNetEncoder(shape, width, multipliers, blocks, dropout, patch, size)
        image.head.reset_parameters()  # a vector of zeros has no direction
        super().__init__(shape, image, text, conditions)
