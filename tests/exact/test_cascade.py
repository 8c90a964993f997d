"""Samplers of several models: a cascade on Gaussian data has the covariance of theory; a Split of one model is it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ive

import unidiff as ud
from unidiff.errors import ParameterError

F64 = torch.float64
MEANS = [[-0.6, 0.3], [0.5, -0.2]]

# Data x ~ N(0, C) of 4 values, low resolution y = A x of 2: the means of pairs.
A = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]], dtype=F64)
ROOT = torch.tensor([[1.0, 0.0, 0, 0], [0.7, 0.5, 0, 0], [0.4, -0.2, 0.6, 0], [0.1, 0.3, 0.2, 0.8]], dtype=F64)
C = ROOT @ ROOT.T
D = torch.tensor([[0.8, 0.2], [0.2, 0.5]], dtype=F64)  # the error of a bad base model's covariance
COUNT = 4000


def gain(s: float) -> torch.Tensor:
    """K = C A' (A C A' + s^2 I)^-1, the regression of x on y + s eps."""
    return torch.linalg.solve(A @ C @ A.T + s**2 * torch.eye(2, dtype=F64), A @ C).T


class Upsampler(ud.Denoiser):
    """The exact model of x given y + s eps, N(K y, C - K A C)."""

    shape, conditions = (4,), (ud.Named("y"),)

    def __init__(self, process: ud.Process, s: float = 0.0, weight: float = 1.0) -> None:
        super().__init__()
        self.process, self.K = process, weight * gain(s)
        self.P = C - gain(s) @ A @ C

    def forward(self, u, level, **cond):
        mean = cond["y"] @ self.K.T
        variance = level.alpha**2 * self.P + level.sigma**2 * torch.eye(4, dtype=F64)
        x0 = mean + (u - level.alpha * mean) @ torch.linalg.solve(variance, level.alpha * self.P)
        return ud.Prediction(x0, (u - level.alpha * x0) / level.sigma, level)


def base(error: torch.Tensor | float = 0.0) -> ud.GaussianMixture:
    return ud.GaussianMixture(ud.VPSDE(), torch.zeros(1, 2, dtype=F64), A @ C @ A.T + error)


def cascade(s: float = 0.0, error: torch.Tensor | float = 0.0, **options) -> ud.Cascade:
    """Two stages of different processes, solvers and grids."""
    second = ud.Stage(
        Upsampler(ud.FlowMatching(), s, **options), ud.UniPC(2), ud.Tapered(40), ud.Identity("y", noise=s)
    )
    return ud.Cascade([ud.Stage(base(error)), second])


SLOW = pytest.mark.slow  # 4,000 samples, 1 to 2 s of CPU each


@pytest.mark.parametrize(
    ("s", "error"),
    [
        (0.7, D),
        pytest.param(0.0, 0.0, marks=SLOW),
        pytest.param(0.7, 0.0, marks=SLOW),
        pytest.param(0.0, D, marks=SLOW),
    ],
    ids=["bad base, augmented", "exact", "augmented", "bad base"],
)
def test_a_cascade_has_the_covariance_of_theory(s, error):
    # y ~ N(0, A C A' + D) and x = K (y + s eps) + N(0, C - K A C) have the covariance C + K D K', for K (A C A' + s^2)
    # K' = K A C; with D = 0 it is C at any s.
    solution = cascade(s, error).sample(COUNT, dtype=F64)
    K = gain(s)
    expected = C + K @ (error * torch.ones(2, 2, dtype=F64)) @ K.T
    found = solution.x.T @ solution.x / COUNT
    # Five standard errors of the second moment of a normal, sqrt((S_ii S_jj + S_ij^2) / n). The bias of the solvers
    # (order 3 at 50 steps, 2 at 40) is under a tenth of one.
    diagonal = expected.diagonal()
    assert ((found - expected).abs() < 5 * ((torch.outer(diagonal, diagonal) + expected**2) / COUNT).sqrt()).all()
    if s == 0:  # the posterior has no spread along A
        torch.testing.assert_close(solution.x @ A.T, solution.stages[0].x, rtol=0, atol=1e-10)


def test_a_prior_of_gaussian_embeddings_and_its_decoder_are_exact_for_each_caption():
    # Embeddings e ~ N(m_c, S) of caption c, and images x ~ N(K e, P) of an embedding: x ~ N(K m_c, K S K' + P).
    S, K, n = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64), gain(0.0), 500
    prior = ud.GaussianMixture(ud.VPSDE(), torch.tensor(MEANS, dtype=F64), S)
    decoder = ud.Stage(Upsampler(ud.FlowMatching()), ud.UniPC(2), ud.Tapered(40), ud.Identity("y"))
    caption = torch.arange(2).repeat_interleave(n)
    x = ud.Cascade([ud.Stage(prior), decoder]).sample(2 * n, dtype=F64, label=caption).x
    covariance = K @ S @ K.T + decoder.denoiser.P
    diagonal = covariance.diagonal()
    for c, m in enumerate(torch.tensor(MEANS, dtype=F64)):
        own = x[caption == c]
        assert ((own.mean(0) - K @ m).abs() < 5 * (diagonal / n).sqrt()).all()
        # Five standard errors, as in the test above.
        bound = 5 * ((torch.outer(diagonal, diagonal) + covariance**2) / (n - 1)).sqrt()
        assert ((own.T.cov() - covariance).abs() < bound).all()


@SLOW
def test_augmentation_makes_the_error_of_a_bad_base_smaller():
    def excess(s: float) -> float:
        K = gain(s)
        return float(torch.trace(K @ D @ K.T))

    assert excess(0.0) > 1.5 * excess(0.7) > 2.0 * excess(1.5)
    # Measured: the traces of the covariances; each is a sum of 4 squares, of variance 2 |S|^2 / n.
    for s in (0.0, 0.7):
        total = float(cascade(s, D).sample(COUNT, dtype=F64).x.square().sum(1).mean())
        S = C + gain(s) @ D @ gain(s).T
        assert abs(total - float(torch.trace(C)) - excess(s)) < 5 * math.sqrt(2 * float(S.square().sum()) / COUNT)


def test_a_sample_depends_on_its_seed_alone():
    chain = cascade(0.7)
    together = chain.sample(7, dtype=F64)
    apart = chain.sample(7, batch=3, dtype=F64)
    alone = chain.sample([5], dtype=F64)
    # Matrix products of other sizes round otherwise, 1e-16 a step.
    torch.testing.assert_close(apart.x, together.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(alone.x, together.x[5:6], rtol=0, atol=1e-12)
    assert together.nfe == sum(stage.nfe for stage in together.stages) == 50 + 40
    # The first stage draws what `sample` draws, and a cascade of one stage is `sample`.
    assert torch.equal(together.stages[0].x, ud.sample(base(), seeds=7, dtype=F64).x)
    assert torch.equal(ud.Cascade([ud.Stage(base())]).sample(7, dtype=F64).x, together.stages[0].x)


@pytest.mark.parametrize("seeds", [[-1], [2**64], range(2**64, 2**64 + 2)])
def test_seeds_out_of_range_are_refused(seeds):
    for chain in (cascade(), ud.Cascade([ud.Stage(base())])):
        with pytest.raises(ParameterError, match=r"seeds must be integers from 0 to 2\^64 - 1, got "):
            chain.sample(seeds)


def test_stages_have_streams_of_their_own():
    # A second stage that ignores its condition is not changed by another first stage, bit for bit, and independent of
    # it: correlations of n pairs have the standard error 1 / sqrt(n).
    chain = cascade(weight=0.0)
    other = ud.Cascade([ud.Stage(base(), ud.Ancestral(), ud.Uniform(5)), chain.stages[1]])
    n = 1000
    one = chain.sample(n, dtype=F64)
    assert torch.equal(one.x, other.sample(n, dtype=F64).x)
    both = torch.cat([one.stages[0].x, one.x], dim=1)
    assert both.T.corrcoef()[:2, 2:].abs().max() < 5 / math.sqrt(n)


def test_progress_rises_to_the_end():
    seen = []
    cascade().sample(4, batch=2, dtype=F64, progress=lambda done, total: seen.append(done / total))
    assert seen == sorted(seen)
    assert seen[-1] == 1


class Images(ud.Denoiser):
    """Any image, all told: for what is checked before anything is drawn."""

    def __init__(self, shape, classes=None, image=None):
        super().__init__()
        self.process, self.shape = ud.VPSDE(), shape
        self.conditions = () if classes is None else (ud.Label(classes),)
        self.conditions += () if image is None else (ud.Image(image[0], image[1:]),)
        self.required = {} if image is None else {"image": "this model"}
        self.calls, self.told = 0, {}

    def forward(self, u, level, **cond):
        self.calls, self.told = self.calls + 1, cond
        x0 = cond.get("image", torch.zeros_like(u)).expand_as(u)
        return ud.Prediction(x0, (u - level.alpha * x0) / level.sigma, level)


def test_superresolution_takes_the_samples_before():
    # E[x0 | u, image] = image: the samples are the condition, each pixel of the first stage over its block, clipped.
    first, second = Images((1, 2, 2)), Images((1, 4, 4), image=(1, 4, 4))
    chain = ud.Cascade([ud.Stage(first), ud.Stage(second, conditioning=ud.SuperResolution(2))])
    solution = chain.sample(3)
    y = solution.stages[0].x.clamp(-1, 1)
    # In float32 a step of the solver's end from q < 1 to 0 rounds eps, of order 1, a few times.
    torch.testing.assert_close(solution.x, y.repeat_interleave(2, -1).repeat_interleave(2, -2), rtol=0, atol=4 * 2**-24)
    for s in (0.1, 0.2):
        noisy = ud.Cascade([chain.stages[0], ud.Stage(second, conditioning=ud.SuperResolution(2, noise=s))])
        shift = noisy.sample(400).x[:, :, ::2, ::2]  # the first stage's samples are 0
        # The mean square of 1600 normal values, to five standard errors.
        assert abs(float(shift.square().mean()) / s**2 - 1) < 5 * math.sqrt(2 / 1600)


def test_a_blur_is_that_of_the_heat_equation_and_keeps_what_is_even():
    # One block mean of 1 in the middle of 64. A walk of steps +-1 at rate w^2 is at k with probability
    # exp(-w^2) I_k(w^2) (Feller 1971, section II.7), of variance w^2; the border is 32 = 16 standard deviations away.
    w = 2.0
    x0 = torch.zeros(1, 1, 128, dtype=F64)
    x0[..., 64:66] = 1
    found = ud.SuperResolution(2, blur=w).conditions(x0, None, torch.ones(1, 1))["image"][0, 0, ::2]
    expected = torch.from_numpy(ive(abs(np.arange(64) - 32), w**2))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert float(((torch.arange(64) - 32) ** 2 * found).sum()) == pytest.approx(w**2, rel=1e-11)
    assert float(found.min()) > -1e-15  # a mean of means stays in [-1, 1]
    # The sample of a first stage is blurred as training data are; what has no structure stays.
    image = torch.full((2, 1, 4, 6), 0.3, dtype=F64)
    even = ud.SuperResolution(2, blur=1.5).from_samples(image[..., ::2, ::2], (1, 4, 6), torch.ones(2, 1))["image"]
    torch.testing.assert_close(even, image, rtol=0, atol=1e-14)
    x = torch.rand(2, 1, 4, 6, generator=torch.Generator().manual_seed(0), dtype=F64) * 2 - 1
    both = [ud.SuperResolution(2, blur=1.5).conditions(v, None, torch.ones(2, 1))["image"] for v in (x, x.flip(-1))]
    torch.testing.assert_close(both[0].flip(-1), both[1], rtol=0, atol=1e-14)
    with pytest.raises(ParameterError, match="blur must be a number from 0 to 1e6, got -1"):
        ud.SuperResolution(2, blur=-1)


def test_augmentation_in_training_is_a_function_of_the_uniform_numbers():
    x0 = torch.zeros(400, 1, 4, 4)
    uniform = torch.rand(400, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for conditioning, name in ((ud.SuperResolution(2, noise=0.2), "image"), (ud.Identity("y", noise=0.2), "y")):
        assert conditioning.draws == 2
        found = conditioning.conditions(x0, None, uniform)[name]
        assert torch.equal(found[7:9], conditioning.conditions(x0[7:9], None, uniform[7:9])[name])
        values = found[:, :, ::2, ::2].flatten()  # one of each block: 1600 values
        assert abs(float(values.std()) / 0.2 - 1) < 5 / math.sqrt(2 * 1600)
    # The dropped condition is zeros, without noise.
    dropping = ud.Identity("y", noise=0.2, dropout=0.5).conditions(x0, None, uniform)["y"]
    assert torch.equal((dropping.flatten(1) == 0).all(1), uniform[:, 0] < 0.5)


def test_labels_reach_every_stage_that_has_them():
    mixture = ud.GaussianMixture(ud.VPSDE(), MEANS, 1e-4)
    second = Images((2,), classes=2)
    second.conditions += (ud.Named("y"),)
    chain = ud.Cascade([ud.Stage(mixture), ud.Stage(second, conditioning=ud.Identity("y"))])
    label = torch.tensor([0, 1])
    solution = chain.sample(2, label=label)
    # Five standard deviations of 0.01 about the mean of the class; the second is told the class and the first's sample.
    torch.testing.assert_close(solution.stages[0].x, torch.tensor(MEANS), rtol=0, atol=0.05)
    assert torch.equal(second.told["label"], label)
    # Conditions of one stage alone: a row for each sample, or one for all.
    alone = ud.Cascade([ud.Stage(mixture, cond={"label": label}), replace(chain.stages[1], cond={"label": label[1:]})])
    assert torch.equal(alone.sample(2).stages[0].x, solution.stages[0].x)
    assert torch.equal(second.told["label"], torch.tensor([1, 1]))
    with pytest.raises(ParameterError, match=r"stages\[0\].cond.label: it is passed to the cascade"):
        alone.sample(2, label=label)
    with pytest.raises(ParameterError, match="label must be integers, one for each of 3 samples"):
        alone.sample(3)


def refused(match: str, stages: list[ud.Stage], **cond: torch.Tensor) -> None:
    with pytest.raises(ParameterError, match=match):
        ud.Cascade(stages).sample(2, **cond)
    assert not any(getattr(stage.denoiser, "calls", 0) for stage in stages)


def test_stages_that_do_not_fit_are_refused_before_anything_is_drawn():
    small, large = ud.Stage(Images((1, 4, 4))), Images((1, 8, 8), image=(1, 8, 8))
    up = ud.Stage(large, conditioning=ud.SuperResolution(2))
    refused("stages must be a list of at least one stage", [])
    refused(r"stages\[0\]: the first stage has none before it", [up])
    refused(r"stages\[1\]: it needs a `conditioning`", [small, ud.Stage(large)])
    by_four = ud.Stage(large, conditioning=ud.SuperResolution(4))
    refused(r"stages\[1\]: .*samples of \(1, 2, 2\) or \(1, 8, 8\), got \(1, 4, 4\)", [small, by_four])
    of_labels = ud.Stage(Images((1, 8, 8), classes=3), conditioning=ud.SuperResolution(2))
    refused(r"stages\[1\]: .*the condition 'image', and the model's are: label", [small, of_labels])
    refused(r"stages\[1\]: .*makes no condition", [small, ud.Stage(large, conditioning=ud.Labels())])
    refused("no stage takes a condition of this name", [small, up], image=torch.zeros(2, 1, 8, 8))
    told = ud.Stage(Images((1, 4, 4), classes=3))
    refused(r"label.*from 0 to 2.*stages\[0\]", [told, up], label=torch.tensor([1, 3]))
    guided = ud.Stage(ud.ClassifierFree(told.denoiser, 2.0))
    refused(r"guidance needs the condition 'label'.*stages\[0\]", [guided, up])
    refused("grid: Native needs a table", [ud.Stage(small.denoiser, grid=ud.Native()), up])
    no_shape = Images((1, 4, 4))
    no_shape.shape = None
    refused(r"stages\[0\]: this model has no sample shape", [ud.Stage(no_shape), up])
    for conditioning in (ud.SuperResolution, lambda noise: ud.Identity("y", noise=noise)):
        with pytest.raises(ParameterError, match="noise must be a number >= 0, got -1"):
            conditioning(noise=-1)
    with pytest.raises(ParameterError, match="name must be a name"):
        ud.Identity("not one")


# ---------------------------------------------------------------------------------------------- Split


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("solver", [ud.ExponentialAdams(), ud.Ancestral(), ud.Heun()], ids=lambda s: type(s).__name__)
def test_a_split_of_one_model_changes_nothing(solver, t):
    model = ud.GaussianMixture(ud.VPSDE(), MEANS, 0.04)
    label = torch.tensor([0, 1, -1])
    for same in (ud.Split(model, model, t), ud.Split(ud.Split(model, model, t / 2), model, t)):
        x = [ud.sample(m, solver, ud.Uniform(6), seeds=3, dtype=F64, label=label).x for m in (model, same)]
        assert torch.equal(*x)
        u = torch.randn(3, 2, dtype=F64)
        level = model.process.level(torch.tensor([0.1, 0.3, 0.9], dtype=F64), u)
        assert torch.equal(same(u, level).x0, model(u, level).x0)
        assert torch.equal(same(u, level).eps, model(u, level).eps)


def test_each_model_is_asked_on_its_side():
    process = ud.VPSDE()
    model, refiner = ud.GaussianMixture(process, MEANS, 0.04), ud.GaussianMixture(process, MEANS, 0.2)
    split = ud.Split(model, refiner, 0.5)
    # One-step methods: down to 0.5 with the one, then on with the other, bit for bit; 0.5 itself is the model's.
    times = ud.Uniform(9).times(process)
    below = next(number for number, time in enumerate(times.tolist()) if time < 0.5)
    levels = process.levels_at(times[:-1])
    u = start = torch.randn(5, 2, dtype=F64)
    *_, x = (state.u for state in ud.DDIM().trajectory(split, start, times, noise=torch.zeros_like))
    for number in range(len(levels) - 1):
        asked = model if number < below else refiner
        u = ud.DDIM().step(asked, u, levels[number], levels[number + 1], torch.zeros_like)
    assert torch.equal(x, refiner(u, levels[-1]).x0)
    for time, asked in ((0.5, model), (0.4999, refiner), (1.0, model), (0.0001, refiner)):
        level = process.level(time)
        assert torch.equal(split(start, level).x0, asked(start, level).x0)
    level = process.level(torch.tensor([0.1, 0.5, 0.9, 0.4, 1.0], dtype=F64), start)
    expected = torch.where((level.time < 0.5), refiner(start, level).x0, model(start, level).x0)
    assert torch.equal(split(start, level).x0, expected)


def test_a_split_refuses_what_does_not_fit():
    model = ud.GaussianMixture(ud.VPSDE(), MEANS, 0.04)
    for t in (-0.1, 1.5, math.nan, True):
        with pytest.raises(ParameterError, match="t must be a number from 0 to 1"):
            ud.Split(model, model, t)
    others = {
        "process": ud.GaussianMixture(ud.DDPM(), MEANS, 0.04),
        "shape": ud.GaussianMixture(ud.VPSDE(), [[0.0], [1.0]], 0.04),
        "conditions": ud.GaussianMixture(ud.VPSDE(), [[0.0, 1.0]], 0.04),
    }
    for name, other in others.items():
        with pytest.raises(ParameterError, match=f"refiner: its {name} must be the model's"):
            ud.Split(model, other, 0.5)


def test_a_stage_takes_a_solver_and_a_grid_by_name():
    model = base()
    named = ud.Cascade([ud.Stage(model, "heun@karras", 5)]).sample(3, dtype=F64).x
    assert torch.equal(named, ud.sample(model, ud.Heun(), ud.Karras(5), seeds=3, dtype=F64).x)
    with pytest.raises(ParameterError, match=r"stages\[0\]: solver.*heunn"):
        ud.Cascade([ud.Stage(model, "heunn")])
