"""Rules with given weights, and samplers fitted to a model: consistency, closed forms, held-out seeds and problems."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.evaluation.fit import GridCoordinates
from unidiff.solver.linear_multistep import multistep_weights

F64 = torch.float64
MEANS = [[-0.6, 0.3], [0.5, -0.2]]
PROCESSES = [ud.DDPM(50, ud.ZeroTerminalSNR()), ud.EDM()]
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
    model, grid = ud.GaussianMixture(process, MEANS, 0.04), ud.Tapered(6)
    for solver in RULES:
        rule = multistep_weights(solver, process, grid.times(process))
        ours, theirs = (ud.sample(model, s, grid, seeds=4, dtype=F64).x for s in (rule, solver))
        # Weights up to 4 and their 6 rows multiply the rounding of states, 1e-16 of up to 160 in EDM, by less than 1e3.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("solver", [ud.Heun(), ud.DPMSolverNoise(2)], ids=repr)
def test_a_method_with_more_evaluations_is_not_a_rule(solver):
    with pytest.raises(ParameterError, match="is not a linear multistep rule"):
        multistep_weights(solver, ud.EDM(), ud.Tapered(6).times(ud.EDM()))


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
    process = ud.FlowMatching()
    grid = ud.FixedGrid((0.6, 0.3, 0.05))
    assert grid.times(process).tolist() == [1.0, 0.6, 0.3, 0.05, process.t_min, 0.0]
    assert grid.with_steps(5) == grid
    doubled = grid.with_steps(9).times(process)  # 8 steps to t_min, every other time its own
    torch.testing.assert_close(doubled[:-1:2], grid.times(process)[:-1], rtol=1e-14, atol=0)
    with pytest.raises(ParameterError, match="between 1 and t_min"):
        ud.FixedGrid((0.6, 0.0001)).times(process)


def test_a_fixed_grid_may_end_above_t_min_and_is_fitted_with_its_end():
    process = ud.DDPM()
    early, usual = ud.FixedGrid((0.8, 0.6, 0.4), last=0.2), ud.FixedGrid((0.8, 0.6, 0.4))
    assert early.times(process).tolist() == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert early.with_steps(9).times(process)[-2] == 0.2
    for grid in (early, usual):
        coordinates = GridCoordinates(process, grid.times(process))
        assert coordinates.size == (4 if grid == usual else 5)
        same = coordinates.grid(torch.zeros(coordinates.size, dtype=F64)).times(process)
        # The variable is piecewise linear between 1,025 times, there and back: rounding alone, of sums of 5 increments.
        torch.testing.assert_close(same, grid.times(process), rtol=0, atol=1e-12)
        shifted = coordinates.grid(torch.eye(coordinates.size, dtype=F64)[-1]).times(process)
        assert (float(shifted[-2]) > float(same[-2])) == (grid == early)  # what is left below grows
    with pytest.raises(ParameterError, match="last must be"):
        ud.FixedGrid((0.8, 0.6), last=0.7)
    with pytest.raises(ParameterError, match="at least t_min"):
        ud.FixedGrid((0.8, 0.6), last=1e-4).times(process)


def error_of(process, model, solver, grid, seeds):
    """The error to the end of the flow of N(mean, v I): u - alpha mean shrinks with its standard deviation."""
    mean, variance = model.means[0], float(model.variances[0, 0])
    level = process.level(1.0)
    start = process.start(ud.Seeded(seeds), torch.empty(len(seeds), *model.shape, dtype=F64)) - level.alpha * mean
    truth = mean + math.sqrt(variance / (level.alpha**2 * variance + level.sigma**2)) * start
    x = ud.sample(model, solver, grid, seeds=seeds, dtype=F64).x
    return float((x - truth).square().mean().sqrt())


@pytest.mark.slow  # a second or more
def test_weights_fitted_to_a_gaussian_reach_its_closed_form_on_held_out_seeds_and_on_other_gaussians():
    # All errors of an isotropic Gaussian are one factor times the start, and the end is an affine function of the last
    # row of weights: its derivative is exact, and Newton's step ends at 0 but for the flow's own tolerance. The factor
    # depends on the variance alone: not on seeds, mean or dimension.
    process, held_out, tolerance = ud.FlowMatching(), range(100, 130), 1e-4
    model = ud.GaussianMixture(process, [[0.2, -0.4]], 0.09)
    solvers = [(ud.ExponentialAdams(), ud.Uniform())]
    options = {"held_out": held_out, "solvers": solvers, "tolerance": tolerance, "coefficients": True}
    tuning = ud.tune(model, 4, seeds=20, **options)
    default = error_of(process, model, ud.ExponentialAdams(), ud.Tapered(4), held_out)
    assert tuning.default_error == pytest.approx(default, abs=tolerance)
    assert default > 10 * tolerance
    assert error_of(process, model, tuning.solver, tuning.grid, held_out) < tolerance
    other = ud.GaussianMixture(process, [[3.0, -1.0, 0.5, 0.0, 7.0]], 0.09)
    # The factor below 1e-4 / 1 of starts of unit variance; the factor of the mean is exact, since weights sum to 1.
    assert error_of(process, other, tuning.solver, tuning.grid, range(7)) < 2 * tolerance


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("nfe", {"nfe": 2}),
        ("seeds", {"seeds": 19}),
        ("held_out", {"held_out": range(10, 40)}),
        ("tolerance", {"tolerance": 0.0}),
        ("solvers", {"solvers": ["ancestral"]}),
        ("solvers", {"solvers": ["edm"], "nfe": 3}),
        ("shape", {"shape": (3,)}),
        ("label", {"label": torch.zeros(7, dtype=torch.long)}),
    ],
)
def test_mistakes_are_found_before_the_model_is_evaluated(parameter, values):
    model = ud.Counted(ud.GaussianMixture(ud.FlowMatching(), MEANS, 0.04))
    with pytest.raises(ParameterError) as caught:
        ud.tune(model, **{"nfe": 4, "seeds": 20, **values})
    assert caught.value.parameter == parameter
    assert model.nfe == 0


def test_weights_for_modes_that_differ_are_refused():
    process = ud.RenormalizedHeat((2,), 0.5)
    with pytest.raises(ParameterError, match="coefficients"):
        ud.tune(ud.GaussianMixture(process, MEANS, 0.04), 4, seeds=20, coefficients=True)


@pytest.mark.slow  # fits of times for two solvers on six grids, on one process twice
@pytest.mark.parametrize("process", [ud.FlowMatching(), ud.RenormalizedHeat((2,), 0.5)], ids=lambda p: type(p).__name__)
def test_times_fitted_to_a_gaussian_are_not_worse_than_the_default_and_the_same_each_time(process):
    model, done = ud.GaussianMixture(process, [[0.2, -0.4]], 0.09), []
    options = {"seeds": 20, "tolerance": 1e-3, "solvers": ["exponentialadams", "unipc:2"]}
    tuning = ud.tune(model, 4, progress=lambda *at: done.append(at), **options)
    assert tuning.error <= tuning.default_error
    assert done[-1][0] == done[-1][1]
    if not process.basis.shape:
        assert tuning == ud.tune(model, 4, **options)
        tuned, default = (
            error_of(process, model, solver, grid, range(1000, 1100))
            for solver, grid in ((tuning.solver, tuning.grid), (ud.ExponentialAdams(), ud.Tapered(4)))
        )
        assert tuned <= default + 1e-3  # the flow's tolerance


@pytest.mark.slow  # a fit of times and weights to a mixture
def test_what_was_fitted_to_a_mixture_is_better_on_seeds_and_components_that_it_has_not_seen():
    process = ud.FlowMatching()
    corners = torch.tensor([[-1.0, 0.0], [0.2, 0.5], [1.0, -1.0]], dtype=F64)
    uneven = ud.GaussianMixture(process, corners, torch.tensor([0.3, 0.002, 0.05], dtype=F64))
    ring = ud.GaussianMixture(process, ud.data.Ring().means, 0.05**2)
    options = {"seeds": 200, "tolerance": 1e-3, "solvers": ["exponentialadams"], "coefficients": True}
    tuning = ud.tune(uneven, 6, others=[("ring", ring)], **options)
    assert tuning.error < 0.7 * tuning.default_error
    assert tuning.rows[-1].what == "ring"
    assert tuning.rows[-1].ratio < 1
