"""The designs of a DiT's blocks, as a recipe names them: how noise level and conditions enter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.backbone.dit_blocks import (
    AdaLNBlock,
    AdaLNSingleBlock,
    AdaLNZeroBlock,
    BlockSettings,
    CrossAttendedBlock,
    DiTBlock,
    NoiseTokens,
    PlainBlock,
)
from unidiff.backbone.layers import NoiseEmbedding

__all__ = ["AdaLN", "AdaLNSingle", "AdaLNZero", "BlockDesign", "CrossAttended", "InContext"]


@dataclass(frozen=True)
class BlockDesign(PlainArguments, ABC):
    """How the noise level, and the conditions that are vectors, enter the blocks of a DiT.

    Captions and other conditions that are sequences are attended to in every design.

    Attributes:
        embedding: What makes features of the noise condition and the conditions that are vectors.
        adaptive: Whether the last norm is modulated, too.
        appends: Whether the features are tokens behind those of the patches.
    """

    embedding: ClassVar[type[NoiseEmbedding]] = NoiseEmbedding
    adaptive: ClassVar[bool] = True
    appends: ClassVar[bool] = False

    def shared(self, width: int) -> nn.Module | None:
        """A layer on the noise embedding that all blocks share; None by default."""
        return None

    @abstractmethod
    def block(self, settings: BlockSettings) -> DiTBlock:
        """A block of this design."""

    def entered(self, h: Tensor, e: Tensor) -> Tensor:
        """The tokens that enter the first block, with those of the features behind, if this design appends them."""
        return torch.cat([h, e], 1) if self.appends else h


@dataclass(frozen=True)
class AdaLNZero(BlockDesign):
    """Norms with scale and shift from the noise embedding, and gates that are 0 at first (Peebles & Xie 2023, fig. 3).

    With 6 w^2 + 6 w weights in each block of width w for it.
    """

    def block(self, settings: BlockSettings) -> DiTBlock:
        """See `AdaLNZeroBlock`."""
        return AdaLNZeroBlock(settings)


@dataclass(frozen=True)
class AdaLN(BlockDesign):
    """Norms with scale and shift from the noise embedding, without gates (Peebles & Xie 2023, section 3.2)."""

    def block(self, settings: BlockSettings) -> DiTBlock:
        """See `AdaLNBlock`."""
        return AdaLNBlock(settings)


@dataclass(frozen=True)
class AdaLNSingle(BlockDesign):
    """`AdaLNZero` with one linear layer for all blocks, and 6 w numbers in each (PixArt-alpha, Chen et al. 2023).

    For D blocks of width w these are 6 w^2 + 6 w + 6 w D weights instead of D (6 w^2 + 6 w). In the original the layer
    sees the noise level alone, and text is attended to; here conditions that are vectors are added to it, as in a DiT.
    """

    def block(self, settings: BlockSettings) -> DiTBlock:
        """See `AdaLNSingleBlock`."""
        return AdaLNSingleBlock(settings)

    def shared(self, width: int) -> nn.Module:
        """W and b of `AdaLNSingleBlock`."""
        return nn.Linear(width, 6 * width)


@dataclass(frozen=True)
class InContext(BlockDesign):
    """Noise level and conditions as further tokens beside the patches (Peebles & Xie 2023, section 3.2)."""

    embedding = NoiseTokens
    adaptive = False
    appends = True

    def block(self, settings: BlockSettings) -> DiTBlock:
        """See `PlainBlock`."""
        return PlainBlock(settings)


@dataclass(frozen=True)
class CrossAttended(BlockDesign):
    """Noise level and conditions as a sequence to which the patches attend (Peebles & Xie 2023, section 3.2)."""

    embedding = NoiseTokens
    adaptive = False

    def block(self, settings: BlockSettings) -> DiTBlock:
        """See `CrossAttendedBlock`."""
        return CrossAttendedBlock(settings)
