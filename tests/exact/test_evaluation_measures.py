"""The measures of `unidiff evaluate` against closed forms.

Where a mean over R repeats is compared, it may be off by five of its own standard errors.
"""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.evaluation.bootstrap import parts
from unidiff.evaluation.frechet import fitted_frechet
from unidiff.evaluation.memorization import nearest

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def close_to(values: list[float], expected: float) -> bool:
    found = torch.tensor(values, dtype=F64)
    return abs(float(found.mean()) - expected) < 5 * float(found.std()) / math.sqrt(len(values))


def whitened(n: int, size: int, seed: int) -> torch.Tensor:
    """Samples whose mean is 0 and whose unbiased covariance is I, to rounding."""
    x = randn(n, size, seed=seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov().reshape(size, size))).T


# ---------------------------------------------------------------------------------------------- Frechet distance


def test_frechet_of_gaussians_that_commute():
    # |m|^2 + sum (sqrt a - sqrt b)^2 for covariances with common axes.
    axes = torch.linalg.qr(randn(3, 3))[0]
    a, b, mean = torch.tensor([1.0, 4.0, 0.0]).double(), torch.tensor([9.0, 0.25, 2.0]).double(), randn(3, seed=1)
    found = ud.evaluation.gaussian_frechet(mean, axes @ a.diag() @ axes.T, 0 * mean, axes @ b.diag() @ axes.T)
    expected = float(mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert abs(found - expected) < 1e-6  # the root of an eigenvalue 0 that is rounded to 1e-15 is 3e-8


def test_frechet_of_gaussians_that_do_not_commute():
    # For the linear map y = A x with A symmetric and positive, A is the optimal map: tr (A - I) C (A - I).
    root = randn(4, 4)
    covariance, a = root @ root.T, torch.eye(4).double() + 0.1 * (randn(4, 4, seed=2) + randn(4, 4, seed=2).T)
    assert torch.linalg.eigvalsh(a).min() > 0
    moved = a - torch.eye(4).double()
    found = ud.evaluation.gaussian_frechet(torch.zeros(4), covariance, torch.zeros(4), a @ covariance @ a)
    assert found == pytest.approx(float((moved @ covariance @ moved).trace()), abs=1e-10)


def test_frechet_distance_is_that_of_the_moments():
    x, y = whitened(50, 3, 1), 2 * whitened(70, 3, 2) + 1
    assert ud.evaluation.frechet_distance(x, y).value == pytest.approx(3 + 3, abs=1e-11)  # |m|^2, and (2 - 1)^2 each


def test_the_bias_of_the_frechet_distance():
    # One feature of variance 1 against its own law, known: E m^2 + E (s - 1)^2 = 1 / n + 2 - 2 c4(n), exactly.
    n, repeats, large = 20, 200, whitened(200, 1, 0)
    found = [fitted_frechet(randn(n, 1, seed=1 + i), large) for i in range(repeats)]
    c4 = math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))
    exact = 1 / n + 2 - 2 * c4
    assert close_to(found, exact)
    told = ud.evaluation.frechet_bias(torch.eye(1), n, 10**9)
    # 2 - 2 c4 = 1 / (2 n) + 7 / (16 n^2) + O(n^-3), and 1 / (2 (n - 1)) has 1 / 2 in place of 7 / 16.
    assert told - exact == pytest.approx(1 / (16 * n**2), rel=0.3)


def test_the_bias_in_several_dimensions_and_without_it():
    scale, n, m, repeats = torch.tensor([1.0, 0.5, 2.0]).double(), 400, 500, 60
    pairs = [(scale * randn(n, 3, seed=2 * i), scale * randn(m, 3, seed=2 * i + 1)) for i in range(repeats)]
    told = ud.evaluation.frechet_bias(scale.square().diag(), n, m)
    found = [fitted_frechet(x, y) for x, y in pairs]
    # Of the next order is F / n = 1 % of it; the mean of 60 with a scatter of half of it is known to 6 %.
    assert close_to(found, told)
    halves = [sum(map(fitted_frechet, parts(x, 2), parts(y, 2))) / 2 for x, y in pairs]
    assert close_to([2 * value - half for value, half in zip(found, halves)], 0)
    corrected = ud.evaluation.frechet_distance(*pairs[0], corrected=True)
    assert corrected.value == pytest.approx(2 * found[0] - halves[0], abs=1e-14)
    with pytest.raises(ParameterError, match="at least 7 rows to be corrected"):
        ud.evaluation.frechet_distance(randn(6, 3), randn(9, 3), corrected=True)


def test_the_bootstrap_error_is_the_scatter():
    # Away from equality, where the distance is linear in the moments. A ratio of two scatters, of 100 draws and 60
    # repeats, is known to sqrt(1 / 200 + 1 / 120) = 12 %, of which five.
    y = whitened(500, 2, 0)
    values = torch.tensor([fitted_frechet(randn(100, 2, seed=i) + 1, y) for i in range(60)], dtype=F64)
    errors = torch.tensor([ud.evaluation.frechet_distance(randn(100, 2, seed=i) + 1, y).error for i in range(3)])
    assert abs(float(errors.mean() / values.std()) - 1) < 0.6


