"""The interface of every training objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from unidiff.denoiser import NeuralDenoiser
from unidiff.objective.times import TimeSampling, UniformTimes
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective(ABC):
    """A loss of a network, averaged over data, noise and time by the training loop.

    Args:
        times: How training times are drawn, by default uniformly.

    Attributes:
        differentiates_twice: Whether the loss contains a derivative of the network in its input.
        learns_variance: Whether the loss trains the variance of a reverse step, which the network must then predict.
    """

    differentiates_twice: ClassVar[bool] = False
    learns_variance: ClassVar[bool] = False

    times: TimeSampling = field(default_factory=UniformTimes, kw_only=True)

    def check(self, process: Process) -> None:
        """Reject a process on which this objective is not defined.

        Raises:
            ParameterError: With the reason.
        """
        self.times.check(process)

    def batch_losses(self, model: Any, x: Tensor, uniform: Tensor, noise: Tensor, **cond: Tensor) -> Tensor:
        """The loss of each sample of a batch, (B,), as the training loop asks for it.

        Args:
            model: The model in training.
            x: Clean data in pixels, (B, *shape).
            uniform: Draws of the uniform distribution on [0, 1), (B,) float64 on the CPU, which become times.
            noise: Standard normal noise, (B, *modes).
            **cond: Conditions, each (B, ...).
        """
        process: Process = model.process
        u0 = process.basis.forward(x)
        return self.losses(model, u0, noise, process.level(self.times.draw(process, uniform), u0), **cond)

    def noise_shape(self, model: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise of one sample: that of the sample."""
        return shape

    @abstractmethod
    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,).

        Args:
            denoiser: The model in training.
            u0: Clean data in mode coordinates, (B, *modes).
            eps: Standard normal noise, (B, *modes).
            level: One time per sample, from `process.level(t, u0)`.
            **cond: Conditions, each (B, ...).
        """
