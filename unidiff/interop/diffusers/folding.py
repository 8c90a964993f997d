"""A U-Net of patches in diffusers: a network of folded images, and a codec that unfolds them.

Patches of p x p pixels become p^2 channels (`pixel_unshuffle`). This permutes the pixels, so independent noise stays
independent noise, and a diffusion of folded images is that of the images. diffusers' U-Net cannot fold, but its
AutoencoderDC ends with `pixel_shuffle`, and the weights here reduce it to that: the identity is relu(z) - relu(-z)
across a ReLU, and beside z stands a constant so large that its RMS norm divides all samples by the same number.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from unidiff.backbone.unet import UNet
from unidiff.pretrained import import_diffusers

__all__ = ["FACTOR", "fold", "write_unfolding"]

FACTOR = 2  # pixels a side of the patches that AutoencoderDC's last layer unfolds
# The norm is n / sqrt(mean n^2 + 1e-5) over C' channels, a power of 4. With the constant 2^26 among them the root is
# 2^26 / sqrt(C'), exactly in float32 and to |z|^2 2^-53 in exact arithmetic, and a power of 2.
_LARGE = 2.0**26


def fold(network: UNet) -> UNet:
    """The same weights as a network of folded images, (C p^2, H / p, W / p); the network itself where p = 1."""
    if network.patch == 1:
        return network
    channels, *sides = network.shape
    folded = copy.copy(network)
    folded.shape = (channels * network.patch ** len(sides), *(side // network.patch for side in sides))
    folded.patch = 1
    return folded


def write_unfolding(folder: Path, channels: int) -> None:
    """Save the AutoencoderDC whose latents are images of so many channels, folded by patches of 2 x 2 pixels."""
    latent = channels * FACTOR**2
    hidden = 4
    while hidden < 2 * latent + 1:
        hidden *= 4
    codec = import_diffusers().AutoencoderDC(
        in_channels=channels,
        latent_channels=latent,
        encoder_layers_per_block=(0, 0),
        decoder_layers_per_block=(0, 0),
        encoder_block_out_channels=(latent, latent),
        decoder_block_out_channels=(hidden, hidden),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        decoder_in_shortcut=False,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        for weight in codec.parameters():
            weight.zero_()
        _centre(codec.encoder.conv_in.conv, torch.eye(channels))  # then pixel_unshuffle; its shortcut is the rest
        both = torch.zeros(hidden, latent)
        both[:latent], both[latent : 2 * latent] = torch.eye(latent), -torch.eye(latent)
        _centre(codec.decoder.conv_in, both)
        codec.decoder.conv_in.bias[-1] = _LARGE
        codec.decoder.norm_out.weight.fill_(_LARGE / hidden**0.5)
        _centre(codec.decoder.conv_out.conv, both.T)
    codec.save_pretrained(folder, safe_serialization=True)


def _centre(layer: nn.Conv2d, matrix: torch.Tensor) -> None:
    """Make a 3 x 3 convolution the product with a matrix, pixel by pixel."""
    layer.weight[:, :, 1, 1] = matrix
