"""Rules with given weights, and samplers fitted to a model: consistency, closed forms, held-out seeds and problems."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.solver.linear_multistep import multistep_weights

F64 = torch.float64
MEANS = [[-0.6, 0.3], [0.5, -0.2]]
PROCESSES = [ud.DDPM(), ud.DDPM(1000, ud.ZeroTerminalSNR()), ud.FlowMatching(), ud.EDM()]
RULES = [
    ud.ExponentialAdams(),
    ud.UniPC(3),
    ud.DPMSolver(2),
    ud.DEIS(3),
    ud.AdamsBashforth(3),
    ud.UniPCNoise(2),
    ud.DDIM(),
]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_multistep_method_is_a_rule_of_weights_on_each_grid(process):
    model, grid = ud.GaussianMixture(process, MEANS, 0.04), ud.Tapered(8)
    for solver in RULES:
        rule = multistep_weights(solver, process, grid.times(process))
        ours, theirs = (ud.sample(model, s, grid, seeds=4, dtype=F64).x for s in (rule, solver))
        # Weights up to 4 and their 8 rows multiply the rounding of states, 1e-16 of up to 160 in EDM, by less than 1e3.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("solver", [ud.Heun(), ud.DPMSolverNoise(2)], ids=repr)
def test_a_method_with_more_evaluations_is_not_a_rule(solver):
    with pytest.raises(ParameterError, match="is not a linear multistep rule"):
        multistep_weights(solver, ud.DDPM(), ud.Tapered(6).times(ud.DDPM()))


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_weights_sum_to_one_so_that_a_point_is_exact(process):
    weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=F64).tolist()
    rule = ud.LinearMultistep(tuple(tuple(row[:i]) for i, row in enumerate(weights)))
    assert all(math.fsum(row) == pytest.approx(1, abs=1e-15) for row in rule.rows(5))
    point = torch.tensor([[0.3, -0.7]], dtype=F64)
    x = ud.sample(ud.Empirical(process, point), rule, ud.Uniform(5), seeds=3, dtype=F64).x
    torch.testing.assert_close(x, point.expand(3, 2), rtol=0, atol=1e-13)  # weights of up to 10


def test_a_rule_of_one_row_is_for_every_grid_and_one_of_several_for_its_own():
    model = ud.GaussianMixture(ud.FlowMatching(), MEANS, 0.04)
    second = ud.LinearMultistep(((-0.5,),))
    assert second.rows(4) == [[1.0], [1.5, -0.5], [1.5, -0.5], [1.0]]
    plain = ud.LinearMultistep(((),))
    one, other = (ud.sample(model, s, ud.Uniform(7), seeds=3, dtype=F64).x for s in (plain, ud.DDIM()))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    with pytest.raises(ParameterError, match="weights of 3 steps, and the grid has 7"):
        ud.sample(model, ud.LinearMultistep(((), (0.1,), (0.1, 0.2))), ud.Uniform(7), seeds=3)


def test_a_fixed_grid_has_its_times_and_interpolates_others():
    process = ud.DDPM()
    grid = ud.FixedGrid((0.6, 0.3, 0.05))
    assert grid.times(process).tolist() == [1.0, 0.6, 0.3, 0.05, process.t_min, 0.0]
    assert grid.with_steps(5) == grid
    doubled = grid.with_steps(9).times(process)  # 8 steps to t_min, every other time its own
    torch.testing.assert_close(doubled[:-1:2], grid.times(process)[:-1], rtol=1e-14, atol=0)
    with pytest.raises(ParameterError, match="between 1 and t_min"):
        ud.FixedGrid((0.6, 0.0001)).times(process)


def gaussian_end(model, mean, variance, start, process):
    """The end of the flow of N(mean, variance I): u - alpha m shrinks with its standard deviation."""
    level = process.level(1.0)
    return mean + math.sqrt(variance / (level.alpha**2 * variance + level.sigma**2)) * (start - level.alpha * mean)


def test_weights_fitted_to_a_gaussian_reach_its_closed_form_on_held_out_seeds():
    # All errors of an isotropic Gaussian are one factor times the start, and the end is an affine function of the last
    # row of weights: its derivative is exact, and Newton's step ends at 0 but for the flow's own tolerance.
    process, mean, variance, held_out = ud.DDPM(), torch.tensor([0.2, -0.4], dtype=F64), 0.09, range(100, 130)
    model = ud.GaussianMixture(process, mean[None], variance)
    tuning = ud.tune(model, 4, seeds=20, held_out=held_out, solvers="exponentialadams", coefficients=True)
    start = process.start(ud.Seeded(held_out), torch.empty(30, 2, dtype=F64))
    truth = gaussian_end(model, mean, variance, start, process)

    def error(solver, grid):
        x = ud.sample(model, solver, grid, seeds=held_out, dtype=F64).x
        return float((x - truth).square().mean().sqrt())

    default = error(ud.ExponentialAdams(), ud.Tapered(4))
    assert tuning.default_error == pytest.approx(default, abs=1e-6)
    assert error(tuning.solver, tuning.grid) < 2e-6  # the flow is known to 1e-6
    assert default > 1e-2
    assert tuning == ud.tune(model, 4, seeds=20, held_out=held_out, solvers="exponentialadams", coefficients=True)
