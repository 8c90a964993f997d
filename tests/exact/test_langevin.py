"""Langevin dynamics at one noise level: its step, its bias, and the shares of two far modes, which it cannot mend."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError

F64 = torch.float64


def stream(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


@pytest.mark.parametrize("process", [ud.NCSN(0.1, 5.0, 8), ud.VPSDE(t_min=0.05)], ids=repr)
def test_steps_are_equation_3_14_at_the_last_level(process):
    model, step_size = ud.GaussianMixture(process, [[-0.6, 0.3], [0.5, -0.2]], 0.04), 1e-3
    levels = process.levels_at([1.0, 0.4, process.t_min])
    last, draw, u = levels[-1], stream(3), torch.tensor([[0.4, -0.3]], dtype=F64)
    x, expected = u / levels[0].alpha, []
    for _ in range(3):
        for _ in range(2):
            score = last.alpha * model(last.alpha * x, last).score  # of the density of x = u / alpha
            x = x + step_size / 2 * score + math.sqrt(step_size) * draw(x)
        expected.append(last.alpha * x)
    *found, end = ud.Langevin(2, step_size, denoise=False).states(model, u, levels, stream(3))
    # The score is a difference divided by sigma^2, 0.01 at least: some hundred roundings in six steps.
    torch.testing.assert_close([*found, end], [*expected[:2], x], rtol=1e-11, atol=1e-11)
    *_, denoised = ud.Langevin(2, step_size).states(model, u, levels, stream(3))
    torch.testing.assert_close(denoised, model(expected[-1], last).x0, rtol=1e-11, atol=1e-11)


def test_the_chain_s_variance_around_one_point_is_biased():
    # u <- (1 - k/2) u + sqrt(k) sigma z has the variance sigma^2 / (1 - k/4); from it, n steps leave (1 - k/2)^(2 n) of
    # the difference. Five standard errors of a variance, sqrt(2 / n).
    process, k, n = ud.NCSN(0.5, 2.0, 2), 0.4, 40_000
    model = ud.GaussianMixture(process, [[0.0]], 0.0)
    last = process.level(process.t_min)
    start = 2 * torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    (x,) = ud.Langevin(30, k * 0.25, denoise=False).states(model, start, [last], stream(1))
    expected = 0.25 / (1 - k / 4) + (1 - k / 2) ** 60 * (4 - 0.25 / (1 - k / 4))
    assert float(x.square().mean()) == pytest.approx(expected, rel=5 * math.sqrt(2 / n))


def test_far_modes_keep_the_shares_of_the_start_and_annealing_finds_the_truth():
    # Two modes at -3 and 3 of weights 0.2 and 0.8, noise from 20 to 0.1. At the smallest level the score points to the
    # nearer mode but for |x| < sigma^2 log 4 / 6 = 0.005 or so, and the start is symmetric: shares of a half, whatever
    # the weights. Annealing begins where one bump covers both. Five standard errors of n samples; the annealed chain
    # has the bias of its step size and of 5 steps a level, for which 0.03 is allowed (0.012 was found).
    n, process = 2000, ud.NCSN(0.1, 20.0, 30)
    model = ud.GaussianMixture(process, [[-3.0], [3.0]], 0.01, [0.2, 0.8])
    start, times = process.start(stream(0), torch.empty(n, 1, dtype=F64)), ud.Native().times(process)

    def share(solver: ud.Solver) -> float:
        *_, state = solver.trajectory(model, start, times, stream(1))
        assert ((state.u.abs() - 3).abs() < 1).all()
        return float((state.u < 0).double().mean())

    allowed = 5 * math.sqrt(0.25 / n)
    assert abs(share(ud.Langevin(2, 0.003)) - 0.5) < allowed + 0.001
    assert abs(share(ud.AnnealedLangevin(5, 0.003)) - 0.2) < allowed + 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"step_size": 0.0}, "step_size must be a number > 0"),
        ({"step_size": 0.05}, "step_size must be less than 0.04, where the chain diverges"),
    ],
)
def test_mistakes_are_refused(arguments, message):
    with pytest.raises(ParameterError, match=message):
        ud.Langevin(**{"step_size": 0.01, **arguments}).check(ud.NCSN(0.1, 5.0, 8))
