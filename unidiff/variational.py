"""The variational bound on the log-likelihood: the reverse chain of a sampler, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.batching import Batch, Progress, batches
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.grid import Grid
from unidiff.likelihood import Likelihood, SampleMean, check_data
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.noise import Noise, Seeded, seeds_of
from unidiff.precision import precise
from unidiff.process.base import Process
from unidiff.process.decoder import decoder_log_scale, decoder_nll
from unidiff.process.level import Level, Scale, posterior_kl
from unidiff.solver.spec import grid_for

__all__ = ["Bound", "variational_bound"]


@dataclass(frozen=True, eq=False)
class Bound(Likelihood):
    """A lower bound on log-likelihoods: log_prob is minus the sum of the terms, bits_per_dim bounds from above.

    Attributes:
        terms: Nats per sample and step, (B, N + 1): L_0, ..., L_N in order of time. L_0 is the decoder's term, L_N the
            prior's, L_i that of the step from times[i] to times[i - 1]. Ho et al. 2020, eq. 5, where N is T.
        times: The grid, increasing, (N,) float64.
    """

    terms: Tensor
    times: Tensor

    @property
    def steps(self) -> list[SampleMean]:
        """Mean of each term over the samples with its standard error, N + 1 of them."""
        return [SampleMean.of(term) for term in self.terms.T]


@plain_arguments
@enough_memory(LOWER_BATCH)
def variational_bound(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid | str | int,
    *,
    levels: int | None = None,
    variance: float | None = None,
    decoder_variance: float | None = 1.0,
    seeds: int | Sequence[int] | None = None,
    batch: int = 256,
    progress: Progress | bool | None = None,
    **cond: Tensor,
) -> Bound:
    """Variational bound of the chain of `Ancestral(variance)` along a grid t_N = 1 > ... > t_1, decoded at t_1.

    -log p(x) <= L_0 + L_1 + ... + L_N (Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 11). With s the time below t:

        L_N = KL(q(u_1 | x) || prior)
        L_i = E KL(q(u_s | u_t, x) || p(u_s | u_t)) = E (SNR_s - SNR_t) / 2 |x - x0(u_t)|^2     at t = t_{i + 1}
        L_0 = E -log p(x | u_{t_1})

    for variance 0 (Kingma et al. 2021, eq. 13); another variance, r times the small one, divides the step's term by r
    and adds D (log r + 1 / r - 1) / 2. Each expectation is estimated from one draw of noise per sample; so is L_N where
    sampling does not start from a Gaussian (a fitted InverseHeat), otherwise it is exact.

    The decoder is a Gaussian around x0(u_{t_1}) of standard deviation sigma(t_1), which is sqrt(beta_1) for DDPM, or as
    `decoder_variance` says. For continuous data L_0 is its density. With `levels` it is integrated over the bin around
    each value, the outermost bins extending to infinity (Ho et al. 2020, eq. 13), so that log_prob bounds the log
    probability of the data.

    Args:
        denoiser: The model, in evaluation mode.
        x: Data in pixels, (B, *shape), floating point.
        grid: The times. Native() gives the bound of the papers; a finer grid a tighter one, if the model is good.
        levels: Number of equally spaced values from -1 to 1 that the data can take (256 for images); None if they
            are continuous.
        variance: That of the chain's steps, from 0 (small) to 1 (large); None for the learned variance, or small if
            the model has none; see `Ancestral`.
        decoder_variance: That of the decoder, from 0 to 1 on a logarithmic scale: 1 is sigma(t_1)^2, or beta_1; 0 is
            the small variance of the step above it, or beta-tilde_2, which the programs of Ho et al. 2020 and Nichol &
            Dhariwal 2021 take whatever the variance of their steps is fixed to; None is the learned variance at t_1, as
            in the latter's program, for models trained by VLB or Hybrid(levels).
        seeds: One per sample, for its noise; 0, ..., B - 1 if None.
        batch: States evaluated at once, at least 1; bounds the memory, changes no result.
        progress: Called with (evaluations done, evaluations in all).
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Raises:
        ParameterError: If an argument is out of range, the data are not finite or not on the levels, or the noise of
            the process at t_1 differs from mode to mode.
    """
    check_data(x, levels, denoiser.shape)
    seeds = seeds_of(seeds, len(x))
    cond = check_conditions(cond, denoiser, len(x), x.device)
    allowed = "a number from 0 (small) to 1 (large), or None"
    require(variance is None or 0 <= variance <= 1, "variance", variance, allowed)
    allowed = "a number from 0 (beta-tilde_2) to 1 (beta_1), or None"
    require(decoder_variance is None or 0 <= decoder_variance <= 1, "decoder_variance", decoder_variance, allowed)
    if decoder_variance is None and not denoiser.learned_variance:
        problem = "None asks for the learned variance, which this model does not predict."
        raise ParameterError("decoder_variance", f"{problem} Pass a number from 0 to 1.")
    require_whole("batch", batch, 1, 10_000_000)
    grid = grid_for(denoiser.process, grid)
    times = grid.times(denoiser.process)[:-1].flip(0)
    if decoder_variance != 1 and (len(times) == 1 or denoiser.process.basis.shape):
        reason = "has no step above its decoder" if len(times) == 1 else "has other variances in each mode"
        where = grid if len(times) == 1 else denoiser.process
        raise ParameterError("decoder_variance", f"must be 1, got {decoder_variance}: {where!r} {reason}.")
    samples = min(batch, len(x))
    with torch.inference_mode(False), torch.no_grad():  # a denoiser may differentiate
        parts = [
            _terms(denoiser, x[part.rows], times, levels, (variance, decoder_variance), batch // samples, part)
            for part in batches(seeds, samples, cond, progress)
        ]
    terms = torch.cat(parts)
    return Bound(-terms.sum(1), None, x[0].numel(), len(times), terms, times)


def _terms(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    levels: int | None,
    variances: tuple[float | None, float | None],
    together: int,
    part: Batch,
) -> Tensor:
    """The terms of a batch, (B, N + 1), with `together` times in one evaluation; variances of steps and decoder."""
    process, noise = denoiser.process, Seeded(part.seeds)
    u0, scales = process.basis.forward(x), process.levels_at(times, x.device)
    # The first time alone, because the decoder needs the predicted pixels there.
    (error,), first_learned = _errors(denoiser, u0, times[:1], noise, part.cond)
    variance, own = variances
    share: Scale = first_learned[0] if own is None and first_learned is not None else own or 0.0
    decoder = _decoder(x, process.basis.inverse(error), scales, share, levels)
    steps = [u0.new_empty(0, len(u0))]
    part.progress(1, len(times))
    for first in range(1, len(times), together):
        stop = min(first + together, len(times))
        errors, learned = _errors(denoiser, u0, times[first:stop], noise, part.cond)
        shares = repeat(variance or 0.0) if variance is not None or learned is None else learned
        steps.append(torch.stack([*map(_step, errors, scales[first:stop], scales[first - 1 :], shares)]))
        part.progress(stop, len(times))
    middle = torch.cat(steps).to("cpu", torch.float64)
    return torch.cat([decoder[:, None], middle.T, _prior(process, u0, scales[-1], noise)[:, None]], 1)


def _errors(
    denoiser: Denoiser, u0: Tensor, times: Tensor, noise: Noise, cond: dict[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """The errors u_0 - x0(u_t) of the predicted data and the learned variances, at M times: each (M, B, *modes)."""
    count = len(times)
    eps = torch.stack([noise(u0) for _ in times]).flatten(0, 1)
    data = u0.expand(count, *u0.shape).flatten(0, 1)
    level = denoiser.process.level(times.repeat_interleave(len(u0)), data)
    repeated = {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in cond.items()}
    x0, _, _, variance = denoiser(denoiser.process.perturb(data, eps, level), level, **repeated)
    sizes = (count, len(u0))
    return (data - x0).unflatten(0, sizes), None if variance is None else variance.unflatten(0, sizes)


def _step(error: Tensor, t: Level, s: Level, variance: Scale) -> Tensor:
    """KL between q(u_s | u_t, x) and the model's Gaussian, in nats (B,), from the error of x0, (B, *modes)."""
    squares, spread = posterior_kl(error, t, s, variance)
    dtype = precise(error.device)
    spreads = spread * error.new_ones(error.shape, dtype=dtype)
    return squares.flatten(1).sum(1).to(dtype) + spreads.flatten(1).sum(1)


