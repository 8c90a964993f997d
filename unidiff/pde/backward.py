"""The renormalised heat equation run backwards.

Higham, Higham & Grindrod (section 7) leave open how to reverse the flow. In modes u_k(T) = g_k u_k(0) with
g_k = e^(rho(T) - lambda_k T): on finitely many modes the flow is a group, and as |grad u|^2 = R is conserved, its
reverse is bounded where the heat equation's overflows. Ill-posedness becomes ill-conditioning, the direction comes from
the data and the length from R. Only the modes whose e^(-lambda_k T) is below the noise are lost, so that about
K* = (L / pi) sqrt(log(1 / delta) / T) modes can be recovered on an interval of length L. Beyond them a prior is needed:
a sample of the posterior, which is what a reverse diffusion draws.

The constant mode is outside the constraint (the equation's own would grow without bound) and is returned as 0.
"""

from __future__ import annotations

import math

from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import require
from unidiff.pde.domain import Domain, GradientModes
from unidiff.pde.evolution import evolve_modes
from unidiff.pde.field import as_field, as_modes, field_modes, reject_constants, volume
from unidiff.pde.regularizers import Mollifier, Observation

__all__ = ["mode_deviation", "recover", "recover_modes", "resolution", "resolvable_modes"]


@plain_arguments
def recover(
    domain: Domain, values: Tensor, time: float, method: Mollifier, energy: float, deviation: float = 0.0
) -> Tensor:
    """Estimate the field at time 0 from values at time T.

    Computed in float64 whatever the dtype of the values: the reverse flow loses digits exponentially.

    Args:
        domain: The domain.
        values: The field at time T, with noise, (..., *grid).
        time: T >= 0, in the unit of 1 / lambda.
        method: The regularizer of the modes below the noise level, such as `SpectralCutoff()`.
        energy: R, the integral of |grad u|^2, which the flow conserves. It cannot be estimated from the values, to
            which the noise adds a gradient energy of delta^2 sum_k lambda_k.
        deviation: Standard deviation of the noise, independent in each value.

    Returns:
        The estimate, (..., *grid), with mean 0.

    Raises:
        ParameterError: If a number is out of range, or a field is not finite, not on the grid, or constant up to
            rounding.
    """
    values = as_field(domain, values, "values")
    modes = field_modes(domain, values.double(), "values")
    start = recover_modes(domain, modes, time, method, energy, mode_deviation(domain, deviation))
    return domain.to_values(start).to(values.dtype)


@plain_arguments
def recover_modes(
    domain: Domain, modes: Tensor, time: float, method: Mollifier, energy: float, deviation: float = 0.0
) -> Tensor:
    """Estimate the modes at time 0, (..., *modes), from noisy modes at time T, (..., *modes); see `recover`.

    The deviation is that of the noise in each mode; see `mode_deviation`.
    """
    require(0 <= time < math.inf, "time", time, "a number >= 0")
    require(0 < energy < math.inf, "energy", energy, "a number > 0")
    require(0 <= deviation < math.inf, "deviation", deviation, "a number >= 0")
    gradient, modes = GradientModes(domain), as_modes(domain, modes)
    v = gradient.select(modes.double())
    reject_constants((v == 0).all(-1), "modes")
    observed = Observation(v, gradient.eigenvalues.to(v.device), time, energy, deviation)
    return gradient.embed(method.start(observed)).to(modes.dtype)


@plain_arguments
def mode_deviation(domain: Domain, deviation: float) -> float:
    """Standard deviation in each mode of noise that has `deviation` in each of the grid's equal cells.

    Modes are orthonormal for the integral, so it is the square root of a cell's volume times `deviation`.
    """
    return deviation * math.sqrt(volume(domain) / domain.points[0].numel())


@plain_arguments
def resolvable_modes(domain: Domain, modes: Tensor, time: float, deviation: float) -> Tensor:
    """How many modes of a field are above the noise at time T: those with lambda_k < log(|a_k| e^rho / delta) / T.

    Args:
        domain: The domain.
        modes: a_k, the modes at time 0, (..., *modes).
        time: T >= 0.
        deviation: delta > 0, the standard deviation of the noise in each mode.

    Returns:
        Numbers of modes, (...), not counting the constant.
    """
    require(0 < deviation < math.inf, "deviation", deviation, "a number > 0")
    require(0 <= time < math.inf, "time", time, "a number >= 0")
    evolved = evolve_modes(domain, as_modes(domain, modes).double(), time).modes
    return (evolved.abs() > deviation).flatten(-domain.eigenvalues.ndim).sum(-1)


@plain_arguments
def resolution(time: float, relative_noise: float, length: float = 1.0) -> float:
    """K* = (L / pi) sqrt(log(1 / delta) / T): modes of an interval with e^(-lambda_k T) above a relative noise delta.

    Args:
        time: T > 0.
        relative_noise: The noise in a mode over its amplitude at time 0 times e^rho, in (0, 1).
        length: L.
    """
    require(0 < time < math.inf, "time", time, "a number > 0")
    require(0 < relative_noise < 1, "relative_noise", relative_noise, "a number in (0, 1)")
    return length / math.pi * math.sqrt(-math.log(relative_noise) / time)
