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
    own = ud.FunctionDenoiser(process, gaussian_score(process), (2,))
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

    prediction = ud.FunctionDenoiser(process, x0, parameterization=ud.X0())(v, level)
    expected = process.basis.forward(process.basis.inverse(v) + t[:, None])
    assert torch.allclose(prediction.x0, expected, rtol=0, atol=1e-14)
    assert torch.allclose(level.alpha * prediction.x0 + level.sigma * prediction.eps, v, rtol=0, atol=1e-14)
    assert times[0].shape == (2, 1)


def test_conditions_are_the_further_parameters():
    model = ud.FunctionDenoiser(ud.FlowMatching(), lambda u, t, target: target, (2,), ud.X0())
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

    model = ud.FunctionDenoiser(ud.FlowMatching(), Field(), (2,), ud.Velocity())
    assert [*model.parameters()] == [*network.parameters()]
    ud.sample(model, ud.Euler(), ud.Uniform(4), seeds=2, dtype=D, grad=True).x.sum().backward()
    assert network.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (0.5, "function must be a function of a state and a time, got 0.5"),
        (lambda u, t: None, "function must be a function that returns a tensor"),
        (lambda u, t: u[:, :1], r"returned values must have shape \(3, 2\), got \(3, 1\)"),
    ],
)
def test_what_is_not_a_score_is_one_error(function, message):
    with pytest.raises(ParameterError, match=message):
        ud.sample(ud.FunctionDenoiser(ud.VPSDE(), function, (2,)), seeds=3)


def test_a_score_without_signal_is_refused():
    with pytest.raises(ParameterError, match="Score cannot be converted to data at t = 1"):
        ud.FunctionDenoiser(ud.FlowMatching(), lambda u, t: -u)
