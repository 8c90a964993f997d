"""Linear measurements and posteriors, against dense linear algebra and exact posteriors of Gaussians and mixtures."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import pytest
import torch
from parts import instances
from scipy.special import dawsn

import unidiff as ud
from unidiff.errors import ParameterError

F64 = torch.float64
OPERATORS = [
    ud.inverse.HeatBlur((4, 6), 1.3),
    ud.inverse.BlockMean((4, 6), 2),
    ud.inverse.Inpainting((torch.arange(24).reshape(4, 6) % 3 == 0).long()),
    ud.inverse.RandomProjection((4, 6), 7),
]
every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda value: type(value).__name__)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def matrix(operator: ud.inverse.Operator) -> torch.Tensor:
    size = math.prod(operator.shape)
    return operator.apply(torch.eye(size, dtype=F64).reshape(size, *operator.shape)).flatten(1).mT


# ---------------------------------------------------------------------------------------------- operators


@every_operator
def test_transpose_is_the_transpose(operator):
    x = normal(2, 3, 4, 6)
    y = operator.apply(x)
    w = normal(*y.shape, seed=1)
    back = operator.transpose(w)
    assert back.shape == x.shape
    assert abs((w * y).sum() - (back * x).sum()) < 1e-12  # sums of 144 products of order 1: 144 u
    assert operator.apply(x.float()).dtype == torch.float32
    torch.testing.assert_close(operator.apply(x.float()), y.float(), rtol=1e-5, atol=1e-5)


@every_operator
def test_functions_of_the_gram_matrix_are_those_of_the_dense_one(operator):
    A = matrix(operator)
    y = operator.apply(normal(5, 4, 6))
    dense = torch.linalg.solve(0.3 * A @ A.mT + 0.1 * torch.eye(len(A), dtype=F64), y.flatten(1).mT).mT
    # A condition number below 1 + 0.3 / 0.1 = 4.
    torch.testing.assert_close(
        operator.gram(y, lambda s: 1 / (0.3 * s + 0.1)).flatten(1), dense, rtol=1e-13, atol=1e-13
    )
    torch.testing.assert_close(
        operator.gram(y, lambda s: s), operator.apply(operator.transpose(y)), rtol=1e-13, atol=1e-13
    )


def test_an_operator_that_overrides_the_old_name_of_its_basis_is_computed_in_it():
    with pytest.warns(DeprecationWarning, match=r"Old\.left is now called left_singular_basis"):

        class Old(ud.inverse.Operator):
            shape, left = (3,), ud.DCT((3,))
            singular_values = torch.tensor([1.0, 2.0, 3.0], dtype=F64)

            def apply(self, x):
                return self.left.inverse(self.singular_values * self.left.forward(x))

            transpose = apply

    y = normal(2, 3)
    torch.testing.assert_close(Old().gram(y, torch.sqrt), Old().apply(y), rtol=1e-14, atol=1e-14)


def test_what_the_operators_measure():
    x = normal(1, 1, 4, 6)
    torch.testing.assert_close(ud.inverse.BlockMean((4, 6), 2).apply(x), torch.nn.functional.avg_pool2d(x, 2))
    torch.testing.assert_close(ud.inverse.HeatBlur((4, 6), 0.0).apply(x), x)
    # One mode of the heat equation fades by exp(-lambda tau), lambda = (pi / 6)^2, tau = blur^2 / 2.
    mode = torch.cos(math.pi * (torch.arange(6, dtype=F64) + 0.5) / 6).expand(4, 6)
    faded = math.exp(-((math.pi / 6) ** 2) * 1.3**2 / 2) * mode
    torch.testing.assert_close(ud.inverse.HeatBlur((4, 6), 1.3).apply(mode), faded, rtol=1e-14, atol=1e-14)
    assert torch.equal(
        ud.inverse.Inpainting([[0, 1], [1, 0]]).apply(x[..., :2, :2]),
        torch.stack([x[0, 0, 0, 1], x[0, 0, 1, 0]])[None, None],
    )
    assert ud.inverse.RandomProjection((4, 6), 7, 1) != ud.inverse.RandomProjection((4, 6), 7, 2)


@pytest.mark.parametrize(
    "make", [lambda: ud.inverse.Inpainting((1, 0, 1)), lambda: ud.inverse.RandomProjection((3,), 2)]
)
def test_operators_made_without_autograd_serve_it(make):
    with torch.inference_mode():
        operator = make()
        operator.apply(torch.zeros(1, 3))
    x = torch.ones(1, 3, requires_grad=True)
    operator.apply(x).sum().backward()
    assert x.grad is not None


def test_bad_operators_are_refused():
    for make, name in (
        (lambda: ud.inverse.HeatBlur((4, 6), math.nan), "blur"),
        (lambda: ud.inverse.HeatBlur((), 1.0), "shape"),
        (lambda: ud.inverse.BlockMean((4, 6), 4), "shape"),
        (lambda: ud.inverse.BlockMean((4, 6), 0), "factor"),
        (lambda: ud.inverse.Inpainting([[0, 2]]), "known"),
        (lambda: ud.inverse.Inpainting([[0, 0]]), "known"),
        (lambda: ud.inverse.Inpainting("white"), "known"),
        (lambda: ud.inverse.RandomProjection((4, 6), 25), "count"),
    ):
        with pytest.raises(ParameterError, match=name):
            make()
    with pytest.raises(ParameterError, match=r"operator.*\(4, 6\)"):
        ud.inverse.HeatBlur((4, 6), 1.0).apply(torch.zeros(1, 6, 4))


# ---------------------------------------------------------------------------------------------- the exact posterior


def test_the_posterior_of_a_mixture_is_bayes_by_quadrature():
    # Components as wide as each other would not tell log det S_k apart, a number of all of them.
    covariances = torch.tensor([[[0.05, 0.0], [0.0, 0.05]], [[0.1, -0.03], [-0.03, 0.06]]], dtype=F64)
    mixture = ud.GaussianMixture(ud.VPSDE(), [[-0.8, 0.3], [0.4, 0.6]], covariances, [0.4, 0.6])
    operator, y, s = ud.inverse.RandomProjection((2,), 1, 3), torch.tensor([0.2], dtype=F64), 0.3
    axis = torch.linspace(-4, 4, 801, dtype=F64)  # h = 0.01, the smallest standard deviation 0.17: exact to rounding
    x = torch.cartesian_prod(axis, axis)
    density = mixture.log_prob(x, replace(ud.VPSDE().level(0.5), alpha=1.0, sigma=1e-9)).exp()
    density *= torch.exp(-((operator.apply(x) - y) ** 2).sum(1) / (2 * s**2))
    density /= density.sum()
    mean = density @ x
    covariance = (x - mean).mT @ (density[:, None] * (x - mean))
    actual = moments(ud.inverse.conditioned(mixture, operator, y, s))
    torch.testing.assert_close(actual[0], mean, rtol=1e-9, atol=1e-9)  # sigma = 1e-9 adds 1e-18; 641601 u = 7e-11
    torch.testing.assert_close(actual[1], covariance, rtol=1e-9, atol=1e-9)


def moments(mixture: ud.GaussianMixture) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and covariance (D, D) of a mixture on a process of pixels."""
    weights = mixture.log_weights.exp()
    mean = weights @ mixture.means
    variances, axes = mixture.variances, mixture.axes
    axes = torch.eye(len(mean), dtype=F64).expand(len(weights), -1, -1) if axes is None else axes
    within = axes * variances[:, None, :] @ axes.mT
    apart = mixture.means - mean
    return mean, torch.einsum("k,kde->de", weights, within + apart[:, :, None] * apart[:, None, :])


