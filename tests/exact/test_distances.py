"""Distances between samples, against closed forms, naive loops and their own scatter.

An estimate may be off by five of its standard errors: seeds are fixed, and a right program fails one such test in two
million. The scatter of R repeats is itself known to 1 / sqrt(2 R) of its size, of which five are allowed as well.
"""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.evaluation.distances import Target

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mean_distance(shift: float, std: float) -> float:
    """E|N(shift, std^2)|: the mean of the folded normal distribution."""
    below = 0.5 * math.erfc(shift / std / math.sqrt(2))
    return std * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / (2 * std**2)) + shift * (1 - 2 * below)


def between_gaussians(shift: float) -> float:
    """Energy distance of N(0, 1) and N(shift, 1): differences are N(shift, 2) between and N(0, 2) within."""
    return 2 * mean_distance(shift, math.sqrt(2)) - 2 * mean_distance(0, math.sqrt(2))


# ---------------------------------------------------------------------------------------------- energy distance


def naive(x: torch.Tensor, y: torch.Tensor) -> float:
    def pairs(a, b, same):
        found = [float((p - q).norm()) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return sum(found) / len(found)

    return 2 * pairs(x, y, False) - pairs(x, x, True) - pairs(y, y, True)


def test_energy_distance_and_its_jackknife_against_naive_loops():
    x, y = randn(7, 3, seed=1), randn(5, 3, seed=2) + 0.5
    estimate = ud.evaluation.energy_distance(x, y)
    assert abs(estimate.value - naive(x, y)) < 1e-13  # sums of 35 numbers of size 1: 35 u
    variance = 0.0
    without_x = [naive(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(7)]
    without_y = [naive(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(5)]
    for left in (without_x, without_y):
        n, mean = len(left), sum(left) / len(left)
        variance += (n - 1) / n * sum((value - mean) ** 2 for value in left)
    assert abs(estimate.error - math.sqrt(variance)) < 1e-12


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_energy_distance_of_two_gaussians(shift):
    estimate = ud.evaluation.energy_distance(randn(3000, 1, seed=1), randn(2000, 1, seed=2) + shift)
    assert 0 < abs(estimate.value - between_gaussians(shift)) < 5 * estimate.error
    assert estimate.error < 0.06


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_energy_distance_has_no_bias_and_knows_its_error(shift):
    repeats = 300
    found = [
        ud.evaluation.energy_distance(randn(40, 1, seed=2 * i), randn(60, 1, seed=2 * i + 1) + shift)
        for i in range(repeats)
    ]
    values, errors = torch.tensor(found, dtype=F64).T
    scatter = values.std()
    assert abs(values.mean() - between_gaussians(shift)) < 5 * scatter / math.sqrt(repeats)
    ratio = float(errors.square().mean().sqrt() / scatter)
    slack = 5 / math.sqrt(2 * repeats)
    # Equal distributions: the first-order term is 0, and the jackknife counts the second-order one twice in the
    # variance (Efron & Stein 1981): sqrt(2).
    low, high = (1.0, math.sqrt(2)) if shift == 0 else (1.0, 1.1)
    assert low * (1 - slack) < ratio < high * (1 + slack)


def test_rows_in_parts_are_the_same_sums():
    x, y = randn(3000, 2, seed=1), randn(1500, 2, seed=2)
    target = Target(y)
    within = torch.cdist(y, y).sum() / (1500 * 1499)
    between, own = torch.cdist(x, y).mean(), torch.cdist(x, x).sum() / (3000 * 2999)
    assert abs(target.energy(x).value - float(2 * between - own - within)) < 1e-10  # 1e7 terms, 1e7 u = 1e-9 at worst


# ---------------------------------------------------------------------------------------------- sliced Wasserstein


@pytest.mark.parametrize("size", [1, 2, 5, 200])
def test_a_shift_and_a_stretch_are_exact(size):
    x, shift = randn(50, size, seed=1), randn(size, seed=2)
    # Over an orthonormal frame sum <w, d>^2 = |d|^2, and stretching by c moves each order statistic by c - 1 times it.
    assert abs(ud.evaluation.sliced_wasserstein(x, x + shift).value - float(shift.norm()) / math.sqrt(size)) < 1e-12
    stretch = 0.5 * float(x.square().mean().sqrt())
    assert abs(ud.evaluation.sliced_wasserstein(x, 1.5 * x).value - stretch) < 1e-12
    assert ud.evaluation.sliced_wasserstein(x, x[torch.randperm(50)]).value < 1e-12


def test_sets_of_different_sizes():
    x, y = randn(20, 1, seed=1), randn(30, 1, seed=2)
    # Each sample counted as many times as makes both sets 60.
    longer = (
        (x.sort(0).values.repeat_interleave(3, 0) - y.sort(0).values.repeat_interleave(2, 0)).square().mean().sqrt()
    )
    assert abs(ud.evaluation.sliced_wasserstein(x, y).value - float(longer)) < 1e-13
    assert ud.evaluation.sliced_wasserstein(x, x.repeat(2, 1)).value < 1e-13


def test_sliced_wasserstein_of_two_gaussians():
    # Between N(0, 1) and N(d, s^2): d^2 + (s - 1)^2. For finite samples the square is larger by about 2 log(n) / n.
    x, y = randn(4000, 1, seed=1), 0.5 + 1.5 * randn(4000, 1, seed=2)
    estimate = ud.evaluation.sliced_wasserstein(x, y)
    assert abs(estimate.value - math.sqrt(0.5**2 + 0.5**2)) < 5 * estimate.error + 2 * math.log(4000) / 4000
    assert estimate.error < 0.05


@pytest.mark.slow  # 3 s: 200 repeats
def test_sliced_wasserstein_knows_its_error():
    repeats = 200
    pairs = [(randn(100, 2, seed=2 * i), randn(150, 2, seed=2 * i + 1) + 1) for i in range(repeats)]
    values, errors = torch.tensor([ud.evaluation.sliced_wasserstein(x, y) for x, y in pairs], dtype=F64).T
    ratio = float(errors.square().mean().sqrt() / values.std())
    assert abs(ratio - 1) < 5 / math.sqrt(2 * repeats) + 0.1  # groups of a tenth: the jackknife's bias is of order 0.1


def test_the_directions_are_fixed():
    x, y = randn(50, 3, seed=1), randn(60, 3, seed=2)
    assert ud.evaluation.sliced_wasserstein(x, y) == ud.evaluation.sliced_wasserstein(x, y)
    assert ud.evaluation.sliced_wasserstein(x, y) != ud.evaluation.sliced_wasserstein(x, y, seed=1)


def test_refusals():
    x = randn(10, 2)
    with pytest.raises(ParameterError, match="at least 3 samples"):
        ud.evaluation.energy_distance(x[:2], x)
    with pytest.raises(ParameterError, match="at least 3 samples"):
        ud.evaluation.energy_distance(x, x[:, 0])
    with pytest.raises(ParameterError, match="number of samples, 9"):
        ud.evaluation.sliced_wasserstein(x[:9], x)


# ---------------------------------------------------------------------------------------------- discriminants


def test_discriminants_of_gaussian_classes():
    # Classes N(m_k, C): the direction for two classes is C^-1 (m_1 - m_0), and along it the classes are |C^-1/2 (m_1 -
    # m_0)| standard deviations apart (Fisher 1936).
    root = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [0.0, 0.2, 0.3]], dtype=F64)
    labels = torch.arange(20000) % 2
    apart = torch.tensor([1.0, 1.0, 0.5], dtype=F64)
    x = randn(20000, 3, seed=1) @ root.T + labels[:, None] * apart
    features = ud.evaluation.Discriminants.fit(x, labels)
    found = features(x)
    assert found.shape == (20000, 1)
    expected = torch.linalg.solve(root @ root.T, apart)
    direction = features.directions[0]
    # Covariances of n samples are known to sqrt(2 / n) = 0.01; solving amplifies by the condition number, about 3 here.
    assert abs(torch.cosine_similarity(direction, expected, dim=0)) > 0.99
    between = float((found[labels == 1].mean() - found[labels == 0].mean()).abs())
    assert abs(between - math.sqrt(float(apart @ expected))) < 0.1
    assert abs(float(found[labels == 0].std()) - 1) < 0.05


def test_discriminants_of_the_digits():
    train, test = ud.data.Digits().open(), ud.data.Digits().open("test")
    x = train.batch(torch.arange(len(train)))
    features = ud.evaluation.Discriminants.fit(x, train.labels)
    seen = features(x)
    assert seen.shape == (1500, 9)
    means = torch.stack([seen[train.labels == k].mean(0) for k in range(10)])
    nearest = torch.cdist(features(test.batch(torch.arange(len(test)))), means).argmin(1)
    # Ten classes: chance is right in 0.1 of the cases; linear discriminants are known to be right in about 0.9.
    assert (nearest == test.labels).double().mean() > 0.85
    with pytest.raises(ParameterError, match="at least two classes"):
        ud.evaluation.Discriminants.fit(x, torch.zeros(1500, dtype=torch.long))
