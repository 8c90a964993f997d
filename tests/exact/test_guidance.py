"""Guided models against closed forms: the mixture, whose classes are its components."""

from __future__ import annotations

import math

import pytest
import torch
from mixtures import COVARIANCES, LABEL, MEANS, PROCESSES, WEIGHTS, D, U, every, mixture, tilted_score
from parts import Through

import unidiff as ud
from unidiff.condition.check import null_conditions
from unidiff.errors import ParameterError
from unidiff.parameterization import Prediction
from unidiff.process.level import Level


@every("process", PROCESSES)
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("t", [0.02, 0.3, 0.9])
def test_classifier_free_guidance_is_the_tilted_score(process, scale, t):
    level = process.level(max(t, process.t_min))
    u = (level.alpha**2 + level.sigma**2) ** 0.5 * U
    found = ud.ClassifierFree(mixture(process), scale)(u, level, label=LABEL).score
    expected = tilted_score(u, level, LABEL, scale)
    # float64 loses u / sigma in the conversion: 1e-16 (1 + |s|) / sigma^2 < 1e-11 here, relative to 1 / sigma.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 / level.sigma)


def test_a_label_asks_for_one_component():
    process = ud.DDPM(T=50)
    level = process.level(0.4)
    model = mixture(process)
    label = torch.tensor([0, -1, 2, 1])
    found = model(U, level, label=label)
    for row, k in enumerate(label.tolist()):
        alone = model if k < 0 else ud.GaussianMixture(process, MEANS[k : k + 1], COVARIANCES[k : k + 1])
        torch.testing.assert_close(found.x0[row], alone(U, level).x0[row], rtol=0, atol=1e-14)
    assert torch.equal(model(U, level, label=torch.full((4,), -1)).x0, model(U, level).x0)


@every("process", PROCESSES)
def test_the_ends_of_the_line_are_the_models(process):
    level = process.level(0.5)
    model = mixture(process)
    for scale, label in ((1.0, LABEL), (0.0, torch.full((4,), -1))):
        for x, y in zip(ud.ClassifierFree(model, scale)(U, level, label=LABEL)[:2], model(U, level, label=label)[:2]):
            torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-13)  # a batch of 8 may round unlike one of 4


@every("parameterization", [ud.Eps(), ud.Score(), ud.X0(), ud.V(), ud.Velocity()])
def test_guidance_does_not_depend_on_what_a_network_predicts(parameterization):
    # The line is drawn in the network's own output, and then converted: the same as guiding the prediction.
    process = ud.VPSDE()
    level = process.level(0.5)
    model, scale = mixture(process), 2.5

    def output(label):
        x0, eps, *_ = model(U, level, label=label)
        return parameterization.target(x0, eps, level)

    there, here = output(LABEL), output(torch.full((4,), -1))
    expected = parameterization.solve(here + scale * (there - here), U, level)
    found = ud.ClassifierFree(model, scale)(U, level, label=LABEL)
    for name in ("x0", "eps", "score", "v", "velocity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, U, rtol=1e-13, atol=1e-13)


class Watched(ud.Denoiser):
    """A mixture that notes how many rows it is asked about, and with which labels."""

    def __init__(self, process):
        super().__init__()
        self.process, self.conditions, self.exact = process, (ud.Label(3),), mixture(process)
        self.asked = []

    def forward(self, u, level, **cond):
        self.asked.append((len(u), cond["label"].tolist() if "label" in cond else None))
        return self.exact(u, level, **cond)


def test_conditional_and_null_are_one_batched_call():
    model = Watched(ud.DDPM(T=50))
    level = model.process.level(0.5)
    ud.ClassifierFree(model, 2.0)(U, level, label=LABEL)
    assert model.asked == [(8, [0, 1, 2, 2, -1, -1, -1, -1])]
    model.asked.clear()
    ud.ClassifierFree(model, 1.0)(U, level, label=LABEL)
    assert model.asked == [(4, [0, 1, 2, 2])]


def test_each_sample_may_have_its_own_scale_and_time():
    process = ud.DDPM(T=50)
    scales = torch.tensor([0.0, 1.0, 2.0, 5.0])
    times = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=D)
    found = ud.ClassifierFree(mixture(process), scales)(U, process.level(times, U), label=LABEL)
    for row, (scale, t) in enumerate(zip(scales.tolist(), times.tolist())):
        alone = ud.ClassifierFree(mixture(process), scale)
        one = alone(U[row : row + 1], process.level(t), label=LABEL[row : row + 1])
        torch.testing.assert_close(found.eps[row], one.eps[0], rtol=1e-12, atol=1e-12)


