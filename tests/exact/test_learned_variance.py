"""The learned variance of a reverse step, from the network to the sampler, against Gaussian data and diffusers.

For data N(m, l) the reverse step q(u_s | u_t) is Gaussian itself. Its variance is beta-tilde, which would do if u_0
were known, and what is not known of u_0: small^2 + (alpha_s renewed)^2 l sigma_t^2 / (alpha_t^2 l + sigma_t^2). Where
it lies between small^2 and large^2 on a logarithmic scale is the best v, in closed form.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from parts import Answer
from tiny import refused, write
from torch import nn

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.noise import Seeded
from unidiff.process.level import fresh_noise_fraction

F64 = torch.float64
FIRST, MEASURED = ud.inverse.Inpainting([1, 0]), torch.tensor([[0.4]])
MEAN, SPREAD = torch.tensor([0.3, -0.2, 0.5], dtype=F64), torch.tensor([1e-3, 0.3, 2.0], dtype=F64)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def best(t: ud.Level, s: ud.Level) -> torch.Tensor:
    """The best v for each of the three numbers."""
    renewed = fresh_noise_fraction(t, s)
    small, large = s.sigma**2 * renewed, t.sigma**2 * renewed
    unknown = SPREAD * t.sigma**2 / (t.alpha**2 * SPREAD + t.sigma**2)
    return ((small + (s.alpha * renewed) ** 2 * unknown) / small).log() / math.log(large / small)


class Known(ud.Denoiser):
    """The exact model of N(MEAN, diag SPREAD), and the best variance of the steps of a grid."""

    learned_variance = True

    def __init__(self, process: ud.Process, times: torch.Tensor) -> None:
        super().__init__()
        self.process, self.levels = process, process.levels_at(times)
        self.exact = ud.GaussianMixture(process, MEAN[None], SPREAD.diag())

    def forward(self, u, level, **cond):
        prediction = self.exact(u, level)
        shares = [best(t, s) for t, s in pairwise(self.levels) if t.time == level.time]
        return prediction._replace(variance_interpolation=shares[0].expand_as(u) if shares else None)


# ---------------------------------------------------------------------------------------------- the best variance


@pytest.mark.parametrize("process", [ud.DDPM(T=50), ud.VESDE(0.05, 10.0), ud.NCSN(0.1, 5.0, 8)], ids=repr)
def test_with_the_best_variance_few_steps_are_exact(process):
    """From the marginal at t = 1 the chain has every marginal, in steps of any length. Tolerance: some 30 roundings."""
    times = torch.tensor([1.0, 0.8, 0.35, 0.2, process.t_min], dtype=F64)
    model = Known(process, times)
    first = model.levels[0]
    mean, variance = first.alpha * MEAN, first.alpha**2 * SPREAD + first.sigma**2
    for t, s in pairwise(model.levels):
        zero, one = torch.zeros(1, 3, dtype=F64), torch.ones(1, 3, dtype=F64)
        step = ud.Ancestral().step
        start = step(model, zero, t, s, torch.zeros_like)
        slope = step(model, one, t, s, torch.zeros_like) - start
        deviation = step(model, zero, t, s, torch.ones_like) - start
        mean, variance = (start + slope * mean)[0], (slope**2 * variance + deviation**2)[0]
        torch.testing.assert_close(mean, s.alpha * MEAN, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(variance, s.alpha**2 * SPREAD + s.sigma**2, rtol=1e-10, atol=1e-10)


def test_best_variance_of_a_point_is_small_and_of_standard_normal_data_large(monkeypatch):
    levels = ud.DDPM().levels_at([0.5, 0.4])
    monkeypatch.setattr("test_learned_variance.SPREAD", torch.tensor([1e-12, 1.0], dtype=F64))
    torch.testing.assert_close(best(*levels), torch.tensor([0.0, 1.0], dtype=F64), rtol=1e-9, atol=1e-9)


def test_hybrid_is_least_at_the_best_variance():
    """Its derivative in v, a mean over draws, is 0 there: within five standard errors, and not at a v beside it."""
    process, n = ud.DDPM(T=10), 20_000
    table = process.native_times()
    x = MEAN + SPREAD.sqrt() * randn(n, 3)
    for i in (1, 4, 9):
        t, s = process.levels_at([table[i], table[i - 1]])
        level = process.level(table[i].expand(n), x)
        model = Known(process, table[[i, i - 1]])
        for shift, zero in ((0.0, True), (0.05, False)):
            network = ExactNetwork(model, best(t, s) + shift)
            denoiser = ud.NeuralDenoiser(process, ud.X0(), network)
            losses = ud.Hybrid(weight=1.0).losses(denoiser, x, randn(n, 3, seed=i), level)
            (slopes,) = torch.autograd.grad(losses.sum(), network.rows)
            errors = slopes.mean(0).abs() / (slopes.std(0) / n**0.5)
            assert (errors < 5).all() == zero, (i, shift, errors)


class ExactNetwork(nn.Module):
    """The exact x0 (the process is variance preserving, so states are handed on unscaled), and a v for each row."""

    learned_variance = True

    def __init__(self, model: Known, share: torch.Tensor) -> None:
        super().__init__()
        self.model, self.share = model, share

    def forward(self, x, c):
        self.rows = (2 * self.share - 1).expand_as(x).clone().requires_grad_()
        return torch.cat([self.model(x, self.model.levels[0]).x0, self.rows], 1)


# ---------------------------------------------------------------------------------------------- the objective


@pytest.mark.parametrize("process", [ud.DDPM(T=6), ud.DDPM(T=4, schedule=ud.ZeroTerminalSNR()), ud.NCSN(0.1, 5.0, 5)])
def test_hybrid_is_denoising_and_the_terms_of_the_bound(process):
    parameterization = ud.V()
    network = Answer(randn(3, seed=1), randn(3, seed=2))
    denoiser = ud.NeuralDenoiser(process, parameterization, network)
    x, table = randn(5, 3, seed=3), process.native_times()
    with torch.no_grad():
        bound = ud.variational_bound(denoiser, x, ud.Native(), seeds=range(5))
        noise, objective = Seeded(range(5)), ud.Hybrid(weighting=ud.EpsilonWeighting(), weight=0.25)
        for i, t in enumerate(table):
            eps, level = noise(x), process.level(t.expand(5), x)
            simple = ud.Denoising(ud.EpsilonWeighting()).losses(denoiser, x, eps, level)
            term = bound.terms[:, i] if i else torch.zeros(5, dtype=F64)
            found = objective.losses(denoiser, x, eps, level)
            torch.testing.assert_close(found, simple + 0.25 * len(table) * term / 3, rtol=1e-10, atol=1e-10)


def test_bound_trains_the_variance_alone():
    process, x, eps = ud.DDPM(T=6), randn(4, 3), randn(4, 3, seed=1)
    network = Answer(randn(3, seed=1), randn(3, seed=2))
    denoiser = ud.NeuralDenoiser(process, ud.Eps(), network)
    level = process.level(torch.tensor([1, 2, 5, 6], dtype=F64) / 6, x)
    both = [objective.losses(denoiser, x, eps, level).sum() for objective in (ud.Hybrid(), ud.Denoising())]
    hybrid, plain = (torch.autograd.grad(loss, [network.output, network.v], allow_unused=True) for loss in both)
    torch.testing.assert_close(hybrid[0], plain[0], rtol=1e-12, atol=1e-12)
    assert plain[1] is None or not plain[1].any()
    assert (hybrid[1] != 0).all()


@pytest.mark.parametrize("variance", [0.0, 1.0])
def test_a_number_goes_before_what_is_learned(variance):
    process = ud.DDPM(T=6)
    denoiser = ud.NeuralDenoiser(process, ud.Eps(), Answer(randn(3), 2 * variance * torch.ones(3).double() - 1))
    t, s = process.levels_at([0.5, 1 / 3])
    u = randn(2, 3, seed=5)
    for given in (None, 1 - variance):
        solver = ud.Ancestral(given)
        found = solver.step(denoiser, u, t, s, torch.ones_like)
        plain = ud.Ancestral(variance if given is None else given)
        torch.testing.assert_close(found, plain.step(denoiser, u, t, s, torch.ones_like), rtol=1e-12, atol=1e-12)
    # The bound of the same chain.
    with torch.no_grad():
        told, learned = (
            ud.variational_bound(denoiser, u, ud.Native(), variance=given).terms for given in (variance, None)
        )
    torch.testing.assert_close(told, learned, rtol=1e-12, atol=1e-12)


def test_steps_are_those_of_diffusers():
    """`DDPMScheduler(variance_type="learned_range")` with the same noise: an independent program of eq. 15."""
    diffusers = pytest.importorskip("diffusers")
    T = 20
    scheduler = diffusers.DDPMScheduler(T, 1e-4, 0.02, "linear", variance_type="learned_range", clip_sample=False)
    process = ud.DDPM(T=T)
    network = Answer(randn(3).float(), randn(3, seed=1).float())
    denoiser = ud.NeuralDenoiser(process, ud.Eps(), network)
    u, table = randn(2, 3, 1, 1, seed=2).float(), process.native_times()
    for i in (1, 7, 19):
        answer = network(u, u)[:, :, None, None].expand(2, 6, 1, 1)
        theirs = scheduler.step(answer, i, u, generator=torch.Generator().manual_seed(3)).prev_sample
        noise = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(3))
        t, s = process.levels_at([table[i], table[i - 1]])
        ours = ud.Ancestral().step(denoiser, u[:, :, 0, 0], t, s, lambda u, noise=noise: noise[:, :, 0, 0])
        torch.testing.assert_close(ours, theirs[:, :, 0, 0], rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------- on its way


def test_models_around_a_model_hand_the_variance_on():
    process = ud.DDPM(T=10)
    torch.manual_seed(0)
    network = ud.MLP((2,), width=8, depth=1, classes=3, learned_variance=True)
    judge = ud.MLPEncoder((2,), width=8, depth=1, classes=3)
    for p in (*network.parameters(), *judge.parameters()):
        nn.init.normal_(p)
    model = ud.NeuralDenoiser(process, ud.Eps(), network.double())
    u, label = randn(4, 2), torch.tensor([0, 1, 2, -1])
    level = process.level(0.5)
    plain = model(u, level, label=label)
    assert plain.variance_interpolation.shape == u.shape
    # The label counts, in every row that has one: the null class's variance would be seen.
    change = (plain.variance_interpolation - model(u, level).variance_interpolation).abs().amax(1)
    assert (change > 0.01).tolist() == [True, True, True, False]
    assert ud.sample(model, ud.Ancestral(), ud.Uniform(3), (2,), 4, dtype=F64, label=label).x.isfinite().all()
    guided = ud.ClassifierFree(model, 3.0)
    others = {
        "counted": ud.Counted(model),
        "classifier-free": guided,
        "interval, on": ud.GuidanceInterval(guided, 0.2, 0.7),
        "interval, off": ud.GuidanceInterval(guided, 0.6, 0.7),
        "rescaled": ud.RescaledGuidance(guided),
        "threshold": ud.DynamicThreshold(guided, 0.5),
        "auto": ud.AutoGuidance(model, ud.NeuralDenoiser(process, ud.Eps(), network), 2.0),
        "rescheduled": ud.Rescheduled(model, process),
        "classifier": ud.ClassifierGuidance(model, ud.NeuralClassifier(process, judge.double()), 2.0, chunk=3),
        **{
            cls.__name__: cls(model, FIRST, MEASURED, 0.5, chunk=3)
            for cls in (ud.inverse.DPS, ud.inverse.PiGDM, ud.inverse.MomentMatching)
        },
        "all free": ud.Replacement(model, torch.zeros(2), torch.ones(2)),
    }
    for name, other in others.items():
        assert other.learned_variance, name
        for asked in (level, process.level(torch.full((4,), 0.5, dtype=F64), u)):
            found = other(u, asked, label=label).variance_interpolation
            torch.testing.assert_close(found, plain.variance_interpolation, rtol=1e-6, atol=1e-6, msg=name)
    # A known pixel is data at a point, whose best variance is the small one; a free one keeps the model's.
    known = ud.Replacement(model, torch.zeros(2), torch.tensor([0.0, 1.0]))(
        u, level, label=label
    ).variance_interpolation
    torch.testing.assert_close(known, plain.variance_interpolation * torch.tensor([0, 1]), rtol=0, atol=0)


def test_refusals():
    learned = ud.MLP((2,), width=8, depth=1, learned_variance=True)
    plain = ud.NeuralDenoiser(ud.DDPM(T=5), ud.Eps(), ud.MLP((2,), width=8, depth=1))
    with pytest.raises(ParameterError, match=r"backbone: .* modes of .* differ in noise level"):
        ud.NeuralDenoiser(ud.Blurring(shape=(2,), blur_max=2.0), ud.Eps(), learned)
    with pytest.raises(ParameterError, match="backbone: a velocity has no variance to learn"):
        ud.VelocityNetwork(ud.PerSampleHeat(ud.RenormalizedHeat((2,), 1.0)), learned)
    with pytest.raises(ParameterError, match=r"objective: Hybrid sums a bound over the steps of a table, and VPSDE"):
        ud.Hybrid().check(ud.VPSDE())
    with pytest.raises(ParameterError, match=r"objective: Hybrid learns a variance of pixels, and InverseHeat"):
        ud.Hybrid().check(ud.InverseHeat(shape=(2,), blur_max=0.8, levels=8))
    x = torch.zeros(1, 2)
    with pytest.raises(ParameterError, match="which this network does not predict"):
        ud.Hybrid().losses(plain, x, x, plain.process.level(torch.ones(1), x))
    for weight in (0, math.inf, math.nan):
        with pytest.raises(ParameterError, match=r"weight must be a number > 0"):
            ud.Hybrid(weight=weight)
    for variance in (-0.1, 1.1):
        with pytest.raises(ParameterError, match="from 0 \\(small\\) to 1 \\(large\\), or None"):
            ud.Ancestral(variance)


def test_recipes_train_what_the_network_predicts(tmp_path):
    recipe = {
        **{"data": {"type": "Ring", "count": 100}, "process": {"type": "DDPM", "T": 10}},
        **{"parameterization": {"type": "Eps"}, "objective": {"type": "Hybrid"}},
        "backbone": {"type": "MLP", "width": 8, "depth": 1, "learned_variance": True},
        "training": {"steps": 2, "batch": 4, "precision": "fp32", "preview_every": 0, "tensorboard": False},
        "sampling": {"solver": {"type": "Ancestral"}, "grid": {"type": "Native"}, "count": 2},
    }
    right = ud.load_recipe(write(tmp_path, recipe))
    assert right.model(right.process).learned_variance
    wrong = {**recipe, "objective": {"type": "Denoising"}}
    assert "Denoising does not train it" in refused("check", write(tmp_path, wrong))
    wrong = {**recipe, "backbone": {"type": "MLP", "width": 8, "depth": 1}}
    assert "the backbone lacks `learned_variance: true`" in refused("check", write(tmp_path, wrong))
    assert "Hybrid sums a bound" in refused("check", write(tmp_path, {**recipe, "process": {"type": "VPSDE"}}))


def test_the_old_names_of_the_interpolation_are_read_with_a_notice():
    with pytest.warns(DeprecationWarning, match="'variance' is now called 'variance_interpolation'"):
        assert ud.Ancestral(variance=0.5) == ud.Ancestral(variance_interpolation=0.5)
    prediction = ud.Prediction(torch.zeros(1), torch.zeros(1), ud.DDPM(50).level(1.0), torch.ones(1))
    with pytest.warns(DeprecationWarning, match="now called variance_interpolation"):
        assert prediction.variance is prediction.variance_interpolation
