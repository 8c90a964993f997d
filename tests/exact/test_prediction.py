"""A combination of expected data and noise is the same from state and output as from data and noise.

u = 2^-53. Both ways start from the same four numbers, alpha, sigma, a and b over the determinant. Data and noise are
sums of two products, two roundings; their combination with the state takes three more. From state and output the
coefficients take three roundings, and their combination two. So each term of the sums is off by at most 5 u of its size
either way, and two ways differ by at most 10 u times the sum of all terms' sizes; 11 covers what is of second order.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff.interop.diffusers.network import ClipSample
from unidiff.recipe.registry import PUBLIC

U = 2.0**-53
PARAMETERIZATIONS = [cls() for cls in PUBLIC.choices(ud.Parameterization).values()]
PROCESSES = [ud.DDPM(), ud.NCSN(0.01, 50.0, 20), ud.VPSDE(), ud.SubVPSDE(), ud.VESDE(), ud.EDM(), ud.FlowMatching()]
GENERATOR = torch.Generator().manual_seed(0)
STATE, OUTPUT = (torch.randn(3, 2, 5, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)
def test_mix_is_the_plain_combination(process, parameterization):
    # At t = 1 some of these have alpha = 0, where noise does not say what the data are.
    for t in (process.t_min, 0.1, 0.6, 0.97):
        level = process.level(t)
        prediction = parameterization.solve(OUTPUT, STATE, level)
        a, b = parameterization.coefficients(level)
        det = level.alpha * b - level.sigma * a
        x0_size = (b / det * STATE).abs() + (level.sigma / det * OUTPUT).abs()
        eps_size = (a / det * STATE).abs() + (level.alpha / det * OUTPUT).abs()
        for p, q, r in (
            (0.3, -1.7, 0.0),
            (level.alpha, level.sigma, 0.0),
            (1.0, 0.0, 0.0),
            (2.5, 0.0, -0.4),
            (0, 1, 1),
        ):
            mixed = prediction.mix(p, q, r, STATE if r else None)
            plain = p * prediction.x0 + q * prediction.eps + r * STATE
            bound = 11 * U * (abs(p) * x0_size + abs(q) * eps_size + abs(r) * STATE.abs())
            assert bool(((mixed - plain).abs() <= bound).all())
        assert torch.equal(prediction.mix(1.0, 0.0), prediction.x0)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)
def test_data_and_noise_are_those_of_a_prediction_with_a_graph(parameterization):
    level = ud.VPSDE().level(0.4)
    later = parameterization.solve(OUTPUT, STATE, level)
    now = parameterization.solve(OUTPUT.clone().requires_grad_(), STATE, level)
    assert torch.equal(later.x0, now.x0)
    assert torch.equal(later.eps, now.eps)


def test_a_graph_is_that_of_the_moment():
    level, u = ud.VPSDE().level(0.4), STATE.clone().requires_grad_()
    with torch.no_grad():
        inside = ud.V().solve(OUTPUT, u, level)
    assert not inside.x0.requires_grad
    assert not inside.mix(0.2, 0.3).requires_grad
    outside = ud.V().solve(OUTPUT, u, level)
    with torch.no_grad():
        _ = outside.x0
    (gradient,) = torch.autograd.grad(outside.mix(1.0, 0.0).sum(), u)
    # x0 = alpha u - sigma v, on a variance-preserving process
    torch.testing.assert_close(gradient, torch.full_like(u, float(level.alpha)), rtol=8 * U, atol=0.0)


def test_another_state_is_not_taken_for_its_own():
    prediction = ud.V().solve(OUTPUT, STATE, ud.VPSDE().level(0.4))
    other = STATE + 1
    expected = 0.5 * prediction.x0 + 2.0 * other
    torch.testing.assert_close(prediction.mix(0.5, 0.0, 2.0, other), expected, rtol=8 * U, atol=16 * U)


def test_coefficients_of_modes():
    level = ud.VPSDE().level(0.4)
    p, q, r = (torch.rand(5, generator=GENERATOR, dtype=torch.float64) for _ in range(3))
    prediction = ud.V().solve(OUTPUT, STATE, level)
    expected = p * prediction.x0 + q * prediction.eps + r * STATE
    torch.testing.assert_close(prediction.mix(p, q, r, STATE), expected, rtol=0.0, atol=100 * U)


def test_clipped_data_are_what_a_step_uses():
    class Echo(nn.Module):
        def forward(self, x, c):
            return 3 * x

    model = ClipSample(ud.NeuralDenoiser(ud.VPSDE(), ud.Eps(), Echo()))
    u, (t, s) = STATE.float(), ud.VPSDE().levels_at([0.5, 0.4])
    assert float(model(u, t).x0.abs().max()) == 1.0
    step = ud.DDIM().step(model, u, t, s, torch.zeros_like)
    torch.testing.assert_close(step, s.alpha * model(u, t).x0 + s.sigma * model(u, t).eps)


def test_it_unpacks_copies_and_stays_what_it_is():
    prediction = ud.X0().solve(OUTPUT, STATE, ud.VPSDE().level(0.4))
    x0, eps, level, variance = prediction
    assert torch.equal(prediction[1], eps)
    assert variance is None
    with pytest.raises(AttributeError, match="_replace"):
        prediction.x0 = x0
    changed = prediction._replace(x0=x0 + 1)
    assert torch.equal(changed.x0, x0 + 1)
    assert torch.equal(changed.eps, eps)
    for twin in (copy.deepcopy(prediction), pickle.loads(pickle.dumps(prediction))):
        assert torch.equal(twin.x0, x0)
        assert twin.level == level


def test_a_network_may_write_into_its_noise_condition():
    class Careless(nn.Module):
        def __init__(self, writes: bool) -> None:
            super().__init__()
            self.writes = writes

        def forward(self, x, c):
            scale = c.div_(1000) if self.writes else c / 1000
            return scale[:, None] * x

    # Heun evaluates at each level twice.
    samples = [
        ud.sample(ud.NeuralDenoiser(ud.VPSDE(), ud.Eps(), Careless(writes)), ud.Heun(), ud.Uniform(5), (4,), seeds=2).x
        for writes in (False, True)
    ]
    assert torch.equal(*samples)


def test_levels_of_a_grid_serve_states_of_any_kind():
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((3,), width=8, depth=1)).double()
    nn.init.normal_(model.backbone.head.weight)
    levels = ud.VPSDE().levels_at([0.9, 0.5])
    for count, dtype in ((2, torch.float64), (3, torch.float64), (2, torch.float32), (70, torch.float64)):
        u = torch.randn(count, 3, generator=GENERATOR, dtype=dtype)
        for level in levels:
            alone = ud.VPSDE().level(level.time)
            assert torch.equal(model(u, level).x0, model(u, alone).x0)
    model.parameterization = ud.Eps()  # levels are not tied to what a model was
    assert torch.equal(model(u, levels[0]).x0, model(u, ud.VPSDE().level(0.9)).x0)