def test_autoguidance_is_the_line_through_two_models():
    process = ud.VPSDE()
    level = process.level(0.5)
    model, weaker = mixture(process), ud.GaussianMixture(process, MEANS, 0.3, WEIGHTS)
    for scale in (0.0, 1.0, 1.7):
        found = ud.AutoGuidance(model, weaker, scale)(U, level, label=LABEL)
        a, b = model(U, level, label=LABEL), weaker(U, level, label=LABEL)
        torch.testing.assert_close(found.score, b.score + scale * (a.score - b.score), rtol=1e-12, atol=1e-12)
    # A model guided by itself is itself, at every scale.
    torch.testing.assert_close(ud.AutoGuidance(model, model, 3.0)(U, level).x0, model(U, level).x0, rtol=0, atol=1e-13)


def test_an_interval_switches_guidance_off_outside():
    model = Watched(ud.DDPM(T=50))
    process = model.process
    guided = ud.ClassifierFree(model, 3.0)
    limited = ud.GuidanceInterval(guided, 0.3, 0.6)
    for t, on in ((0.2, False), (0.3, True), (0.5, True), (0.6, True), (0.62, False)):
        model.asked.clear()
        found = limited(U, process.level(t), label=LABEL)
        assert model.asked[0][0] == (8 if on else 4)
        assert torch.equal(found.x0, (guided if on else model)(U, process.level(t), label=LABEL).x0)
    times = torch.tensor([0.2, 0.3, 0.6, 0.62], dtype=D)  # both borders belong to the interval
    level = process.level(times, U)
    found, on, off = (m(U, level, label=LABEL).eps for m in (limited, guided, model))
    torch.testing.assert_close(found, torch.stack([off[0], on[1], on[2], off[3]]), rtol=0, atol=1e-13)


class Given(ud.Denoiser):
    """Says one fixed x0 where there is a class, and another one where there is none, both in modes."""

    def __init__(self, process, there, here):
        super().__init__()
        self.process, self.there, self.here, self.conditions = process, there, here, (ud.Label(3),)

    def forward(self, u, level: Level, **cond):
        there, here = (x0.repeat(len(u) // len(x0), 1) for x0 in (self.there, self.here))
        x0 = torch.where(cond["label"][:, None] >= 0, there, here)
        return Prediction(x0, (u - level.alpha * x0) / level.sigma, level)


def test_rescaled_guidance_has_the_plain_contrast():
    process, level = ud.VPSDE(), ud.VPSDE().level(0.5)
    guided = ud.ClassifierFree(Given(process, 3 * U, U), 4.0)  # x0 = (1 + 4 * 2) U = 9 U, where the plain one is 3 U
    torch.testing.assert_close(guided(U, level, label=LABEL).x0, 9 * U)
    for share, factor in ((0.0, 9.0), (1.0, 3.0), (0.7, 0.7 * 3 + 0.3 * 9)):
        found = ud.RescaledGuidance(guided, share)(U, level, label=LABEL)
        torch.testing.assert_close(found.x0, factor * U, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, U, rtol=1e-13, atol=1e-13)


def test_dynamic_thresholding_clips_at_a_quantile():
    process, level = ud.VPSDE(), ud.VPSDE().level(0.5)
    picture = torch.linspace(-1, 1, 101, dtype=D) * torch.tensor([[0.25], [1.0]], dtype=D)
    u = torch.zeros(2, 101, dtype=D)
    found = ud.DynamicThreshold(Given(process, 3 * picture, picture), 0.9)(u, level, label=torch.tensor([0, 0]))
    assert torch.equal(found.x0[0], 3 * picture[0])  # inside [-1, 1]: untouched
    # |x0| = 3 |z| has its 0.9 quantile at 2.7: the data are clipped there, and 2.7 becomes 1.
    torch.testing.assert_close(found.x0[1], (3 * picture[1]).clamp(-2.7, 2.7) / 2.7, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, u, rtol=1e-12, atol=1e-12)


def test_a_picture_without_contrast_is_left_alone():
    # 2 [0, 0, 1, 1] - [0, 0, 2, 2] = 0 has no contrast to rescale, nor has 2 * 1 - 1 = 1: nothing is divided by 0.
    process, level = ud.VPSDE(), ud.VPSDE().level(0.5)
    there = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=D)
    here = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]], dtype=D)
    guided = ud.RescaledGuidance(ud.ClassifierFree(Given(process, there, here), 2.0), 1.0)
    found = guided(torch.zeros(2, 4, dtype=D), level, label=LABEL[:2]).x0
    assert torch.equal(found, torch.tensor([[0.0] * 4, [1.0] * 4], dtype=D))


