"""Classifiers of noisy states, for classifier guidance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.errors import require_shape
from unidiff.noise_condition import NoiseCondition
from unidiff.noisy_network import NoisyNetwork
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["Classifier", "NeuralClassifier"]


class Classifier(PlainArguments, nn.Module, ABC):
    """The probability of each class from a noisy state and its time.

    Attributes:
        process: The process of the noisy states.
        classes: Number of classes.
        predicts: Name of the condition whose classes they are.
        shape: Shape of one sample, without the batch axis; None if unknown.
    """

    process: Process
    classes: int
    predicts: str = "label"
    shape: tuple[int, ...] | None = None

    @abstractmethod
    def forward(self, u: Tensor, level: Level) -> Tensor:
        """Log probability of each class, (B, classes), up to a number for each sample; differentiable in u.

        Args:
            u: State in mode coordinates, (B, *modes).
            level: Its time; see `Denoiser.forward`.
        """

    def log_prob(self, u: Tensor, level: Level, label: Tensor) -> Tensor:
        """Log probability of one class of each sample, log p(label | u), (B,), in nats."""
        log_probability = self(u, level).log_softmax(1)
        return torch.gather(log_probability, 1, label[:, None])[:, 0]


class NeuralClassifier(NoisyNetwork, Classifier):
    """A network that classifies states of any noise level of one process.

    Its inputs are those of a NeuralDenoiser's network: pixels, divided by sqrt(alpha^2 + sigma^2) where that is one
    number, and the noise condition.

    Args:
        process: The process of the noisy states.
        backbone: The network, from pixels (B, *shape) and the noise condition (B,) to logits (B, classes).
        noise_condition: How the noise level is passed to the network; None for Timestep.
    """

    known: ClassVar[tuple[str, ...]] = ("shape", "classes")

    def __init__(self, process: Process, backbone: nn.Module, noise_condition: NoiseCondition | None = None) -> None:
        super().__init__(process, backbone, noise_condition)
        self.classes = int(getattr(backbone, "classes", 0))

    def forward(self, u: Tensor, level: Level) -> Tensor:
        """The network's logits; see `Classifier.forward`."""
        logits = self.evaluated(self.backbone, u, level)
        require_shape("backbone", "logits", logits.shape, (len(u), self.classes))
        return logits
