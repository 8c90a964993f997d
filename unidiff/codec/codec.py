"""The codec: pictures to latents of about unit variance, and back (Rombach et al. 2022, section 3.1)."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unidiff.codec.layout import Layout

__all__ = ["Autoencoder", "AutoencoderOutput", "CodecInTraining", "at_least_float32"]

_PIXELS = 2**18  # worked on at once: 256 pictures of 32x32, or one of 512x512
# Latent positions: larger latents are decoded in tiles. Neighbours share three edges: the border of a tile, which
# misses what lies beyond, is dropped, then comes the blend, then the neighbour's border.
_TILE, _EDGE = 64, 8


class AutoencoderOutput(NamedTuple):
    """What training sees of a codec.

    Attributes:
        x: Reconstructions, (B, C, H, W).
        nats: Divergence of each posterior from the standard normal distribution, (B,); 0 for a codec without one.
        commitment: Distance of latents and codebook as the network reckons it, (B,): the mean over the batch, the same
            for each sample; 0 for a codec without a codebook.
    """

    x: Tensor
    nats: Tensor
    commitment: Tensor


class Autoencoder(nn.Module):
    """An autoencoder of diffusers with the scale of its latents: z = (h - shift) * scale.

    h is the mean of the posterior (AutoencoderKL), what is looked up in the codebook on decoding (VQModel), or the
    encoder's answer. The scale is the model's own `scaling_factor`, so that a pipeline of diffusers carries it.

    Args:
        model: An AutoencoderKL, VQModel, AutoencoderDC or AutoencoderTiny.

    Raises:
        DataError: If the model is none of these.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        _ = Layout.of(type(model).__name__, getattr(model, "config", {}), "this model")
        self.model = model

    @property
    def layout(self) -> Layout:
        """Shapes and scale."""
        config: Any = self.model.config
        return Layout.of(type(self.model).__name__, config, "this model")

    def set_scale(self, scale: float) -> None:
        """Write the scale into the model's configuration."""
        model: Any = self.model
        model.register_to_config(scaling_factor=float(scale))

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load_codec` and diffusers read; files of a codec that is there are replaced, each whole.

        Nothing else in the folder is touched.

        Raises:
            OSError: If it cannot be written.
        """
        folder = Path(folder).absolute()
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        model: Any = self.model
        try:
            partial.mkdir(parents=True)
            model.save_pretrained(partial, safe_serialization=True)
            folder.mkdir(exist_ok=True)
            for path in sorted(partial.iterdir(), key=lambda path: path.suffix == ".json"):  # what makes it one last
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @property
    def backbone(self) -> Autoencoder:
        """Itself: all of it is trained."""
        return self

    @property
    def classes(self) -> None:
        """None: it is not conditioned on a class."""
        return

    def with_backbone(self, backbone: nn.Module) -> Autoencoder:
        """Another one, perhaps wrapped for several processes."""
        return cast(Autoencoder, backbone)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights, which pictures and latents are brought to."""
        return next(self.model.parameters()).dtype

    def encode(self, x: Tensor) -> Tensor:
        """Latents of pictures.

        Args:
            x: Pictures in [-1, 1], (B, C, H, W).

        Returns:
            Latents, (B, c, h, w); of about unit variance over the data that the scale was measured on.

        Raises:
            ParameterError: If the codec cannot take such pictures.
        """
        layout = self.layout
        layout.latent_shape(x.shape[1:])
        parts = x.to(self.dtype).split(_together(x.shape[2] * x.shape[3]))
        h = torch.cat([self._raw(part) for part in parts])
        return (h - layout.shift) * layout.scale

    def decode(self, z: Tensor) -> Tensor:
        """Pictures of latents, a few at a time; those beyond 64 positions in tiles that are blended where they overlap.

        A decoder without normalisation that looks no further than 8 positions gives the numbers that it would give for
        the whole. Normalisation layers see one tile at a time, so that others differ a little.

        Args:
            z: Latents, (B, c, h, w).

        Returns:
            Pictures, (B, C, H, W), about in [-1, 1].
        """
        layout = self.layout
        h = z.to(self.dtype) / layout.scale + layout.shift
        if max(h.shape[2:]) > _TILE:
            return torch.cat([self._tiled(one, layout.factor) for one in h.split(1)])
        pixels = h.shape[2] * h.shape[3] * layout.factor**2
        return torch.cat([self._picture(part)[0] for part in h.split(_together(pixels))])

    def forward(self, x: Tensor, eps: Tensor) -> AutoencoderOutput:
        """Encode and decode, as in training.

        Args:
            x: Pictures in [-1, 1], (B, C, H, W).
            eps: Standard normal noise of the shape of the latents, (B, c, h, w); a codec without posterior ignores it.
        """
        model: Any = self.model
        nothing = x.new_zeros(len(x))
        if self.layout.family != "AutoencoderKL":
            y, commitment = self._picture(self._raw(x))
            return AutoencoderOutput(
                y, nothing, nothing if commitment is None else at_least_float32(commitment).expand(len(x))
            )
        posterior = model.encode(x).latent_dist
        y, _ = self._picture(posterior.mean + posterior.std * eps)
        # Kingma & Welling 2014, appendix B: KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2, summed.
        mean, log_variance = at_least_float32(posterior.mean), at_least_float32(posterior.logvar)
        nats = 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance).flatten(1).sum(1)
        return AutoencoderOutput(y, nats, nothing)

    def _raw(self, x: Tensor) -> Tensor:
        model: Any = self.model
        answer = model.encode(x)
        match self.layout.family:
            case "AutoencoderKL":
                h = answer.latent_dist.mean
            case "AutoencoderDC":
                h = answer.latent
            case _:
                h = answer.latents
        found: Tensor = h
        return found

    def _picture(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """The picture, and what a codebook has to say."""
        model: Any = self.model
        answer = model.decode(h)
        return answer.sample, getattr(answer, "commit_loss", None)

    def _tiled(self, h: Tensor, factor: int) -> Tensor:
        """The picture of one large latent, (1, c, h, w), from tiles whose weights add up to 1."""
        height, width = h.shape[2] * factor, h.shape[3] * factor
        total = h.new_zeros(1, self.layout.channels, height, width)
        for top, down in _tiles(h.shape[2], factor):
            for left, across in _tiles(h.shape[3], factor):
                part, _ = self._picture(h[:, :, top : top + _TILE, left : left + _TILE])
                place = total[:, :, top * factor :, left * factor :][:, :, : part.shape[2], : part.shape[3]]
                place += (down[:, None] * across).to(part) * part
        return total


def CodecInTraining(codec: Autoencoder, noise_shape: tuple[int, ...]) -> Autoencoder:
    """The codec itself: `unidiff.train` takes it as it is. Kept for one release."""
    warnings.warn("CodecInTraining is not needed any more: pass the codec to unidiff.train.", DeprecationWarning, 2)
    return codec


def at_least_float32(x: Tensor) -> Tensor:
    """The numbers in float32, or in float64 if they are: sums of thousands of terms are not for half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _together(pixels: int) -> int:
    return max(1, _PIXELS // pixels)


def _tiles(extent: int, factor: int) -> list[tuple[int, Tensor]]:
    """Where tiles begin along an axis, in latent positions, and the weights of their pixels, which add up to 1."""
    count = max(1, math.ceil((extent - 3 * _EDGE) / (_TILE - 3 * _EDGE)))
    starts = [round(i * (extent - _TILE) / max(1, count - 1)) for i in range(count)]
    rises = [torch.ones(extent * factor, dtype=torch.float64)]
    for before, start in pairwise(starts):  # the blend lies in the middle of what two tiles share
        middle = (before + _TILE + start) / 2 * factor
        at = torch.arange(extent * factor, dtype=torch.float64) + 0.5 - middle
        rises.append((at / (_EDGE * factor) + 0.5).clamp(0, 1))
    rises.append(torch.zeros(extent * factor, dtype=torch.float64))
    tiles = zip(starts, pairwise(rises))
    return [(start, (up - over)[start * factor : (start + _TILE) * factor]) for start, (up, over) in tiles]