@pytest.mark.parametrize("limit", [1.0, 0.5])
def test_the_quantile_counts_from_the_limit_on(limit):
    # s = max(limit, quantile): the 0.5 quantile of |x0| = 1.5 limit |z| is 0.75 limit, so that s = limit, and x0 is
    # clipped there without being scaled. In the other row it is 1.5 limit, which becomes the limit.
    process, level = ud.VPSDE(), ud.VPSDE().level(0.5)
    z = torch.linspace(-1, 1, 101, dtype=D)
    x0 = limit * torch.stack([1.5 * z, 3 * z])
    model = ud.DynamicThreshold(Given(process, x0, x0), 0.5, limit)
    found = model(torch.zeros(2, 101, dtype=D), level, label=torch.tensor([0, 0])).x0
    expected = limit * torch.stack([(1.5 * z).clamp(-1, 1), (3 * z).clamp(-1.5, 1.5) / 1.5])
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)  # some ten roundings of numbers below 3


def test_contrast_and_size_are_those_of_pixels():
    # What is flat has a mode of its own: it is contrast among the modes, but none among the pixels. By hand, to some
    # ten roundings of numbers below 4.
    process = ud.Blurring(shape=(4,), blur_max=2.0)
    level, modes = process.level(0.5), process.basis.forward
    there = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=D)
    guided = ud.ClassifierFree(Given(process, modes(there), modes(torch.ones(1, 4, dtype=D))), 2.0)
    u = U[:1].repeat(1, 2)
    found = ud.RescaledGuidance(guided, 1.0)(u, level, label=LABEL[:1])
    # 2 there - 1 = [-1, -1, 1, 1] has contrast 1, where that of `there` is 1 / 2.
    expected = modes(torch.tensor([[-0.5, -0.5, 0.5, 0.5]], dtype=D))
    torch.testing.assert_close(found.x0, expected, rtol=0, atol=1e-14)
    # Of |x0| = [1, 1, 2, 4] the 2 / 3 quantile is 2: [-1, 1, 2, 2] / 2. Its first mode, 6 / sqrt(4) = 3, is no pixel.
    x0 = modes(torch.tensor([[-1.0, 1.0, 2.0, 4.0]], dtype=D))
    found = ud.DynamicThreshold(Given(process, x0, x0), 2 / 3)(u, level, label=LABEL[:1])
    torch.testing.assert_close(found.x0, modes(torch.tensor([[-0.5, 0.5, 1.0, 1.0]], dtype=D)), rtol=0, atol=1e-14)
    # Pixels within the limit are left alone, bit for bit, though their flat mode, 2 * 0.9, is beyond it.
    x0 = modes(torch.full((1, 4), 0.9, dtype=D))
    found = ud.DynamicThreshold(Given(process, x0, x0), 0.5)(u, level, label=LABEL[:1])
    assert torch.equal(found.x0, x0)


