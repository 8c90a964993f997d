"""Initial conditions, defined by their modes. Their amplitude is arbitrary: it is set by the gradient energy R."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import require, require_whole
from unidiff.noise import generator_of
from unidiff.pde.domain import Domain, GradientModes

__all__ = ["Broadband", "Eigenmodes", "InitialCondition", "RandomField"]


@dataclass(frozen=True)
class InitialCondition(PlainArguments, ABC):
    """A field, defined on every domain. Modes are numbered k = 0, 1, 2, ... in the order of their eigenvalues."""

    @abstractmethod
    def modes(self, domain: Domain) -> Tensor:
        """Modes of the field, (*modes), float64; that of the constant is 0."""


@dataclass(frozen=True)
class Broadband(InitialCondition):
    """a_k = cos(k^2): every scale has about the same amplitude, without randomness."""

    def modes(self, domain: Domain) -> Tensor:
        k = torch.arange(1, domain.eigenvalues.numel(), dtype=torch.float64)
        return GradientModes(domain).embed(torch.cos(k**2))


@dataclass(frozen=True)
class RandomField(InitialCondition):
    """White noise: independent a_k ~ N(0, 1).

    Args:
        seed: Seed of the noise, at least 0.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)

    def modes(self, domain: Domain) -> Tensor:
        count, generator = domain.eigenvalues.numel(), generator_of(self.seed)
        return GradientModes(domain).embed(torch.randn(count, dtype=torch.float64, generator=generator)[1:])


@dataclass(frozen=True)
class Eigenmodes(InitialCondition):
    """A sum of eigenmodes sum_i c_i mu_k phi_k, k = k_i, each mu_k phi_k a steady state of gradient energy 1.

    The c_i^2 are therefore proportional to the shares of the gradient energy.

    Args:
        terms: Pairs (k_i, c_i), k_i >= 1, such as [[3, 1.0], [1, 1.0e-6]]: the third steady state, perturbed.
    """

    terms: tuple[tuple[int, float], ...] = ((1, 1.0),)

    def __post_init__(self) -> None:
        require(len(self.terms) > 0, "terms", [], "a list of at least one pair (k, c)")
        for term in self.terms:
            require(len(term) == 2, "terms", term, "a pair (k, c)")
            require_whole("terms", term[0])
            require(math.isfinite(term[1]), "terms", term[1], "a finite number")
        require(any(c != 0 for _, c in self.terms), "terms", self.terms, "at least one pair (k, c) with c other than 0")

    def modes(self, domain: Domain) -> Tensor:
        total = torch.zeros_like(domain.eigenvalues)
        for k, c in self.terms:
            require_whole("terms", k, 1, domain.eigenvalues.numel() - 1)
            mode = domain.eigenmode(k)
            total = total + c / domain.gradient_energy(mode).sqrt() * mode
        return total
