"""The autoencoder: images to latents of about unit variance, and back (Rombach et al. 2022, section 3.1)."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments, plain_arguments
from unidiff.codec.ranks import RANK, RANKS, posterior
from unidiff.errors import DataError, ParameterError, is_whole, require
from unidiff.files import whole_files
from unidiff.memory import enough_memory
from unidiff.tensors import check_floats

__all__ = ["FAMILIES", "Autoencoder", "AutoencoderOutput", "CodecInTraining", "Layout", "at_least_float32"]

# Class of diffusers -> the key of its configuration that lists the widths, one for each resolution.
FAMILIES = {
    "AutoencoderKL": "block_out_channels",
    "VQModel": "block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
}
_PIXELS = 2**18  # per batch: 256 images of 32x32, or one of 512x512
# Latent positions along an axis, by rank: larger latents are decoded in tiles. Neighbours overlap by three edges: the
# border of a tile, which lacks the context beyond it, is dropped; then comes the blend, then the neighbour's border.
_TILES, _EDGE = {1: 4096, 2: 64, 3: 32}, 8


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
        rank: Axes after the channels: 2 for images, 1 for signals, 3 for volumes.
    """

    family: str
    channels: int
    latent_channels: int
    factor: int
    scale: float
    shift: float
    rank: int = 2

    @classmethod
    def of(cls, family: object, config: Mapping[str, Any], where: str) -> Layout:
        """Read the configuration of a diffusers class; `where` names its source in messages.

        Raises a DataError if the class is not a supported autoencoder, or the configuration is incomplete.
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
                _rank(config.get(RANK, 2)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:  # the last for an infinity
            problem = f"missing or invalid entry in its configuration: {error}"
            raise DataError(f"{where}: {problem}. Save the model again with `save_pretrained`.") from error

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the latent of a sample; an image codec also takes the frames of a video, or slices of a volume.

        Raises:
            ParameterError: If it does not fit the network.
        """
        shape, sizes = tuple(shape), tuple(shape)[-self.rank :]
        problem = None
        if len(shape) not in (self.rank + 1, 4 if self.rank == 2 else 0) or shape[0] != self.channels:
            problem = f"takes {RANKS[self.rank]} with {self.channels} channel(s); the data have shape {shape}"
        elif any(size % self.factor for size in sizes):
            problem = f"needs sizes divisible by {self.factor}; the data are {'x'.join(map(str, sizes))}"
        if problem:
            raise ParameterError("codec", f"this {self.family} {problem}.")
        return (self.latent_channels, *shape[1 : -self.rank], *(size // self.factor for size in sizes))


class AutoencoderOutput(NamedTuple):
    """Reconstructions and latent penalties, as a training loss needs them.

    Attributes:
        x: Reconstructions, (B, C, H, W).
        nats: Divergence of each posterior from the standard normal distribution, (B,); 0 without a posterior.
        commitment: Commitment loss of the network, (B,): the mean over the batch, the same for each sample; 0 without
            a codebook.
    """

    x: Tensor
    nats: Tensor
    commitment: Tensor


class Autoencoder(PlainArguments, nn.Module):
    """An autoencoder of diffusers with the scale of its latents: z = (h - shift) * scale.

    h is the mean of the posterior (AutoencoderKL), the vector to be quantized on decoding (VQModel), or the encoder's
    output. The scale is the model's own `scaling_factor`, so that a pipeline of diffusers carries it.

    Args:
        model: An AutoencoderKL, VQModel, AutoencoderDC or AutoencoderTiny.

    Raises:
        DataError: If the model is none of these.
    """

    classes = None  # it is not conditioned on a class

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        _ = self.layout

    @property
    def layout(self) -> Layout:
        """Shapes and scale."""
        return Layout.of(type(self.model).__name__, getattr(self.model, "config", {}), "this model")

    def set_scale(self, scale: float) -> None:
        """Write the scale into the model's configuration."""
        self.model.register_to_config(scaling_factor=float(scale))

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load_codec` and diffusers read; existing files are replaced atomically, others kept."""
        with whole_files(folder, "config.json") as partial:
            self.model.save_pretrained(partial, safe_serialization=True)

    @property
    def backbone(self) -> Autoencoder:
        """Itself: all of it is trained."""
        return self

    def with_backbone(self, backbone: nn.Module) -> Autoencoder:
        """The backbone, which may be wrapped for several processes."""
        return cast(Autoencoder, backbone)

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights, to which images and latents are cast."""
        return next(self.model.parameters()).dtype

    @plain_arguments
    @enough_memory("Pass fewer or smaller images, or latents, at once.")
    def encode(self, x: Tensor) -> Tensor:
        """Latents, (B, c, h, w), of images in [-1, 1], (B, C, H, W); of signals and volumes by a codec made for them.

        They have about unit variance over the data on which the scale was measured. By a codec of images a video,
        (B, C, D, H, W), is encoded frame by frame, a volume slice by slice: (B, c, D, h, w).

        Raises:
            ParameterError: If the images do not fit the network.
        """
        layout = self.layout
        layout.latent_shape(x.shape[1:])
        check_floats("x", x, ("B", layout.channels, "*sizes"), True, finite=False)
        if x.ndim > layout.rank + 2:
            return _frame_by_frame(self.encode, x)
        batches = x.to(self.dtype).split(_batch_size(math.prod(x.shape[2:])))
        h = torch.cat([self._raw(batch) for batch in batches])
        return (h - layout.shift) * layout.scale

    @plain_arguments
    @enough_memory("Pass fewer or smaller images, or latents, at once.")
    def decode(self, z: Tensor) -> Tensor:
        """Images, (B, C, H, W), about in [-1, 1], of latents, (B, c, h, w), in batches; the inverse of `encode`.

        Latents longer than 64 positions (of signals 4096, of volumes 32) are decoded in tiles that are blended where
        they overlap. This is exact for a
        decoder without normalization whose receptive field is at most 8 positions to each side. Normalization layers
        see one tile at a time, so other decoders differ slightly.
        """
        layout = self.layout
        fits = z.ndim in (layout.rank + 2, 5 if layout.rank == 2 else 0) and z.shape[1] == layout.latent_channels
        check_floats("z", z, ("B", layout.latent_channels, "*sizes"), fits, finite=False)
        if z.ndim > layout.rank + 2:
            return _frame_by_frame(self.decode, z)
        h = z.to(self.dtype) / layout.scale + layout.shift
        if max(h.shape[2:]) > _TILES[layout.rank]:
            return torch.cat([self._tiled(one, layout.factor) for one in h.split(1)])
        pixels = math.prod(h.shape[2:]) * layout.factor**layout.rank
        return torch.cat([self._decoded(batch)[0] for batch in h.split(_batch_size(pixels))])

    def forward(self, x: Tensor, eps: Tensor) -> AutoencoderOutput:
        """Encode and decode, as in training.

        Args:
            x: Images in [-1, 1], (B, C, H, W).
            eps: Standard normal noise of the shape of the latents, (B, c, h, w); not used without a posterior.
        """
        zeros = x.new_zeros(len(x))
        if self.layout.family != "AutoencoderKL":
            y, commitment = self._decoded(self._raw(x))
            loss = zeros if commitment is None else at_least_float32(commitment).expand(len(x))
            return AutoencoderOutput(y, zeros, loss)
        q = posterior(self.model, x)
        y, _ = self._decoded(q.mean + q.std * eps)
        # Kingma & Welling 2014, appendix B: KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2, summed.
        mean, log_variance = at_least_float32(q.mean), at_least_float32(q.logvar)
        nats = 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance).flatten(1).sum(1)
        return AutoencoderOutput(y, nats, zeros)

    def _raw(self, x: Tensor) -> Tensor:
        """The unscaled latents h of images."""
        match self.layout.family:
            case "AutoencoderKL":
                h: Tensor = posterior(self.model, x).mean
            case "AutoencoderDC":
                h = self.model.encode(x).latent
            case _:
                h = self.model.encode(x).latents
        return h

    def _decoded(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """The images, and the commitment loss of a codebook."""
        output = self.model.decode(h)
        return output.sample, getattr(output, "commit_loss", None)

    def _tiled(self, h: Tensor, factor: int) -> Tensor:
        """The image of one large latent, (1, c, h, w), from tiles whose weights add up to 1."""
        side, sizes = _TILES[h.ndim - 2], h.shape[2:]
        total = h.new_zeros(1, self.layout.channels, *(size * factor for size in sizes))
        for tiles in itertools.product(*(_tiles(size, factor, side) for size in sizes)):
            there: Any = (..., *(slice(start, start + side) for start, _ in tiles))
            tile, _ = self._decoded(h[there])
            weight = tiles[0][1]
            for _, along in tiles[1:]:
                weight = weight[..., None] * along
            sides = zip(tiles, tile.shape[2:])
            here: Any = (..., *(slice(start * factor, start * factor + n) for (start, _), n in sides))
            total[here] += weight.to(tile) * tile
        return total


def CodecInTraining(codec: Autoencoder, noise_shape: tuple[int, ...]) -> Autoencoder:
    """The codec itself: `unidiff.train` takes it as it is. Kept for one release."""
    warnings.warn("CodecInTraining is not needed any more: pass the codec to unidiff.train.", DeprecationWarning, 2)
    return codec


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is: half precision is too coarse for sums of thousands of terms."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _frame_by_frame(of_images: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of images, (B, C, H, W), applied to each frame of videos, (B, C, D, H, W)."""
    return of_images(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


def _rank(value: object) -> int:
    require(is_whole(value, 1, 3), RANK, value, "1, 2 or 3")
    return int(cast(int, value))


def _batch_size(pixels: int) -> int:
    return max(1, _PIXELS // pixels)


def _tiles(extent: int, factor: int, side: int = 64) -> list[tuple[int, Tensor]]:
    """Where tiles begin along an axis, in latent positions, and the weights of their pixels, which add up to 1."""
    count = max(1, math.ceil((extent - 3 * _EDGE) / (side - 3 * _EDGE)))
    starts = [round(i * (extent - side) / max(1, count - 1)) for i in range(count)]
    rises = [torch.ones(extent * factor, dtype=torch.float64)]
    for before, start in pairwise(starts):  # the blend lies in the middle of the overlap
        middle = (before + side + start) / 2 * factor
        at = torch.arange(extent * factor, dtype=torch.float64) + 0.5 - middle
        rises.append((at / (_EDGE * factor) + 0.5).clamp(0, 1))
    rises.append(torch.zeros(extent * factor, dtype=torch.float64))
    tiles = zip(starts, pairwise(rises))
    return [(start, (up - over)[start * factor : (start + side) * factor]) for start, (up, over) in tiles]
