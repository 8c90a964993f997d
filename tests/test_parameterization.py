"""Conversions between what networks predict, the scales of a network's input and output, and the weights of its loss.

u = 2^-53. `solve` inverts a 2 x 2 system by Cramer's rule: each answer is a sum of two products over the determinant,
with an error of at most about 8 u times the larger product over the determinant. The tests allow exactly that, and
where determinants are not small it is below 1e-12.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff import DDPM, NCSN, X0, Cosine, Denoising, Eps, MinSNR, NeuralDenoiser, Score, Sigma2, Simple, V
from unidiff.errors import ParameterError
from unidiff.process.base import Level
from unidiff.recipe.registry import PUBLIC

EPS = 2.0**-53
PARAMETERIZATIONS = [cls() for cls in PUBLIC.choices(ud.Parameterization).values()]
PROCESSES = [DDPM(), DDPM(500), DDPM(schedule=Cosine()), NCSN(), NCSN(0.01, 50.0, 20)]
TIMES = [1.0, 0.83, 0.5, 0.1, "t_min"]

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
every_parameterization = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)


def level_of(process, t) -> Level:
    return process.level(process.t_min if t == "t_min" else t)


def data_and_noise(*shape: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x0, torch.randn(shape, generator=generator, dtype=torch.float64)


def largest(*terms: torch.Tensor) -> float:
    return max(float(term.abs().max()) for term in terms)


# ---------------------------------------------------------------------------------------------- conversions


@every_process
@every_parameterization
@pytest.mark.parametrize("t", TIMES)
def test_data_and_noise_come_back(process, parameterization, t):
    level = level_of(process, t)
    x0, eps = data_and_noise(3, 2, 4)
    u = process.perturb(x0, eps, level)
    prediction = parameterization.solve(parameterization.target(x0, eps, level), u, level)
    a, b = parameterization.coefficients(level)
    output, det = a * x0 + b * eps, abs(level.alpha * b - level.sigma * a)
    assert parameterization.determinant(level) == pytest.approx(level.alpha * b - level.sigma * a, rel=4 * EPS)
    bound_x0 = 8 * EPS * largest(b * u, level.sigma * output) / det
    bound_eps = 8 * EPS * largest(level.alpha * output, a * u) / det
    assert largest(prediction.x0 - x0) <= bound_x0
    assert largest(prediction.eps - eps) <= bound_eps
    # Determinants from 0.006 (alpha of Ho et al. at t = 1; sigma of the cosine at t_min) up: far inside 1e-12. Only the
    # alpha of the cosine at t = 1, 5e-5, is smaller.
    if det >= 0.005 * (abs(a) + abs(b)):
        assert max(bound_x0, bound_eps) < 1e-12


@every_process
@pytest.mark.parametrize("t", TIMES)
def test_all_pairs_convert_into_each_other(process, t):
    # output of p -> (x0, eps) -> target of q, against the target of q itself.
    level = level_of(process, t)
    x0, eps = data_and_noise(4, 3)
    u = process.perturb(x0, eps, level)
    for p in PARAMETERIZATIONS:
        prediction = p.solve(p.target(x0, eps, level), u, level)
        a, b = p.coefficients(level)
        det = abs(level.alpha * b - level.sigma * a)
        size = max(largest(b * u, level.sigma * a * x0, level.sigma * b * eps), largest(a * u, level.alpha * b * eps))
        for q in PARAMETERIZATIONS:
            c, d = q.coefficients(level)
            error = q.target(prediction.x0, prediction.eps, level) - q.target(x0, eps, level)
            # |c| and |d| times the bounds of the round trip, and the rounding of the sums c x0 + d eps themselves.
            bound = (abs(c) + abs(d)) * (16 * EPS * size / det + 8 * EPS * largest(x0, eps))
            assert largest(error) <= bound, (p, q)


@every_process
@pytest.mark.parametrize("t", TIMES)
def test_what_each_class_predicts(process, t):
    level = level_of(process, t)
    x0, eps = data_and_noise(5, 2)
    u = process.perturb(x0, eps, level)
    assert torch.equal(Eps().target(x0, eps, level), eps)
    assert torch.equal(X0().target(x0, eps, level), x0)
    # Thesis eq. 3.29: the score of q(u | x0) = N(alpha x0, sigma^2 I) is -(u - alpha x0) / sigma^2 = -eps / sigma.
    # u - alpha x0 cancels: error u |u| / sigma^2.
    score = Score().target(x0, eps, level)
    assert largest(score + eps / level.sigma) <= 2 * EPS * largest(score)
    by_definition = -(u - level.alpha * x0) / level.sigma**2
    assert largest(score - by_definition) <= 4 * EPS * largest(u, score * level.sigma**2) / level.sigma**2
    # Salimans & Ho 2022: v = alpha eps - sigma x0, and on a variance-preserving process x0 = alpha u - sigma v.
    v = V().target(x0, eps, level)
    assert largest(v - (level.alpha * eps - level.sigma * x0)) <= 4 * EPS * largest(level.alpha * eps, level.sigma * x0)
    if isinstance(process, DDPM):
        assert largest(level.alpha * u - level.sigma * v - x0) < 16 * EPS * largest(x0, eps)


@every_process
def test_score_and_v_of_a_prediction(process):
    level = process.level(0.6)
    x0, eps = data_and_noise(5, 2)
    prediction = ud.Prediction(x0, eps, level)
    assert torch.equal(prediction.score, -eps / level.sigma)
    assert torch.equal(prediction.v, level.alpha * eps - level.sigma * x0)


@every_process
@every_parameterization
def test_one_time_per_sample_is_the_same_as_each_alone(process, parameterization):
    x0, eps = data_and_noise(3, 2, 2)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    batch = process.level(t, x0)
    u = process.perturb(x0, eps, batch)
    output = parameterization.target(x0, eps, batch)
    together = parameterization.solve(output, u, batch)
    for i, one in enumerate(process.levels_at(t)):
        alone = parameterization.solve(output[i : i + 1], u[i : i + 1], one)
        # The same sums in another order of operations; determinants at these times are above 0.1 of their coefficients.
        torch.testing.assert_close(together.x0[i : i + 1], alone.x0, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together.eps[i : i + 1], alone.eps, rtol=1e-12, atol=1e-12)


def test_pure_noise_is_refused_where_it_cannot_be_converted():
    process = DDPM(10, ud.ZeroTerminalSNR())
    for refused in (Eps(), Score()):
        assert refused.determinant(process.level(1.0)) == 0
        with pytest.raises(ParameterError, match=r"parameterization: .*Use V or X0"):
            refused.check(process)
        with pytest.raises(ParameterError):
            NeuralDenoiser(process, refused, nn.Identity())
    x0, eps = data_and_noise(3, 2)
    level = process.level(1.0)
    for accepted in (V(), X0()):
        accepted.check(process)
        prediction = accepted.solve(accepted.target(x0, eps, level), eps, level)
        # alpha = 0 and sigma = 1: V is -x0, and u is eps. Nothing rounds.
        assert torch.equal(prediction.x0, x0)
        assert torch.equal(prediction.eps, eps)
    for accepted in PARAMETERIZATIONS:
        accepted.check(DDPM())
        accepted.check(NCSN())


# ---------------------------------------------------------------------------------------------- the network's scales


class Recorder(nn.Module):
    """Answers with a given tensor and keeps what it was shown."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x, c):
        self.seen.append((x, c))
        return self.answer


