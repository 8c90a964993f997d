"""Log-likelihood by the probability flow: the change of variables along an ordinary differential equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchdiffeq import odeint

from unidiff.batching import batches
from unidiff.condition import check_conditions
from unidiff.denoiser import Counted, Denoiser
from unidiff.divergence import DivergenceEstimator
from unidiff.errors import ParameterError, require, require_whole
from unidiff.noise import Noise, Seeded, seeds_of
from unidiff.precision import precise

__all__ = ["Likelihood", "SampleMean", "bin_width", "check_data", "log_likelihood"]

_MOST_STEPS = 100_000  # of the adaptive solver, per batch


class SampleMean(NamedTuple):
    """A mean over samples and its standard error (nan for a single sample)."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Tensor) -> SampleMean:
        """From independent values (B,): the mean, and standard deviation / sqrt(B)."""
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), error)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """How likely a model finds data. Tensors are on the CPU, in float64.

    Attributes:
        log_prob: Nats per sample, (B,): the log density of continuous data, or a lower bound on the log probability of
            data with `levels`.
        standard_error: Standard error of each entry of log_prob from the random probes, (B,); None where there were
            none, or one per sample.
        size: D, the number of values in a sample.
        nfe: Evaluations of the denoiser per sample (of the batch that needed most).
    """

    log_prob: Tensor
    standard_error: Tensor | None
    size: int
    nfe: int

    @property
    def bits_per_dim(self) -> Tensor:
        """Negative log_prob in bits per value, (B,): -log_prob / (D log 2)."""
        return -self.log_prob / (self.size * math.log(2))

    @property
    def nats(self) -> SampleMean:
        """Mean of log_prob over the samples; its standard error has the choice of data and all random draws in it."""
        return SampleMean.of(self.log_prob)

    @property
    def bits(self) -> SampleMean:
        """Mean of bits_per_dim over the samples, with its standard error."""
        return SampleMean.of(self.bits_per_dim)


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    trace: DivergenceEstimator,
    *,
    levels: int | None = None,
    seeds: Sequence[int] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    batch: int = 128,
    progress: Callable[[int, int], None] | None = None,
    **cond: Tensor,
) -> Likelihood:
    """Log-likelihood of data under the probability flow of a model.

    The flow du/dt = v(u, t) with v = alpha' x0 + sigma' eps carries the prior at t = 1 to the model's density p_0 at
    t_min, and d log p(u_t) / dt = -div v (Chen et al. 2018, eq. 8; Song et al. 2021, eq. 39), so that along it

        log p_0(u) = log prior(u_1) + integral of div v(u_t, t) from t_min to 1.

    A state at t_min is alpha(t_min) times data, blurred by sigma(t_min). The density reported is that of
    u / alpha(t_min), in the units of the data: log p(x) = log p_0(alpha x) + D log alpha at alpha = alpha(t_min). For
    an exact model with an exact prior it is the density of the data blurred by sigma / alpha. The basis of the process
    is orthonormal and changes no volume.

    Data in bins: with `levels` = 256 the values -1, -1 + w, ..., 1 of x, w = 2 / 255, stand for bins of width w, and
    the log probability of the bins is bounded from below by Jensen's inequality: log P(x) >= E log p(x + w (U - 1/2)) +
    D log w with U uniform on [0, 1] (Theis et al. 2016, section 3.1). One U is drawn per value.

    Args:
        denoiser: The model, in evaluation mode. Its prediction is differentiated with respect to the state.
        x: Data in pixels, (B, *shape), floating point; the network is called in this dtype.
        trace: How the divergence is found: exact, or estimated.
        levels: Number of equally spaced values from -1 to 1 that the data can take; None if they are continuous.
        seeds: One per sample, for the noise of dequantisation and then for the probes; 0, ..., B - 1 if None. They fix
            all that is random.
        rtol: Error allowed in a step relative to the state and to the integral, for each sample; above 0.
        atol: Error allowed beside it; above 0.
        batch: Samples solved together, at least 1. They share their time steps, which suit the worst of them, so
            another batch changes a result by no more than the errors allowed.
        progress: Called with (samples done, samples in all) after each batch.
        **cond: Conditions, each (B, ...), handed to the denoiser.

    Returns:
        Log-likelihoods per sample, with means over the samples.

    Raises:
        ParameterError: If an argument is out of range, the data are not finite or not on the levels, or the equation
            cannot be solved with these tolerances.
    """
    check_data(x, levels)
    seeds = seeds_of(seeds, len(x))
    cond = check_conditions(cond, denoiser, len(x), x.device)
    for name, value in (("rtol", rtol), ("atol", atol)):
        require(0 < value < math.inf, name, value, "a number above 0")
    found, evaluations = [], 0
    # Automatic differentiation works under no_grad, where it is switched on again, but not under inference_mode.
    with torch.inference_mode(False), torch.no_grad():
        for part in batches(seeds, batch, cond):
            counted = Counted(denoiser)
            given = {name: value.clone() for name, value in part.cond.items()}
            noise = Seeded(part.seeds)
            found.append(_solve(counted, x[part.rows].clone(), trace, levels, noise, rtol, atol, given))
            evaluations = max(evaluations, counted.nfe)
            if progress is not None:
                progress(part.rows.stop, len(x))
        log_prob = torch.cat(found)
    several = log_prob.shape[1] > 1
    error = log_prob.std(1) / math.sqrt(log_prob.shape[1]) if several else None
    return Likelihood(log_prob.mean(1), error, x[0].numel(), evaluations)


