"""Orthonormal bases in which a process is diagonal. Solvers work in its coordinates, networks see pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Pixel"]


@dataclass(frozen=True)
class Pixel:
    """The identity: mode coordinates are the pixels themselves (DDPM, NCSN and every SDE with scalar coefficients)."""

    def forward(self, x: Tensor) -> Tensor:
        """Mode coordinates u = V^T x, (B, *shape), of pixels x, (B, *shape)."""
        return x

    def inverse(self, u: Tensor) -> Tensor:
        """Pixels x = V u, (B, *shape), of mode coordinates u, (B, *shape)."""
        return u
