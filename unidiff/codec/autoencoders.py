"""Configurations of autoencoders. The networks are those of diffusers, built when training begins.

They are made for images; for signals and volumes their convolutions are changed (`unidiff.codec.ranks`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from unidiff.arguments import PlainArguments
from unidiff.codec.codec import Autoencoder
from unidiff.codec.objective import CodecObjective, Commitment, Reconstruction, Variational
from unidiff.codec.ranks import RANKS, at_rank
from unidiff.errors import is_whole, require, require_whole
from unidiff.pretrained import import_diffusers

__all__ = ["AutoencoderConfig", "AutoencoderDC", "AutoencoderKL", "AutoencoderTiny", "VQModel"]

_GROUPS = 8  # of group normalization
_LEVELS, _WIDEST = 8, 65536  # at most


@dataclass(frozen=True)
class AutoencoderConfig(PlainArguments, ABC):
    """An autoencoder architecture and its sizes.

    Args:
        latent_channels: Channels of a latent.

    Attributes:
        objective: The default training objective.
    """

    objective: ClassVar[CodecObjective] = Reconstruction()

    @abstractmethod
    def network(self, channels: int) -> Any:
        """A diffusers model with fresh weights, for images with this number of channels."""

    def build(self, channels: int, rank: int = 2) -> Autoencoder:
        """An autoencoder with fresh weights and scale 1.

        Args:
            channels: Channels of the samples.
            rank: Their other axes: 1 for signals, 2 for images, 3 for volumes.

        Raises:
            ParameterError: If there is no such architecture for signals or volumes.
        """
        require(rank in RANKS, "rank", rank, "1 (signals), 2 (images) or 3 (volumes)")
        codec = Autoencoder(at_rank(self.network(channels), rank))
        codec.set_scale(1.0)
        return codec

    def sketch(self, channels: int, rank: int = 2) -> Autoencoder:
        """The autoencoder on the meta device, without weights: for shapes and sizes."""
        with torch.device("meta"):
            return self.build(channels, rank)


@dataclass(frozen=True)
class _Multilevel(AutoencoderConfig):
    """Residual blocks at several resolutions.

    Args:
        channels: Channels of each level, the finest first; each level after the first halves height and width. All are
            multiples of 8, the groups of the normalization.
        blocks: Residual blocks per level of the encoder; the decoder of AutoencoderKL and VQModel has one more.
        attention: Self-attention at the coarsest level (AutoencoderKL and VQModel).
    """

    latent_channels: int = 4
    channels: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1

    def __post_init__(self) -> None:
        _require_sizes(self, latent_channels=1024, blocks=100)
        widths = self.channels
        valid = isinstance(widths, (tuple, list)) and len(widths) > 0 and all(map(is_whole, widths))
        valid = valid and len(widths) <= _LEVELS and max(widths) <= _WIDEST and math.gcd(_GROUPS, *widths) == _GROUPS
        allowed = f"from 1 to {_LEVELS} multiples of {_GROUPS}, each at most {_WIDEST}"
        require(valid, "channels", widths, allowed)

    def _arguments(self, channels: int) -> dict[str, Any]:
        """Arguments that diffusers' AutoencoderKL and VQModel share."""
        levels = len(self.channels)
        return {
            "in_channels": channels,
            "out_channels": channels,
            "latent_channels": self.latent_channels,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": self.channels,
            "layers_per_block": self.blocks,
            "norm_num_groups": _GROUPS,
        }


@dataclass(frozen=True)
class AutoencoderKL(_Multilevel):
    """A variational autoencoder whose latents are small maps (Kingma & Welling 2014; Rombach et al. 2022, appendix G).

    It is trained with `Variational` by default.
    """

    attention: bool = False

    objective: ClassVar[CodecObjective] = Variational()

    def network(self, channels: int) -> Any:
        """See `AutoencoderConfig.network`."""
        arguments = self._arguments(channels)
        return import_diffusers().AutoencoderKL(**arguments, mid_block_add_attention=self.attention)


@dataclass(frozen=True)
class VQModel(_Multilevel):
    """An autoencoder whose decoder reads entries of a learned codebook (van den Oord et al. 2017).

    Latents are continuous: quantization to the nearest entries is the first step of decoding. It is trained with
    `Commitment` by default.

    Args:
        codes: Entries of the codebook.
    """

    codes: int = 256
    attention: bool = False

    objective: ClassVar[CodecObjective] = Commitment()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("codes", self.codes, 2, 1_000_000)

    def network(self, channels: int) -> Any:
        """See `AutoencoderConfig.network`."""
        arguments = {**self._arguments(channels), "num_vq_embeddings": self.codes}
        return import_diffusers().VQModel(**arguments, mid_block_add_attention=self.attention)


@dataclass(frozen=True)
class AutoencoderDC(_Multilevel):
    """The deep compression autoencoder, whose shortcuts fold pixels into channels (Chen et al. 2025). Deterministic."""

    latent_channels: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = self.channels[-1] % self.latent_channels == 0
        require(
            divides, "latent_channels", self.latent_channels, f"a divisor of {self.channels[-1]}, the last of channels"
        )

    def network(self, channels: int) -> Any:
        """See `AutoencoderConfig.network`."""
        levels = len(self.channels)
        side = {
            "block_out_channels": self.channels,
            "layers_per_block": (self.blocks,) * levels,
            "qkv_multiscales": ((),) * levels,
        }
        both = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in side.items()}
        return import_diffusers().AutoencoderDC(in_channels=channels, latent_channels=self.latent_channels, **both)


@dataclass(frozen=True)
class AutoencoderTiny(AutoencoderConfig):
    """Convolutions without normalization: the smallest and fastest architecture. Deterministic.

    Args:
        width: Channels of every level.
        levels: Resolutions; each after the first halves height and width.
        blocks: Residual blocks per level.
    """

    latent_channels: int = 4
    width: int = 32
    levels: int = 3
    blocks: int = 1

    def __post_init__(self) -> None:
        _require_sizes(self, latent_channels=1024, width=4096, levels=8, blocks=100)

    def network(self, channels: int) -> Any:
        """See `AutoencoderConfig.network`."""
        widths, blocks = (self.width,) * self.levels, (self.blocks,) * self.levels
        return import_diffusers().AutoencoderTiny(
            in_channels=channels,
            out_channels=channels,
            latent_channels=self.latent_channels,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
        )


def _require_sizes(config: AutoencoderConfig, **largest: int) -> None:
    for name, most in largest.items():
        require_whole(name, getattr(config, name), 1, most)