# ---------------------------------------------------------------------------------------------- Gaussian, pointwise


def gaussian(process: ud.Process, size: int = 24, variance: float | None = None) -> ud.GaussianMixture:
    """N(m, C) on (1, 4, 6), of any covariance or of variance * I."""
    root = normal(size, size, seed=5) / math.sqrt(size)
    covariance = root @ root.mT + 0.1 * torch.eye(size, dtype=F64) if variance is None else variance
    return ud.GaussianMixture(process, normal(1, 1, 4, 6, seed=6) / 2, covariance)


@every_operator
@pytest.mark.parametrize("process", [ud.VPSDE(), ud.EDM(), ud.DDPM()], ids=repr)
def test_moment_matching_is_exact_on_gaussian_data(operator, process):
    model, s = gaussian(process), 0.2
    y = operator.apply(model.draw(normal(1, 1, 4, 6, seed=7), torch.zeros(1))) + s * normal(1, seed=8)
    exact = ud.inverse.conditioned(model, operator, y[0], s)
    guided = ud.inverse.MomentMatching(model, operator, y, s, iterations=60, tolerance=1e-12)
    for t in (1.0, 0.6, 0.2, process.t_min):
        level = process.level(t)
        u = normal(5, 1, 4, 6, seed=9) * math.hypot(level.alpha, level.sigma)
        answer, truth = guided(u, level), exact(u, level)
        # Conjugate gradients leave tolerance times the condition number 1 + |C| / s^2 < 200; the derivative is divided
        # by alpha^2 / sigma^2 >= 4e-5 after sums of 24 terms: 24 u / 4e-5 = 1e-10.
        torch.testing.assert_close(answer.x0, truth.x0, rtol=0, atol=2e-9)
        torch.testing.assert_close(level.alpha * answer.x0 + level.sigma * answer.eps, u, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", [ud.FlowMatching(), ud.DDPM(10, ud.ZeroTerminalSNR())], ids=repr)
def test_pure_noise_is_asked_where_a_thousandth_of_data_is_left(process):
    # There E[x0 | u] and E[x0 | u, y] depend on u by alpha C / sigma <= 1e-3 |C|, with |u| < 4 and |C| < 4.
    model, operator = gaussian(process), OPERATORS[0]
    y, u = operator.apply(normal(1, 1, 4, 6, seed=7)), normal(5, 1, 4, 6, seed=9)
    exact, guided = (
        ud.inverse.conditioned(model, operator, y[0], 0.2),
        ud.inverse.MomentMatching(model, operator, y, 0.2, 60, 1e-12),
    )
    for level in (process.level(1.0), process.level(torch.ones(5, dtype=F64), u)):
        answer = guided(u, level)
        torch.testing.assert_close(answer.x0, exact(u, level).x0, rtol=0, atol=1.6e-2)
        assert torch.equal(answer.eps, u)
    early = torch.tensor([1.0, 0.2, 0.5, 0.3, 0.4], dtype=F64)
    torch.testing.assert_close(
        guided(u, process.level(early, u)).x0[1:], exact(u, process.level(early, u)).x0[1:], rtol=0, atol=2e-9
    )


@every_operator
def test_pigdm_is_exact_where_its_assumption_holds(operator):
    model, s, process = gaussian(ud.VPSDE(), variance=0.25), 0.2, ud.VPSDE()
    y = operator.apply(model.draw(normal(1, 1, 4, 6, seed=7), torch.zeros(1)))
    exact = ud.inverse.conditioned(model, operator, y[0], s)
    guided = ud.inverse.PiGDM(model, operator, y, s, data_std=0.5)
    for t in (1.0, 0.6, 0.2, 1e-3):
        u, level = normal(5, 1, 4, 6, seed=9), process.level(t)
        torch.testing.assert_close(guided(u, level).x0, exact(u, level).x0, rtol=0, atol=2e-9)  # as above
    # One time per sample.
    level = process.level(torch.tensor([1.0, 0.6, 0.2, 0.1, 1e-3], dtype=F64), u)
    torch.testing.assert_close(guided(u, level).x0, exact(u, level).x0, rtol=0, atol=2e-9)


def test_dps_is_its_formula():
    # Chung et al. 2023, eq. 16: score(u | y) = score(u) - 1 / (2 s^2) grad |y - A E[x0 | u]|^2.
    process, operator, s = ud.VPSDE(), OPERATORS[0], 0.2
    model, y = ud.GaussianMixture(process, normal(3, 1, 4, 6), 0.1), normal(5, 1, 4, 6, seed=1)
    u, level = normal(5, 1, 4, 6, seed=2).requires_grad_(), process.level(0.4)
    distance = (y - operator.apply(model(u, level).x0)).square().sum()
    (gradient,) = torch.autograd.grad(distance, u)
    expected = model(u, level).score - 0.7 * gradient / (2 * s**2)
    actual = ud.inverse.DPS(model, operator, y, s, scale=0.7)(u.detach(), level).score
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-10, atol=1e-10)


