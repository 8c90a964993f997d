"""Denoisers: the currency between models and solvers. A guided, averaged or counted model is one too."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from unidiff.parameterization import Parameterization, Prediction
from unidiff.process.base import Level, Process, scaled

__all__ = ["Counted", "Denoiser", "NeuralDenoiser"]


class Denoiser(nn.Module, ABC):
    """Anything that, given a noisy state and its time, says what data and what noise to expect in it.

    Attributes:
        process: The process that made the state noisy.
    """

    process: Process

    @abstractmethod
    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise of the state.

        Args:
            u: State in mode coordinates, (B, *modes).
            level: Its time, from `process.level(t)` (or `process.level(t, u)` with one time per sample).
            **cond: What the model is conditioned on, each (B, ...).
        """


class NeuralDenoiser(Denoiser):
    """A network that predicts one parameterization of one process.

    The network sees pixels of about unit variance and answers with values of about unit variance: its input is divided
    by sqrt(alpha^2 + sigma^2), its output multiplied by sqrt(a^2 + b^2). For DDPM with Eps, X0 or V both are 1 and the
    network is the paper's. For NCSN with Score the second is 1 / sigma: technique 3 of Song & Ermon 2020.

    Args:
        process: The process of the noisy states.
        parameterization: What the network predicts.
        backbone: The network: called with pixels (B, *shape) and the noise condition (B,), answers (B, *shape).
    """

    def __init__(self, process: Process, parameterization: Parameterization, backbone: nn.Module) -> None:
        super().__init__()
        parameterization.check(process)
        self.process = process
        self.parameterization = parameterization
        self.backbone = backbone

    def output(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The quantity a x0 + b eps as the network predicts it, (B, *modes), in the dtype of u."""
        pixels = self.process.basis.inverse(scaled((level.alpha**2 + level.sigma**2) ** -0.5, u))
        if isinstance(level.condition, Tensor):
            condition = level.condition.flatten()
        else:
            condition = u.new_full((len(u),), level.condition)
        output = self.backbone(pixels, condition, **cond).to(u.dtype)
        return scaled(self.parameterization.scale(level), self.process.basis.forward(output))

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise of the state; see `Denoiser.forward`."""
        return self.parameterization.solve(self.output(u, level, **cond), u, level)


class Counted(Denoiser):
    """A denoiser that counts how often it is asked: the number of function evaluations of a solver is read here.

    Args:
        denoiser: The denoiser to count.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.process = denoiser.process
        self._calls = [0]  # in a list, because setting an attribute of an nn.Module costs as much as a sampling step

    @property
    def nfe(self) -> int:
        """Calls so far."""
        return self._calls[0]

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The wrapped denoiser's prediction, counted."""
        self._calls[0] += 1
        prediction: Prediction = self.denoiser(u, level, **cond)
        return prediction
