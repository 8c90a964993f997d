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
from unidiff import (
    DDPM,
    EDM,
    NCSN,
    VESDE,
    VPSDE,
    X0,
    Cosine,
    Denoising,
    Eps,
    EpsilonWeighting,
    FlowMatching,
    MinSNR,
    NeuralDenoiser,
    Preconditioned,
    Score,
    SubVPSDE,
    UniformWeighting,
    V,
    Velocity,
)
from unidiff.errors import ParameterError
from unidiff.process.level import Level
from unidiff.recipe.registry import PUBLIC

EPS = 2.0**-53
PARAMETERIZATIONS = [cls() for cls in PUBLIC.choices(ud.Parameterization).values()]
DISCRETE = [DDPM(), DDPM(500), DDPM(schedule=Cosine()), NCSN(), NCSN(0.01, 50.0, 20)]
PROCESSES = [*DISCRETE, VPSDE(), SubVPSDE(), VESDE(), EDM(), FlowMatching()]
TIMES = [1.0, 0.83, 0.5, 0.1, "t_min"]

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
every_parameterization = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)


def fitting(process) -> list[ud.Parameterization]:
    """The parameterizations that can be converted to data at all times of a process."""
    at_end = process.level(1.0)
    return [p for p in PARAMETERIZATIONS if at_end.alpha > 0 or p not in (Eps(), Score())]


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
    if level.alpha == 0 and parameterization not in fitting(process):
        assert parameterization.determinant(level) == 0
        return
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
    for p in PARAMETERIZATIONS if level.alpha > 0 else fitting(process):
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


def karras(level, s: float) -> tuple[float, float, float]:
    """c_skip, c_out, c_in for u = alpha x0 + sigma eps with data of standard deviation s."""
    r = math.sqrt(level.alpha**2 * s**2 + level.sigma**2)
    return level.alpha * s**2 / r**2, level.sigma * s / r, 1 / r


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
    if abs(level.alpha**2 + level.sigma**2 - 1) < 1e-12 and not isinstance(process, SubVPSDE):
        assert largest(level.alpha * u - level.sigma * v - x0) < 16 * EPS * largest(x0, eps)
    # Velocity is du/dt at fixed data and noise. A central difference with step h errs by h^2 / 6 times the third
    # derivative, at most (20 / t)^3 of the scale where sigma is sigma_max t^7 or e^(20 t), and by a few u |u| / h. The
    # curve of a table has jumps in its second derivative; its rates are in test_process.py.
    h = 1e-6
    if process.native_times() is None and 1e-2 < level.time < 1:
        velocity = Velocity().target(x0, eps, level)
        after, before = (process.perturb(x0, eps, process.level(level.time + side * h)) for side in (1, -1))
        bound = h**2 / 6 * (20 / level.time) ** 3 * (largest(u) + 1) + 16 * EPS / h * largest(u)
        assert largest((after - before) / (2 * h) - velocity) <= bound
    # Karras et al. 2022, eq. 7: x0 = c_skip u + c_out F.
    for s in (0.5, 1.0, 3.0):
        c_skip, c_out, _ = karras(level, s)
        network = Preconditioned(s).target(x0, eps, level)
        # Each of the three terms is known to a few u times the larger of its two summands.
        size = largest(c_skip * u, x0, c_out * network, c_skip * level.alpha * x0, c_skip * level.sigma * eps)
        assert largest(c_skip * u + c_out * network - x0) <= 16 * EPS * size


@every_process
def test_score_and_v_of_a_prediction(process):
    level = process.level(0.6)
    x0, eps = data_and_noise(5, 2)
    prediction = ud.Prediction(x0, eps, level)
    assert torch.equal(prediction.score, -eps / level.sigma)
    # Two products and a difference, which the machine may fuse.
    v, velocity = level.alpha * eps - level.sigma * x0, level.alpha_rate * x0 + level.sigma_rate * eps
    assert largest(prediction.v - v) <= 4 * EPS * largest(level.alpha * eps, level.sigma * x0)
    bound = 4 * EPS * largest(level.alpha_rate * x0, level.sigma_rate * eps)
    assert largest(prediction.velocity - velocity) <= bound