def test_moment_matching_stops_where_it_is_done_and_where_there_is_no_minimum():
    # By hand, A = I and s = 1 / 2: with Cov = diag(3.75, -1.25, 0.75), which a network's Jacobian may make, conjugate
    # gradients solve with M = Cov + s^2 = diag(4, -1, 1). Rows that are done stay as they are while others go on.
    model, unit = ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0, 0.0]], 1.0), ud.inverse.Inpainting([1, 1, 1])
    guided = ud.inverse.MomentMatching(model, unit, torch.zeros(1, 3, dtype=F64), 0.5, tolerance=0.2)
    covariance = torch.tensor([3.75, -1.25, 0.75], dtype=F64)
    solutions = {
        (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),  # nothing is left to do, and nothing to divide by
        (1.0, 0.0, 0.0): (0.25, 0.0, 0.0),  # solved in one step: nothing is left then
        # r M r = 257, length 65 / 257, and |r - length M r| / |r| = |(-0.09, 0, 0.75)| / 8.06 < tolerance.
        (8.0, 0.0, 1.0): (8 * 65 / 257, 0.0, 65 / 257),
        (0.0, 1.0, 0.0): (0.0, 0.0, 0.0),  # r M r = -1 at once
        # r M r = 3, length 2 / 3, leaves (-5, 5) / 3; then the direction (10, 40) / 9 has 4 - 16 < 0, in proportion.
        # That what is left has 4 - 1 again is no reason to begin anew.
        (1.0, 1.0, 0.0): (2 / 3, 2 / 3, 0.0),
    }
    residual, expected = (torch.tensor(rows, dtype=F64) for rows in (list(solutions), list(solutions.values())))
    shift = lambda rows: guided.shift(rows, lambda w: covariance * w, ud.VPSDE().level(0.5))  # noqa: E731
    torch.testing.assert_close(shift(residual), covariance * expected, rtol=1e-14, atol=0)  # some ten roundings
    assert torch.equal(torch.cat([shift(row) for row in residual.split(1)]), shift(residual))


