"""Configurations of autoencoders. The networks are those of diffusers, built when training begins."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from unidiff.codec.codec import Autoencoder
from unidiff.codec.objective import CodecObjective, Commitment, Reconstruction, Variational
from unidiff.errors import is_whole, require, require_whole
from unidiff.pretrained import import_diffusers

__all__ = ["AutoencoderConfig", "AutoencoderDC", "AutoencoderKL", "AutoencoderTiny", "VQModel"]


@dataclass(frozen=True)
class AutoencoderConfig(ABC):
    """An autoencoder architecture and its sizes."""

    @abstractmethod
    def network(self, channels: int) -> Any:
        """A diffusers model with fresh weights, for images with this number of channels."""

    @property
    def objective(self) -> CodecObjective:
        """The default training objective."""
        return Reconstruction()

    def build(self, channels: int) -> Autoencoder:
        """An autoencoder with fresh weights and scale 1, for images with this number of channels."""
        codec = Autoencoder(self.network(channels))
        codec.set_scale(1.0)
        return codec

    def sketch(self, channels: int) -> Autoencoder:
        """The autoencoder on the meta device, without weights: for shapes and sizes."""
        with torch.device("meta"):
            return self.build(channels)


@dataclass(frozen=True)
class _Multilevel(AutoencoderConfig):
    """Residual blocks at several resolutions.

    Args:
        latent_channels: Channels of a latent.
        channels: Channels of each level, the finest first; each level after the first halves height and width. All are
            multiples of 8, the groups of the normalization.
        blocks: Residual blocks per level of the encoder; the decoder of AutoencoderKL and VQModel has one more.
    """

    latent_channels: int = 4
    channels: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1

    def __post_init__(self) -> None:
        _require_sizes(self, latent_channels=1024, blocks=100)
        widths = self.channels
        fits = isinstance(widths, (tuple, list)) and len(widths) > 0 and all(map(is_whole, widths))
        fits = fits and math.gcd(_GROUPS, *widths) == _GROUPS
        require(fits, "channels", widths, f"one or more multiples of {_GROUPS}")


@dataclass(frozen=True)
class AutoencoderKL(_Multilevel):
    """A variational autoencoder whose latents are small maps (Kingma & Welling 2014; Rombach et al. 2022, appendix G).

    Args:
        attention: Self-attention at the coarsest level.
    """

    attention: bool = False

    @property
    def objective(self) -> CodecObjective:
        """Reconstruction and divergence from the standard normal distribution."""
        return Variational()

    def network(self, channels: int) -> Any:
        """See `AutoencoderConfig.network`."""
        return import_diffusers().AutoencoderKL(
            **_convolutional(channels, self.channels, self.blocks),
            latent_channels=self.latent_channels,
            mid_block_add_attention=self.attention,
        )


@dataclass(frozen=True)
class VQModel(_Multilevel):
    """An autoencoder whose decoder reads entries of a learned codebook (van den Oord et al. 2017).

    Latents are continuous: quantization to the nearest entries is the first step of decoding.

    Args:
        codes: Entries of the codebook.
        attention: Self-attention at the coarsest level.
    """

    codes: int = 256
    attention: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("codes", self.codes, 2, 1_000_000)

    @property
    def objective(self) -> CodecObjective:
        """Reconstruction and distance from the codebook."""
        return Commitment()

    def network(self, channels: int) -> Any:
        """See `AutoencoderConfig.network`."""
        return import_diffusers().VQModel(
            **_convolutional(channels, self.channels, self.blocks),
            latent_channels=self.latent_channels,
            num_vq_embeddings=self.codes,
            mid_block_add_attention=self.attention,
        )


@dataclass(frozen=True)
class AutoencoderDC(_Multilevel):
    """The deep compression autoencoder, whose shortcuts fold pixels into channels (Chen et al. 2025). Deterministic."""

    latent_channels: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.channels[-1] % self.latent_channels == 0
        require(fits, "latent_channels", self.latent_channels, f"a divisor of the last channels, {self.channels[-1]}")

    def network(self, channels: int) -> Any:
        """See `AutoencoderConfig.network`."""
        levels = len(self.channels)
        sides = {
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in (
                ("block_out_channels", self.channels),
                ("layers_per_block", (self.blocks,) * levels),
                ("qkv_multiscales", ((),) * levels),
            )
        }
        return import_diffusers().AutoencoderDC(in_channels=channels, latent_channels=self.latent_channels, **sides)


@dataclass(frozen=True)
class AutoencoderTiny(AutoencoderConfig):
    """Convolutions without normalization: the smallest and fastest architecture. Deterministic.

    Args:
        latent_channels: Channels of a latent.
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


_GROUPS = 8


def _require_sizes(config: AutoencoderConfig, **largest: int) -> None:
    for name, most in largest.items():
        require_whole(name, getattr(config, name), 1, most)


def _convolutional(channels: int, widths: tuple[int, ...], blocks: int) -> dict[str, Any]:
    """Arguments that diffusers' AutoencoderKL and VQModel share."""
    return {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "norm_num_groups": _GROUPS,
    }
