r"""Stochastic forcing that keeps the gradient norm in the mean: linear, Gaussian, and solved in closed form.

This is one form of the stochastic forcing proposed in Higham, Higham & Grindrod (section 7): with
E |grad u|^2 = R the multiplier r(t) is a number and not a random variable, so the forced equation is a diagonal
Gaussian process like those of diffusion models. Up to a critical noise (eps^2 = 12 on the unit interval) r stays
positive and amplifies the lowest mode above the noise; above it r is negative and damps, and without Laplacian the
equation is the variance-preserving SDE exactly.

In y_k = sqrt(lambda_k / R) u_k and m_k = E y_k^2,

    dy_k = (r(t) - lambda_k) y_k dt + sqrt(q_k) dW_k,        r = sum_k lambda_k m_k - 1/2 sum_k q_k,

where r is what keeps sum_k m_k = 1: m_k' = 2 (r - lambda_k) m_k + q_k. Divided by its growth the system is linear,
M' = A M with A = -2 Lambda + q 1', M(0) = E y(0)^2: m = M / Phi with Phi = sum_k M_k = e^(-2 rho), rho = Int_0^t r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments, plain_arguments
from unidiff.errors import require
from unidiff.noise import Noise
from unidiff.pde.domain import Domain, GradientModes

__all__ = ["MeanFieldForcing", "MeanFieldState", "Stationary", "distance_below", "interval_multiplier"]


class MeanFieldState(NamedTuple):
    """The law at one time: y_k(t) = alpha_k y_k(0) + sigma_k xi_k with independent standard normal xi.

    Attributes:
        alpha: alpha_k = e^(rho - lambda_k t), (K,).
        variance: sigma_k^2, (K,), accurate relative to itself at any time.
        second_moments: m_k = E y_k^2 = alpha_k^2 E y_k(0)^2 + sigma_k^2, (K,), with sum 1.
        rho: The integral of r from 0 to t.
        multiplier: r(t).
    """

    alpha: Tensor
    variance: Tensor
    second_moments: Tensor
    rho: float
    multiplier: float

    def draw(self, y: Tensor, noise: Noise) -> Tensor:
        """States at this time, (B, K), of starts y, (B, K): exact, in one draw."""
        alpha, sigma = self.alpha.to(y.device, y.dtype), self.variance.sqrt().to(y.device, y.dtype)
        return alpha * y + sigma * noise(y)


class Stationary(NamedTuple):
    """The stationary law: independent y_k ~ N(0, m_k).

    Attributes:
        multiplier: r, below the lowest eigenvalue.
        second_moments: m_k = q_k / (2 (lambda_k - r)), (K,), with sum 1.
    """

    multiplier: float
    second_moments: Tensor


@dataclass(frozen=True, eq=False)
class MeanFieldForcing(PlainArguments):
    """The forced equation under the constraint in the mean; see the module for the equations.

    Args:
        rates: lambda_k >= 0, (K,), any order.
        noise: q_k > 0, (K,), the variance that mode k receives per unit of time.
    """

    rates: Tensor
    noise: Tensor

    def __post_init__(self) -> None:
        require(self.rates.ndim == 1, "rates", tuple(self.rates.shape), "a vector")
        require(self.noise.shape == self.rates.shape, "noise", tuple(self.noise.shape), "of the same shape as rates")
        require(bool((self.noise > 0).all()), "noise", float(self.noise.min()), "numbers > 0")
        for name in ("rates", "noise"):
            object.__setattr__(self, name, getattr(self, name).to("cpu", torch.float64))

    @classmethod
    def on(cls, domain: Domain, strength: float, smoothness: float = 0.0) -> MeanFieldForcing:
        """Noise of covariance q_k = eps^2 (lambda_1 / lambda_k)^s on the modes of a domain that carry gradient.

        A law that does not depend on the resolution needs sum_k q_k / lambda_k < infinity: s > d/2 - 1 in d
        dimensions. Noise white in y (s = 0) has a limit on an interval, and none on a square.

        Args:
            domain: The domain. The K modes are those of `GradientModes(domain)`.
            strength: eps > 0.
            smoothness: s.
        """
        require(0 < strength < math.inf, "strength", strength, "a number > 0")
        rates = GradientModes(domain).eigenvalues
        return cls(rates, strength**2 * (rates[0] / rates) ** smoothness)

    @cached_property
    def _below(self) -> tuple[float, Tensor]:
        """The r at t = infinity, and lambda_k - r > 0 without the rounding of their difference."""
        lowest = float(self.rates.min())
        distance = distance_below(self.rates, self.noise)
        return lowest - distance, self.rates - lowest + distance

    def stationary(self) -> Stationary:
        """The law at t = infinity: r is the root below all lambda_k of sum_k q_k / (2 (lambda_k - r)) = 1."""
        multiplier, gaps = self._below
        return Stationary(multiplier, self.noise / (2 * gaps))

    def at(self, time: float, spectrum: Tensor) -> MeanFieldState:
        r"""The law at one time, exact for any time and number of modes, without time steps.

        The Laplace transform of the solution of M' = A M is, with G(s) = sum_k M_k(0) / (s + 2 lambda_k),

            Phi^(s) = G(s) / (1 - sum_k q_k / (s + 2 lambda_k)),    M_k^(s) = (M_k(0) + q_k Phi^(s)) / (s + 2 lambda_k).

        All singularities are real and at most s_1 = -2 r(infinity). The transform is inverted on a parabola around
        them, s = s_1 + (mu / t) (1 + i u)^2, by the trapezoidal rule (Weideman & Trefethen 2007 study such contours).
        Singularities are at Im u >= 1, so a step of h in u leaves an error of e^(-2 pi / h); mu = 2 loses a factor
        e^mu to rounding, and the rule ends where e^(-mu u^2) is below 1e-17. As 1 = sum_k q_k / (s_1 + 2 lambda_k),
        the denominator is (s - s_1) sum_k q_k / ((s_1 + 2 lambda_k) (s + 2 lambda_k)): no difference of close numbers
        at any time. sigma_k^2 is inverted by itself and is not a difference either.

        Args:
            time: t >= 0, in the unit of 1 / lambda.
            spectrum: E y_k(0)^2, (K,), with sum 1: y_k(0)^2 for one start.

        Raises:
            ParameterError: If time is negative (noise has no past: see `unidiff.pde.recover`) or the spectrum does not
                have sum 1.
        """
        require(0 <= time < math.inf, "time", time, "a number >= 0")
        start = spectrum.to("cpu", torch.float64)
        require(start.shape == self.rates.shape, "spectrum", tuple(start.shape), f"of shape {tuple(self.rates.shape)}")
        total = float(start.sum())
        require(abs(total - 1) < 1e-6, "spectrum", total, "second moments with sum 1 (divide by their sum)")
        end, gaps = self._below
        if time == 0:
            variance, rho, alpha = torch.zeros_like(start), 0.0, torch.ones_like(start)
        else:
            u = torch.arange(33, dtype=torch.float64) * 0.14
            bow = torch.complex(torch.ones_like(u), u)
            delta = 2 / time * bow**2  # s - s_1
            weights = bow * torch.exp(2 * bow**2) * (2 * 0.14 / (math.pi * time)) * 2
            weights[0] /= 2  # the other half of the parabola is the complex conjugate
            poles = 1 / (2 * gaps + delta[:, None])  # 1 / (s + 2 lambda_k), (nodes, K)
            inside = delta * (poles * (self.noise / (2 * gaps))).sum(-1)
            growth = (poles * start).sum(-1) / inside
            growth_now = float((weights * growth).real.sum())  # e^(-s_1 t) Phi(t)
            variance = self.noise * ((weights * growth)[:, None] * poles).real.sum(0) / growth_now
            rho = end * time - math.log(growth_now) / 2
            alpha = torch.exp(-gaps * time) / math.sqrt(growth_now)
        moments = alpha**2 * start + variance
        multiplier = float((self.rates * moments).sum() - self.noise.sum() / 2)
        return MeanFieldState(alpha, variance, moments, rho, multiplier)


def distance_below(rates: Tensor, noise: Tensor) -> float:
    """The x > 0 with sum_k q_k / (2 (lambda_k - min lambda + x)) = 1.

    The reciprocal of the sum is concave and increasing in x, so Newton's iteration for it, started below the root,
    increases to it without overshooting, and quadratically.

    Args:
        rates: lambda_k, (K,).
        noise: q_k > 0, (K,).
    """
    above = rates - rates.min()
    x = float(noise[above == 0].sum()) / 2  # the modes at the minimum alone: below the root
    for _ in range(100):
        terms = noise / (2 * (above + x))
        value, slope = float(terms.sum()), float((terms / (above + x)).sum())
        following = x + value * (value - 1) / slope
        if not following > x * (1 + 1e-15):
            break
        x = following
    return x


@plain_arguments
def interval_multiplier(strength: float, length: float = 1.0) -> float:
    r"""The stationary r on the interval [0, L] at infinite resolution, for noise white in y.

    As sum_k 1 / ((pi k)^2 - z^2) = (1 - z cot z) / (2 z^2) (Euler), the stationary equation with z = L sqrt(r) is

        eps^2 L^2 (1 - z cot z) / (4 z^2) = 1,        z cot z = |z| coth |z| for r < 0.

    The left side increases with r and is eps^2 L^2 / 12 at r = 0: r changes sign at eps^2 = 12 / L^2.

    Args:
        strength: eps > 0.
        length: L > 0.
    """
    require(0 < strength < math.inf, "strength", strength, "a number > 0")
    require(0 < length < math.inf, "length", length, "a number > 0")
    q = (strength * length) ** 2
    low, high = -((q / 4) ** 2) - 1, math.pi**2 - q / 2  # x coth x < 1 + x; the lowest mode alone
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle / length**2
        if q * _euler_sum(middle) < 1:
            low = middle
        else:
            high = middle


def _euler_sum(square: float) -> float:
    """(1 - z cot z) / (4 z^2) as a function of z^2 < pi^2."""
    if abs(square) < 0.1:  # here the difference below would lose digits; the terms left out are below 1e-15
        terms = (1 / 12, 1 / 180, 1 / 1890, 1 / 18900, 1 / 187110, 691 / 1277025750, 2 / 36486450)
        return sum(term * square**n for n, term in enumerate(terms))
    z = math.sqrt(abs(square))
    return (1 - (z / math.tan(z) if square > 0 else z / math.tanh(z))) / (4 * square)