def test_moment_matching_works_in_modes():
    # Data independent in the cosine modes, blurred by the heat equation: the posterior is diagonal in them too.
    process = ud.Blurring((4, 6), blur_max=2.0, floor=0.05)
    V = process.basis.inverse(torch.eye(24, dtype=F64).reshape(24, 4, 6)).flatten(1)
    covariance = V.mT @ torch.diag(1 / (1 + torch.arange(24, dtype=F64))) @ V
    model = ud.GaussianMixture(process, normal(1, 4, 6) / 2, covariance)
    operator, y, s = ud.inverse.HeatBlur((4, 6), 1.0), normal(1, 4, 6, seed=1), 0.1
    exact = ud.inverse.conditioned(model, operator, y[0], s)
    guided = ud.inverse.MomentMatching(model, operator, y, s, iterations=80, tolerance=1e-12)
    for t in (1.0, 0.5, 0.1):
        u, level = normal(3, 4, 6, seed=3), process.level(t)
        torch.testing.assert_close(
            guided(u, level).x0, exact(u, level).x0, rtol=0, atol=1e-7
        )  # sigma^2 / alpha^2 < 1e6
    with pytest.raises(ParameterError, match="MomentMatching"):
        ud.inverse.PiGDM(model, operator, y, s)
    with pytest.raises(ParameterError, match="floor"):
        ud.inverse.DPS(ud.GaussianMixture(ud.RenormalizedHeat((4, 6)), normal(1, 4, 6), 1.0), operator, y, s)


