"""The modes of a field that carry gradient, along one axis by growing eigenvalue; their direction on a sphere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unidiff.errors import require
from unidiff.pde.domain import Domain

__all__ = ["GradientModes"]


@dataclass(frozen=True)
class GradientModes:
    """The K modes of a domain with eigenvalue above 0, which carry R = sum_k lambda_k u_k^2.

    In y_k = sqrt(lambda_k / R) u_k a field of gradient energy R is a point of the unit sphere: a direction. The
    constant mode carries no gradient and is excluded.

    Args:
        domain: The domain.
    """

    domain: Domain

    @cached_property
    def _order(self) -> Tensor:
        """Indices of the K modes in the flattened modes, by growing eigenvalue."""
        order = self.domain.order()
        return order[self.domain.eigenvalues.flatten()[order] > 0]

    @cached_property
    def eigenvalues(self) -> Tensor:
        """lambda_k > 0, ascending: (K,), float64."""
        return self.domain.eigenvalues.flatten()[self._order]

    def select(self, modes: Tensor) -> Tensor:
        """The modes that carry gradient, (..., K), out of all, (..., *modes)."""
        flat = modes.flatten(modes.ndim - self.domain.eigenvalues.ndim)
        return flat[..., self._order.to(modes.device)]

    def place(self, selected: Tensor) -> Tensor:
        """All modes, (..., *modes), of those that carry gradient, (..., K); the others are 0."""
        shape = self.domain.eigenvalues.shape
        flat = selected.new_zeros(*selected.shape[:-1], shape.numel())
        flat = flat.index_copy(-1, self._order.to(selected.device), selected)
        return flat.unflatten(-1, shape)

    def directions(self, modes: Tensor) -> Tensor:
        """y_k = sqrt(lambda_k / R) u_k, of norm 1, (..., K), of modes, (..., *modes).

        Raises:
            ParameterError: If a field is constant: it has no direction.
        """
        u = self.select(modes)
        y = self.eigenvalues.sqrt().to(u.device, u.dtype) * u
        largest = y.abs().amax(-1, keepdim=True)
        require(bool((largest > 0).all()), "modes", "a constant field", "a field with a gradient")
        y = y / largest  # so that no square underflows
        return y / y.norm(dim=-1, keepdim=True)

    def modes(self, y: Tensor, energy: Tensor | float) -> Tensor:
        """Modes u_k = sqrt(R / lambda_k) y_k, (..., *modes), of y, (..., K), and gradient energies R, (...)."""
        scale = torch.as_tensor(energy, dtype=y.dtype, device=y.device).sqrt()[..., None]
        return self.place(scale * y / self.eigenvalues.sqrt().to(y.device, y.dtype))
