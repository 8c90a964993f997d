"""Which codec to train: arguments only. The networks are diffusers', built when training begins."""

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
    """A kind of codec, with the sizes of its network."""

    @abstractmethod
    def network(self, channels: int) -> Any:
        """A model of diffusers with fresh weights, for pictures of so many channels."""

    @property
    def objective(self) -> CodecObjective:
        """What it is trained with if nothing else is asked for."""
        return Reconstruction()

    def build(self, channels: int) -> Autoencoder:
        """A codec with fresh weights and scale 1, for pictures of so many channels."""
        codec = Autoencoder(self.network(channels))
        codec.set_scale(1.0)
        return codec

    def sketch(self, channels: int) -> Autoencoder:
        """The codec without weights, to be asked for shapes and sizes."""
        with torch.device("meta"):
            return self.build(channels)


@dataclass(frozen=True)
class AutoencoderKL(AutoencoderConfig):
    """A variational autoencoder whose latents are small maps (Kingma & Welling 2014; Rombach et al. 2022, appendix G).

    Args:
        latent_channels: Channels of a latent.
        channels: Channels of each level, the finest first; each level after the first halves height and width. All are
            multiples of 8, the groups of the normalisation.
        blocks: Residual blocks a level of the encoder; the decoder has one more.
        attention: Self-attention at the coarsest level.
    """

    latent_channels: int = 4
    channels: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1
    attention: bool = False

    def __post_init__(self) -> None:
        _check(self.latent_channels, self.channels, self.blocks)

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
class VQModel(AutoencoderConfig):
    """An autoencoder whose decoder reads entries of a learned codebook (van den Oord et al. 2017).

    Latents are what is looked up: a diffusion model draws them before the nearest entries are taken.

    Args:
        latent_channels: Channels of a latent.
        channels: As for AutoencoderKL.
        blocks: As for AutoencoderKL.
        codes: Entries of the codebook.
        attention: As for AutoencoderKL.
    """

    latent_channels: int = 4
    channels: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1
    codes: int = 256
    attention: bool = False

    def __post_init__(self) -> None:
        _check(self.latent_channels, self.channels, self.blocks)
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
class AutoencoderDC(AutoencoderConfig):
    """The deep compression autoencoder, whose shortcuts fold pixels into channels (Chen et al. 2025). No posterior.

    Args:
        latent_channels: Channels of a latent.
        channels: Channels of each level, the finest first; each level after the first halves height and width.
        blocks: Residual blocks a level.
    """

    latent_channels: int = 8
    channels: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1

    def __post_init__(self) -> None:
        _check(self.latent_channels, self.channels, self.blocks)
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
    """Convolutions without normalisation, as small and fast as a codec can be. No posterior.

    Args:
        latent_channels: Channels of a latent.
        width: Channels of every level.
        levels: Resolutions; each after the first halves height and width.
        blocks: Residual blocks a level.
    """

    latent_channels: int = 4
    width: int = 32
    levels: int = 3
    blocks: int = 1

    def __post_init__(self) -> None:
        require_whole("latent_channels", self.latent_channels, 1, 1024)
        require_whole("width", self.width, 1, 4096)
        require_whole("levels", self.levels, 1, 8)
        require_whole("blocks", self.blocks, 1, 100)

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


def _check(latent_channels: int, channels: tuple[int, ...], blocks: int) -> None:
    require_whole("latent_channels", latent_channels, 1, 1024)
    require_whole("blocks", blocks, 1, 100)
    several = isinstance(channels, (tuple, list)) and len(channels) > 0 and all(is_whole(n) for n in channels)
    allowed = f"one or more multiples of {_GROUPS}"
    require(several and math.gcd(_GROUPS, *channels) == _GROUPS, "channels", channels, allowed)


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