# ---------------------------------------------------------------------------------------------- by sampling


def law(model: ud.Denoiser, solver: ud.Solver, grid: ud.Grid, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the samples that a solver without noise draws from a linear denoiser, without drawing.

    The sample is affine in the start: one run from 0 is the mean, one from each unit vector a column of the map.
    """
    u = torch.cat([torch.zeros(1, size, dtype=F64), torch.eye(size, dtype=F64) * model.process.prior_scale()])
    with torch.no_grad():
        *_, last = solver.trajectory(model, u, grid.times(model.process), torch.randn_like)
    columns = last.u[1:] - last.u[:1]
    return last.u[0], columns.mT @ columns


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("solver", "grid", "bound"),
    [(ud.ExponentialAdams(), ud.Tapered(100), 1e-4), (ud.DDIM(), ud.Tapered(400), 1e-2)],
    ids=["ExponentialAdams", "DDIM"],
)
def test_gaussian_posteriors_are_sampled_without_bias(solver, grid, bound):
    # The same solver on the exact posterior shows what the solver itself errs by: order 4 and 1 in 1 / steps. VP keeps
    # alpha(1) = 0.0066 of the data at t = 1, which shifts a mean by that share at most in the start, and the flow
    # contracts it by the posterior's standard deviation, below 1: 0.0066 |m| for both.
    process, s = ud.VPSDE(), 0.1
    covariance = torch.tensor([[1.0, 0.6, 0.1], [0.6, 0.8, 0.2], [0.1, 0.2, 0.5]], dtype=F64)
    model = ud.GaussianMixture(process, [[0.2, -0.4, 0.1]], covariance)
    operator, y = ud.inverse.Inpainting([1, 0, 1]), torch.tensor([[0.7, -0.2]], dtype=F64)
    exact = ud.inverse.conditioned(model, operator, y[0], s)
    mean, spread = law(ud.inverse.MomentMatching(model, operator, y, s, tolerance=1e-10), solver, grid, 3)
    reference = law(exact, solver, grid, 3)
    torch.testing.assert_close(mean, reference[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(spread, reference[1], rtol=0, atol=1e-7)
    truth = moments(exact)
    assert (mean - truth[0]).abs().max() < bound + 0.0066
    assert (spread - truth[1]).abs().max() < bound


def two_clusters(y: float) -> tuple[ud.GaussianMixture, ud.inverse.Operator, torch.Tensor, ud.GaussianMixture]:
    model = ud.GaussianMixture(ud.VPSDE(), [[-1.0, -0.5], [1.0, 0.5]], 0.09)
    measured = torch.tensor([[y]], dtype=F64)
    return (
        model,
        ud.inverse.Inpainting([1, 0]),
        measured,
        ud.inverse.conditioned(model, ud.inverse.Inpainting([1, 0]), measured[0], 0.3),
    )


@pytest.mark.cases(1)
@pytest.mark.parametrize("solver", [ud.ExponentialAdams(), ud.Ancestral()], ids=repr)
def test_the_posterior_of_a_mixture_by_sampling(solver):
    n, (*_, exact) = 4000, two_clusters(0.3)
    mean, covariance = moments(exact)
    x = ud.sample(exact, solver, ud.Tapered(100), (2,), n, dtype=F64).x
    # Five standard errors of n samples, from the exact covariance; the variance of a product of two coordinates is at
    # most 3 times the square of the larger variance if the tails are no heavier than a Gaussian's. 0.0066 of the mean
    # is missing from a VP start, and what the solvers err by (order 4 and 1 in 100 steps) is below these.
    error = 5 * covariance.diagonal().sqrt() / math.sqrt(n)
    assert ((x.mean(0) - mean).abs() < error + 0.0066).all()
    assert ((x.mT.cov() - covariance).abs() < 5 * math.sqrt(3 / n) * covariance.diagonal().max()).all()


@pytest.mark.parametrize(
    ("cls", "bias"),
    [(ud.inverse.DPS, 0.08), (ud.inverse.PiGDM, 0.04), (ud.inverse.MomentMatching, 0.04)],
    ids=["DPS", "PiGDM", "moments"],
)
def test_clear_measurements_of_a_mixture_are_followed(cls, bias):
    # y says which component it is: the mean is right to the bias that docs/inverse.md states, and five standard errors.
    n, (model, operator, y, exact) = 500, two_clusters(1.0)
    mean, covariance = moments(exact)
    guided = cls(model, operator, y, 0.3, chunk=n)
    x = ud.sample(guided, ud.Ancestral(), ud.Tapered(50), (2,), n, dtype=F64).x
    assert ((x.mean(0) - mean).abs() < 5 * covariance.diagonal().sqrt() / math.sqrt(n) + bias).all()


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("s", [1.0, 0.5])
def test_dps_is_biased_as_stated(s):
    # N(0, 1) measured with noise s on a VP process, whose flow under DPS is du / da = -(u - y / sqrt(a)) / (2 s^2) in
    # a = alpha^2. From a = 0 (pure noise) to 1 it makes N(y sqrt(2) F(1 / (sqrt(2) s)) / s, exp(-1 / s^2)) of N(0, 1),
    # F Dawson's integral; the truth is N(y / (1 + s^2), s^2 / (1 + s^2)).
    model, y = ud.GaussianMixture(ud.VPSDE(), [[0.0]], 1.0), torch.tensor([[1.0]], dtype=F64)
    operator, grid, solver = ud.inverse.Inpainting([1]), ud.Tapered(200), ud.ExponentialAdams()
    biased = math.sqrt(2) / s * float(dawsn(1 / (math.sqrt(2) * s))), math.exp(-1 / s**2)
    truth = 1 / (1 + s**2), s**2 / (1 + s**2)
    for guided, expected in (
        (ud.inverse.DPS(model, operator, y, s), biased),
        (ud.inverse.PiGDM(model, operator, y, s), truth),
        (ud.inverse.MomentMatching(model, operator, y, s, tolerance=1e-10), truth),
    ):
        mean, variance = law(guided, solver, grid, 1)
        # VP starts at alpha = 0.0066 instead of 0: with posterior mean 0.0066 E[x0 | y], which the flow does not
        # magnify, and exp(a / s^2) = 1 + 4e-5 / s^2 of the variance.
        assert abs(float(mean) - expected[0]) < 0.0066
        assert abs(float(variance) - expected[1]) < 4.3e-5 / s**2 + 1e-4  # the solver's own error: order 4 in 200 steps


# ---------------------------------------------------------------------------------------------- as a denoiser


@pytest.mark.parametrize(
    "posterior", [ud.inverse.DPS, ud.inverse.PiGDM, ud.inverse.MomentMatching], ids=lambda cls: cls.__name__
)
def test_posteriors_answer_alike_in_chunks_and_for_a_network(posterior):
    network = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2, 3), width=8))
    operator = ud.inverse.BlockMean((3,), 3)
    y = torch.randn(5, 2, 1, generator=torch.Generator().manual_seed(0))
    u, level = normal(5, 2, 3).float(), ud.VPSDE().level(0.5)
    whole = posterior(network, operator, y, 0.5)(u, level)
    with torch.inference_mode():
        parts = posterior(network, operator, y, 0.5, chunk=2)(u, level)
    torch.testing.assert_close(whole.x0, parts.x0)
    assert not whole.x0.requires_grad
    assert (whole.x0 - network(u, level).x0).abs().max() > 1e-4  # it does something
    alone = posterior(network, operator, y[1:2], 0.5)(u[1:2], level)
    torch.testing.assert_close(whole.x0[1:2], alone.x0)
    times = torch.tensor([0.2, 0.4, 0.5, 0.7, 0.9])
    each = posterior(network, operator, y, 0.5, chunk=2)(u, ud.VPSDE().level(times, u))
    torch.testing.assert_close(each.x0[2], whole.x0[2])


def test_memory_grows_with_the_chunk():
    # The largest batch that the denoiser ever sees is the chunk, and no graph outlives its chunk.
    seen = []

    class Watched(ud.Denoiser):
        process, shape = ud.VPSDE(), (2,)

        def forward(self, u, level, **cond):
            seen.append(len(u))
            return ud.GaussianMixture(self.process, [[0.0, 0.1]], 1.0)(u, level)

    guided = ud.inverse.DPS(Watched(), ud.inverse.Inpainting([1, 0]), torch.zeros(1, 1), 1.0, chunk=4)
    answer = guided(torch.zeros(10, 2), ud.VPSDE().level(0.5))
    assert seen == [4, 4, 2]
    assert answer.x0.grad_fn is None


def test_bad_posteriors_are_refused():
    model, operator = ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.1]], 1.0), ud.inverse.Inpainting([1, 0])
    y = torch.zeros(1, 1)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ParameterError, match="noise_std"):
            ud.inverse.DPS(model, operator, y, bad)
    for wrong in (torch.zeros(1, 2), torch.full((1, 1), math.nan), torch.zeros(1)):
        with pytest.raises(ParameterError, match="y must be"):
            ud.inverse.PiGDM(model, operator, wrong, 0.1)
    with pytest.raises(ParameterError, match="3 measurements for 2"):
        ud.inverse.DPS(model, operator, torch.zeros(3, 1), 0.1)(torch.zeros(2, 2), ud.VPSDE().level(0.5))
    with pytest.raises(ParameterError, match="one measurement"):
        ud.inverse.conditioned(model, operator, torch.zeros(2))
    blurred = ud.GaussianMixture(ud.VPSDE(), torch.zeros(1, 16), 1.0)
    with pytest.raises(ParameterError, match="noise_std must be > 0 where A C A"):
        ud.inverse.conditioned(blurred, ud.inverse.HeatBlur((16,), 8.0), torch.zeros(16))


@pytest.mark.cases(15)
@pytest.mark.parametrize("solver", instances(ud.Solver), ids=repr)
def test_every_posterior_runs_under_every_solver(solver):
    process = ud.NCSN(0.05, 20.0, 6)
    if hasattr(solver, "rtol"):  # how it is steered is in question here, not how closely its steps are chosen
        solver = dataclasses.replace(solver, rtol=1e-2, atol=1e-2)
    model = ud.GaussianMixture(process, [[-0.6, 0.3], [0.5, -0.2]], 0.04)
    operator, y = ud.inverse.Inpainting([1, 0]), torch.zeros(3, 1, dtype=F64)
    image, known = torch.tensor([0.2, 0.0], dtype=F64), torch.tensor([0.0, 1.0])
    guided = [cls(model, operator, y, 0.5) for cls in (ud.inverse.DPS, ud.inverse.PiGDM, ud.inverse.MomentMatching)]
    for denoiser in (*guided, ud.Replacement(model, image, known)):
        solution = ud.sample(denoiser, solver, ud.Uniform(4), (2,), 3, dtype=F64)
        assert solution.x.isfinite().all()
        assert solution.x.shape == (3, 2)
