r"""Stochastic forcing that keeps the gradient norm of every path, and its invariant law.

Higham, Higham & Grindrod (section 7) ask what stochastic forcing does to the renormalised heat equation. Forced along
the constraint, it is the overdamped Langevin equation of the Rayleigh quotient: paths do not converge to the lowest
mode but sample an explicit law, a Bingham distribution, in which the lowest mode dominates the more, the weaker the
noise. (For the constraint in the mean, see `unidiff.pde.mean_field`.)

In y_k = sqrt(lambda_k / R) u_k, k = 1 .. K, the forced equation is, with P the projection onto the tangent space,

    dy = -P Lambda y dt + eps P o dW        (Stratonovich)        on the unit sphere of R^K.

Its generator is (eps^2 / 2) Delta_sphere - grad U . grad with U = y' Lambda y / 2, so it is reversible for the density

    pi(y) ~ exp(-2 U / eps^2) = exp(-y' Lambda y / eps^2)        with respect to the surface of the sphere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unidiff.arguments import PlainArguments
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.pde.domain import Domain, GradientModes
from unidiff.pde.mean_field import distance_below

__all__ = ["Bingham", "PathwiseForcing"]


@dataclass(frozen=True, eq=False)
class Bingham(PlainArguments):
    r"""The law pi(y) ~ exp(-y' Lambda y / eps^2) on the unit sphere of R^K, with exact moments for any K.

    With a_k = lambda_k / eps^2, a Gaussian integral in polar coordinates is a Laplace transform in the squared radius;
    inverted at 1 it gives the normalising constant as a contour integral,

        Z = 2 pi^(K/2) 1/(2 pi i) Int e^phi(s) ds,        phi(s) = s - 1/2 sum_k log(a_k + s),

    and E y_k^2 = -d log Z / d a_k is the average of 1 / (2 (a_k + s)) under the weights e^phi. The contour is the
    parabola through the saddle point s*, phi'(s*) = 0, that follows steepest descent to second order. It closes around
    the branch points -a_k, so the integrand falls like a Gaussian and the trapezoidal rule converges geometrically.

    The saddle point alone, E y_k^2 = 1 / (2 (a_k + s*)), is the stationary state of the forcing in the mean.

    Args:
        eigenvalues: lambda_k, (K,), any order.
        strength: eps > 0; the eigenvalues and eps^2 have the same unit.
    """

    eigenvalues: Tensor
    strength: float

    def __post_init__(self) -> None:
        require(self.eigenvalues.ndim == 1, "eigenvalues", tuple(self.eigenvalues.shape), "a vector")
        require(0 < self.strength < math.inf, "strength", self.strength, "a number > 0")

    def second_moments(self) -> Tensor:
        """E y_k^2: (K,), float64, with sum 1."""
        return torch.stack([(weight * pole / 2).real for weight, pole in self._quadrature]).sum(0)

    def fourth_moments(self) -> Tensor:
        """E y_k^4 = 3/4 of the average of (a_k + s)^-2: (K,), float64."""
        return torch.stack([(weight * 0.75 * pole**2).real for weight, pole in self._quadrature]).sum(0)

    @cached_property
    def _saddle(self) -> Tensor:
        """a_k + s* > 0: (K,)."""
        a = self.eigenvalues.to("cpu", torch.float64) / self.strength**2
        return a - a.min() + distance_below(a, torch.ones_like(a))  # sum_k 1 / (2 (a_k + s*)) = 1

    @cached_property
    def _quadrature(self) -> list[tuple[complex, Tensor]]:
        """The weight e^phi ds of each node, divided by the sum of their real parts, and 1 / (a_k + s) there, (K,).

        The nodes are s - s* = i width t - bend t^2 for t = 0, h, 2h, ... With S_n = sum_k (a_k + s*)^-n (S_1 = 2):
        width = phi''(s*)^(-1/2), phi'' = S_2 / 2; and the imaginary part of phi has no term in t^3 if
        bend = width^4 S_3 / 6. From S_3 <= S_2^(3/2) and S_2^2 <= S_1 S_3 the integrand is analytic in t for
        |Im t| < 0.7 at least, so with h = 0.1 the rule's error is about e^(-2 pi 0.7 / h) = 1e-19. Nodes of weights
        below 1e-18 of the first are omitted.
        """
        x = (1 / self._saddle).to(torch.complex128)
        width = math.sqrt(2 / float((x**2).sum().real))
        bend = width**4 * float((x**3).sum().real) / 6
        terms: list[tuple[complex, Tensor]] = []
        for t in (0.1 * j for j in range(600)):
            node = complex(-bend * t * t, width * t)
            factor = 1 + node * x
            log_density = node - factor.log().sum() / 2  # principal branches: the contour meets no cut
            weight = complex(log_density.exp()) * complex(width, 2 * bend * t)
            terms.append((weight if t else weight / 2, x / factor))  # the other half is the complex conjugate
            if abs(weight) < 1e-18 * abs(terms[0][0]):
                break
        total = sum(weight.real for weight, _ in terms)
        return [(weight / total, pole) for weight, pole in terms]


@dataclass(frozen=True)
class PathwiseForcing(PlainArguments):
    """Simulates dy = -P Lambda y dt + eps P o dW on the unit sphere, with noise white in y, by a splitting.

    A step is half a step of heat, a step of noise, half a step of heat. Heat is exact for any step,
    y -> e^(-Lambda dt / 2) y rescaled to norm 1. Noise moves along the great circle of a Gaussian tangent vector v of
    n = K - 1 dimensions and variance s = eps^2 dt; its length is shrunk by e^(-(n - 1) s / 12), which makes the mean
    and the mean square of the cosine of the step those of Brownian motion on the sphere, e^(-n s / 2) and
    (1 + n e^(-K s)) / K, up to O(s^3). The weak order is 2.

    A step must resolve the noise, K eps^2 dt below 1, and the fastest mode too if moments are to be right within
    percents, lambda_K dt below 1/2; longer steps are stable but starve the modes they do not resolve.

    Args:
        domain: The domain; its modes with eigenvalue above 0 are forced.
        strength: eps > 0, in square roots of the unit of the eigenvalues.
    """

    domain: Domain
    strength: float

    def __post_init__(self) -> None:
        require(0 < self.strength < math.inf, "strength", self.strength, "a number > 0")

    @cached_property
    def coordinates(self) -> GradientModes:
        """Converts modes of fields into directions y, (..., K), and back."""
        return GradientModes(self.domain)

    @property
    def law(self) -> Bingham:
        """The invariant law."""
        return Bingham(self.coordinates.eigenvalues, self.strength)

    def step(self, y: Tensor, dt: float, noise: Noise) -> Tensor:
        """One step of length dt (in the unit of 1 / lambda) of all paths: directions of norm 1, (B, K), to the same."""
        rates = self.coordinates.eigenvalues
        decay = torch.exp((rates[0] - rates) * dt / 2).to(y.device, y.dtype)
        y = normalize(decay * y, dim=-1, eps=0.0)
        xi = noise(y)
        xi = xi - (xi * y).sum(-1, keepdim=True) * y
        s = self.strength**2 * dt
        v = math.sqrt(s) * math.exp(-(len(rates) - 2) * s / 12) * xi
        angle = v.norm(dim=-1, keepdim=True)
        y = normalize(torch.cos(angle) * y + torch.sinc(angle / math.pi) * v, dim=-1, eps=0.0)
        return normalize(decay * y, dim=-1, eps=0.0)

    def trajectory(self, y: Tensor, time: float, steps: int, noise: Noise) -> Iterator[Tensor]:
        """The states after each of `steps` equal steps over `time`.

        Args:
            y: Directions at the start, (B, K); see `coordinates`.
            time: Length of the run, above 0.
            steps: Number of steps, at least 1.
            noise: Draws standard normal noise; `unidiff.Seeded(range(B))` gives each path its own stream.

        Yields:
            Directions of norm 1, (B, K).
        """
        require(0 < time < math.inf, "time", time, "a number > 0")
        require_whole("steps", steps)
        for _ in range(steps):
            y = self.step(y, time / steps, noise)
            yield y