def test_the_order_of_samples_is_of_no_account():
    # Samples with classes 0, ..., 9 in turn, of which every second and every tenth would be other distributions.
    centres, turn = 3 * randn(10, 2, seed=1), torch.arange(400) % 10
    x, y = centres[turn] + 0.3 * randn(400, 2, seed=2), centres[turn.sort().values] + 0.3 * randn(400, 2, seed=3)
    mixed = x[torch.randperm(400, generator=torch.Generator().manual_seed(4))]
    frechet = [ud.evaluation.frechet_distance(rows, y, corrected=True).value for rows in (x, mixed)]
    kernel = [ud.evaluation.kernel_distance(rows, y).error for rows in (x, mixed)]
    # Two halves of 200 have means whose squared distance is 2 tr C / 200 = 0.18 on average, with tr C = 2 * 9, and as
    # much scatter, of which five; by stride they have other classes.
    assert abs(frechet[0] - frechet[1]) < 0.9
    # The error of ten groups is known to 1 / sqrt(18) = 24 %, a ratio of two to 33 %, of which five; by stride 100.
    assert kernel[0] / kernel[1] < 2.7


# ---------------------------------------------------------------------------------------------- kernel distance


def test_kernel_distance_is_unbiased():
    sets = [(randn(30, 2, seed=2 * i), randn(40, 2, seed=2 * i + 1)) for i in range(60)]
    found = [ud.evaluation.kernel_distance(x, y, groups=2).value for x, y in sets]
    assert close_to(found, 0)
    assert min(found) < 0


def test_kernel_distance_of_shifted_gaussians():
    # (x y + 1)^3 compares the moments: (dm3)^2 + 3 (dm2)^2 + 3 (dm1)^2, with m = mu, 1 + mu^2, mu^3 + 3 mu.
    mu = 0.5
    expected = (mu**3 + 3 * mu) ** 2 + 3 * mu**4 + 3 * mu**2
    found = ud.evaluation.kernel_distance(randn(1500, 1, seed=1) + mu, randn(2000, 1, seed=2))
    assert abs(found.value - expected) < 5 * found.error
    assert found.error < 0.3 * expected


def test_kernel_distance_against_loops():
    x, y = randn(5, 3, seed=1), randn(4, 3, seed=2)

    def k(a, b):
        return float((a @ b / 3 + 1) ** 3)

    own = [sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) for z in (x, y)]
    expected = own[0] / 20 + own[1] / 12 - 2 * sum(k(a, b) for a in x for b in y) / 20
    assert ud.evaluation.kernel_distance(x, y, groups=2).value == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("dropped", [0, 3, 9])
def test_dropped_modes_are_the_recall_that_is_missing(dropped):
    # Ten modes far apart; the samples are the data of those that are kept. A point is in the ball around its own copy.
    modes = torch.arange(10).double()[:, None, None] * 100 + randn(10, 20, 2)
    data, samples = modes.flatten(0, 1), modes[dropped:].flatten(0, 1)
    precision, recall = ud.evaluation.precision_recall(samples, data)
    density, coverage = ud.evaluation.density_coverage(samples, data)
    assert (precision.value, recall.value, coverage.value) == (1, (10 - dropped) / 10, (10 - dropped) / 10)
    # Each ball of k = 5 holds 5 others and the point itself.
    assert density.value == pytest.approx(6 / 5, abs=1e-12)
    assert recall.error >= 0


def test_samples_elsewhere_have_no_precision():
    data = randn(50, 2)
    for pair in (ud.evaluation.precision_recall(data + 100, data), ud.evaluation.density_coverage(data + 100, data)):
        assert [estimate.value for estimate in pair] == [0, 0]


def test_coverage_and_density_of_equal_laws():
    # Naeem et al. 2020, lemmas 1 and 2: density 1; coverage 1 - prod (M - i) / (N + M - i) over i = 1, ..., k.
    n, m, k = 60, 80, 5
    pairs = [
        ud.evaluation.density_coverage(randn(n, 2, seed=2 * i), randn(m, 2, seed=2 * i + 1), k=k) for i in range(60)
    ]
    expected = 1 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    assert close_to([density.value for density, _ in pairs], 1)
    assert close_to([coverage.value for _, coverage in pairs], expected)


def test_a_k_that_is_too_large():
    with pytest.raises(ParameterError, match="more than k = 3 rows"):
        ud.evaluation.precision_recall(randn(3, 2), randn(3, 2))


# ---------------------------------------------------------------------------------------------- classes, copies


