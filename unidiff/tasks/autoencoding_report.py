"""What a trained codec is worth, and what its latents look like: measured, drawn, and the codec written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unidiff import plot
from unidiff.codec.codec import Autoencoder
from unidiff.codec.folder import KEPT
from unidiff.codec.statistics import measure_latents
from unidiff.run.execute import Session
from unidiff.run.records import Report

if TYPE_CHECKING:
    from unidiff.tasks.autoencoding import AutoencoderTask

__all__ = ["AutoencoderReport", "report_autoencoder", "save_reconstructions"]

_TESTED = 1000  # pictures of the test split
_BATCH = 100
_SHOWN = 16


@dataclass(frozen=True)
class Reconstruction:
    """Error of decoded means, in units of [-1, 1] and as PSNR of the range 2, and nats that the posterior costs."""

    rms: float
    psnr_db: float | None
    kl_nats: float
    pictures: int


@dataclass(frozen=True)
class Latents:
    """What latents look like: shape, the scale that gives them unit variance, moments in all and by channel."""

    shape: list[int]
    scale: float
    mean: float
    channel_mean: list[float]
    channel_std: list[float]
    pictures: int


@dataclass(frozen=True)
class AutoencoderReport(Report):
    """What a trained autoencoder is worth, and where it is."""

    codec: str
    reconstruction: Reconstruction
    latents: Latents
    samples: str

    def rows(self) -> dict[str, str | None]:
        """See `Report.rows`."""
        worth, latents = self.reconstruction, self.latents
        return {
            "codec": self.codec,
            "reconstruction": f"rms {worth.rms:.4f}, PSNR {worth.psnr_db} dB, KL {worth.kl_nats} nats",
            "latents": f"{tuple(latents.shape)}, mean {latents.mean}, std {latents.channel_std} by channel",
            "samples": self.samples,
            "scale": f"{latents.scale:.6f}",
        }


def report_autoencoder(task: AutoencoderTask, codec: Autoencoder, session: Session) -> AutoencoderReport:
    """Measure a trained codec, write it with its scale into the run directory, draw its reconstructions."""
    files = session.files
    seconds, loss = session.trained()
    codec.eval()
    latents = measure_latents(codec, session.source, task.seed)
    codec.set_scale(latents.scale)
    codec.save(files.path / KEPT)
    test = task.data.open("test")
    found = _reconstruct(codec, test.batch(torch.arange(min(_TESTED, len(test)))), task.latent_shape)
    picture = files.samples / "reconstructions.png"
    caption = f"{files.name}: pictures of the test split, and below each its reconstruction. rms {found.rms:.4f}."
    shown = test.batch(torch.arange(min(_SHOWN, len(test))))
    save_reconstructions(codec, shown, picture, f"{caption}\n{test.stand_in}" if test.stand_in else caption)
    return AutoencoderReport(
        seconds,
        loss,
        codec=str(files.path / KEPT),
        reconstruction=found,
        latents=Latents(
            shape=list(task.latent_shape),
            scale=latents.scale,
            mean=round(latents.mean, 4),
            channel_mean=[round(value, 4) for value in latents.channel_mean],
            channel_std=[round(value, 4) for value in latents.channel_std],
            pictures=latents.pictures,
        ),
        samples=str(picture),
    )


@torch.no_grad()
def _reconstruct(codec: Autoencoder, x: Tensor, noise_shape: tuple[int, ...]) -> Reconstruction:
    device = next(codec.parameters()).device
    square, nats = 0.0, 0.0
    for part in x.split(_BATCH):
        square += float((codec.decode(codec.encode(part.to(device))).cpu() - part).double().square().sum())
        nats += float(codec(part.to(device), torch.zeros(len(part), *noise_shape, device=device)).nats.double().sum())
    rms = math.sqrt(square / x.numel())
    psnr = 20 * math.log10(2 / rms) if rms > 0 else None
    return Reconstruction(round(rms, 5), None if psnr is None else round(psnr, 2), round(nats / len(x), 2), len(x))


@torch.no_grad()
def save_reconstructions(codec: Autoencoder, x: Tensor, path: Path, caption: str) -> None:
    """Draw pictures, (N, C, H, W), in rows of eight, each row above its reconstructions."""
    device = next(codec.parameters()).device
    y = codec.decode(codec.encode(x.to(device))).cpu()
    rows = [row for pair in zip(x.split(8), y.split(8)) for row in pair]
    plot.save_samples(torch.cat(rows), path, caption, columns=min(8, len(x)))
