"""A network of diffusers as it is: its own time, its own scale of input and output, its own way to be told a class."""

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
        classes: Number of classes that it can be asked for, or None.
        null: The index by which it is told "no class"; None if it has no such index, and needs a class for each sample.
        learned_variance: Whether its output has 2 C channels; see `Backbone`.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        classes: int | None,
        null: int | None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self.classes = classes
        self.null = null
        self.learned_variance = learned_variance

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy samples, (B, C, H, W).
            c: The network's own timestep, (B,).
            **cond: `label`, (B,) integers from -1 (no class), if it knows classes.

        Returns:
            The network's output, (B, C, H, W), or (B, 2 C, H, W) with a learned variance.
        """
        label = self._label(cond, len(x))
        told = {} if label is None else {"class_labels": self._told(label)}
        output: Tensor = self.network(x, c, **told).sample
        return output

    def _told(self, label: Tensor) -> Tensor:
        """The class indices of the network from ours, where -1 is none."""
        if self.null is not None:
            return torch.where(label < 0, self.null, label)
        if label.device.type == "cpu" and bool((label < 0).any()):
            problem = "this network of diffusers has no null class: name a class from 0 for each sample."
            raise ParameterError("label", problem)
        return label


class DiffusersDenoiser(NeuralDenoiser):
    """A network of diffusers with its process: it sees the state as it is, and its answer is taken as it is.

    Where `NeuralDenoiser` scales input and output to unit variance, diffusers does not: for a table of alpha-bar the
    two are the same, for noise scales and flows they are not.
    """

    def scales(self, level: Level) -> tuple[Scale, Scale]:
        """1 and 1."""
        return 1.0, 1.0


class ClipSample(Denoiser):
    """Expected data clipped to [-limit, limit], the expected noise left as it was: `clip_sample` of diffusers.

    DDPM's and DDIM's steps see the two apart; so the state is not alpha x0 + sigma eps where something was clipped.

    Args:
        model: Any model of pixels.
        limit: Largest size of a pixel, above 0.
    """

    def __init__(self, model: Denoiser, limit: float = 1.0) -> None:
        super().__init__()
        require(0 < limit < float("inf"), "limit", limit, "a number above 0")
        self._copy_interface(model)
        self.model = model
        self.limit = limit

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The model's prediction with its data clipped; see `Denoiser.forward`."""
        prediction: Prediction = self.model(u, level, **cond)
        return prediction._replace(x0=prediction.x0.clamp(-self.limit, self.limit))
