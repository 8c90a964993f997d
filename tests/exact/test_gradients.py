"""Gradients through sampling: closed forms of a Gaussian, finite differences, and the same samples as without."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from parts import GUIDED, MEANS, every, instances
from torch.autograd import gradcheck

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.solver.per_sample import PerSampleSolver

D = torch.float64
FINE = {"eps": 1e-6, "atol": 1e-6, "rtol": 0.0}
# gradcheck's central difference of step h = 1e-6: rounding 2^-53 |x| / h = 1e-10 for |x| of order 1, amplified by the
# solver at most as much as x itself; truncation h^2 f''' / 6 < 1e-9 unless f''' > 6000. 1e-6 holds both.
GRIDS = {"grid": ud.Uniform(5), "seeds": 2, "dtype": D}


def leaf(values):
    return torch.tensor(values, dtype=D, requires_grad=True)


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize(
    ("process", "method", "tolerance"),
    [
        (ud.FlowMatching(), ud.ProbabilityFlow, 1e-8),
        (ud.VPSDE(), ud.ProbabilityFlow, 1e-8),
        (ud.VPSDE(), ud.DPMSolverAdaptive, 1e-3),
    ],
    ids=repr,
)
def test_adaptive_steps_of_a_gaussian_by_hand(process, method, tolerance):
    """Along the flow (u - alpha m) / s is constant, s^2 = alpha^2 C + sigma^2; the last denoise is affine.

    So x = m + k (s_0 / s_1) (u_1 - alpha_1 m) with k = alpha_0 C / s_0^2, 0 for t_min and 1 for t = 1, and
    dx/dm = 1 - k (s_0 / s_1) alpha_1,    dx/dC = d/dC [k s_0 / s_1] (u_1 - alpha_1 m),  by the product rule.
    """
    m, c = leaf([[0.3]]), leaf(0.25)
    model = ud.GaussianMixture(process, m, c)
    solver = method(rtol=tolerance, atol=tolerance)
    x = ud.sample(model, solver, ud.Uniform(4), seeds=1, dtype=D, grad=True).x
    by_m, by_c = torch.autograd.grad(x.sum(), [m, c])
    last, first = process.level(process.t_min), process.level(1.0)
    s0, s1 = (math.sqrt(level.alpha**2 * 0.25 + level.sigma**2) for level in (last, first))
    k = last.alpha * 0.25 / s0**2
    start = float(process.start(ud.Seeded([0]), torch.empty(1, 1, dtype=D)))
    ratio, moved = s0 / s1, start - first.alpha * 0.3
    # The tolerance of a step over at most 100 steps; a derivative along them is at most 10 times less exact. That of
    # DPMSolverAdaptive bounds the lower method: steps of length h err by a factor h less, at most 1 in 100.
    bound = 1000 * tolerance if method is ud.ProbabilityFlow else 10 * tolerance
    assert abs(x.item() - (0.3 + k * ratio * moved)) < bound
    assert abs(by_m.item() - (1 - k * ratio * first.alpha)) < bound
    log_slope = 1 / 0.25 - last.alpha**2 / (2 * s0**2) - first.alpha**2 / (2 * s1**2)  # of k s0 / s1 = a0 C / (s0 s1)
    assert abs(by_c.item() - k * ratio * log_slope * moved) < bound


def test_ancestral_sampling_of_a_gaussian_by_hand():
    """Every step of a stochastic solver is affine in u and x0: dx/dm is a recursion of numbers, exact to rounding."""
    process, m, c = ud.DDPM(12), leaf([[0.3]]), 0.25
    times = ud.Native().times(process)
    x = ud.sample(ud.GaussianMixture(process, m, c), ud.Ancestral(), ud.Native(), seeds=3, dtype=D, grad=True).x
    (slope,) = torch.autograd.grad(x.sum() / 3, m)  # the noise drops out: the slope is the same for every sample
    levels, d = process.levels_at(times[:-1]), 0.0
    for t, s in pairwise(levels):
        gain = t.alpha * c / (t.alpha**2 * c + t.sigma**2)
        d_x0 = 1 + gain * (d - t.alpha)
        ratio = t.alpha / s.alpha
        beta = t.sigma**2 - ratio**2 * s.sigma**2  # q(u_s | u_t, x0), Ho et al. 2020, eq. 7
        d = (s.alpha * beta * d_x0 + ratio * s.sigma**2 * d) / t.sigma**2
    t = levels[-1]
    assert abs(slope.item() - (1 + t.alpha * c / (t.alpha**2 * c + t.sigma**2) * (d - t.alpha))) < 1e-12


@pytest.mark.cases(6)
@every("solver", instances(ud.Solver))
def test_every_solver_against_finite_differences(solver):
    means = leaf(MEANS)

    def x(means):
        return ud.sample(ud.GaussianMixture(ud.VPSDE(), means, 0.04), solver, grad=True, **GRIDS).x

    adaptive = (ud.ProbabilityFlow(), *instances(ud.DPMSolverAdaptive))
    if solver not in adaptive:  # a difference of 1e-6 is below the error of adaptive steps; by hand above
        assert gradcheck(x, means, **FINE)
    with torch.no_grad():
        plain = ud.sample(ud.GaussianMixture(ud.VPSDE(), means, 0.04), solver, **GRIDS).x
    assert torch.equal(x(means), plain)


def test_loops_of_editing():
    solver, grid, image = ud.DDIM(), ud.Uniform(4), leaf([0.2, -0.4])
    known, strength = torch.tensor([1, 0]), torch.tensor([0.3, 0.8])

    def model(means):
        return ud.GaussianMixture(ud.VPSDE(), means, 0.04)

    loops = {
        "encode": lambda means, x: ud.encode(model(means), x[None], solver, grid, grad=True),
        "decode": lambda means, x: ud.decode(model(means), x[None], solver, grid, grad=True),
        "edit": lambda means, x: ud.edit(model(means), x, 0.6, solver, grid, 2, grad=True).x,
        "map": lambda means, x: ud.edit(model(means), x, strength, solver, grid, 2, grad=True).x,
        "inpaint": lambda means, x: ud.inpaint(model(means), x, known, solver, grid, 2, grad=True).x,
        "variations": lambda means, x: ud.variations(model(means), x, 0.5, solver, grid, 2, grad=True),
    }
    for loop in loops.values():
        assert gradcheck(loop, (leaf(MEANS), image), **FINE)
    assert not ud.encode(model(leaf(MEANS)), image[None], solver, grid).requires_grad
    assert not ud.edit(model(leaf(MEANS)), image, 0.6, solver, grid).x.requires_grad


@pytest.mark.parametrize("name", GUIDED)
def test_guided_models_are_right_or_refused(name):
    means, label = leaf(MEANS), torch.tensor([0, 1])

    def x(means):
        guided = GUIDED[name](ud.GaussianMixture(ud.VPSDE(), means, 0.04))
        cond = {"label": label} if guided.classes is not None else {}
        return ud.sample(guided, ud.Ancestral(), grad=True, **GRIDS, **cond).x

    if name in ("DPS", "PiGDM", "MomentMatching"):
        with pytest.raises(ParameterError, match=f"grad: gradients do not pass through {name}"):
            x(means)
        return
    assert gradcheck(x, means, **FINE)


def test_weights_and_conditions_of_a_network():
    """A weight of a network and a condition, by central differences; batches change nothing."""
    torch.manual_seed(0)
    network = ud.MLP((2,), width=4, depth=1).double()
    torch.nn.init.normal_(network.head.weight)
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network)
    (weight,) = [p for name, p in network.named_parameters() if name == "head.weight"]

    def x(batch):
        return ud.sample(model, ud.Heun(), ud.Uniform(4), seeds=3, dtype=D, grad=True, batch=batch).x.square().sum()

    (slope,) = torch.autograd.grad(x(None), weight)
    assert torch.allclose(torch.autograd.grad(x(2), weight)[0], slope, rtol=1e-12, atol=1e-12)  # other order of sums
    with torch.no_grad():
        values = []
        for change in (1e-5, -2e-5):
            weight[0, 0] += change
            values.append(x(None).item())
    # h^2 f''' / 6 and 2^-53 |f| / h with h = 1e-5: both near 1e-10 for f and f''' of order 1 to 10.
    assert abs((values[0] - values[1]) / 2e-5 - slope[0, 0].item()) < 1e-7 * max(1.0, abs(slope[0, 0].item()))


def test_off_by_default_and_one_error():
    model = ud.GaussianMixture(ud.VPSDE(), leaf(MEANS), 0.04)
    assert not ud.sample(model, seeds=1).x.requires_grad
    with pytest.raises(ParameterError, match="grad must be true or false, got 1"):
        ud.sample(model, seeds=1, grad=1)
    with torch.inference_mode(), pytest.raises(ParameterError, match="no gradients inside torch"):
        ud.sample(model, seeds=1, grad=True)
    with torch.no_grad():
        assert ud.sample(denoiser=model, seeds=1, grad=True).x.requires_grad
    assert torch.is_grad_enabled()


class Following(ud.Denoiser):
    """The exact model of x ~ N(k y, c), with y as its condition."""

    shape, conditions = (1,), (ud.Named("y"),)

    def __init__(self, k, c):
        super().__init__()
        self.process, self.k, self.c = ud.FlowMatching(), k, c

    def forward(self, u, level, **cond):
        mean = self.k * cond["y"]
        x0 = mean + level.alpha * self.c / (level.alpha**2 * self.c + level.sigma**2) * (u - level.alpha * mean)
        return ud.Prediction(x0, (u - level.alpha * x0) / level.sigma, level)


def slope_of_ddim(process, grid, c):
    """dx/dm of DDIM on N(m, c), a recursion of numbers: each step is affine in the state and in m."""
    times, d = grid.times(process), 0.0
    levels = process.levels_at(times[:-1])

    def d_x0(t, d):
        return 1 + t.alpha * c / (t.alpha**2 * c + t.sigma**2) * (d - t.alpha)

    for t, s in pairwise(levels):
        d = s.alpha * d_x0(t, d) + s.sigma * (d - t.alpha * d_x0(t, d)) / t.sigma
    return d_x0(levels[-1], d)


def test_a_cascade_of_gaussians_by_hand():
    """x_2 follows k x_1 with the slope D2 and x_1 its mean with D1: dx_2/dm = D2 k D1, exact to rounding."""
    m, k = leaf([[0.3]]), leaf(1.4)
    first, second = ud.VPSDE(), ud.FlowMatching()
    grids = ud.Uniform(3), ud.Tapered(2)

    def chain(m, k):
        stages = ud.Stage(ud.GaussianMixture(first, m, 0.25), ud.DDIM(), grids[0]), Following(k, 0.16)
        return ud.Cascade([stages[0], ud.Stage(stages[1], ud.DDIM(), grids[1], ud.Identity("y", noise=0.1))])

    solution = chain(m, k).sample(3, dtype=D, grad=True)
    (slope,) = torch.autograd.grad(solution.x.sum() / 3, m, retain_graph=True)
    d1, d2 = slope_of_ddim(first, grids[0], 0.25), slope_of_ddim(second, grids[1], 0.16)
    assert abs(slope.item() - d2 * 1.4 * d1) < 1e-12  # some 20 roundings of numbers of order 1
    assert torch.equal(solution.x, chain(m, k).sample(3, dtype=D).x)
    assert not chain(m, k).sample(3, dtype=D).x.requires_grad
    assert gradcheck(lambda m, k: chain(m, k).sample(2, dtype=D, grad=True).x, (m, k), **FINE)
    guided = GUIDED["PiGDM"](ud.GaussianMixture(first, MEANS, 0.3))
    with pytest.raises(ParameterError, match="grad: gradients do not pass through PiGDM"):
        ud.Cascade([ud.Stage(guided)]).sample(1, grad=True)


def test_samplers_of_each_sample_of_one_image_by_hand():
    """With one image x every expectation is known: DDIM carries u_t - m(t) exactly, and the last denoise is x itself.

    So dx/d(data) is the identity.
    """
    process = ud.PerSampleHeat(ud.RenormalizedHeat((2, 3), 1.0))
    one = torch.randn(1, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=D).requires_grad_()

    def x(data, **options):
        posterior = ud.PerSamplePosterior(process, data)
        return ud.PosteriorDDIM().sample(posterior, ud.Uniform(2), seeds=1, dtype=D, **options)

    slope = torch.autograd.functional.jacobian(lambda data: x(data, grad=True), one).reshape(6, 6)
    torch.testing.assert_close(slope, torch.eye(6, dtype=D), rtol=0, atol=1e-12)  # two cosine transforms
    assert not x(one).requires_grad
    with pytest.raises(ParameterError, match="grad must be true or false, got 1"):
        x(one, grad=1)


@pytest.mark.slow  # 2 s: a difference for each pixel of each image
def test_samplers_of_each_sample_against_finite_differences():
    process = ud.PerSampleHeat(ud.RenormalizedHeat((2, 3), 1.0))
    images = torch.randn(3, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=D).requires_grad_()
    for solver in instances(PerSampleSolver):

        def x(data, solver=solver, grad=True):
            posterior = ud.PerSamplePosterior(process, data)
            return solver.sample(posterior, ud.Uniform(2), seeds=1, dtype=D, grad=grad)

        assert torch.equal(x(images), x(images, grad=False))
        assert gradcheck(x, images, **FINE)
