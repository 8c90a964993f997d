"""Encoding along the probability flow, against the closed-form flow of a Gaussian, and its inverse."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError

F64 = torch.float64
PROCESSES = [ud.DDPM(), ud.VPSDE(), ud.VESDE(), ud.EDM(), ud.FlowMatching()]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


def draws(process: ud.Process, count: int = 8) -> tuple[ud.GaussianMixture, torch.Tensor]:
    model = ud.GaussianMixture(process, [[-0.6, 0.3], [0.5, -0.2]], 0.04)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 2, generator=generator, dtype=F64)
    return model, model.draw(noise, torch.rand(count, generator=generator, dtype=F64))


@pytest.mark.cases(2)
@every_process
@pytest.mark.slow  # up to 2 s
def test_latents_of_a_gaussian_are_in_closed_form(process):
    # u - alpha m is proportional to sqrt(alpha^2 C + sigma^2) along the flow; data start at u = alpha x at t_min.
    C, m = 0.3, 0.4
    model = ud.GaussianMixture(process, [[m]], C)
    x = torch.tensor([[0.1], [1.2], [-0.7]], dtype=F64)
    first, last = process.level(process.t_min), process.level(1.0)
    spread = [math.sqrt(level.alpha**2 * C + level.sigma**2) for level in (first, last)]
    expected = (last.alpha * m + spread[1] / spread[0] * first.alpha * (x - m)) / process.prior_scale()
    tight = ud.ProbabilityFlow(rtol=1e-8, atol=1e-8)
    # The global error of an adaptive method is the tolerance times the number of steps, about 100, times the growth of
    # an early error, spread[1] / spread[0].
    bound = 1e-8 * 100 * max(1.0, spread[1] / spread[0])
    assert (ud.encode(model, x, tight) - expected).abs().max() < bound
    assert (ud.decode(model, expected, tight) - x).abs().max() < bound


@pytest.mark.slow  # a second or more
@every_process
def test_the_round_trip_is_the_identity_up_to_the_order_of_the_solver(process):
    model, x = draws(process)
    errors = [float(ud.round_trip(model, x, ud.ExponentialAdams(2), ud.Tapered(n)).error.max()) for n in (80, 160)]
    assert errors[1] < errors[0] / 2  # of order 2: about a quarter
    assert errors[1] < 1e-2
    trip = ud.round_trip(model, x)
    assert trip.error.max() < 1e-2
    assert trip.nfe > 0
    assert trip.x.shape == trip.latent.shape == x.shape


def test_latents_are_standard_normal_noise():
    # VE to 80: what the data leave is 0.4 / 80 of the noise, far below the standard errors of 4,000 samples.
    model, x = draws(ud.EDM(), 4000)
    z = ud.encode(model, x, ud.ExponentialAdams(), ud.Tapered(60))
    # The state at t_min is the data itself, with too little noise by sigma_min: relative 0.002^2 / 0.04 = 1e-4.
    assert z.mean(0).abs().max() < 5 / math.sqrt(4000) + 0.01
    assert (z.T @ z / 4000 - torch.eye(2, dtype=F64)).abs().max() < 5 * math.sqrt(2 / 4000)


def test_the_arc_between_latents():
    generator = torch.Generator().manual_seed(1)
    start, end = torch.randn(2, 50, generator=generator, dtype=F64)
    end = end * start.norm() / end.norm()
    arc = ud.interpolate(start, end, 5)
    torch.testing.assert_close(arc[[0, -1]], torch.stack([start, end]))
    torch.testing.assert_close(arc.norm(dim=1), start.norm().expand(5))  # a great arc of a sphere
    torch.testing.assert_close(ud.interpolate(start, start, 3), start.expand(3, -1))
    with pytest.raises(ParameterError, match="count"):
        ud.interpolate(start, end, 1)
    with pytest.raises(ParameterError, match="shape"):
        ud.interpolate(start, end[:3], 4)
    for name, pair in {"start": (0 * start, end), "end": (start, end * math.inf)}.items():
        with pytest.raises(ParameterError, match=f"{name} must be finite and not all 0, got a latent of norm"):
            ud.interpolate(*pair, 3)


@pytest.mark.parametrize(
    "solver", [ud.Ancestral(), ud.EulerMaruyama(), ud.PredictorCorrector(), ud.DPMSolver(2, eta=1.0)], ids=repr
)
def test_a_solver_that_draws_noise_is_refused(solver):
    model, x = draws(ud.VPSDE())
    for function in (ud.encode, ud.decode):
        with pytest.raises(ParameterError, match="draws noise"):
            function(model, x, solver)


def test_numbers_that_are_not_finite_are_refused():
    model, x = draws(ud.VPSDE())
    x[0, 0] = math.nan
    for function in (ud.encode, ud.decode, ud.round_trip):
        with pytest.raises(ParameterError, match="finite"):
            function(model, x)
