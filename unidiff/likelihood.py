"""Log-likelihood by the instantaneous change of variables along the probability flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchdiffeq import odeint

from unidiff.arguments import plain_arguments
from unidiff.batching import Progress, batches
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Counted, Denoiser
from unidiff.divergence import DivergenceEstimator
from unidiff.errors import ParameterError, require, require_whole
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.noise import Noise, Seeded, seeds_of
from unidiff.precision import precise
from unidiff.process.decoder import bin_width
from unidiff.solver.ode import require_resolved
from unidiff.solver.request import require_room
from unidiff.tensors import check_batch

__all__ = ["Likelihood", "SampleMean", "bin_width", "check_data", "log_likelihood"]

_WAY = 1000  # parts of the way from t_min to 1 that progress is reported in
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
    """The log-likelihood of data under a model. Tensors are on the CPU, in float64.

    Attributes:
        log_prob: Nats per sample, (B,): the log density of continuous data, or a lower bound on the log probability of
            data with `levels`.
        standard_error: Standard error of each entry of log_prob due to the random probes, (B,); None with fewer than 2.
        size: D, the number of values in a sample.
        nfe: Evaluations of the denoiser per sample; the most of any batch.
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
        """Mean of log_prob over the samples; its standard error includes the choice of data and all random draws."""
        return SampleMean.of(self.log_prob)

    @property
    def bits(self) -> SampleMean:
        """Mean of bits_per_dim over the samples, with its standard error."""
        return SampleMean.of(self.bits_per_dim)


@plain_arguments
@enough_memory(LOWER_BATCH)
def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    trace: DivergenceEstimator,
    *,
    levels: int | None = None,
    seeds: int | Sequence[int] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    batch: int = 128,
    progress: Callable[[int, int], None] | bool | None = None,
    **cond: Tensor,
) -> Likelihood:
    """Log-likelihood of data under the probability flow of a model.

    The flow du/dt = v(u, t) with v = alpha' x0 + sigma' eps carries the prior at t = 1 to the model's density p_0 at
    t_min, and d log p(u_t) / dt = -div v (Chen et al. 2018, eq. 8; Song et al. 2021, eq. 39), so that along it

        log p_0(u) = log prior(u_1) + integral of div v(u_t, t) from t_min to 1.

    A state at t_min is alpha(t_min) times data, blurred by sigma(t_min). The density reported is that of
    u / alpha(t_min), in the units of the data: log p(x) = log p_0(alpha x) + D log alpha at alpha = alpha(t_min). For
    an exact model with an exact prior it is the density of the data blurred by sigma / alpha. The basis of the process
    is orthonormal, so it preserves volume.

    Data in bins: with `levels` = 256 the values -1, -1 + w, ..., 1 of x, w = 2 / 255, stand for bins of width w, and
    the log probability of the bins is bounded from below by Jensen's inequality: log P(x) >= E log p(x + w (U - 1/2)) +
    D log w with U uniform on [0, 1] (Theis et al. 2016, section 3.1). One U is drawn per value.

    Args:
        denoiser: The model, in evaluation mode. Its prediction is differentiated with respect to the state.
        x: Data in pixels, (B, *shape), floating point; the network is called in this dtype.
        trace: The divergence estimator: exact, or stochastic.
        levels: Number of equally spaced values from -1 to 1 that the data can take; None if they are continuous.
        seeds: One per sample, for the noise of dequantisation and then for the probes; 0, ..., B - 1 if None.
        rtol: Relative tolerance of a step, for the state and the integral of each sample; above 0.
        atol: Absolute tolerance likewise; above 0.
        batch: Samples solved together, at least 1. They share their time steps, controlled by the largest error, so
            results of different batch sizes agree within the tolerances.
        progress: Called with (done, total) after each evaluation: thousandths of the way from t_min to 1, over all
            batches. The way is measured in t and in log t, half each, as steps are short near t_min.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Raises:
        ParameterError: If an argument is out of range, the data are not finite or not on the levels, or the equation
            cannot be solved with these tolerances.
    """
    check_data(x, levels, denoiser.shape)
    seeds = seeds_of(seeds, len(x))
    cond = check_conditions(cond, denoiser, len(x), x.device)
    require_room(denoiser, len(x), batch, x.shape[1:], cond, x.dtype, x.device)
    for name, value in (("rtol", rtol), ("atol", atol)):
        require(0 < value < math.inf, name, value, "a number > 0")
    require_resolved(rtol, atol, x.dtype, "rtol")
    estimates, nfe = [], 0
    # Automatic differentiation works under no_grad, where it is switched on again, but not under inference_mode.
    with torch.inference_mode(False), torch.no_grad():
        for part in batches(seeds, batch, cond, progress if callable(progress) else None):
            counted, rows = Counted(denoiser), x[part.rows].clone()
            copies = {name: value.clone() for name, value in part.cond.items()}
            estimates.append(
                _solve(counted, rows, trace, levels, Seeded(part.seeds), rtol, atol, copies, part.progress)
            )
            nfe = max(nfe, counted.nfe)
            part.progress(_WAY, _WAY)
        log_prob = torch.cat(estimates)
    error = log_prob.std(1) / math.sqrt(log_prob.shape[1]) if log_prob.shape[1] > 1 else None
    return Likelihood(log_prob.mean(1), error, x[0].numel(), nfe)