@every_process
def test_velocity_is_that_of_the_probability_flow(process):
    # Song et al. 2021, eq. 13: du/dt = f u - g^2 score / 2.
    for t in (0.9, 0.6, 0.2, process.t_min):
        level = process.level(t)
        x0, eps = data_and_noise(5, 2)
        u = process.perturb(x0, eps, level)
        prediction = ud.Prediction(x0, eps, level)
        f, g2 = (float(rate) for rate in process.rates(torch.tensor(t, dtype=torch.float64)))
        # The rates are known to 256 u (see test_continuous.py) and the terms may cancel, down to alpha' of a process
        # that hardly moves. In a table a position loses T u of an entry.
        length = 1 if process.native_times() is None else len(process.native_times())
        bound = (256 + 2 * length) * EPS * largest(f * u, g2 / 2 * prediction.score)
        assert largest(prediction.velocity - (f * u - g2 / 2 * prediction.score)) <= bound


@pytest.mark.parametrize("t", [1.0, 0.83, 0.5, 0.1, 1e-3])
def test_velocity_of_flow_matching_is_noise_minus_data(t):
    # Lipman et al. 2023, eq. 23, with sigma_min = 0 and time running the other way.
    process = FlowMatching()
    x0, eps = data_and_noise(5, 2)
    level = process.level(t)
    # sigma' = exp(log t) / t is 1 to the rounding of an exponential of up to 7.
    assert largest(Velocity().target(x0, eps, level) - (eps - x0)) <= 16 * EPS * largest(x0, eps)
    # And x0 = u - t v, eps = u + (1 - t) v.
    u, v = process.perturb(x0, eps, level), eps - x0
    prediction = Velocity().solve(v, u, level)
    assert largest(prediction.x0 - (u - t * v)) <= 32 * EPS * largest(x0, eps)
    assert largest(prediction.eps - (u + (1 - t) * v)) <= 32 * EPS * largest(x0, eps)


@pytest.mark.parametrize("t", [1.0, 0.83, 0.5, 0.3, "t_min"])
@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
def test_preconditioned_on_edm_is_table_1_of_karras_et_al(t, s):
    # Table 1, column "ours": c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2) and
    # c_in = 1 / sqrt(sigma^2 + s^2), around a network F; D = c_skip u + c_out F(c_in u).
    process = EDM()
    level = level_of(process, t)
    sigma = level.sigma
    u, answer = data_and_noise(3, 2)
    u = 3 * sigma * u
    network = Recorder(answer)
    denoiser = NeuralDenoiser(process, Preconditioned(s), network)
    prediction = denoiser(u, level)
    root = math.sqrt(sigma**2 + s**2)
    expected = s**2 / root**2 * u + sigma * s / root * answer
    # Cramer's rule: a few roundings of each term.
    assert largest(prediction.x0 - expected) <= 32 * EPS * largest(s**2 / root**2 * u, sigma * s / root * answer)
    torch.testing.assert_close(network.seen[0][0], u / root, rtol=8 * EPS, atol=0)
    # c_noise = log(sigma) / 4; at sigma near 1 the logarithm keeps the absolute error of its terms, log 80 = 4.4.
    torch.testing.assert_close(network.seen[0][1], torch.full_like(u[:, 0], math.log(sigma) / 4), rtol=0, atol=64 * EPS)


@pytest.mark.parametrize("process", [DDPM(), DDPM(100, ud.ZeroTerminalSNR()), VPSDE()], ids=repr)
@pytest.mark.parametrize("t", [1.0, 0.5, 0.01])
def test_preconditioned_on_a_variance_preserving_process_is_minus_v(process, t):
    level = process.level(t)
    x0, eps = data_and_noise(4, 3)
    a, b = Preconditioned(1.0).coefficients(level), V().coefficients(level)
    # r^2 = alpha^2 + sigma^2 is 1 to 8 u (test_process.py), and so are its root and the quotients.
    assert a == pytest.approx((-b[0], -b[1]), rel=16 * EPS, abs=0)
    target = Preconditioned(1.0).target(x0, eps, level)
    assert largest(target + V().target(x0, eps, level)) <= 32 * EPS * largest(x0, eps)


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


