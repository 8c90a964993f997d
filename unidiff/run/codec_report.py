"""What a trained codec is worth, and what its latents look like: measured, drawn, and the codec written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff import plot
from unidiff.codec.codec import Autoencoder
from unidiff.codec.folder import KEPT
from unidiff.codec.statistics import measure_latents
from unidiff.data.base import OpenDataset
from unidiff.run.coding import Coding
from unidiff.run.directory import RunDirectory

__all__ = ["report_codec", "save_reconstructions"]

_TESTED = 1000  # pictures of the test split
_BATCH = 100
_SHOWN = 16


def report_codec(recipe: Coding, files: RunDirectory, codec: Autoencoder, source: OpenDataset) -> dict[str, Any]:
    """Measure a trained codec, write it with its scale into the run directory, draw its reconstructions."""
    metrics = files.read_metrics()
    steps, losses = [line["step"] for line in metrics], [line["loss"] for line in metrics]
    plot.save_loss_curve(steps, losses, files.loss_curve, files.name)
    codec.eval()
    latents = measure_latents(codec, source, recipe.seed)
    codec.set_scale(latents.scale)
    codec.save(files.path / KEPT)
    test = recipe.data.open("test")
    found = _reconstruct(codec, test.batch(torch.arange(min(_TESTED, len(test)))), recipe.latent_shape)
    picture = files.samples / "reconstructions.png"
    caption = f"{files.name}: pictures of the test split, and below each its reconstruction. rms {found['rms']:.4f}."
    shown = test.batch(torch.arange(min(_SHOWN, len(test))))
    save_reconstructions(codec, shown, picture, f"{caption}\n{test.stand_in}" if test.stand_in else caption)
    return {
        "training_seconds": metrics[-1]["seconds"],
        "loss": losses[-1],
        "codec": str(files.path / KEPT),
        "reconstruction": found,
        "latents": {
            "shape": list(recipe.latent_shape),
            "scale": latents.scale,
            "mean": round(latents.mean, 4),
            "channel_mean": [round(value, 4) for value in latents.channel_mean],
            "channel_std": [round(value, 4) for value in latents.channel_std],
            "pictures": latents.pictures,
        },
        "samples": str(picture),
    }


@torch.no_grad()
def _reconstruct(codec: Autoencoder, x: Tensor, noise_shape: tuple[int, ...]) -> dict[str, Any]:
    """Error of decoded means, in units of [-1, 1] and as PSNR of the range 2, and nats that the posterior costs."""
    device = next(codec.parameters()).device
    square, nats = 0.0, 0.0
    for part in x.split(_BATCH):
        square += float((codec.decode(codec.encode(part.to(device))).cpu() - part).double().square().sum())
        nats += float(codec(part.to(device), torch.zeros(len(part), *noise_shape, device=device)).nats.double().sum())
    rms = math.sqrt(square / x.numel())
    psnr = 20 * math.log10(2 / rms) if rms > 0 else None
    return {
        "rms": round(rms, 5),
        "psnr_db": None if psnr is None else round(psnr, 2),
        "kl_nats": round(nats / len(x), 2),
        "pictures": len(x),
    }


@torch.no_grad()
def save_reconstructions(codec: Autoencoder, x: Tensor, path: Path, caption: str) -> None:
    """Draw pictures, (N, C, H, W), in rows of eight, each row above its reconstructions."""
    device = next(codec.parameters()).device
    y = codec.decode(codec.encode(x.to(device))).cpu()
    rows = [row for pair in zip(x.split(8), y.split(8)) for row in pair]
    plot.save_samples(torch.cat(rows), path, caption, columns=min(8, len(x)))
