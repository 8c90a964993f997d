"""Steady states of the renormalised heat equation and their linear stability.

Higham, Higham & Grindrod, section 7, after equation (22): the steady states are mu_k phi_k with r = lambda_k, and a
small perturbation along phi_j grows like exp(sigma_j t), sigma_j = lambda_k - lambda_j (equation 23; times D here). For
the ratio of two modes this holds exactly and globally, not to first order only: both have the same factor e^rho.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import ParameterError, require, require_whole
from unidiff.pde.domain import Domain

__all__ = ["Stability", "stability", "takeover_time"]

# Relative tolerance for equal eigenvalues: above the 1e-15 of formulas and the 1e-10 of sparse solvers.
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Stability:
    """The response of the steady state mu_k phi_k to perturbations.

    Attributes:
        k: Number of the eigenmode in the order of eigenvalues, at least 1.
        eigenvalue: lambda_k, which is also r.
        rates: sigma_j = D (lambda_k - lambda_j) of a perturbation along phi_j, (*modes); that of the constant is
            D lambda_k (it grows unless it is removed), that of phi_k itself 0.
        unstable: Number of directions j >= 1 that grow; the steady state is stable if it is 0.
        neutral: Number of directions j other than k that neither grow nor decay: the multiplicity of lambda_k less 1.
    """

    k: int
    eigenvalue: float
    rates: Tensor
    unstable: int
    neutral: int

    def amplitude(self, R: float) -> float:
        """mu_k = sqrt(R / lambda_k), the coefficient that gives phi_k the gradient energy R > 0."""
        require(0 < R < math.inf, "R", R, "a finite number > 0")
        return math.sqrt(R / self.eigenvalue)


def stability(domain: Domain, k: int, *, diffusivity: float = 1.0) -> Stability:
    """The linear stability of the steady state mu_k phi_k.

    Args:
        domain: The domain.
        k: Which eigenmode, counted from 1 in the order of the eigenvalues.
        diffusivity: D > 0.

    Raises:
        ParameterError: If there is no such mode; the constant, k = 0, is not a steady state, as its gradient is 0.
    """
    require(0 < diffusivity < math.inf, "diffusivity", diffusivity, "a finite number > 0")
    eigenvalues = domain.eigenvalues
    chosen = _eigenvalue(domain, "k", k)
    differences = chosen - eigenvalues
    differences = torch.where(differences.abs() <= _SAME * chosen, 0.0, differences)
    unstable = int(((differences > 0) & (eigenvalues > 0)).sum())
    return Stability(k, chosen, diffusivity * differences, unstable, int((differences == 0).sum()) - 1)


def takeover_time(domain: Domain, k: int, j: int, ratio: float, *, diffusivity: float = 1.0) -> float:
    """The time at which phi_j, small at first, reaches phi_k's energy: log(1 / ratio) / (D (lambda_k - lambda_j)).

    Exact if all other modes are 0.

    Args:
        domain: The domain.
        k: The mode that dominates at first, counted from 1 in the order of the eigenvalues.
        j: The mode that takes over, with lambda_j < lambda_k.
        ratio: Norm of the gradient along phi_j over that along phi_k at t = 0: sqrt(lambda_j / lambda_k) |a_j / a_k|,
            in (0, 1].
        diffusivity: D > 0.

    Raises:
        ParameterError: If phi_j never takes over, or a value is out of range.
    """
    require(0 < diffusivity < math.inf, "diffusivity", diffusivity, "a finite number > 0")
    require(0 < ratio <= 1, "ratio", ratio, "a number in (0, 1]")
    first, second = _eigenvalue(domain, "k", k), _eigenvalue(domain, "j", j)
    if not second < first * (1 - _SAME):
        problem = f"mode {j} never takes over from mode {k}: its eigenvalue {second:g} is not below {first:g}."
        raise ParameterError("j", problem)
    return math.log(1 / ratio) / (diffusivity * (first - second))


def _eigenvalue(domain: Domain, name: str, k: int) -> float:
    require_whole(name, k, 1, domain.eigenvalues.numel() - 1)
    return float(domain.eigenvalues.flatten()[domain.order()[k]])
