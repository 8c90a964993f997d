"""L_vlb in training: the loss against the bound itself, its terms in closed form, and the weights of its squares.

Expectations over Gaussian data and noise are exact sums. The exact model's error is linear in x and eps, and the terms
are quadratic in the error; so the four corners x = m +- sqrt(l), eps = +-1 have the expectation of all.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from parts import Answer
from torch import nn

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.noise import Seeded
from unidiff.process.decoder import decoder_nll

F64 = torch.float64
TABLES = [ud.DDPM(T=6), ud.DDPM(T=4, schedule=ud.Sigmoid()), ud.NCSN(0.1, 5.0, 5)]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# ---------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("levels", [None, 17])
@pytest.mark.parametrize("process", TABLES, ids=repr)
def test_losses_are_the_terms_of_the_bound(process, levels):
    denoiser = ud.NeuralDenoiser(process, ud.V(), Answer(randn(3, seed=1), randn(3, seed=2)))
    table = process.native_times()
    x = torch.tensor([[-1, -0.25, 1], [0.5, 0.875, -1]], dtype=F64)
    with torch.no_grad():
        bound = ud.variational_bound(denoiser, x, ud.Native(), levels=levels, decoder_variance=None, seeds=2)
        noise, simple, losses = Seeded(range(2)), [], {ud.VLB: [], ud.Hybrid: []}
        for t in table:
            eps, level = noise(x), process.level(t.expand(2), x)
            losses[ud.VLB].append(ud.VLB(levels).losses(denoiser, x, eps, level))
            losses[ud.Hybrid].append(ud.Hybrid(weight=0.25, levels=levels).losses(denoiser, x, eps, level))
            simple.append(ud.Denoising().losses(denoiser, x, eps, level))
    terms = bound.terms[:, :-1] * len(table) / 3  # of uniform times, and per value
    torch.testing.assert_close(torch.stack(losses[ud.VLB], 1), terms, rtol=1e-10, atol=1e-10)
    if levels is None:
        terms[:, 0] = 0  # Hybrid leaves the decoder out
    expected = torch.stack(simple, 1) + 0.25 * terms
    torch.testing.assert_close(torch.stack(losses[ud.Hybrid], 1), expected, rtol=1e-10, atol=1e-10)


MEAN, SPREAD = torch.tensor([0.3, -0.2, 0.5], dtype=F64), torch.tensor([1e-3, 0.3, 2.0], dtype=F64)


class Exact(nn.Module):
    """The exact x0 of N(MEAN, diag SPREAD), and a fixed v."""

    learned_variance = True

    def __init__(self, process: ud.Process, v: torch.Tensor) -> None:
        super().__init__()
        self.model, self.v, self.level = ud.GaussianMixture(process, MEAN[None], SPREAD.diag()), v, process.level(1.0)

    def forward(self, x, c):
        x0 = self.model(x * (self.level.alpha**2 + self.level.sigma**2) ** 0.5, self.level).x0
        return torch.cat([x0, (2 * self.v - 1).expand_as(x)], 1)


@pytest.mark.parametrize("process", [ud.DDPM(T=6), ud.NCSN(0.1, 5.0, 5)], ids=repr)
def test_terms_of_gaussian_data_have_their_closed_form(process):
    v = torch.tensor([0.0, 0.4, 1.0], dtype=F64)
    network = Exact(process, v)
    denoiser = ud.NeuralDenoiser(process, ud.X0(), network)
    x = MEAN + torch.tensor([[1], [1], [-1], [-1]]) * SPREAD.sqrt()
    eps = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=F64).expand(4, 3)
    levels = process.levels_at(process.native_times())
    for i, t in enumerate(levels):
        network.level = t
        found = ud.VLB().losses(denoiser, x, eps, process.level(torch.full((4,), t.time, dtype=F64), x))
        posterior = SPREAD * t.sigma**2 / (t.alpha**2 * SPREAD + t.sigma**2)  # E |x - x0(u_t)|^2
        if i == 0:
            small = t.sigma**2 * (1 - (levels[1].alpha * t.sigma / (levels[1].sigma * t.alpha)) ** 2)  # beta-tilde_2
            variance = (t.sigma**2) ** v * small ** (1 - v)
            expected = 0.5 * (2 * math.pi * variance).log() + posterior / (2 * variance)
        else:
            s = levels[i - 1]
            r = (t.sigma / s.sigma) ** (2 * v)
            expected = (r.log() + 1 / r - 1) / 2 + ((s.alpha / s.sigma) ** 2 - (t.alpha / t.sigma) ** 2) * posterior / (
                2 * r
            )
        # SNRs of up to 1e4 are subtracted: that many roundings.
        assert float(found.mean()) == pytest.approx(len(levels) * float(expected.mean()), rel=1e-11)


def test_the_mean_and_the_variance_are_trained():
    process, x = ud.DDPM(T=6), randn(6, 3)
    network = Answer(randn(3, seed=1), randn(3, seed=2))
    denoiser = ud.NeuralDenoiser(process, ud.Eps(), network)
    level = process.level(process.native_times(), x)
    losses = ud.VLB(17).losses(denoiser, x.clamp(-1, 1), randn(6, 3, seed=4), level)
    for loss in losses:  # each term of each
        gradients = torch.autograd.grad(loss, [network.output, network.v], retain_graph=True)
        assert all((gradient != 0).all() for gradient in gradients)


def test_decoders_are_differentiable_however_wrong_the_network_is():
    x = torch.tensor([[-1.0, 1.0, 0.0, -1.0, 1.0]])
    for factor in (0.0, 1e-3, 1.0, 100.0):
        residual = (factor * torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])).requires_grad_()
        log_scale = torch.full_like(x, math.log(0.01)).requires_grad_()
        nll = decoder_nll(x, residual, log_scale, 256)
        slopes = torch.autograd.grad(nll.sum(), [residual, log_scale])
        assert nll.isfinite().all()
        assert all(slope.isfinite().all() for slope in slopes)


def test_refusals():
    with pytest.raises(ParameterError, match=r"objective: VLB sums a bound over the steps of a table, and VPSDE"):
        ud.VLB().check(ud.VPSDE())
    for cls in (ud.VLB, ud.Hybrid):
        with pytest.raises(ParameterError, match="levels must be an integer"):
            cls(levels=1)
    plain, x = ud.NeuralDenoiser(ud.DDPM(T=5), ud.Eps(), ud.MLP((2,), width=8, depth=1)), torch.zeros(1, 2)
    with pytest.raises(ParameterError, match=r"VLB trains a variance, which this network does not predict"):
        ud.VLB().losses(plain, x, x, plain.process.level(torch.ones(1), x))


# ---------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_weights_are_equation_2_93_of_the_thesis(share):
    T = 8
    process = ud.DDPM(T=T)
    betas = process.schedule.betas(T)
    bars = (1 - betas).cumprod(0)
    below = torch.cat([torch.ones(1, dtype=F64), bars[:-1]])
    sigma2 = betas if share else (1 - below) / (1 - bars) * betas
    sigma2[0] = betas[0]
    on_eps = T * betas**2 / (2 * sigma2 * (1 - betas) * (1 - bars))
    x = randn(T, 2)
    level = process.level(process.native_times(), x)
    for parameterization in (ud.Eps(), ud.X0(), ud.V(), ud.Score()):
        found = ud.VLBWeighting(share).weight_on(process, parameterization, level, x)
        change = (parameterization.determinant(level) / level.alpha) ** 2  # eps's error in that of the target
        torch.testing.assert_close((found * change).flatten(), on_eps, rtol=1e-11, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("process", TABLES, ids=repr)
def test_weighted_denoising_is_the_bound_of_a_fixed_variance(process, share):
    network = Answer(randn(3, seed=1), randn(0))
    denoiser = ud.NeuralDenoiser(process, ud.V(), network)
    denoiser.learned_variance = False
    x, table = randn(4, 3, seed=3), process.native_times()
    with torch.no_grad():
        bound = ud.variational_bound(denoiser, x, ud.Native(), variance=share, seeds=4)
        noise, levels = Seeded(range(4)), process.levels_at(table)
        for i, t in enumerate(table):
            found = ud.Denoising(ud.VLBWeighting(share)).losses(denoiser, x, noise(x), process.level(t.expand(4), x))
            log_r = 2 * share * math.log(levels[i].sigma / levels[max(0, i - 1)].sigma)
            # What does not depend on the model: the spread of a step's KL, the decoder's normalisation.
            constant = (log_r + math.expm1(-log_r)) / 2 if i else 0.5 * math.log(2 * math.pi * levels[0].sigma ** 2)
            expected = len(table) * (bound.terms[:, i] / 3 - constant)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [ud.VPSDE(), ud.SubVPSDE(), ud.VESDE(), ud.FlowMatching()], ids=repr)
def test_likelihood_weighting_is_the_diffusion_of_the_forward_sde(process):
    t = torch.linspace(process.t_min, 0.99, 7, dtype=F64)
    g2, x = process.rates(t)[1], randn(7, 2)
    level = process.level(t, x)
    for parameterization in (ud.Eps(), ud.V(), ud.Velocity()):
        found = ud.LikelihoodWeighting().weight(parameterization, level)
        on_score = (parameterization.determinant(level) * level.sigma / level.alpha) ** 2
        torch.testing.assert_close((found * on_score).flatten(), g2, rtol=1e-9, atol=1e-9)
        # Without a table, half of it is the bound's weight.
        bound = ud.VLBWeighting().weight_on(process, parameterization, level, x)
        torch.testing.assert_close(2 * bound, found, rtol=1e-15, atol=0)


def test_the_bound_s_weights_tend_to_those_of_many_steps():
    # On a geometric ladder SNR_s = SNR_t e^h, so L (SNR_s - SNR_t) / 2 is (e^h - 1) / h times -SNR' / 2.
    process = ud.NCSN(0.1, 5.0, 5)
    x, h = randn(4, 2), 2 * math.log(50) / 4
    level = process.level(process.native_times()[1:], x)
    found, limit = ud.VLBWeighting().weight_on(process, ud.X0(), level, x), ud.VLBWeighting().weight(ud.X0(), level)
    torch.testing.assert_close(found / limit, torch.full_like(limit, math.expm1(h) / h), rtol=1e-11, atol=0)


# ---------------------------------------------------------------------------------------------- the objective of DDIM


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_s_objective_is_a_weighted_denoising_loss_and_a_constant(eta):
    """J_sigma = L_gamma + C for every model (Song, Meng & Ermon 2021, theorem 1; thesis eq. 4.15-4.18).

    One pixel and T = 3: x_0, x_3, x_2, x_1 are made of four normal numbers, and log q - log p is a polynomial of degree
    4 in each for a model quadratic in x. Gauss's rule of four nodes, which is exact to degree 7, gives E_q of all.
    """
    T, m, deviation = 3, 0.3, 0.8
    process = ud.DDPM(T=T, schedule=ud.BetaTable((0.2, 0.3, 0.4)))
    levels = process.levels_at(process.native_times())
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(4))
    z = torch.cartesian_prod(*[nodes] * (T + 1))
    weight = torch.cartesian_prod(*[weights / weights.sum()] * (T + 1)).prod(1)
    x0 = m + deviation * z[:, :1]

    class Told(ud.Denoiser):
        """Knows the answer, so that a step of DDIM is one of q_sigma(x_{t-1} | x_t, x_0) (eq. 4.9)."""

        def forward(self, u, level, **cond):
            return ud.Prediction(x0, (u - level.alpha * x0) / level.sigma, level)

    class Model(ud.Denoiser):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.process, self.theta = process, randn(T, 3, seed=seed)

        def forward(self, u, level, **cond):
            a, b, c = self.theta[round(level.time * T) - 1]
            eps = a + b * u + c * u**2
            return ud.Prediction((u - level.sigma * eps) / level.alpha, eps, level)

    def normal(model: ud.Denoiser, u: torch.Tensor, t: ud.Level, s: ud.Level) -> torch.distributions.Normal:
        mean, moved = (ud.DDIM(eta).step(model, u, t, s, draw) for draw in (torch.zeros_like, torch.ones_like))
        return torch.distributions.Normal(mean, moved - mean)

    told = Told()
    told.process = process
    x = {T: levels[-1].alpha * x0 + levels[-1].sigma * z[:, 1:2]}
    for i in (3, 2):
        q = normal(told, x[i], levels[i - 1], levels[i - 2])
        x[i - 1] = q.mean + q.stddev * z[:, T + 2 - i : T + 3 - i]

    def objective(model: Model) -> float:
        """J_sigma by its definition, eq. 4.16; p(x_0 | x_1) has the variance of eq. 4.13, here sigma_1 = sigma(t_1)."""
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(x[T])
        log = torch.distributions.Normal(levels[-1].alpha * x0, levels[-1].sigma).log_prob(x[T]) - prior
        for i in (3, 2):
            t, s = levels[i - 1], levels[i - 2]
            log = log + normal(told, x[i], t, s).log_prob(x[i - 1]) - normal(model, x[i], t, s).log_prob(x[i - 1])
        last = torch.distributions.Normal(model(x[1], levels[0]).x0, levels[0].sigma)
        return float(weight @ (log - last.log_prob(x0))[:, 0])

    def gamma(i: int) -> float:
        """The weights of eq. 4.17: by how much the mean of a step moves with eps, over twice its variance."""
        if i == 1:
            return 1 / (2 * levels[0].alpha ** 2)
        t, s = levels[i - 1], levels[i - 2]
        variance = float(normal(told, x[i], t, s).stddev[0]) ** 2
        return (s.alpha * t.sigma / t.alpha - math.sqrt(s.sigma**2 - variance)) ** 2 / (2 * variance)

    def loss(model: Model) -> float:
        """L_gamma, eq. 4.17."""
        noise = {i: (x[i] - levels[i - 1].alpha * x0) / levels[i - 1].sigma for i in x}
        squares = {i: (model(x[i], levels[i - 1]).eps - noise[i]).square()[:, 0] for i in x}
        return sum(gamma(i) * float(weight @ squares[i]) for i in x)

    models = [Model(seed) for seed in range(3)]
    objectives, losses = [objective(model) for model in models], [loss(model) for model in models]
    assert max(objectives) - min(objectives) > 1
    constants = [a - b for a, b in zip(objectives, losses)]
    # Sums of terms of the size of J, to 256 roundings of it.
    assert max(constants) - min(constants) < 256 * 2.0**-53 * max(map(abs, objectives))
    if eta == 1:  # Ho's chain: gamma is the weight of eq. 2.93
        at = process.level(process.native_times(), x0[:T])
        on_eps = ud.VLBWeighting().weight_on(process, ud.Eps(), at, x0[:T]).flatten() / T
        torch.testing.assert_close(torch.tensor([gamma(i) for i in (1, 2, 3)], dtype=F64), on_eps, rtol=1e-11, atol=0)
