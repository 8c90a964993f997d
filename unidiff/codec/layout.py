"""Shapes and scale of an autoencoder, read from its configuration without weights and without importing diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unidiff.errors import DataError, ParameterError

__all__ = ["FAMILIES", "Layout"]

# Class of diffusers -> the key of its configuration that lists the widths, one for each resolution.
FAMILIES = {
    "AutoencoderKL": "block_out_channels",
    "VQModel": "block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
}


@dataclass(frozen=True)
class Layout:
    """Shapes and scale of an autoencoder.

    Attributes:
        family: Name of the diffusers class.
        channels: Channels of an image.
        latent_channels: Channels of a latent.
        factor: Pixels per latent position in each direction.
        scale: Latents are (h - shift) * scale, where h is the network's output.
        shift: See `scale`; 0 for most.
    """

    family: str
    channels: int
    latent_channels: int
    factor: int
    scale: float
    shift: float

    @classmethod
    def of(cls, family: object, config: Mapping[str, Any], where: str) -> Layout:
        """Read the configuration of a diffusers class; `where` names its source in messages.

        Raises:
            DataError: If the class is not a supported autoencoder, or the configuration is incomplete.
        """
        if not isinstance(family, str) or family not in FAMILIES:
            raise DataError(f"{where} is of type {family}; supported are {', '.join(FAMILIES)}.")
        try:
            latent = config.get("vq_embed_dim") if family == "VQModel" else None  # absent in configs of 2022
            scale, shift = config.get("scaling_factor"), config.get("shift_factor")
            return cls(
                family,
                int(config["in_channels"]),
                int(latent or config["latent_channels"]),
                2 ** (len(config[FAMILIES[family]]) - 1),
                1.0 if scale is None else float(scale),
                0.0 if shift is None else float(shift),
            )
        except (KeyError, TypeError, ValueError) as error:
            problem = f"missing or invalid entry in its configuration: {error}"
            raise DataError(f"{where}: {problem}. Save the model again with `save_pretrained`.") from error

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the latent of an image of shape (C, H, W).

        Raises:
            ParameterError: If such images do not fit the network.
        """
        shape = tuple(shape)
        problem = None
        if len(shape) != 3 or shape[0] != self.channels:
            problem = f"takes images with {self.channels} channel(s); the data have shape {shape}"
        elif shape[1] % self.factor or shape[2] % self.factor:
            problem = f"needs sizes divisible by {self.factor}; the data are {shape[1]}x{shape[2]}"
        if problem:
            raise ParameterError("codec", f"this {self.family} {problem}.")
        return (self.latent_channels, shape[1] // self.factor, shape[2] // self.factor)