def test_the_classifier_score():
    assert ud.evaluation.classifier_score(torch.eye(4).repeat(5, 1)).value == pytest.approx(4, abs=1e-12)
    assert ud.evaluation.classifier_score(torch.full((6, 3), 1 / 3)).value == pytest.approx(1, abs=1e-7)
    sure = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=F64).repeat(4, 1)
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert ud.evaluation.classifier_score(sure).value == pytest.approx(2 * math.exp(-entropy), abs=1e-12)


def test_the_histogram_and_its_chi_square():
    found = ud.evaluation.class_histogram(torch.eye(3)[[0] * 30 + [1] * 10], torch.eye(3)[[0] * 20 + [1] * 20])
    assert (found.counts, found.expected, found.degrees) == ((30, 10, 0), (20, 20, 0), 1)
    # N (ad - bc)^2 / (row, row, column, column sums), and P(chi^2_1 > s) = erfc(sqrt(s / 2)).
    statistic = 80 * (30 * 20 - 10 * 20) ** 2 / (40 * 40 * 50 * 30)
    assert found.chi_square == pytest.approx(statistic, rel=1e-12)
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(statistic / 2)), rel=1e-9)


def test_copies_have_ratio_0():
    data = randn(30, 3).float()
    model = ud.Empirical(ud.VPSDE(), data)
    x = ud.sample(model, shape=(3,), seeds=25, dtype=F64).x
    fresh = randn(20, 3, seed=5)
    ratio = ud.evaluation.memorization_ratio(x, data, fresh)
    # The last denoise of the closed form is a copy up to float32 rounding and exp(-SNR): 1e-3 of a distance of 1.
    assert ratio.value < 1e-3
    assert ud.evaluation.memorization_ratio(data[:9], data, fresh).value == 0


def test_the_neighbour_law_of_a_mixture():
    # In one dimension the nearest of m training points is farther than r with probability (1 - F(x + r) + F(x - r))^m.
    model, m, n = ud.GaussianMixture(ud.VPSDE(), [[-1.0], [1.0]], 0.1), 30, 100

    def draw(count, seed):
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(count, generator=generator, dtype=F64)
        return model.draw(torch.randn(count, 1, generator=generator, dtype=F64), uniform)

    def below(x):
        return sum(0.5 * torch.special.ndtr((x - mean) / math.sqrt(0.1)) for mean in (-1.0, 1.0))

    # Midpoint rule in x over [-4, 4], nine standard deviations beyond the means, and in r up to 6.
    x = (torch.arange(400, dtype=F64) + 0.5) / 50 - 4
    r = (torch.arange(300, dtype=F64) + 0.5) / 50
    density = below(x + 1e-4) - below(x - 1e-4)
    expected = float((density / 2e-4) @ (1 - below(x[:, None] + r) + below(x[:, None] - r)).pow(m).sum(1)) / 50**2
    sets = [(draw(n, 3 * i), draw(m, 3 * i + 1), draw(n, 3 * i + 2)) for i in range(40)]
    assert close_to([float(nearest(own, [train]).distance.mean()) for own, train, _ in sets], expected)
    ratios = [ud.evaluation.memorization_ratio(*each) for each in sets]
    assert close_to([math.log(ratio.value) for ratio in ratios], 0)  # samples and held-out data are exchangeable


def test_the_nearest_is_found_in_any_batches():
    x, data = randn(7, 2, 2, seed=1), randn(40, 2, 2, seed=2).float()
    found = nearest(x, data.split(9))
    distances = torch.cdist(x.float().double().flatten(1), data.double().flatten(1))
    assert torch.equal(found.row, distances.argmin(1))
    assert float((found.distance - distances.min(1).values).abs().max()) < 1e-12


def test_the_nearest_is_found_far_from_the_origin():
    """Of 200 points at 1,000 +- 1, whose squares have a rounding of 0.06 in float32; copies have the ratio 0."""
    generator = torch.Generator().manual_seed(6)
    x, train, held_out = (torch.randn(200, 2, generator=generator) + 1000 for _ in range(3))
    distances = (x.double()[:, None] - train.double()).norm(dim=2)
    found = nearest(x, train.split(70))
    # In float32 the points are on a raster of 6e-5, so only ties could differ.
    assert float((found.distance - distances.amin(1)).abs().max()) < 1e-6
    assert ud.evaluation.memorization_ratio(train[:50], train, held_out).value == 0


def test_sharpness_of_a_cosine():
    # cos(pi k (i + 1/2) / n) along one axis is an eigenvector, of mean square 1/2.
    n, k = 8, 3
    wave = torch.cos(math.pi * k * (torch.arange(n).double() + 0.5) / n)
    found = ud.evaluation.sharpness(wave.expand(2, 1, 5, n))
    assert found.value == pytest.approx((2 - 2 * math.cos(math.pi * k / n)) * math.sqrt(0.5), rel=1e-12)
    assert found.error == 0
    assert ud.evaluation.sharpness(torch.ones(2, 3, 4)).value == 0