@pytest.mark.parametrize("process", [DDPM(10, ud.ZeroTerminalSNR()), FlowMatching()], ids=repr)
def test_pure_noise_is_refused_where_it_cannot_be_converted(process):
    level = process.level(1.0)
    for refused in (Eps(), Score()):
        assert refused.determinant(level) == 0
        with pytest.raises(ParameterError, match=r"parameterization: .*Use V, X0, Velocity or Preconditioned"):
            refused.check(process)
        with pytest.raises(ParameterError):
            NeuralDenoiser(process, refused, nn.Identity())
    x0, eps = data_and_noise(3, 2)
    accepted = [p for p in PARAMETERIZATIONS if p not in (Eps(), Score())]
    assert {type(p) for p in accepted} >= {V, X0, Velocity, Preconditioned}
    for parameterization in accepted:
        parameterization.check(process)
        prediction = parameterization.solve(parameterization.target(x0, eps, level), eps, level)
        # alpha = 0 and sigma = 1, so u is eps. X0 and V round nothing; Velocity has alpha' x0 + sigma' eps, of which x0
        # is a share of 1 / 2 or more, and Preconditioned divides by its data_std of 1 / 2 and multiplies by it.
        exact = isinstance(parameterization, (V, X0))
        assert largest(prediction.x0 - x0) <= (0 if exact else 16 * EPS * largest(x0, eps))
        assert torch.equal(prediction.eps, eps)


def test_every_parameterization_fits_a_process_that_keeps_some_of_the_data():
    for process in (*DISCRETE, VPSDE(), SubVPSDE(), VESDE(), EDM()):
        for accepted in PARAMETERIZATIONS:
            accepted.check(process)


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


@pytest.mark.cases(60)
@every_process
@every_parameterization
@pytest.mark.parametrize("t", TIMES)
def test_network_sees_and_answers_unit_variance(process, parameterization, t):
    # Data of the standard deviation s that the parameterization counts with (1 but for Preconditioned), independent of
    # the noise: Var u = alpha^2 s^2 + sigma^2, Var(a x0 + b eps) = a^2 s^2 + b^2. With n draws a variance of 1 is known
    # to sqrt(2 / n): five of these.
    if parameterization not in fitting(process):
        return
    n = 20_000
    x0, eps = torch.randn(2, n, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x0 = parameterization.data_std * x0
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
    # Karras et al. 2022, table 1: c_noise = log(sigma) / 4 of data left unscaled, if finite; 1000 t for the others.
    theirs = parameterization == Preconditioned(parameterization.data_std) and process.level(1.0).alpha > 0
    expected = -level.log_snr / 8 if theirs else 1000 * level.time
    assert (condition == expected).all()


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


@pytest.mark.cases(4)
@every_process
def test_a_model_trained_under_one_parameterization_is_read_as_any_other(process):
    # A model of p gives a prediction; a model of q whose network answers q's quantity of it gives the same one.
    generator = torch.Generator().manual_seed(5)
    for t in (0.9, 0.4, process.t_min):
        level = process.level(t)
        x0, eps = data_and_noise(4, 3)
        u = process.perturb(x0, eps, level)
        answer = torch.randn(u.shape, generator=generator, dtype=torch.float64)
        for p in fitting(process):
            prediction = NeuralDenoiser(process, p, Recorder(answer))(u, level)
            # The two numbers say everything, and they explain the state: u = alpha x0 + sigma eps.
            size = largest(level.alpha * prediction.x0, level.sigma * prediction.eps, u)
            assert (
                largest(process.perturb(prediction.x0, prediction.eps, level) - u) <= condition(p, level) * EPS * size
            )
            read = {Eps: prediction.eps, X0: prediction.x0, Score: prediction.score, V: prediction.v}
            read[Velocity] = prediction.velocity
            c_skip, c_out, _ = karras(level, 0.5)
            read[Preconditioned] = (prediction.x0 - c_skip * u) / c_out
            cancelled = largest(prediction.x0, c_skip * u) / c_out  # of which the reading loses a few u
            for q in fitting(process):
                # What the class says it is, in the prediction's own words.
                target = q.target(prediction.x0, prediction.eps, level)
                a, b = q.coefficients(level)
                size = largest(a * prediction.x0, b * prediction.eps, target)
                size += cancelled if isinstance(q, Preconditioned) else 0
                assert largest(target - read[type(q)]) <= condition(p, level) * 4 * EPS * size, (p, q)
                again = NeuralDenoiser(process, q, Recorder(target / q.scale(level)))(u, level)
                bound = 16 * EPS * condition(q, level) * condition(p, level)
                assert largest(again.x0 - prediction.x0) <= bound * largest(prediction.x0, u / level.alpha), (p, q)
                assert largest(again.eps - prediction.eps) <= bound * largest(prediction.eps, u / level.sigma), (p, q)


def condition(parameterization, level) -> float:
    """How much of the precision Cramer's rule may lose: both products over their difference, the determinant."""
    a, b = parameterization.coefficients(level)
    return 8 * (abs(level.alpha * b) + abs(level.sigma * a)) / abs(level.alpha * b - level.sigma * a)


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
@pytest.mark.parametrize("weighting", [EpsilonWeighting(), MinSNR(), MinSNR(0.5)], ids=repr)
def test_one_prediction_has_one_loss_under_all_parameterizations(process, weighting):
    x0, eps = data_and_noise(6, 2, 3)
    guess, _ = data_and_noise(6, 2, 3, seed=1)
    level = process.level(torch.tensor([process.t_min, 0.15, 0.4, 0.6, 0.8, 0.95], dtype=torch.float64), x0)
    error = ((guess - x0) ** 2).flatten(1).mean(1)
    snr = (level.alpha / level.sigma).flatten() ** 2
    # Epsilon: sigma^2 |score error|^2 = |eps error|^2 = SNR |x0 error|^2. MinSNR: min(SNR, gamma) |x0 error|^2.
    expected = error * (snr if isinstance(weighting, EpsilonWeighting) else snr.clamp(max=weighting.gamma))
    for parameterization in fitting(process):
        actual = losses(weighting, process, parameterization, guess, x0, eps, level)
        # An error of x0 of u |u| / alpha before the square, relative to |x0 error| of size 1, and twice that after it:
        # at most 2 u 50 / 1e-2. Asked for: 1e-10.
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)


