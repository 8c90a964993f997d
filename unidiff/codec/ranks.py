"""Networks of diffusers, which are made for images, for signals (C, L) and volumes (C, D, H, W)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.errors import ParameterError

__all__ = ["RANK", "RANKS", "at_rank", "posterior"]

RANK = "unidiff_rank"  # the key of a configuration; absent for images
RANKS = {1: "signals", 2: "images", 3: "volumes"}
_FAMILIES = ("AutoencoderKL", "VQModel", "AutoencoderTiny")


def at_rank(network: Any, rank: int) -> Any:
    """The network of images changed to one of samples with `rank` axes after the channels, with fresh weights.

    A convolution has the same width, stride and padding along each axis, and attention and quantization see positions
    in any order; norms, activations and nearest enlargement are those of any rank. A network of images is unchanged.

    Raises:
        ParameterError: If the architecture has parts that only images have.
    """
    if rank == 2:
        return network
    if (family := type(network).__name__) not in _FAMILIES:
        problem = f"{family} is for images; for {RANKS[rank]} use {', '.join(_FAMILIES[:-1])} or {_FAMILIES[-1]}."
        raise ParameterError("codec", problem)
    for module in list(network.modules()):
        # diffusers pads images behind their ends where an encoder's convolution halves them
        behind = type(module).__name__ == "Downsample2D" and module.padding == 0
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(module, name, _convolution(child, rank, behind))
            elif type(child).__name__ in ("Attention", "VectorQuantizer"):
                setattr(module, name, _OfPositions(child))
        if behind:
            module.padding = 1  # which it only compares with 0
    network.register_to_config(**{RANK: rank})
    return network


def posterior(network: Any, x: Tensor) -> Any:
    """The posterior of an AutoencoderKL: its mean, std and logvar."""
    if x.ndim == 4:
        return network.encode(x).latent_dist
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    return DiagonalGaussianDistribution(network.quant_conv(network.encoder(x)))


def _convolution(of_images: nn.Conv2d, rank: int, behind: bool) -> nn.Module:
    """A convolution of another rank, with fresh weights."""
    kind = (_Signals if rank == 1 else _Volumes) if behind else (nn.Conv1d if rank == 1 else nn.Conv3d)
    convolution: nn.Module = kind(
        of_images.in_channels,
        of_images.out_channels,
        of_images.kernel_size[0],
        of_images.stride[0],
        of_images.padding[0],
        bias=of_images.bias is not None,
        device=of_images.weight.device,
        dtype=of_images.weight.dtype,
    )
    return convolution


class _Behind(nn.Module):
    """A convolution of samples that are first padded by one zero at the end of each axis."""

    ends: ClassVar[tuple[int, ...]]

    def forward(self, x: Tensor) -> Tensor:
        padded: Tensor = super().forward(F.pad(x, self.ends))
        return padded


class _Signals(_Behind, nn.Conv1d):
    ends = (0, 1)


class _Volumes(_Behind, nn.Conv3d):
    ends = (0, 1, 0, 1, 0, 1)


class _OfPositions(nn.Module):
    """A layer of images that takes their positions in any order, for samples of any rank."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, **options: Any) -> Any:
        y = self.layer(x.flatten(2)[:, :, None], **options)
        first, *others = y if isinstance(y, tuple) else (y,)
        first = first.reshape(x.shape)
        return (first, *others) if isinstance(y, tuple) else first