@every_process
@every_parameterization
@pytest.mark.parametrize("t", TIMES)
def test_network_sees_and_answers_unit_variance(process, parameterization, t):
    # Data of unit variance, independent of the noise: Var u = alpha^2 + sigma^2, Var(a x0 + b eps) = a^2 + b^2. With n
    # draws a variance of 1 is known to sqrt(2 / n): five of these.
    n = 20_000
    x0, eps = torch.randn(2, n, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    level = level_of(process, t)
    u = process.perturb(x0, eps, level)
    network = Recorder(torch.ones_like(u))
    output = NeuralDenoiser(process, parameterization, network).output(u, level)
    ((pixels, condition),) = network.seen
    bound = 5 * math.sqrt(2 / n)
    assert pixels.var().item() == pytest.approx(1, abs=bound)
    # The network's answer of 1 stands for the root mean square of the target.
    target = parameterization.target(x0, eps, level)
    assert (target / output).var().item() == pytest.approx(1, abs=bound)
    assert condition.shape == (n,)
    assert condition.dtype == u.dtype
    assert (condition == level.condition).all()


def test_on_ddpm_the_network_is_the_papers():
    # alpha^2 + sigma^2 = 1 and a^2 + b^2 = 1 for Eps, X0 and V: state and output pass untouched.
    u, answer = data_and_noise(2, 3)
    for parameterization in (Eps(), X0(), V()):
        network = Recorder(answer)
        denoiser = NeuralDenoiser(DDPM(), parameterization, network)
        for t in (1.0, 0.5, 0.001):
            assert torch.equal(denoiser.output(u, DDPM().level(t)), answer)
            assert torch.equal(network.seen[-1][0], u)


def test_on_ncsn_the_score_network_is_that_of_technique_3():
    # Song & Ermon 2020, technique 3: s(x, sigma) = s(x) / sigma.
    process = NCSN()
    u, answer = data_and_noise(2, 3)
    level = process.level(0.3)
    output = NeuralDenoiser(process, Score(), Recorder(answer)).output(u, level)
    torch.testing.assert_close(output, answer / level.sigma, rtol=4 * EPS, atol=0)


def test_low_precision_answers_are_made_the_states_dtype():
    u, answer = data_and_noise(2, 3)
    prediction = NeuralDenoiser(DDPM(), Eps(), Recorder(answer.bfloat16()))(u, DDPM().level(0.5))
    assert prediction.x0.dtype == prediction.eps.dtype == torch.float64


# ---------------------------------------------------------------------------------------------- losses


class Known(NeuralDenoiser):
    """A model that predicts a given x0, whatever its parameterization."""

    def __init__(self, process, parameterization, x0: torch.Tensor) -> None:
        super().__init__(process, parameterization, nn.Identity())
        self.x0 = x0

    def output(self, u, level, **cond):
        return self.parameterization.target(self.x0, (u - level.alpha * self.x0) / level.sigma, level)


def losses(weighting, process, parameterization, guess, x0, eps, level):
    return Denoising(weighting).losses(Known(process, parameterization, guess), x0, eps, level)


@every_process
@pytest.mark.parametrize("weighting", [Sigma2(), MinSNR(), MinSNR(0.5)], ids=repr)
def test_one_prediction_has_one_loss_under_all_parameterizations(process, weighting):
    x0, eps = data_and_noise(6, 2, 3)
    guess, _ = data_and_noise(6, 2, 3, seed=1)
    level = process.level(torch.tensor([process.t_min, 0.15, 0.4, 0.6, 0.8, 0.95], dtype=torch.float64), x0)
    error = ((guess - x0) ** 2).flatten(1).mean(1)
    snr = (level.alpha / level.sigma).flatten() ** 2
    # Sigma2: sigma^2 |score error|^2 = |eps error|^2 = SNR |x0 error|^2. MinSNR: min(SNR, gamma) |x0 error|^2.
    expected = error * (snr if isinstance(weighting, Sigma2) else snr.clamp(max=weighting.gamma))
    for parameterization in PARAMETERIZATIONS:
        actual = losses(weighting, process, parameterization, guess, x0, eps, level)
        # An error of x0 of u |u| / alpha before the square, relative to |x0 error| of size 1, and twice that after it:
        # at most 2 u 50 / 1e-2. Asked for: 1e-10.
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)