def _prior(process: Process, u0: Tensor, end: Level, noise: Noise) -> Tensor:
    """KL(q(u_1 | x) || prior), in nats: (B,).

    It is KL(q || N(0, s^2)) + E_q[log N(u_1; 0, s^2) - log prior(u_1)] with s = `prior_scale`. The expectation is 0 for
    a Gaussian prior and estimated from one draw of u_1 for any other.
    """
    u0, scale = u0.to("cpu", torch.float64), process.prior_scale()
    alpha, sigma = (torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in (end.alpha, end.sigma))
    ratio, u1 = sigma / scale, alpha * u0 + sigma * noise(u0)
    kl = 0.5 * (alpha / scale * u0).square().flatten(1).sum(1)
    kl += (0.5 * (ratio**2 - 1) - ratio.log()).expand(u0.shape[1:]).sum()
    return kl + Process.prior_log_density(process, u1) - process.prior_log_density(u1)


def _decoder(x: Tensor, residual: Tensor, scales: Sequence[Level], variance: Scale, levels: int | None) -> Tensor:
    """-log p(x | u_{t_1}) in nats, (B,), for the Gaussian around x - residual in pixels."""
    if isinstance(variance, Tensor) or variance < 1:
        own = decoder_log_scale(scales[0], scales[1], variance)
        log_scale = torch.as_tensor(own, dtype=torch.float64, device="cpu")
    else:
        modes = torch.as_tensor(scales[0].sigma, dtype=torch.float64, device="cpu").log().flatten()
        log_scale = modes[0]  # of any mode, and so of any pixel
        if bool((modes - log_scale).abs().max() > 1e-9):
            problem = "its noise differs from mode to mode, so a decoder of independent pixels is undefined."
            raise ParameterError("denoiser", f"{problem} Use the flow (`log_likelihood`).")
    x, residual = (value.to("cpu", torch.float64) for value in (x, residual))
    return decoder_nll(x, residual, log_scale, levels).flatten(1).sum(1)
