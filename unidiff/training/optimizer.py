"""Optimisers as objects: how the weights of a network move against their gradients, chosen in `Training`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require
from unidiff.training.ema import EMA, GivenAverage
from unidiff.training.update_rules import FactoredMoments, OrthogonalMomentum, ScheduleFreeSteps

__all__ = ["Adafactor", "AdamW", "Muon", "Optimizer", "ScheduleFree"]


@dataclass(frozen=True)
class Optimizer(PlainArguments, ABC):
    """How the weights move against their gradients; the learning rate and its schedule are those of `Training`.

    Attributes:
        moments: Numbers that are kept of each weight, beside its gradient and its average.
        divisible: Whether each process may step its own part of every weight (`Training.sharded`).
    """

    moments: ClassVar[int] = 2
    divisible: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """What its state is a state of: a run continues with this kind alone."""
        return type(self).__name__

    @abstractmethod
    def make(
        self, weights: Sequence[nn.Parameter], lr: float, weight_decay: float, averages: Sequence[Tensor]
    ) -> torch.optim.Optimizer:
        """The optimiser of some weights, in one group.

        Args:
            weights: The weights; those without a gradient stay as they are.
            lr: Learning rate of the first step; each step sets that of its group.
            weight_decay: Decoupled weight decay, what `decay` returned.
            averages: The average of each weight, which `average` made.
        """

    @abstractmethod
    def decay(self, weight_decay: float) -> float:
        """The weight decay, its own or that of `Training`; a ParameterError if both are set."""

    def schedule(self, progress: float, final: float) -> float:
        """The learning rate after warm-up as a fraction of the peak: half a cosine (Loshchilov & Hutter 2017).

        Args:
            progress: From 0 after warm-up to 1 after the last step.
            final: The fraction at the end.
        """
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    def average(self, network: nn.Module) -> EMA:
        """The average of the weights, which samples are drawn with."""
        return EMA(network)

    def continued(self, groups: list[dict[str, Any]], own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The groups of an optimiser that continues from saved ones: its own, whose settings are those of today."""
        return own

    @staticmethod
    def _instead_of(value: object) -> str:
        """What to pass instead of a value that is no optimiser."""
        if isinstance(value, torch.optim.Optimizer):
            return f"Pass its class, Training(optimizer=torch.optim.{type(value).__name__}): training makes it"
        if isinstance(value, str):
            return f'Pass an object, such as AdamW(), or TorchOptimizer("{value}")'
        return ""


@dataclass(frozen=True)
class _Decoupled(Optimizer):
    """An optimiser with decoupled weight decay (Loshchilov & Hutter 2019).

    Args:
        weight_decay: What each step takes from a weight, as a multiple of the learning rate; at least 0. None takes
            that of `Training`.
    """

    weight_decay: float | None = None

    def __post_init__(self) -> None:
        allowed = "a number >= 0, or None for that of training"
        decay = 0.0 if self.weight_decay is None else self.weight_decay
        require(0 <= decay < math.inf, "weight_decay", self.weight_decay, allowed)
        for name in ("eps", "threshold"):
            value = getattr(self, name, 1.0)
            require(0 < value < math.inf, name, value, "a number > 0")
        for beta in (betas := getattr(self, "betas", (0.0, 0.0))):
            require(0 <= beta < 1, "betas", betas, "two numbers in [0, 1)")
        super().__post_init__()

    def decay(self, weight_decay: float) -> float:
        """See `Optimizer.decay`."""
        if self.weight_decay is None:
            return weight_decay
        problem = f"{weight_decay} is set beside optimizer.weight_decay = {self.weight_decay}. Leave one of them out."
        if weight_decay:
            raise ParameterError("weight_decay", problem)
        return self.weight_decay


@dataclass(frozen=True)
class AdamW(_Decoupled):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW.

    Args:
        betas: Decay of the averaged gradients, and of their squares, each in [0, 1).
        eps: What is added to the root of the squares, above 0.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    divisible: ClassVar[bool] = True

    def make(
        self, weights: Sequence[nn.Parameter], lr: float, weight_decay: float, averages: Sequence[Tensor]
    ) -> torch.optim.Optimizer:
        """See `Optimizer.make`."""
        fused = weights[0].device.type != "mps"
        settings: dict[str, Any] = {"betas": self.betas, "eps": self.eps, "weight_decay": weight_decay}
        return torch.optim.AdamW(weights, lr=lr, fused=fused, **settings)


@dataclass(frozen=True)
class Muon(_Decoupled):
    """Orthogonalised momentum (Jordan et al. 2024) for matrices and kernels, AdamW for biases and scales.

    Every direction of a matrix moves by as much as the others. A kernel of a convolution is a matrix with all its
    axes but the first as one. Updates have the size of AdamW's (Liu et al. 2025), so its learning rates are a good
    begin.

    Args:
        momentum: Decay of the averaged gradients of matrices, in [0, 1).
        betas: Those of AdamW for all other weights, each in [0, 1).
        eps: That of AdamW, above 0.
    """

    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    moments: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 <= self.momentum < 1, "momentum", self.momentum, "a number in [0, 1)")
        super().__post_init__()

    def make(
        self, weights: Sequence[nn.Parameter], lr: float, weight_decay: float, averages: Sequence[Tensor]
    ) -> torch.optim.Optimizer:
        """See `Optimizer.make`."""
        return OrthogonalMomentum(weights, lr, weight_decay, self.momentum, self.betas, self.eps)


@dataclass(frozen=True)
class Adafactor(_Decoupled):
    """Adam's step sizes from the rows and columns of each matrix alone (Shazeer & Stern 2018): the least memory.

    The learning rate is relative to the size of each weight: 1e-2 is the published one.

    Args:
        decay_power: The average of step t takes a share of t^-decay_power of its squared gradients, in (0, 1].
        threshold: Largest root mean square of an update, as a multiple of the step; above 0.
    """

    decay_power: float = 0.8
    threshold: float = 1.0
    moments: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require(0 < self.decay_power <= 1, "decay_power", self.decay_power, "a number in (0, 1]")
        super().__post_init__()

    def make(
        self, weights: Sequence[nn.Parameter], lr: float, weight_decay: float, averages: Sequence[Tensor]
    ) -> torch.optim.Optimizer:
        """See `Optimizer.make`."""
        return FactoredMoments(weights, lr, weight_decay, self.decay_power, self.threshold)


@dataclass(frozen=True)
class ScheduleFree(_Decoupled):
    """Schedule-free AdamW (Defazio et al. 2024): the average of the weights takes the place of a decaying rate.

    The learning rate stays constant after `Training.warmup`. Samples are drawn with the average that the method itself
    keeps: `Training.lr_final` and `Training.ema` have no effect.

    Args:
        betas: Share of the average in the weights that gradients are taken at, above 0, and decay of the squared
            gradients, each below 1.
        eps: What is added to the root of the squares, above 0.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def make(
        self, weights: Sequence[nn.Parameter], lr: float, weight_decay: float, averages: Sequence[Tensor]
    ) -> torch.optim.Optimizer:
        """See `Optimizer.make`."""
        return ScheduleFreeSteps(weights, averages, lr, weight_decay, self.betas, self.eps)

    def schedule(self, progress: float, final: float) -> float:
        """Constant; see `Optimizer.schedule`."""
        return 1.0

    def average(self, network: nn.Module) -> EMA:
        """The one that the steps keep; see `Optimizer.average`."""
        return GivenAverage(network)