@every_process
@pytest.mark.parametrize("weighting", [Simple(), Sigma2(), MinSNR()], ids=repr)
def test_weights_of_numbers_and_of_tensors_agree(process, weighting):
    times = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    batch = process.level(times, torch.zeros(3, 1, dtype=torch.float64))
    for parameterization in PARAMETERIZATIONS:
        weights = torch.as_tensor(weighting.weight(parameterization, batch)).expand(3, 1).flatten().tolist()
        alone = [weighting.weight(parameterization, level) for level in process.levels_at(times)]
        assert weights == pytest.approx(alone, rel=1e-13)


def test_simple_with_eps_is_l_simple():
    # Ho et al. 2020, eq. 14: |eps - eps_theta(sqrt(alpha-bar) x0 + sqrt(1 - alpha-bar) eps, t)|^2, the network told the
    # index t = 1, ..., 1000; here a mean over pixels.
    class Network(nn.Module):
        def forward(self, x, c):
            return torch.tanh(x) * (c / 700).reshape(-1, 1, 1)

    process = DDPM()
    x0, eps = data_and_noise(4, 2, 3)
    index = [1, 250, 600, 1000]
    level = process.level(torch.tensor(index, dtype=torch.float64) / 1000, x0)
    actual = Denoising().losses(NeuralDenoiser(process, Eps(), Network()), x0, eps, level)
    for i, t in enumerate(index):
        alpha_bar = math.prod(1 - (1e-4 + (0.02 - 1e-4) * s / 999) for s in range(t))
        x_t = math.sqrt(alpha_bar) * x0[i] + math.sqrt(1 - alpha_bar) * eps[i]
        expected = ((eps[i] - torch.tanh(x_t) * t / 700) ** 2).sum() / 6
        # alpha-bar to 1e-12 (see the tests of the table), the rest of rounding far below.
        assert actual[i].item() == pytest.approx(expected.item(), rel=1e-11)


