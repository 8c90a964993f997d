"""The variational bound, term by term, against closed forms of Gaussian data and the formulas of Ho et al. 2020.

For data N(m, C) with eigenvalues l_k the exact x0(u_t) along eigenvector k is m + alpha l / s^2 (u_t - alpha m), s^2 =
alpha^2 l + sigma^2. For a given x its error has mean sigma^2 / s^2 (x - m) and variance (alpha l sigma / s^2)^2.

Bounds. A term is a mean of one draw per sample: five standard errors are allowed, which a right program exceeds once in
two million times, and the seeds are fixed. Identities hold to rounding, u = 2^-53 times the largest SNR, below 1e4.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.noise import Seeded

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Gaussian:
    """N(m, diag l) in four dimensions, and the terms of its bound in closed form."""

    variances = torch.tensor([0.1, 0.4, 1.0, 2.0], dtype=F64)
    mean = torch.tensor([[0.3, -0.2, 0.0, 0.5]], dtype=F64)

    def __init__(self, process: ud.Process) -> None:
        self.process = process
        self.model = ud.GaussianMixture(process, self.mean, self.variances.diag())

    def draw(self, count: int, seed: int = 3) -> torch.Tensor:
        return self.mean + randn(count, 4, seed=seed) * self.variances.sqrt()

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Normal(self.mean, self.variances.sqrt()).log_prob(x).sum(1)

    def squared_error(self, squares: torch.Tensor, level: ud.Level) -> torch.Tensor:
        """E |x - x0(u_t)|^2 for each x, (B,), from (x - m)^2, (B, 4)."""
        s2 = level.alpha**2 * self.variances + level.sigma**2
        mean = level.sigma**2 / s2
        return (mean**2 * squares + (level.alpha * self.variances * level.sigma / s2) ** 2).sum(1)

    def terms(self, squares: torch.Tensor, x2: torch.Tensor, times: torch.Tensor, variance: float) -> torch.Tensor:
        """The terms for each x, (B, N + 1), from (x - m)^2 and x^2: their own values, or expectations over data."""
        levels = self.process.levels_at(times)
        sigma, last, scale = levels[0].sigma, levels[-1], self.process.prior_scale()
        found = [2 * math.log(2 * math.pi * sigma**2) + self.squared_error(squares, levels[0]) / (2 * sigma**2)]
        for s, t in pairwise(levels):
            snr = [(level.alpha / level.sigma) ** 2 for level in (s, t)]
            r = (t.sigma / s.sigma) ** (2 * variance)
            spread = 2 * (math.log(r) + 1 / r - 1)
            found.append(spread + (snr[0] - snr[1]) / (2 * r) * self.squared_error(squares, t))
        ratio = last.sigma / scale
        found.append(2 * (ratio**2 - 1 - 2 * math.log(ratio)) + 0.5 * (last.alpha / scale) ** 2 * x2.sum(1))
        return torch.stack(found, 1)


# ---------------------------------------------------------------------------------------------- every term


@pytest.mark.cases(3)
@pytest.mark.parametrize("variance", [0.0, 1.0, 0.3])
@pytest.mark.parametrize(
    ("process", "grid"),
    [
        (ud.DDPM(T=6), ud.Native()),
        (ud.NCSN(0.1, 5.0, 8), ud.Native()),
        (ud.VESDE(0.05, 10.0), ud.Uniform(5)),
        (ud.FlowMatching(0.05), ud.Uniform(6)),
        (ud.DDPM(T=6, schedule=ud.ZeroTerminalSNR()), ud.Uniform(9)),
        (ud.NCSN(0.1, 5.0, 8), ud.Uniform(1)),
    ],
    ids=["ddpm", "ncsn", "ve", "flow", "zero", "one step"],
)
def test_every_term_has_its_closed_form(process, grid, variance):
    truth, n = Gaussian(process), 3000
    point = truth.draw(1)
    found = ud.variational_bound(truth.model, point.expand(n, 4), grid, variance=variance)
    times = grid.times(process)[:-1].flip(0)
    expected = truth.terms((point - truth.mean) ** 2, point**2, times, variance)[0]
    assert torch.equal(found.times, times)
    assert found.terms.shape == (n, len(times) + 1)
    assert found.nfe == len(times)
    for i, (step, value) in enumerate(zip(found.steps, expected)):
        # The prior's term is not random; nor is a step's where alpha = 0, and x0 = m.
        assert abs(step.mean - value) < 5 * step.standard_error + 1e-11 * (1 + abs(value)), i
    torch.testing.assert_close(found.log_prob, -found.terms.sum(1), rtol=0, atol=0)
    torch.testing.assert_close(found.bits_per_dim, found.terms.sum(1) / (4 * math.log(2)))
    assert (found.standard_error, found.size) == (None, 4)


def test_the_prior_of_inverse_heat_is_the_mixture_that_sampling_starts_from():
    data = torch.tensor([[0.9, -0.3], [-0.6, 0.2], [0.1, 0.4]], dtype=F64)
    process = ud.InverseHeat((2,), 0.8, noise_scale=0.3).fit([data])
    end, n, x = process.level(1.0), 4000, torch.tensor([[0.5, 0.1]], dtype=F64)
    found = ud.variational_bound(ud.GaussianMixture(process, data, 0.05), x.expand(n, 2), ud.Uniform(1))
    assert found.terms.isfinite().all()
    # KL(q || prior) = E log q(u_1) / prior(u_1), a mixture of the blurred images, by Gauss-Hermite quadrature.
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(40))
    eps, weight = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(1) / (2 * math.pi)
    normal = torch.distributions.Normal
    modes = process.basis.forward(x)
    u = end.alpha * modes + end.sigma * eps
    centres = end.alpha * process.basis.forward(data)
    prior = normal(centres, 0.3).log_prob(u[:, None]).sum(2).logsumexp(1) - math.log(3)
    expected = float(weight @ (normal(end.alpha * modes, 0.3).log_prob(u).sum(1) - prior))
    step = found.steps[-1]
    assert 0 < step.standard_error < 0.05
    assert abs(step.mean - expected) < 5 * step.standard_error


class Constant(nn.Module):
    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x, c):
        return self.answer.expand(len(x), -1)


@pytest.mark.parametrize("variance", [0.0, 1.0])
def test_steps_are_equation_12_of_ho_et_al(variance):
    # E |eps - eps_theta|^2 beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha-bar_t)), where sigma_t^2 is beta-tilde_t or
    # beta_t; the latter leaves the KL of the variances beside it, which the paper drops as a constant.
    T, size = 10, 3
    process = ud.DDPM(T=T)
    answer, x, seeds = randn(1, size, seed=1), randn(5, size, seed=2), [3, 1, 4, 5, 9]
    model = ud.NeuralDenoiser(process, ud.Eps(), Constant(answer))
    found = ud.variational_bound(model, x, ud.Native(), variance=variance, seeds=seeds)
    betas = process.schedule.betas(T)
    bars = (1 - betas).cumprod(0)
    noise = Seeded(seeds)
    for i in range(T):  # the paper's t = i + 1
        square = (noise(x) - answer).square().sum(1)
        beta, bar = betas[i], bars[i]
        if i == 0:  # the decoder around mu_theta(x_1, 1) with variance beta_1
            error = square * (1 - bar) / bar
            expected = 0.5 * error / beta + size / 2 * torch.log(2 * math.pi * beta)
        else:
            small = (1 - bars[i - 1]) / (1 - bar) * beta
            sigma2 = beta if variance else small
            expected = square * beta**2 / (2 * sigma2 * (1 - beta) * (1 - bar))
            expected = expected + size / 2 * (torch.log(sigma2 / small) + small / sigma2 - 1)
        torch.testing.assert_close(found.terms[:, i], expected, rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------------------------------------- the bound as a whole


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("process", [ud.DDPM(T=5), ud.DDPM(), ud.VPSDE(t_min=0.05)], ids=["T = 5", "T = 1000", "VPSDE"])
def test_standard_normal_data_have_no_gap(process):
    # A variance-preserving process leaves N(0, I) alone, so the reverse chain is Gaussian with the large variance, and
    # its decoder N(alpha u, sigma^2 I): the model's chain is exact for every grid, prior included, and the bound of
    # each x, in expectation over the noise, is log p(x) itself.
    n, x = 2000, torch.tensor([[0.3, -1.2, 2.0]], dtype=F64)
    model = ud.GaussianMixture(process, torch.zeros(1, 3), 1.0)
    grid = ud.Uniform(7) if process.native_times() is None or len(process.native_times()) > 5 else ud.Native()
    found = ud.variational_bound(model, x.expand(n, 3), grid, variance=1.0)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum()
    assert abs(found.nats.mean - float(expected)) < 5 * found.nats.standard_error
    assert found.nats.standard_error < 0.1
    # The small variance is wrong for such data, and a bound all the same.
    small = ud.variational_bound(model, x.expand(n, 3), grid)
    assert small.nats.mean + 5 * small.nats.standard_error < float(expected)


@pytest.mark.slow  # 2 s
def test_the_bound_is_below_the_likelihood_and_closes_at_order_one():
    # On a geometric ladder with an exact model the gap of the steps falls as 1 / N. What remains is small: the decoder
    # takes sigma^2 for the posterior's variance l sigma^2 / (l + sigma^2), a KL of (sigma^2 / l)^2 / 4 per direction,
    # and the prior sigma_max^2 for l + sigma_max^2.
    def remaining(levels):
        truth = Gaussian(ud.NCSN(0.02, 50.0, levels))
        squares = truth.variances[None]
        bound = truth.terms(squares, squares + truth.mean**2, truth.process.native_times(), 0.0).sum()
        entropy = 0.5 * (2 * math.pi * math.e * truth.variances).log().sum()
        return float(bound - entropy)

    gaps = [remaining(levels) for levels in (50, 100, 200, 400)]
    assert all(gap > 0 for gap in gaps)
    for coarse, fine in pairwise(gaps):
        assert 1.85 < coarse / fine < 2.15  # order 1 within 0.11
    for levels, gap in zip((50, 100), gaps):
        truth = Gaussian(ud.NCSN(0.02, 50.0, levels))
        x = truth.draw(1000)
        found = ud.variational_bound(truth.model, x, ud.Native())
        measured = (truth.log_prob(x) - found.log_prob).mean()
        error = (truth.log_prob(x) - found.log_prob).std() / math.sqrt(len(x))
        assert abs(float(measured) - gap) < 5 * float(error)


@pytest.mark.slow  # a second or more
def test_the_bound_is_below_the_flows_likelihood_on_the_same_data():
    truth = Gaussian(ud.NCSN(0.02, 50.0, 50))
    x = truth.draw(500)
    flow = ud.log_likelihood(truth.model, x, ud.ExactTrace(), batch=500)
    bound = ud.variational_bound(truth.model, x, ud.Native())
    difference = flow.log_prob - bound.log_prob
    assert float(difference.mean()) > 5 * float(difference.std()) / math.sqrt(len(x))


# ---------------------------------------------------------------------------------------------- data in bins


def bins(levels: int) -> torch.Tensor:
    return (torch.arange(levels, dtype=F64) * 2 / (levels - 1) - 1)[:, None]


@pytest.mark.parametrize("centre", [-3.0, -1.0, -0.2, 0.5, 1.4])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 20.0])
def test_the_decoders_probabilities_sum_to_one(centre, sigma):
    process, levels = ud.NCSN(sigma / 2, sigma, 2), 17
    model = ud.NeuralDenoiser(process, ud.X0(), Constant(torch.tensor([[centre]], dtype=F64)))
    found = ud.variational_bound(model, bins(levels), ud.Uniform(1), levels=levels)  # one time, t = 1: sigma_max
    log_p = -found.terms[:, 0]
    # x - (x - centre) rounds at 1e-16 / sigma, times the slope of log p, |centre - x| / sigma: 5e-12 at most.
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-11)
    edges = torch.cat([bins(levels) - 1 / 16, torch.tensor([[math.inf]])]).flatten()
    edges[0] = -math.inf
    naive = torch.special.ndtr((edges - centre) / sigma).diff()
    torch.testing.assert_close(log_p.exp(), naive, rtol=1e-10, atol=1e-15)
    # Where the probabilities underflow: between bin width times the density at either edge.
    low, high = (bins(levels) - 1 / 16 - centre).flatten() / sigma, (bins(levels) + 1 / 16 - centre).flatten() / sigma
    density = [-0.5 * z**2 - 0.5 * math.log(2 * math.pi) + math.log(1 / 8 / sigma) for z in (low, high)]
    inner = slice(1, -1)
    outside = ((low * high) > 0)[inner]
    smaller, larger = torch.minimum(*density)[inner], torch.maximum(*density)[inner]
    slack = 1e-12 * (1 + smaller.abs())
    assert (log_p[inner] >= smaller - slack)[outside].all()
    assert (log_p[inner] <= larger + slack)[outside].all()
    assert log_p.isfinite().all()


@pytest.mark.slow  # 4 s: two bounds of 2,000 points
def test_the_bound_of_data_in_bins_bounds_their_probability():
    # Points on a grid of 5 levels with known probabilities: the bound must be below the entropy's share, on average.
    probabilities = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1], dtype=F64)
    process = ud.NCSN(0.02, 20.0, 60)
    model = ud.GaussianMixture(process, bins(5), 0.0, probabilities)  # the exact denoiser of the five points
    n = 400
    x = bins(5).repeat_interleave(n, 0)
    found = ud.variational_bound(model, x, ud.Native(), levels=5).log_prob.reshape(5, n)
    log_p, error = found.mean(1), found.std(1) / math.sqrt(n)
    # In the limit of a fine ladder the exact model has log P = log probability of each point; of 60 steps a bound.
    assert float(probabilities @ (probabilities.log() - log_p)) > -5 * float(error.max())
    assert float(log_p.exp().sum()) < 1 + 5 * float(error.max())
    # A ladder twice as fine halves the gap, to its own standard error.
    fine = ud.GaussianMixture(ud.NCSN(0.02, 20.0, 119), bins(5), 0.0, probabilities)
    again = ud.variational_bound(fine, x, ud.Native(), levels=5).log_prob.reshape(5, n)
    gaps = [float(probabilities @ (probabilities.log() - values.mean(1))) for values in (found, again)]
    assert gaps[0] / 2 == pytest.approx(gaps[1], abs=0.1 * gaps[0] + 5 * float(error.max()))


# ---------------------------------------------------------------------------------------------- use


def test_batches_seeds_and_gradient_modes_change_nothing():
    truth = Gaussian(ud.DDPM(T=7))
    x = truth.draw(5)
    whole = ud.variational_bound(truth.model, x, ud.Native())
    for batch in (1, 3, 5, 11, 1000):
        parts = ud.variational_bound(truth.model, x, ud.Native(), batch=batch)
        torch.testing.assert_close(parts.terms, whole.terms, rtol=1e-12, atol=1e-12)
    alone = ud.variational_bound(truth.model, x[3:4], ud.Native(), seeds=[3])
    torch.testing.assert_close(alone.terms[0], whole.terms[3], rtol=1e-12, atol=1e-12)
    assert not torch.equal(ud.variational_bound(truth.model, x, ud.Native(), seeds=range(5, 10)).terms, whole.terms)
    with torch.inference_mode():
        torch.testing.assert_close(ud.variational_bound(truth.model, x * 1, ud.Native()).terms, whole.terms)


class Told(ud.Counted):
    """Expects each state to be near its own label."""

    def forward(self, u, level, **cond):
        torch.testing.assert_close(u.mean(1), cond["mean"], rtol=0, atol=1e-3)  # noise of 1e-4 at most
        return super().forward(u, level)


@pytest.mark.parametrize(("batch", "calls"), [(3, 12), (4, 6), (9, 4)])
def test_conditions_go_with_their_samples(batch, calls):
    labels = torch.tensor([-0.5, 0.0, 0.5, 1.0], dtype=F64)
    model = Told(Gaussian(ud.NCSN(1e-5, 1e-4, 6)).model)
    model.conditions = (ud.Named("mean"),)
    seen = []
    x = labels[:, None].expand(4, 4)
    options = {"batch": batch, "progress": lambda *at: seen.append(at), "mean": labels}
    ud.variational_bound(model, x, ud.Native(), **options)
    total = 12 if batch == 3 else 6
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    # The first time alone, then 3 // 3 = 1, 4 // 4 = 1 or 9 // 4 = 2 times together: 2 (1 + 5), 1 + 5 and 1 + 3 calls.
    assert model.nfe == len(seen) == calls


def test_pictures():
    net = ud.UNet((1, 8, 8), width=8, multipliers=(1,), blocks=1)
    model = ud.NeuralDenoiser(ud.DDPM(T=4), ud.Eps(), net)
    x = ud.data.Digits().open("test").batch(torch.arange(4))
    bound = ud.variational_bound(model, x, ud.Native(), levels=256)
    assert bound.terms.shape == (4, 5)
    assert bound.terms.isfinite().all()
    assert (bound.terms >= 0).all()  # probabilities, and Kullback-Leibler divergences
    assert not bound.terms.requires_grad


def test_a_small_decoder_of_modes_is_refused_before_any_evaluation():
    process = ud.InverseHeat((2,), 0.8, noise_scale=0.3)
    model = ud.Counted(ud.GaussianMixture(process, torch.zeros(1, 2), 1.0))
    with pytest.raises(ParameterError, match=r"decoder_variance must be 1, got 0.5: InverseHeat.* in each mode"):
        ud.variational_bound(model, torch.zeros(1, 2), ud.Uniform(3), decoder_variance=0.5)
    assert model.nfe == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variance": 1.5}, "variance"),
        ({"batch": 0}, "batch"),
        ({"seeds": [0]}, "one for each of 2 samples, got 1"),
        ({"levels": 4}, "other than these 4 levels"),
        ({"x": torch.full((1, 2), math.nan)}, "NaN"),
        ({"grid": ud.Native()}, "grid: Native needs a table"),
        ({"decoder_variance": 1.5}, "decoder_variance must be a number from 0"),
        ({"decoder_variance": None}, "which this model does not predict"),
        ({"decoder_variance": 0.0, "grid": ud.Uniform(1)}, r"must be 1, got 0.0: Uniform\(steps=1\) has no step"),
    ],
    ids=str,
)
def test_mistakes_are_refused(changes, message):
    arguments = {"x": torch.zeros(2, 2), "grid": ud.Uniform(3), **changes}
    model = ud.GaussianMixture(ud.VPSDE(), torch.zeros(1, 2), 1.0)
    with pytest.raises(ParameterError, match=message):
        ud.variational_bound(model, arguments.pop("x"), arguments.pop("grid"), **arguments)