def _solve(
    denoiser: Denoiser,
    x: Tensor,
    trace: DivergenceEstimator,
    levels: int | None,
    noise: Noise,
    rtol: float,
    atol: float,
    cond: dict[str, Tensor],
) -> Tensor:
    """Log-likelihoods of a batch, one column per estimate of the trace: (B, K) float64 on the CPU."""
    process = denoiser.process
    exact = x.to("cpu", torch.float64)  # what is random is drawn and added here, alike on every device
    constant = 0.0
    if levels is not None:
        width = bin_width(levels)
        exact = exact + width * (torch.special.ndtr(noise(exact)) - 0.5)  # Phi of a normal variable is uniform
        constant += exact[0].numel() * math.log(width)
    u0 = process.basis.forward(exact)
    drawn = trace.draw(u0, noise)
    probes = None if drawn is None else drawn.to(x)
    begin = torch.tensor(process.t_min, dtype=torch.float64)
    constant += float(process.log_alpha(begin).expand(u0.shape[1:]).sum())
    u0 = process.alpha(begin) * u0
    size = u0[0].numel()

    def rates(t: Tensor, state: Tensor) -> Tensor:
        """Velocity of the flow and divergence, (B, D + K)."""
        u = state[:, :size].reshape(x.shape).to(x.dtype).detach().requires_grad_()
        # An adaptive solver may ask beyond the ends of the interval, where a process need not be defined.
        level = process.level(min(max(float(t), process.t_min), 1.0), u)
        with torch.enable_grad():
            velocity = denoiser(u, level, **cond).velocity
        if not velocity.requires_grad:
            raise ParameterError("denoiser", "its answer cannot be differentiated with respect to the state.")
        return torch.cat([velocity.detach().flatten(1), trace.divergence(velocity, u, probes)], 1).to(state)

    def worst(error: Tensor) -> Tensor:
        """The largest of all samples' errors: root mean square over the state, and each integral."""
        of_state = error[:, :size].square().mean(1).sqrt()
        return torch.maximum(of_state.max(), error[:, size:].abs().max())

    dtype = precise(x.device)
    start = torch.cat([u0.flatten(1), u0.new_zeros(len(u0), trace.estimates)], 1).to(x.device, dtype)
    times = torch.tensor([process.t_min, 1.0], dtype=dtype, device=x.device)
    # A step ends exactly at t = 1 (step_t), so nothing is interpolated.
    options = {"norm": worst, "dtype": dtype, "step_t": times[1:], "max_num_steps": _MOST_STEPS}
    try:
        end = odeint(rates, start, times, rtol=rtol, atol=atol, method="dopri5", options=options)[1]
    except AssertionError as error:  # steps of length 0, or a state that is not finite
        remedy = "Larger rtol and atol, or float64 data and network, may help; so does looking at the model's answers."
        raise ParameterError("denoiser", f"its probability flow cannot be solved ({error}). {remedy}") from error
    end = end.to("cpu", torch.float64)
    prior = process.prior_log_density(end[:, :size].reshape(x.shape))
    return prior[:, None] + end[:, size:] + constant


def bin_width(levels: int) -> float:
    """Distance 2 / (levels - 1) between neighbouring values, for `levels` of them from -1 to 1."""
    return 2 / (levels - 1)


def check_data(x: Tensor, levels: int | None) -> None:
    """Refuse data that have no likelihood.

    Args:
        x: Data, (B, *shape).
        levels: Number of values that they can take, or None for continuous data.

    Raises:
        ParameterError: If x is no batch of finite floating-point values, or one of them is at none of the levels.
    """
    if x.ndim < 2 or x.numel() == 0 or not x.is_floating_point():
        given = f"{x.dtype} of shape {tuple(x.shape)} was given"
        raise ParameterError("x", f"{given}; allowed is floating point (B, *shape), with at least one value.")
    broken = (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise ParameterError("x", f"sample {broken[0]} holds NaN or infinity. Remove such samples.")
    if levels is None:
        return
    require_whole("levels", levels, 2, 2**16)
    if float(x.abs().max()) > 1 + 1e-6:
        seen = f"values from {float(x.min()):g} to {float(x.max()):g} were given"
        raise ParameterError("x", f"{seen}; data with levels are in [-1, 1], as x / 127.5 - 1 of grey values 0 to 255.")
    position = (x.to("cpu", torch.float64) + 1) / bin_width(levels)
    # Rounding moves 256 levels by 0.03 of their distance in float16, 65536 by 0.002 in float32.
    if float((position - position.round()).abs().max()) > 0.05:
        raise ParameterError("levels", f"x has values between the {levels} levels. Give their number, or None.")
