"""Contrastive models: how much likelier noisy states and conditions are together than apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.arguments import PlainArguments
from unidiff.condition.base import Condition
from unidiff.errors import require_shape
from unidiff.noise_condition import NoiseCondition
from unidiff.noisy_network import NoisyNetwork
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["ContrastiveModel", "NeuralContrastive"]


class ContrastiveModel(PlainArguments, nn.Module, ABC):
    """An estimate f(u, t, y) of log p(u_t, y) / (p(u_t) p(y)), up to one number at each time.

    Since f = log p(y | u_t) - log p(y), its gradient in u is that of log p(y | u_t): it can guide a model to y.

    Attributes:
        process: The process of the noisy states.
        conditions: The conditions y.
        shape: Shape of one sample, without the batch axis; None if unknown.
    """

    process: Process
    conditions: tuple[Condition, ...]
    shape: tuple[int, ...] | None = None

    @abstractmethod
    def similarities(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """F of each state with each row of the conditions, (B, B); differentiable in u.

        Args:
            u: States in mode coordinates, (B, *modes).
            level: Their times; see `Denoiser.forward`.
            **cond: The conditions, each (B, ...).
        """

    def similarity(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """F of each state with its own conditions, (B,)."""
        return self.similarities(u, level, **cond).diagonal()


class NeuralContrastive(NoisyNetwork, ContrastiveModel):
    """Two networks to unit vectors, f = s <image(u, t), text(y)>, with a learned s (Radford et al. 2021, figure 3).

    The inputs of the image network are those of a `NeuralClassifier`, so it can be trained on noisy states of all
    levels (Nichol et al. 2021, section 2.4), or by `TimeSampling` on nearly clean ones alone.

    Args:
        process: The process of the noisy states.
        backbone: A `PairEncoder`, from pixels, the noise condition and conditions to pairs of vectors (B, 2, D).
        noise_condition: How the noise level is passed to the network; None for Timestep.
    """

    known: ClassVar[tuple[str, ...]] = ("shape", "conditions")

    def __init__(self, process: Process, backbone: nn.Module, noise_condition: NoiseCondition | None = None) -> None:
        super().__init__(process, backbone, noise_condition)
        self.conditions = tuple(getattr(backbone, "conditions", ()))

    @property
    def classes(self) -> None:
        """None: it has no classes; see `Trainable`."""
        return

    def pairs(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the states and of the conditions, each (B, D), whose inner products are f."""
        pairs = self.evaluated(self.backbone, u, level, **cond)
        require_shape("backbone", "pairs of vectors", pairs.shape, (len(u), 2, pairs.shape[-1]))
        image, text = pairs.unbind(1)
        return image, text

    def similarities(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """See `ContrastiveModel.similarities`."""
        image, text = self.pairs(u, level, **cond)
        return image @ text.T

    def similarity(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """See `ContrastiveModel.similarity`."""
        image, text = self.pairs(u, level, **cond)
        return (image * text).sum(1)

    def images(self, u: Tensor, level: Level) -> Tensor:
        """The unit vector of each state, (B, D)."""
        image: nn.Module = self.backbone.image  # type: ignore[assignment]
        return F.normalize(self.evaluated(image, u, level), dim=1)

    def texts(self, **cond: Tensor) -> Tensor:
        """The unit vector of each row of the conditions, (N, D)."""
        text: nn.Module = self.backbone.text  # type: ignore[assignment]
        return F.normalize(text(**cond), dim=1)

    @property
    def scale(self) -> Tensor:
        """The learned s, a scalar: the inverse of the temperature."""
        log_scale: Tensor = self.backbone.log_scale  # type: ignore[assignment]
        return torch.exp(log_scale)