def test_sigma2_with_score_is_the_objective_of_the_thesis():
    # Thesis eq. 3.20, L = 1 / (2 L) sum_i lambda(sigma_i) E |s(x~, sigma_i) + (x~ - x) / sigma_i^2|^2 with
    # lambda = sigma^2: a sum over D pixels and a factor of 1/2, so it is D / 2 times the mean over levels of our mean
    # over pixels.
    process = NCSN(levels=5)

    class Network(nn.Module):
        def forward(self, x, c):
            return torch.sin(3 * x)

    x, eps = data_and_noise(5, 2, 3)
    sigma = torch.tensor([0.01 * 100 ** (i / 4) for i in range(5)], dtype=torch.float64).reshape(5, 1, 1)
    noisy = x + sigma * eps
    # The library's input and output scales around the network, by hand.
    score = torch.sin(3 * noisy / torch.sqrt(1 + sigma**2)) / sigma
    terms = sigma**2 * (score + (noisy - x) / sigma**2) ** 2
    expected = terms.sum((1, 2)).sum() / (2 * 5)
    level = process.level(process.native_times(), x)
    actual = Denoising(Sigma2()).losses(NeuralDenoiser(process, Score(), Network()), x, eps, level)
    # noisy - x loses u / sigma = 1e-14 relatively at sigma = 0.01; level coefficients are good to 30 u.
    assert 6 / 2 * actual.mean().item() == pytest.approx(expected.item(), rel=1e-12)


def test_losses_are_per_sample():
    process = DDPM()
    x0, eps = data_and_noise(4, 2, 3)
    guess, _ = data_and_noise(4, 2, 3, seed=1)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    together = losses(Simple(), process, V(), guess, x0, eps, process.level(t, x0))
    assert together.shape == (4,)
    for i in range(4):
        one = slice(i, i + 1)
        alone = losses(Simple(), process, V(), guess[one], x0[one], eps[one], process.level(t[one], x0[one]))
        assert torch.equal(alone, together[one])
