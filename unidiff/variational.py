"""The variational bound on the log-likelihood: the reverse chain of a sampler, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.batching import Progress, batches
from unidiff.condition import check_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.grid import Grid
from unidiff.likelihood import Likelihood, SampleMean, bin_width, check_data
from unidiff.noise import Noise, Seeded, seeds_of
from unidiff.precision import precise
from unidiff.process.base import Process
from unidiff.process.level import Level, Scale, posterior_kl

__all__ = ["Bound", "variational_bound"]


@dataclass(frozen=True, eq=False)
class Bound(Likelihood):
    """A lower bound on log-likelihoods: log_prob is minus the sum of the terms, bits_per_dim bounds from above.

    Attributes:
        terms: Nats per sample and step, (B, N + 1): L_0, ..., L_N in the order of time. L_0 is the decoder's, L_N the
            prior's, L_i the step's from times[i] to times[i - 1]. Ho et al. 2020, eq. 5, where N is T.
        times: The grid, increasing, (N,) float64.
    """

    terms: Tensor
    times: Tensor

    @property
    def steps(self) -> list[SampleMean]:
        """Mean of each term over the samples with its standard error, N + 1 of them."""
        return [SampleMean.of(term) for term in self.terms.T]


def variational_bound(
    denoiser: Denoiser,
    x: Tensor,
    grid: Grid,
    *,
    levels: int | None = None,
    variance: float | None = None,
    seeds: Sequence[int] | None = None,
    batch: int = 256,
    progress: Progress | None = None,
    **cond: Tensor,
) -> Bound:
    """Variational bound for the chain that `Ancestral(variance)` walks down a grid t_N = 1 > ... > t_1, decoded at t_1.

    -log p(x) <= L_0 + L_1 + ... + L_N (Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 11). With s the time below t:

        L_N = KL(q(u_1 | x) || prior)
        L_i = E KL(q(u_s | u_t, x) || p(u_s | u_t)) = E (SNR_s - SNR_t) / 2 |x - x0(u_t)|^2     at t = t_{i + 1}
        L_0 = E -log p(x | u_{t_1})

    for variance 0 (Kingma et al. 2021, eq. 13); another variance, r times the small one, divides the step's term by r
    and adds D (log r + 1 / r - 1) / 2. Each expectation is taken from one draw of noise per sample.

    The decoder is a Gaussian around x0(u_{t_1}) of standard deviation sigma(t_1), which is sqrt(beta_1) for DDPM. Its
    density is taken for continuous data. With `levels` it is integrated over the bin around each value, the outermost
    bins reaching to infinity (Ho et al. 2020, eq. 13), so that log_prob bounds the log probability of the data.

    Args:
        denoiser: The model, in evaluation mode.
        x: Data in pixels, (B, *shape), floating point.
        grid: The times. Native() gives the bound of the papers; a longer grid a tighter one, if the model is good.
        levels: Number of equally spaced values from -1 to 1 that the data can take (256 for pictures); None if they
            are continuous.
        variance: That of the chain's steps, from 0 (small) to 1 (large); None is what the model has learned, and small
            if it has not; see `Ancestral`.
        seeds: One per sample, for its noise; 0, ..., B - 1 if None.
        batch: States given to the denoiser at once, at least 1; bounds the memory, changes no result.
        progress: Called with (evaluations done, evaluations in all).
        **cond: Conditions, each (B, ...), handed to the denoiser.

    Returns:
        The terms per sample and step, and the bound that they add up to.

    Raises:
        ParameterError: If an argument is out of range, or the data are not finite or not on the levels.
    """
    check_data(x, levels)
    seeds = seeds_of(seeds, len(x))
    cond = check_conditions(cond, denoiser, len(x), x.device)
    fits = variance is None or 0 <= variance <= 1
    require(fits, "variance", variance, "a number from 0 (small) to 1 (large), or None")
    require_whole("batch", batch, 1, 10_000_000)
    times = grid.times(denoiser.process)[:-1].flip(0)
    samples = min(batch, len(x))
    found: list[Tensor] = []
    with torch.inference_mode(False), torch.no_grad():  # rates are found by automatic differentiation
        for part in batches(seeds, samples, cond, progress):
            some, noise, together = x[part.rows], Seeded(part.seeds), batch // samples
            found.append(_terms(denoiser, some, times, levels, variance, noise, together, part.progress, part.cond))
    terms = torch.cat(found)
    return Bound(-terms.sum(1), None, x[0].numel(), len(times), terms, times)


def _terms(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    levels: int | None,
    variance: float | None,
    noise: Noise,
    together: int,
    report: Progress,
    cond: dict[str, Tensor],
) -> Tensor:
    """The terms of some samples, (B, N + 1), with `together` times in one evaluation."""
    process = denoiser.process
    u0, scales = process.basis.forward(x), process.levels_at(times, x.device)
    # The first time alone, because the decoder needs the predicted pixels there.
    (error,), _ = _errors(denoiser, u0, times[:1], noise, cond)
    terms = [_decoder(x, process.basis.inverse(error), scales[0], levels)]
    report(1, len(times))
    for first in range(1, len(times), together):
        part = slice(first, min(first + together, len(times)))
        errors, learned = _errors(denoiser, u0, times[part], noise, cond)
        shares: list[Scale] = [0.0 if variance is None else variance] * len(errors)
        if variance is None and learned is not None:
            shares = list(learned)
        neighbours = zip(errors, scales[part], scales[first - 1 :], shares)
        terms += [_step(error, t, s, share) for error, t, s, share in neighbours]
        report(part.stop, len(times))
    steps: Sequence[Tensor] = list(torch.stack(terms[1:]).to("cpu", torch.float64)) if terms[1:] else []
    return torch.stack([terms[0], *steps, _prior(process, u0, scales[-1])], 1)


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
    if not isinstance(spread, Tensor):
        return squares.flatten(1).sum(1).to(dtype) + spread * error[0].numel()
    return squares.flatten(1).sum(1).to(dtype) + spread.to(dtype).expand(error.shape).flatten(1).sum(1)


def _prior(process: Process, u0: Tensor, end: Level) -> Tensor:
    """KL(q(u_1 | x) || prior), in nats: (B,)."""
    u0, scale = u0.to("cpu", torch.float64), process.prior_scale()
    alpha, sigma = (torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in (end.alpha, end.sigma))
    ratio, squares = sigma / scale, ((alpha / scale) ** 2 * u0.square()).flatten(1).sum(1)
    return 0.5 * squares + (0.5 * (ratio**2 - 1) - ratio.log()).expand(u0.shape[1:]).sum()


def _decoder(x: Tensor, residual: Tensor, level: Level, levels: int | None) -> Tensor:
    """-log p(x | u) in nats, (B,), for the Gaussian around x - residual of standard deviation sigma."""
    x, residual = (value.to("cpu", torch.float64).flatten(1) for value in (x, residual))
    scales = torch.as_tensor(level.sigma, dtype=torch.float64, device="cpu")
    sigma = float(scales.flatten()[0])
    if bool((scales - sigma).abs().max() > 1e-9 * sigma):
        problem = "its noise differs from mode to mode, so pixels have no independent noise that a decoder could undo."
        raise ParameterError("denoiser", f"{problem} Use the flow (`log_likelihood`).")
    if levels is None:
        return 0.5 * (residual / sigma).square().sum(1) + x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))
    half = bin_width(levels) / 2
    low = torch.where(x < -1 + half, -math.inf, residual - half) / sigma
    high = torch.where(x > 1 - half, math.inf, residual + half) / sigma
    # Phi(high) - Phi(low) = Phi(-low) - Phi(-high): on the side where both are small, nothing cancels.
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    below, above = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return -(above + torch.log(-torch.expm1(below - above))).sum(1)  # Ho et al. 2020, eq. (13)