def _solve(
    denoiser: Denoiser,
    x: Tensor,
    trace: DivergenceEstimator,
    levels: int | None,
    noise: Noise,
    rtol: float,
    atol: float,
    cond: dict[str, Tensor],
    progress: Progress,
) -> Tensor:
    """Log-likelihoods of a batch, one column per estimate of the trace: (B, K) float64 on the CPU."""
    process = denoiser.process
    size, constant = x[0].numel(), 0.0
    data = x.to("cpu", torch.float64)  # noise is drawn and added on the CPU: the same on every device
    if levels is not None:
        width = bin_width(levels)
        data = data + width * (torch.special.ndtr(noise(data)) - 0.5)  # Phi of a normal variable is uniform
        constant += size * math.log(width)
    u0 = process.basis.forward(data)
    probes = trace.draw(u0, noise)
    probes = None if probes is None else probes.to(x)
    t_min = torch.tensor(process.t_min, dtype=torch.float64)
    constant += float(process.log_alpha(t_min).expand(u0.shape[1:]).sum())
    u0 = process.alpha(t_min) * u0

    def rates(t: Tensor, state: Tensor) -> Tensor:
        """Velocity of the flow and divergence, (B, D + K)."""
        u = state[:, :size].reshape(x.shape).to(x.dtype).detach().requires_grad_()
        # An adaptive solver may step beyond the ends of the interval, where a process need not be defined.
        time = min(max(float(t), process.t_min), 1.0)
        level = process.level(time, u)
        with torch.enable_grad():
            velocity = denoiser(u, level, **cond).velocity
        if not velocity.requires_grad:
            raise ParameterError("denoiser", "its prediction cannot be differentiated with respect to the state.")
        progress(_way(time, process.t_min), _WAY)
        return torch.cat([velocity.detach().flatten(1), trace.divergence(velocity, u, probes)], 1).to(state)

    def norm(error: Tensor) -> Tensor:
        """The largest error of all samples: root mean square over the state, or of an integral."""
        return torch.maximum(error[:, :size].square().mean(1).sqrt().max(), error[:, size:].abs().max())

    dtype = precise(x.device)
    start = torch.cat([u0.flatten(1), u0.new_zeros(len(u0), trace.estimates)], 1).to(x.device, dtype)
    times = torch.tensor([process.t_min, 1.0], dtype=dtype, device=x.device)
    # A step ends exactly at t = 1 (step_t), so nothing is interpolated.
    options = {"norm": norm, "dtype": dtype, "step_t": times[1:], "max_num_steps": _MOST_STEPS}
    try:
        end = odeint(rates, start, times, rtol=rtol, atol=atol, method="dopri5", options=options)[1]
    except AssertionError as error:  # steps of length 0, or a state that is not finite
        remedy = "Try larger rtol and atol, or float64 data and network; check that the model's predictions are finite."
        raise ParameterError("denoiser", f"its probability flow cannot be solved ({error}). {remedy}") from error
    end = end.to("cpu", torch.float64)
    prior = process.prior_log_density(end[:, :size].reshape(x.shape))
    return prior[:, None] + end[:, size:] + constant


def _way(t: float, t_min: float) -> int:
    """How far t is from t_min to 1, in parts of `_WAY`, below all of it."""
    linear = (t - t_min) / (1 - t_min)
    logarithmic = 1 - math.log(t) / math.log(t_min) if 0 < t_min < 1 and t > 0 else linear
    return min(int(_WAY * (linear + logarithmic) / 2), _WAY - 1)


def check_data(x: Tensor, levels: int | None, own: Sequence[int] | None = None) -> None:
    """Raise a ParameterError unless data, (B, *own), are finite floats, on the levels in [-1, 1] if they have any."""
    check_batch("x", x, own)
    if levels is None:
        return
    require_whole("levels", levels, 2, 2**16)
    low, high = float(x.min()), float(x.max())
    allowed = "in [-1, 1] for data with levels (grey values: x / 127.5 - 1)"
    require(max(-low, high) <= 1 + 1e-6, "x", f"values in [{low:g}, {high:g}]", allowed)
    position = (x.to("cpu", torch.float64) + 1) / bin_width(levels)
    # Rounding moves 256 levels by 0.03 of their distance in float16, 65536 by 0.002 in float32.
    if float((position - position.round()).abs().max()) > 0.05:
        raise ParameterError(
            "levels", f"x has values other than these {levels} levels. Pass the right number, or None."
        )
