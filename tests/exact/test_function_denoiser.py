"""A hand-written function as a model: the same numbers as the closed form, with every solver and per-sample times."""

from __future__ import annotations

import pytest
import torch
from pairs import kind, rotating
from parts import instances

import unidiff as ud
from unidiff.errors import ParameterError

D = torch.float64
M, C = torch.tensor([0.4, -0.7], dtype=D), 0.09


def gaussian_score(process):
    """Grad log N(u; alpha m, alpha^2 C + sigma^2)."""

    def score(u, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return (alpha * M.to(u) - u) / (alpha**2 * C + sigma**2)

    return score


# FlowMatching has alpha = 0 at t = 1, where no score determines x0: the next test.
PROCESSES = [ud.VPSDE(), ud.EDM(), ud.NCSN(0.05, 20.0, 6)]


@pytest.mark.cases(6)
@pytest.mark.parametrize(("solver", "process"), rotating(instances(ud.Solver), PROCESSES, 1), ids=repr)
def test_every_solver_runs_on_a_hand_written_score(solver, process):
    own = ud.FromFunction(process, ud.Score(), gaussian_score(process), (2,))
    exact = ud.GaussianMixture(process, M[None], C)
    x, truth = (ud.sample(model, solver, ud.Uniform(6), seeds=3, dtype=D).x for model in (own, exact))
    # x0 from a score divides by alpha, at least 6.6e-3 on VPSDE, and eps by sigma: 2^-53 / 6.6e-3 a step times the
    # size of a state, at most 80 on EDM, is 1.4e-12; steps that follow the states' norms (Langevin) amplify it.
    assert (x - truth).abs().max() < 1e-9


@pytest.mark.parametrize("process", [ud.VPSDE(), ud.Blurring(shape=(2,), blur_max=2.0)], ids=kind)
def test_one_time_per_sample_and_modes(process):
    v, t = torch.tensor([[0.3, -0.2], [1.0, 0.5]], dtype=D), torch.tensor([0.2, 0.7], dtype=D)
    level = process.level(t, v)
    times = []

    def x0(u, t):
        times.append(t)
        return u + t

    prediction = ud.FromFunction(process, ud.X0(), x0)(v, level)
    expected = process.basis.forward(process.basis.inverse(v) + t[:, None])
    assert torch.allclose(prediction.x0, expected, rtol=0, atol=1e-14)
    assert torch.allclose(level.alpha * prediction.x0 + level.sigma * prediction.eps, v, rtol=0, atol=1e-14)
    assert times[0].shape == (2, 1)


@pytest.mark.parametrize("process", [ud.VPSDE(), ud.DDPM(50), ud.EDM(), ud.NCSN(0.05, 20.0, 6)], ids=kind)
@pytest.mark.parametrize(
    "parameterization", [ud.Score(), ud.Eps(), ud.X0(), ud.V(), ud.Velocity(), ud.Preconditioned(0.7)], ids=repr
)
def test_every_parameterization_by_hand_is_the_exact_denoiser(process, parameterization):
    # With r^2 = alpha^2 C + sigma^2 and s = (u - alpha m) / r^2: E[x0 | u] = m + alpha C s, E[eps | u] = sigma s.
    def by_hand(u, level):
        shift = (u - level.alpha * M) / (level.alpha**2 * C + level.sigma**2)
        return parameterization.target(M + level.alpha * C * shift, level.sigma * shift, level)

    own, exact = ud.FromFunction(process, parameterization, by_hand), ud.GaussianMixture(process, M[None], C)
    for t in (process.t_min, 0.3, 1.0):
        u = torch.tensor([[0.5, -1.0], [2.0, 0.1]], dtype=D)
        for level in (process.level(t), process.level(torch.full((2,), t, dtype=D), u)):
            ours, truth = own(u, level), exact(u, level)
            # Solving for x0 and eps divides the rounding of one operation, 2^-53, by the sine of the angle between the
            # state's and the prediction's rows; where one of them is not determined its error is that over its scale.
            a, b = map(torch.as_tensor, parameterization.coefficients(level))
            alpha, sigma = map(torch.as_tensor, (level.alpha, level.sigma))
            sine = ((alpha * b - sigma * a).abs() / ((a**2 + b**2) * (alpha**2 + sigma**2)).sqrt()).min()
            bound = 16 * 2**-53 * (1 + u.abs().max()) / sine / torch.minimum(torch.ones(()), sigma.min())
            assert (ours.x0 - truth.x0).abs().max() < bound
            assert (ours.eps - truth.eps).abs().max() < bound


def test_the_second_parameter_says_what_it_is():
    process, asked = ud.EDM(), {}
    functions = [
        lambda x, sigma: asked.update(sigma=sigma) or -x,
        lambda x, log_snr: asked.update(log_snr=log_snr) or -x,
        lambda x, t: asked.update(time=t) or -x,
        lambda x, level: asked.update(level=level) or -x,
    ]
    level = process.level(0.4)
    for function in functions:
        ud.FromFunction(process, ud.Score(), function)(torch.ones(3, 2, dtype=D), level)
    assert asked.pop("level") is level
    assert {name: float(value) for name, value in asked.items()} == {name: getattr(level, name) for name in asked}
    # A score of sigma, the usual form for variance exploding: what a NeuralDenoiser made of it had std 29.
    s = ud.FromFunction(ud.VESDE(), ud.Score(), lambda x, sigma: (1 - x) / (0.3**2 + sigma**2), (1,))
    exact = ud.GaussianMixture(ud.VESDE(), [[1.0]], 0.3**2)
    x, truth = (ud.sample(model, ud.Heun(), ud.LogSNR(20), seeds=5, dtype=D).x for model in (s, exact))
    # x0 = u + sigma^2 score: states up to 200 (50 x 4), 2^-53 each, over 40 evaluations.
    assert (x - truth).abs().max() < 40 * 200 * 2**-53 * 10
    with pytest.raises(ParameterError, match="sigma is one number for all modes"):
        ud.FromFunction(ud.Blurring(shape=(2,), blur_max=2.0), ud.X0(), functions[0])


def test_conditions_are_the_further_parameters():
    model = ud.FromFunction(ud.FlowMatching(), ud.X0(), lambda u, t, target: target, (2,))
    assert model.conditions == (ud.Named("target"),)
    target = torch.tensor([[0.25, -0.5], [0.5, 1.0]])
    assert torch.allclose(ud.sample(model, seeds=2, target=target).x, target, rtol=0, atol=1e-5)
    with pytest.raises(ParameterError, match="no condition of this name; it accepts target"):
        ud.sample(model, seeds=2, targte=target)


def test_a_module_keeps_its_parameters():
    network = torch.nn.Linear(2, 2).double()

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network

        def forward(self, u, t):
            return self.layer(u) * t

    model = ud.FromFunction(ud.FlowMatching(), ud.Velocity(), Field(), (2,))
    assert [*model.parameters()] == [*network.parameters()]
    ud.sample(model, ud.Euler(), ud.Uniform(4), seeds=2, dtype=D, grad=True).x.sum().backward()
    assert network.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (0.5, "function must be a function of a state and its noise level, got 0.5"),
        (lambda u, t: None, "function must return a tensor, and returned an object of NoneType"),
        (lambda u, t: u[:, :1], r"returned values must have shape \(3, 2\), got \(3, 1\)"),
    ],
)
def test_what_is_not_a_score_is_one_error(function, message):
    with pytest.raises(ParameterError, match=message):
        ud.sample(ud.FromFunction(ud.VPSDE(), ud.Score(), function, (2,)), seeds=3)


def test_a_score_without_signal_is_refused():
    with pytest.raises(ParameterError, match="Score cannot be converted to data at t = 1"):
        ud.FromFunction(ud.FlowMatching(), ud.Score(), lambda u, t: -u)
