"""Post-hoc averages (Karras et al. 2024): closed forms of their profiles, and reconstruction within a derived bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from unidiff.errors import ParameterError, RunError
from unidiff.training.power_average import (
    LENGTHS,
    PowerAverages,
    Snapshots,
    exponent,
    inner_product,
    mix,
    relative_length,
)

STEPS, EVERY = 60, 10


def trajectory(steps=STEPS):
    """Weights that drift, oscillate and jump about, (steps, 3) float64; the last one stays where it is."""
    noise = torch.randn(steps, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    return torch.cat([5 + torch.tanh(t / 20) + 0.3 * noise, torch.full((steps, 1), 7.0, dtype=torch.float64)], 1)


def shares(step, gamma):
    """The share of each weight in an average: ((k / t)^(gamma + 1) - ((k - 1) / t)^(gamma + 1)), k = 1, ..., t."""
    edges = torch.linspace(0, 1, step + 1, dtype=torch.float64) ** (gamma + 1)
    return edges.diff()


def averaged(weights, step, sigma_rel):
    return shares(step, exponent(sigma_rel)) @ weights[:step]


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averages")
    network = nn.Linear(4, 1, bias=False).double()
    averages = PowerAverages(network, EVERY, folder, writes=True)
    for step, weights in enumerate(trajectory(), 1):
        with torch.no_grad():
            network.weight.copy_(weights[None])
        averages.update(step)
        if averages.due(step, step == STEPS):
            averages.save(step)
    return Snapshots(folder)


def test_lengths_and_exponents():
    # Section 3.2: sigma_rel of 0.05 and 0.10 are gamma of 16.97 and 6.94, to two digits.
    assert exponent(0.05) == pytest.approx(16.97, abs=5e-3)
    assert exponent(0.10) == pytest.approx(6.94, abs=5e-3)
    for sigma_rel in (0.01, 0.05, 0.1, 0.25):
        assert relative_length(exponent(sigma_rel)) == pytest.approx(sigma_rel, rel=1e-9)
    for wrong in (0, -0.1, 0.3, math.nan):
        with pytest.raises(ParameterError, match=r"sigma_rel must be a number above 0 and below 0\.2887"):
            exponent(wrong)


def test_inner_products_are_integrals():
    # Gauss and Legendre's rule of 40 points is exact for polynomials of degree 79: exponents here are whole numbers.
    nodes, masses = np.polynomial.legendre.leggauss(40)
    for t, gamma, s, delta in ((3.0, 4.0, 5.0, 7.0), (5.0, 4.0, 3.0, 7.0), (2.0, 0.0, 2.0, 20.0)):
        end = min(t, s)
        tau = (nodes + 1) / 2 * end
        profiles = (gamma + 1) * tau**gamma / t ** (gamma + 1) * (delta + 1) * tau**delta / s ** (delta + 1)
        found = inner_product(*(np.array(value) for value in (t, gamma, s, delta)))
        assert float(found) == pytest.approx(float(profiles @ masses) * end / 2, rel=1e-12)


def test_snapshots_are_the_averages_of_their_definition(snapshots):
    weights = trajectory()
    assert [*snapshots.paths()] == [(step, length) for step in range(EVERY, STEPS + 1, EVERY) for length in LENGTHS]
    for step, sigma_rel in snapshots.paths():
        found, _ = snapshots.mixed(step, sigma_rel, ["weight"])
        # The reconstruction of a stored average is that average: to the root of the rounding of its normal equations.
        torch.testing.assert_close(found["weight"][0], averaged(weights, step, sigma_rel), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.06, 0.08, 0.15, 0.25])
def test_a_reconstruction_is_within_its_bound(snapshots, sigma_rel):
    weights, gamma = trajectory(), exponent(sigma_rel)
    for step in (STEPS, STEPS // 2):
        found, made = snapshots.mixed(step, sigma_rel, ["weight"])
        assert sum(made.shares) == pytest.approx(1, abs=1e-9)
        error = (found["weight"][0] - averaged(weights, step, sigma_rel)).abs()
        norm = math.sqrt(float(inner_product(*(np.array(float(v)) for v in (step, gamma, step, gamma)))))
        spread = (weights[:step] - weights[:step].mean(0)).square().sum(0).sqrt()
        assert (error <= made.error * norm * spread + 1e-6).all()
        assert error[-1] < 1e-7  # a weight that did not move stays
    assert made.error < 0.6  # the bound says something, even of 6 averages of 30 steps


def test_the_error_of_a_mix_is_that_of_its_profile():
    stored = [(step, exponent(length)) for step in (20, 40) for length in LENGTHS]
    gamma = exponent(0.15)
    made = mix(stored, 40, gamma)
    # By the midpoint rule at 4000 points, whose error is of the order of 1e-6 for such powers, and of the jump at 20.
    tau = (np.arange(4000) + 0.5) / 100

    def profile(t, g):
        return np.where(tau < t, (g + 1) * (tau / t) ** g / t, 0.0)

    wanted = profile(40, gamma)
    rest = wanted - sum(share * profile(*which) for share, which in zip(made.shares, stored))
    assert math.sqrt((rest**2).mean() / (wanted**2).mean()) == pytest.approx(made.error, rel=1e-2)
    # No other shares that sum to 1 are nearer.
    for i in range(3):
        other = rest - 1e-3 * (profile(*stored[i]) - profile(*stored[3]))
        assert (other**2).sum() > (rest**2).sum() * (1 - 1e-6)


def test_what_began_without_averages_is_refused(tmp_path):
    network = nn.Linear(2, 1)
    with pytest.raises(ParameterError, match="posthoc_every: the averages are written beside checkpoints"):
        PowerAverages(network, 3, None, writes=True)
    with pytest.raises(RunError, match="this training began without averages"):
        PowerAverages(network, 3, tmp_path, writes=True).restore({})
    assert PowerAverages(network, 0, tmp_path, writes=True).state() == {}


def test_snapshots_of_steps_to_come_are_dropped(tmp_path):
    averages = PowerAverages(nn.Linear(2, 1), 1, tmp_path, writes=True)
    for step in (1, 2, 3):
        averages.update(step)
        averages.save(step)
    averages.begin(2)
    assert {step for step, _ in Snapshots(tmp_path).paths()} == {1, 2}
    with pytest.raises(ParameterError, match=r"step must be a step with stored averages \(1, 2\), got 7"):
        Snapshots(tmp_path).mixed(7, 0.1, ["weight"])