@every_process
@pytest.mark.parametrize("weighting", [UniformWeighting(), EpsilonWeighting(), MinSNR()], ids=repr)
def test_weights_of_numbers_and_of_tensors_agree(process, weighting):
    times = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    batch = process.level(times, torch.zeros(3, 1, dtype=torch.float64))
    for parameterization in PARAMETERIZATIONS:
        weights = torch.as_tensor(weighting.weight(parameterization, batch)).expand(3, 1).flatten().tolist()
        alone = [weighting.weight(parameterization, level) for level in process.levels_at(times)]
        assert weights == pytest.approx(alone, rel=1e-13)


@pytest.mark.parametrize("process", [EDM(), VESDE(), VPSDE(), FlowMatching()], ids=repr)
@pytest.mark.parametrize("s", [0.5, 1.0])
def test_simple_with_preconditioned_is_the_loss_of_karras_et_al(process, s):
    # Karras et al. 2022, table 1 and eq. 8: lambda |D - x0|^2 with lambda = (sigma^2 + s^2) / (sigma s)^2, which is
    # 1 / c_out^2, so it is the plain squared error of F. With alpha, c_out = sigma s / sqrt(alpha^2 s^2 + sigma^2).
    x0, eps = data_and_noise(5, 2, 3)
    guess, _ = data_and_noise(5, 2, 3, seed=1)
    level = process.level(torch.tensor([process.t_min, 0.3, 0.5, 0.8, 0.95], dtype=torch.float64), x0)
    actual = losses(UniformWeighting(), process, Preconditioned(s), guess, x0, eps, level)
    c_out = level.sigma * s / (level.alpha**2 * s**2 + level.sigma**2).sqrt()
    expected = ((guess - x0) / c_out).square().flatten(1).mean(1)
    # As above: an error of u |u| / alpha in x0 of size 1.
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)
    # With X0 it is the same loss under the weight 1 / c_out^2.
    of_x0 = (losses(UniformWeighting(), process, X0(), guess, x0, eps, level) / c_out.flatten() ** 2).tolist()
    assert actual.tolist() == pytest.approx(of_x0, rel=1e-10)


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
    actual = Denoising(EpsilonWeighting()).losses(NeuralDenoiser(process, Score(), Network()), x, eps, level)
    # noisy - x loses u / sigma = 1e-14 relatively at sigma = 0.01; level coefficients are good to 30 u.
    assert 6 / 2 * actual.mean().item() == pytest.approx(expected.item(), rel=1e-12)


def test_losses_are_per_sample():
    process = DDPM()
    x0, eps = data_and_noise(4, 2, 3)
    guess, _ = data_and_noise(4, 2, 3, seed=1)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    together = losses(UniformWeighting(), process, V(), guess, x0, eps, process.level(t, x0))
    assert together.shape == (4,)
    assert (together >= 0).all()
    for i in range(4):
        one = slice(i, i + 1)
        alone = losses(UniformWeighting(), process, V(), guess[one], x0[one], eps[one], process.level(t[one], x0[one]))
        assert torch.equal(alone, together[one])