def test_guidance_in_the_modes_of_a_heat_process():
    # Modes are an orthonormal turn of pixels: the tilted score of the turned mixture.
    process = ud.Blurring(shape=(2,), blur_max=2.0)
    model = ud.GaussianMixture(process, MEANS, 0.05, WEIGHTS)
    level = process.level(0.5)
    turned = process.basis.forward(MEANS)
    u = U.clone().requires_grad_()
    variance = level.alpha**2 * 0.05 + level.sigma**2
    each = -0.5 * ((u[:, None] - level.alpha * turned) ** 2 / variance).sum(-1)
    whole = (each + WEIGHTS.log()).logsumexp(1)
    tilt = whole + 2.5 * (each.gather(1, LABEL[:, None])[:, 0] - whole)
    (expected,) = torch.autograd.grad(tilt.sum(), u)
    found = ud.ClassifierFree(model, 2.5)(U, level, label=LABEL).score
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for wrapped in (ud.RescaledGuidance(ud.ClassifierFree(model, 3.0)), ud.DynamicThreshold(model, 0.5, 0.1)):
        found = wrapped(U, level, label=LABEL)
        torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, U, rtol=1e-12, atol=1e-12)


def test_guided_samples_of_one_gaussian_class_have_the_tilted_moments():
    # Two classes N(+-m, v) make the tilt p(u) p(y | u)^s; at scale 1 samples are N(m, v) itself. 2000 samples: the mean
    # is known to 5 sqrt(v / 2000), the standard deviation to 5 sqrt(v / 4000).
    v, n = 0.04, 2000
    model = ud.GaussianMixture(ud.VPSDE(), [[0.5], [-0.5]], v)
    x = ud.sample(ud.ClassifierFree(model, 1.0), seeds=n, dtype=D, label=torch.zeros(n, dtype=torch.long)).x
    assert abs(x.mean() - 0.5) < 5 * math.sqrt(v / n)
    assert abs(x.std() - math.sqrt(v)) < 5 * math.sqrt(v / (2 * n))
    away = ud.sample(ud.ClassifierFree(model, 4.0), seeds=n, dtype=D, label=torch.zeros(n, dtype=torch.long)).x
    assert away.mean() > x.mean()  # guidance pushes away from the other class


def test_labels_may_be_bytes():
    level = MODEL.process.level(0.3)
    for dtype in (torch.uint8, torch.int32):
        some = LABEL.clamp(min=0)
        assert torch.equal(MODEL(U, level, label=some.to(dtype)).x0, MODEL(U, level, label=some).x0)


def unconditional():
    return ud.NeuralDenoiser(ud.DDPM(T=50), ud.Eps(), ud.MLP((2,), width=8, depth=1))


