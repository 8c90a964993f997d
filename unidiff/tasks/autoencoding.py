"""Training an autoencoder, for diffusion in its latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unidiff import plot
from unidiff.codec.autoencoders import AutoencoderConfig
from unidiff.codec.codec import Autoencoder
from unidiff.codec.folder import KEPT
from unidiff.codec.objective import CodecObjective
from unidiff.codec.statistics import measure_latents
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError
from unidiff.renamed import renamed
from unidiff.run.execute import Session, TrainingTask
from unidiff.run.origin import trained_names
from unidiff.run.records import Report
from unidiff.training.settings import Training

__all__ = ["AutoencoderTask"]

_TESTED, _BATCH, _DRAWN = 1000, 100, 16  # images of the test split, of a batch and of a figure


@dataclass(frozen=True)
class Reconstruction:
    """Error of decoded means, in units of [-1, 1] and as PSNR of the range 2, and nats that the posterior costs."""

    rms: float
    psnr_db: float | None
    kl_nats: float
    pictures: int


@dataclass(frozen=True)
class Latents:
    """Statistics of latents: shape, the scale for unit variance, moments overall and by channel."""

    shape: list[int]
    scale: float
    mean: float
    channel_mean: list[float]
    channel_std: list[float]
    pictures: int


@dataclass(frozen=True)
class AutoencoderReport(Report):
    """Reconstruction error and latent statistics of a trained autoencoder, and its path."""

    codec: str
    reconstruction: Reconstruction
    latents: Latents
    samples: str

    def rows(self) -> dict[str, str | None]:
        """See `Report.rows`."""
        error, latents = self.reconstruction, self.latents
        return {
            "codec": self.codec,
            "reconstruction": f"rms {error.rms:.4f}, PSNR {error.psnr_db} dB, KL {error.kl_nats} nats",
            "latents": f"{tuple(latents.shape)}, mean {latents.mean}, std {latents.channel_std} by channel",
            "samples": self.samples,
            "scale": f"{latents.scale:.6f}",
        }


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True, repr=False)
class AutoencoderTask(TrainingTask[Autoencoder]):
    """Train an autoencoder. Its parameters are the top-level keys of the recipe of a codec.

    Args:
        data: Images to learn from; signals and volumes too.
        codec: The network.
        objective: What training minimises; null for the default of the codec's class.
        training: How it is trained.
        seed: Seed of the weights and of the training noise, at least 0.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
        start: The run, or the folder saved by diffusers, whose weights training begins with (of a run the averaged
            ones); null for fresh weights.
        train: Names of the modules or parameters to train, such as `up.0` or `*.norm*`; the others are frozen. Null
            trains all.
    """

    data: Dataset
    codec: AutoencoderConfig
    objective: CodecObjective | None = None
    training: Training
    seed: int = 0
    smaller_recipe: str | None = None
    start: str | None = None
    train: tuple[str, ...] | None = None

    key: ClassVar[str] = "codec"
    noun: ClassVar[str] = "the training of a codec"

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.data.shape
        if not 2 <= len(shape) <= 4 or self.data.coded:
            kinds = "signals (C, L), images (C, H, W) or volumes (C, D, H, W)"
            problem = f"must be {kinds}, got {self.data}, whose samples have shape {list(shape)}"
            raise ParameterError("data", problem)
        object.__setattr__(self, "objective", self.loss())
        self.loss().check(type(self.codec).__name__)
        try:
            _ = self.latent_shape
        except (DataError, ValueError, TypeError) as error:
            raise ParameterError("codec", getattr(error, "problem", str(error))) from error
        if self.train is not None:
            trained_names(self.sketch(), self.train)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of a latent, (c, *sizes)."""
        return self._sketched().layout.latent_shape(self.data.shape)

    def _sketched(self) -> Autoencoder:
        return self.codec.sketch(self.data.shape[0], len(self.data.shape) - 1)

    def model(self, measured: Mapping[str, Tensor]) -> Autoencoder:
        """The codec with fresh weights; see `TrainingTask.model`."""
        return self.codec.build(self.data.shape[0], len(self.data.shape) - 1)

    def loss(self) -> CodecObjective:
        """The objective; see `TrainingTask.loss`."""
        return self.objective or self.codec.objective

    def count_weights(self) -> int:
        """See `TrainingTask.count_weights`."""
        return sum(parameter.numel() for parameter in self._sketched().parameters())

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        self.data.look("test")  # evaluated on at the end: a missing split is reported now

    def preview(self, average: Autoencoder, session: Session, path: Path, title: str) -> None:
        """Reconstructions; see `TrainingTask.preview`."""
        _save_reconstructions(average, session.source, path, f"{title}: images, and below each its reconstruction.")

    def report(self, model: Autoencoder, session: Session) -> AutoencoderReport:
        """Scale, errors and images of the codec, which is saved; see `TrainingTask.report`."""
        files = session.files
        seconds, loss = session.trained()
        model.eval()
        latents = measure_latents(model, session.source, self.seed, on_batch=session.poll)
        model.set_scale(latents.scale)
        model.save(files.path / KEPT)
        session.poll()
        test = self.data.open("test")
        error = _reconstruct(model, test.batch(torch.arange(min(_TESTED, len(test)))), self.latent_shape)
        path = files.samples / "reconstructions.png"
        caption = f"{files.name}: images of the test split, and below each its reconstruction. rms {error.rms:.4f}."
        _save_reconstructions(model, test, path, f"{caption}\n{test.stand_in}" if test.stand_in else caption)
        return AutoencoderReport(
            seconds,
            loss,
            codec=str(files.path / KEPT),
            reconstruction=error,
            latents=Latents(
                shape=list(self.latent_shape),
                scale=latents.scale,
                mean=round(latents.mean, 4),
                channel_mean=[round(value, 4) for value in latents.channel_mean],
                channel_std=[round(value, 4) for value in latents.channel_std],
                pictures=latents.pictures,
            ),
            samples=str(path),
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
def _save_reconstructions(codec: Autoencoder, source: OpenDataset, path: Path, caption: str) -> None:
    """Draw the first images in rows of eight, each row above its reconstructions."""
    x = source.batch(torch.arange(min(_DRAWN, len(source))))
    y = codec.decode(codec.encode(x.to(next(codec.parameters()).device))).cpu()
    rows = [row for pair in zip(x.split(8), y.split(8)) for row in pair]
    plot.save_samples(torch.cat(rows), path, caption, columns=min(8, len(x)))
