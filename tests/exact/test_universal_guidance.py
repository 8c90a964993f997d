"""Guidance by an energy of clean data: where it is exact, and where it is another method of the library."""

from __future__ import annotations

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError

F64 = torch.float64
MEAN = torch.tensor([[0.3, -0.2]], dtype=F64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64)
PULL = torch.tensor([0.4, -0.7], dtype=F64)


@pytest.mark.parametrize("process", [ud.VPSDE(), ud.NCSN(0.05, 20.0, 6), ud.FlowMatching()], ids=repr)
def test_a_linear_energy_moves_a_gaussian_by_its_covariance(process):
    # p(x0) exp(-s b x0) is N(m - s C b, C), and given u the covariance of x0 does not depend on u: E[exp(-s b x0) | u]
    # is exp(-s b E[x0 | u]) times a constant, so that forward guidance is exact at all times. 1e-12 is some 1e4
    # roundings, for eps is a difference divided by sigma, which is as small as 0.03 here.
    model = ud.GaussianMixture(process, MEAN, COVARIANCE)
    moved = ud.GaussianMixture(process, MEAN - 1.5 * PULL @ COVARIANCE, COVARIANCE)
    guided = ud.UniversalGuidance(model, lambda x: x @ PULL, 1.5, chunk=2)
    u = torch.tensor([[0.1, 0.4], [-1.0, 0.3], [2.0, -0.5]], dtype=F64)
    for t in (0.9, 0.5, 0.1):
        found, expected = (one(u, process.level(t)) for one in (guided, moved))
        torch.testing.assert_close(found.x0, expected.x0, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.eps, expected.eps, rtol=1e-12, atol=1e-12)


def test_a_squared_distance_from_a_measurement_is_dps():
    process = ud.VPSDE()
    model = ud.GaussianMixture(process, [[-0.6, 0.3], [0.5, -0.2]], 0.04)
    first, y, s = ud.inverse.Inpainting((1, 0)), torch.tensor([[0.4]], dtype=F64), 0.3
    dps = ud.inverse.DPS(model, first, y, s)
    guided = ud.UniversalGuidance(model, lambda x: (y - first.apply(x)).square().sum(1) / (2 * s**2))
    u, level = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0)), process.level(0.4)
    torch.testing.assert_close(guided(u, level).x0, dps(u, level).x0, rtol=1e-12, atol=1e-12)


def test_the_model_is_evaluated_once():
    model = ud.Counted(ud.GaussianMixture(ud.VPSDE(), MEAN, COVARIANCE))
    u, level = torch.ones(2, 2, dtype=F64, requires_grad=True), model.process.level(0.4)
    found = ud.UniversalGuidance(model, lambda x: x.square().sum(1))(u, level)
    assert model.nfe == 1
    (gradient,) = torch.autograd.grad(found.x0.sum(), u)  # and differentiated through, where that is asked for
    assert gradient.isfinite().all()
    with torch.no_grad():
        again = ud.UniversalGuidance(model, lambda x: x.square().sum(1))(u, level)
    assert torch.equal(again.x0, found.x0)
    assert not again.eps.requires_grad


def test_conditions_are_those_of_the_model():
    process = ud.VPSDE()
    model = ud.GaussianMixture(process, [[-0.6, 0.3], [0.5, -0.2]], 0.04)
    guided = ud.UniversalGuidance(model, lambda x: x @ PULL, 0.0)
    u, level, label = torch.zeros(2, 2, dtype=F64), process.level(0.4), torch.tensor([0, 1])
    assert torch.equal(guided(u, level, label=label).x0, model(u, level, label=label).x0)
    guided = ud.UniversalGuidance(model, lambda x: x @ PULL)
    with_label, without = (guided(u, level, **cond).x0 for cond in ({"label": label}, {}))
    # Each component is a Gaussian of variance 0.04 at one place: its samples move by -0.04 PULL.
    shift = with_label - model(u, level, label=label).x0
    share = 0.04 * level.sigma**2 / (0.04 * level.alpha**2 + level.sigma**2)  # of x0 given u
    torch.testing.assert_close(shift, (-share * PULL).expand(2, 2), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(with_label, without)


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (lambda x: x.sum(), r"must return one number for each sample, \(3,\), got \(\)"),
        (lambda x: 1.0, "got float"),
        (lambda x: x.detach().sum(1), "has no gradient"),
    ],
)
def test_what_is_no_energy_is_one_sentence(energy, message):
    model = ud.GaussianMixture(ud.VPSDE(), MEAN, COVARIANCE)
    with pytest.raises(ParameterError, match=message):
        ud.sample(ud.UniversalGuidance(model, energy), ud.DDIM(), ud.Uniform(2), (2,), 3, dtype=F64)
