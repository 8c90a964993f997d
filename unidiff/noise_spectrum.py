"""How the noise of a heat process is spread over its modes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, ones_like

from unidiff.arguments import PlainArguments

__all__ = ["DataSpectrum", "GaussianFreeField", "NoiseSpectrum", "WhiteNoise"]


@dataclass(frozen=True)
class NoiseSpectrum(PlainArguments, ABC):
    """The variances s_k^2 of the noise in the modes of an image, up to a common factor."""

    @abstractmethod
    def variances(self, eigenvalues: Tensor, power: Tensor) -> Tensor:
        """s_k^2, (*shape), of eigenvalues lambda_k of minus the Laplacian and powers S_k of the data, (*shape)."""


@dataclass(frozen=True)
class WhiteNoise(NoiseSpectrum):
    """s_k^2 is the same in all modes: independent noise in every pixel."""

    def variances(self, eigenvalues: Tensor, power: Tensor) -> Tensor:
        return ones_like(eigenvalues)


@dataclass(frozen=True)
class GaussianFreeField(NoiseSpectrum):
    """s_k^2 is proportional to 1 / lambda_k, so the gradient of the noise is white (Sheffield 2007).

    The constant mode, which has no gradient, has the variance of the lowest other.
    """

    def variances(self, eigenvalues: Tensor, power: Tensor) -> Tensor:
        return 1 / eigenvalues.clamp(min=float(eigenvalues[eigenvalues > 0].min()))


@dataclass(frozen=True)
class DataSpectrum(NoiseSpectrum):
    """s_k^2 is proportional to S_k, the mean square of mode k of the data: see `RenormalizedHeat.power`."""

    def variances(self, eigenvalues: Tensor, power: Tensor) -> Tensor:
        return power
