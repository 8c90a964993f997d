"""A network of diffusers as it is: its own time, its own scale of input and output, its own class indices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unidiff.backbone.base import Backbone
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import ParameterError, require
from unidiff.parameterization import Prediction
from unidiff.process.level import Level, Scale

__all__ = ["ClipSample", "DiffusersBackbone", "DiffusersDenoiser"]


class DiffusersBackbone(Backbone):
    """A `UNet2DModel` or `DiTTransformer2DModel` as a backbone; the noise condition is its own `timestep`.

    Args:
        network: The model of diffusers.
        shape: Shape of one sample, (C, H, W).
        null: Its index of the null class; None if it has none, and needs a class for each sample.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        classes: int | None,
        null: int | None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__(shape, classes, learned_variance=learned_variance)
        self.network = network
        self.null = null

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`; the condition is `label`, (B,) integers from -1 (no class), with `classes`."""
        label = self._values(cond, x).get("label")
        labels = {} if label is None else {"class_labels": self._class_index(label)}
        output: Tensor = self.network(x, c, **labels).sample
        return output

    def _class_index(self, label: Tensor) -> Tensor:
        """The network's class indices from ours, where -1 is the null class."""
        if self.null is not None:
            return torch.where(label < 0, self.null, label)
        if label.device.type == "cpu" and bool((label < 0).any()):
            raise ParameterError("label", "must be a class from 0 for each sample: the network has no null class")
        return label


class DiffusersDenoiser(NeuralDenoiser):
    """A network of diffusers with its process: its input is the state as it is, and its output is not rescaled.

    `NeuralDenoiser` scales input and output to unit variance. For a table of alpha-bar both scales are 1 as well; for
    noise scales and flows they are not.
    """

    def scales(self, level: Level) -> tuple[Scale, Scale]:
        """1 and 1."""
        return 1.0, 1.0


class ClipSample(Denoiser):
    """Expected data clipped to [-limit, limit], the expected noise left as it was: `clip_sample` of diffusers.

    DDPM's and DDIM's steps use the two apart; so the state is not alpha x0 + sigma eps where something was clipped.

    Args:
        model: Any model of pixels.
        limit: Largest magnitude of a pixel, above 0.
    """

    def __init__(self, model: Denoiser, limit: float = 1.0) -> None:
        super().__init__()
        require(0 < limit < float("inf"), "limit", limit, "a number > 0")
        self._copy_interface(model)
        self.model = model
        self.limit = limit

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The model's prediction with its data clipped; see `Denoiser.forward`."""
        prediction: Prediction = self.model(u, level, **cond)
        return prediction._replace(x0=prediction.x0.clamp(-self.limit, self.limit))
