"""Training an autoencoder, for diffusion in its latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unidiff.codec.autoencoders import AutoencoderConfig
from unidiff.codec.codec import Autoencoder
from unidiff.codec.objective import CodecObjective
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError
from unidiff.renamed import renamed
from unidiff.run.execute import Session, TrainingTask
from unidiff.tasks.autoencoding_report import AutoencoderReport, report_autoencoder, save_reconstructions
from unidiff.training.settings import Training

__all__ = ["AutoencoderTask"]

_PREVIEWED = 16  # images


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True)
class AutoencoderTask(TrainingTask[Autoencoder]):
    """Train an autoencoder. Its parameters are the top-level keys of the recipe of a codec.

    Args:
        data: Images to learn from.
        codec: The network.
        objective: What training minimises; null is what the codec's own kind is trained with.
        training: How it is trained.
        seed: Seed of the weights and of the training noise, at least 0.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
    """

    data: Dataset
    codec: AutoencoderConfig
    objective: CodecObjective | None = None
    training: Training
    seed: int = 0
    smaller_recipe: str | None = None

    key: ClassVar[str] = "codec"
    noun: ClassVar[str] = "the training of a codec"

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.data.shape
        if len(shape) != 3 or self.data.coded:
            problem = f"must be images, (C, H, W), got {self.data}, whose samples have shape {list(shape)}"
            raise ParameterError("data", problem)
        object.__setattr__(self, "objective", self.loss())
        self.loss().check(type(self.codec).__name__)
        try:
            _ = self.latent_shape
        except (DataError, ValueError, TypeError) as error:
            problem = getattr(error, "problem", str(error))
            raise ParameterError("codec", problem) from error

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of a latent, (c, h, w)."""
        return self.codec.sketch(self.data.shape[0]).layout.latent_shape(self.data.shape)

    def model(self, measured: Mapping[str, Tensor]) -> Autoencoder:
        """The codec with fresh weights; see `TrainingTask.model`."""
        return self.codec.build(self.data.shape[0])

    def loss(self) -> CodecObjective:
        """The objective; see `TrainingTask.loss`."""
        return self.objective or self.codec.objective

    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""
        return sum(parameter.numel() for parameter in self.codec.sketch(self.data.shape[0]).parameters())

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        self.data.look("test")  # evaluated on at the end: a missing split is reported now

    def preview(self, average: Autoencoder, session: Session, path: Path, title: str) -> None:
        """Reconstructions; see `TrainingTask.preview`."""
        x = session.source.batch(torch.arange(min(_PREVIEWED, len(session.source))))
        save_reconstructions(average, x, path, f"{title}: images, and below each its reconstruction.")

    def report(self, model: Autoencoder, session: Session) -> AutoencoderReport:
        """Scale, errors and images of the codec, which is saved; see `TrainingTask.report`."""
        return report_autoencoder(self, model, session)