MODEL = mixture(ud.DDPM(T=50))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ud.ClassifierFree(MODEL, math.nan), r"scale must be a number of magnitude up to"),
        (lambda: ud.ClassifierFree(MODEL, torch.tensor([1.0, math.inf])), r"scale must be .* got \[1.0, inf\]"),
        (
            lambda: ud.ClassifierFree(MODEL, 2.0, names=["label", "label"]),
            "names must be different names, got .'label', ",
        ),
        (lambda: ud.ClassifierFree(MODEL, "2"), "scale must be .* got '2'"),
        (lambda: ud.ClassifierFree(unconditional(), 2.0), r"model: the model is unconditional"),
        (
            lambda: ud.ClassifierFree(MODEL, [1.0, 2.0])(U, MODEL.process.level(0.5), label=LABEL),
            "2 scales .* 4 samples",
        ),
        (
            lambda: ud.AutoGuidance(MODEL, mixture(ud.VPSDE()), 2.0),
            "weaker_model: its process must be the model's, .* got VPSDE",
        ),
        (lambda: ud.AutoGuidance(MODEL, unconditional(), 2.0), r"weaker_model: its conditions must be .*3.*, got \(\)"),
        (lambda: ud.GuidanceInterval(ud.ClassifierFree(MODEL, 2.0), 0.5, 0.4), "high must be .* got 0.4"),
        (lambda: ud.RescaledGuidance(ud.ClassifierFree(MODEL, 2.0), 1.5), "share must be .* got 1.5"),
        (lambda: ud.DynamicThreshold(MODEL, 0.0), "quantile must be .* got 0.0"),
        (lambda: ud.ClassifierFree(MODEL, 1e300), r"scale must be .* got 1e\+300"),
        (lambda: ud.ClassifierFree(MODEL, [1.0, "x"]), "scale must be .* got "),
        (lambda: ud.ClassifierFree(MODEL, torch.tensor(True)), "scale must be .* got "),
        (lambda: ud.GuidanceInterval(MODEL, 0.1, 0.4), "guided: GaussianMixture is not guided"),
        (lambda: ud.RescaledGuidance(ud.DynamicThreshold(MODEL)), "guided: DynamicThreshold is not guided"),
        (lambda: ud.Resampling(ud.ExponentialAdams()), "solver: ExponentialAdams.* has no single step to repeat"),
        (
            lambda: ud.sample(MODEL, seeds=2, label=torch.tensor([0, 12])),
            r"label must be from 0 to 2, or -1 \(unconditional\), got 12",
        ),
        (
            lambda: ud.sample(MODEL, seeds=2, label=torch.tensor([0])),
            r"label must be integers, one for each of 2 samples, got .* shape \(1,\)",
        ),
        (
            lambda: ud.sample(MODEL, seeds=1, label=torch.tensor([0.5])),
            "label must be integers, one for each of 1 samples, got torch.float32",
        ),
        (lambda: ud.sample(unconditional(), seeds=1, label=torch.tensor([0])), "this model is unconditional"),
    ],
)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ParameterError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_nothing_is_said():
    # Of conditions of which only the names are known: a model that declares none.
    given = {"label": torch.tensor([3, 0]), "image": torch.ones(2, 1)}
    said = null_conditions(given, Through(ud.VPSDE(), ud.Eps()))
    assert said["label"].tolist() == [-1, -1]
    assert said["image"].tolist() == [[0], [0]]


@pytest.mark.parametrize(
    "network", [ud.MLP((1, 8, 8), width=8, depth=1, classes=3), ud.UNet((1, 8, 8), 8, (1,), 1, classes=3)]
)
def test_a_network_with_classes(network):
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(1))
    x, c = torch.randn(4, 1, 8, 8), torch.full((4,), 300.0)
    label = torch.tensor([0, 1, 2, -1])
    out = network(x, c, label=label)
    assert torch.equal(network(x, c), network(x, c, label=torch.full((4,), -1)))  # nothing said is the null class
    torch.testing.assert_close(out[3], network(x, c)[3])
    assert all((out[k] - network(x, c)[k]).abs().max() > 1e-3 for k in range(3))
    network.zero_grad()
    network(x, c, label=torch.tensor([0, 0, 2, 2])).square().sum().backward()
    rows = network.embedding.label.weight.grad.abs().amax(1)  # null, 0, 1, 2
    assert (rows > 0).tolist() == [False, True, False, True]
    for wrong, message in (
        (torch.tensor([0, 1, 2, 3]), "label must be from 0 to 2"),
        (torch.tensor([0]), "one for each of 4"),
    ):
        with pytest.raises(ParameterError, match=message):
            network(x, c, label=wrong)
    with pytest.raises(ParameterError, match="is conditioned on label, but was passed text"):
        network(x, c, text=label)
    denoiser = ud.NeuralDenoiser(ud.DDPM(T=10), ud.V(), network)
    assert denoiser.classes == 3
    assert (
        ud.sample(ud.ClassifierFree(denoiser, 2.0), ud.DDIM(), ud.Uniform(2), seeds=4, label=label).x.isfinite().all()
    )
