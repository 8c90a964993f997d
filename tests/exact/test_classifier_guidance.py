"""Classifier guidance with the exact classifier of a mixture: the sign, the factor, the chunks and the memory."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from mixtures import COVARIANCES, LABEL, MEANS, PROCESSES, WEIGHTS, D, U, densities, every, mixture, tilted_score

import unidiff as ud
from unidiff.errors import ParameterError


class Unconditional(ud.Denoiser):
    """The mixture, but it knows of no classes: it must not be told a label."""

    def __init__(self, process):
        super().__init__()
        self.process, self.exact = process, mixture(process)

    def forward(self, u, level, **cond):
        assert not cond
        return self.exact(u, level)


def guided(process, scale, **options):
    return ud.ClassifierGuidance(Unconditional(process), ud.MixtureClassifier(mixture(process)), scale, **options)


@every("process", PROCESSES)
@pytest.mark.parametrize("t", [0.02, 0.3, 0.9])
def test_the_exact_classifier_is_bayes_rule(process, t):
    level = process.level(max(t, process.t_min))
    u = (level.alpha**2 + level.sigma**2) ** 0.5 * U
    whole, each = densities(u, level)
    expected = each + WEIGHTS.log() - whole[:, None]
    found = ud.MixtureClassifier(mixture(process))(u, level).log_softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    label = ud.MixtureClassifier(mixture(process)).log_prob(u, level, LABEL)
    torch.testing.assert_close(label, expected.gather(1, LABEL[:, None])[:, 0], rtol=1e-9, atol=1e-9)


@every("process", PROCESSES)
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("t", [0.02, 0.3, 0.9])
def test_classifier_guidance_is_the_tilted_score(process, scale, t):
    level = process.level(max(t, process.t_min))
    u = (level.alpha**2 + level.sigma**2) ** 0.5 * U
    found = guided(process, scale)(u, level, label=LABEL)
    torch.testing.assert_close(found.score, tilted_score(u, level, LABEL, scale), rtol=1e-9, atol=1e-9 / level.sigma)
    # The same as classifier-free guidance, in x0 too: there an error of the score counts sigma^2 / alpha times.
    free = ud.ClassifierFree(mixture(process), scale)(u, level, label=LABEL)
    torch.testing.assert_close(found.x0, free.x0, rtol=1e-9, atol=1e-9 * max(1, level.sigma / level.alpha))
    torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, u, rtol=1e-12, atol=1e-12)


def test_thesis_algorithm_4_with_the_gradient_of_log_p():
    process = ud.DDPM(T=50)
    level = process.levels_at(process.native_times())[30]
    model = mixture(process)
    u = U.clone().requires_grad_()
    whole, each = densities(u, level)
    p = (each + WEIGHTS.log() - whole[:, None]).gather(1, LABEL[:, None]).exp()
    (slope,) = torch.autograd.grad(p.sum(), u)
    abar = level.alpha**2
    found = guided(process, 1.0)(U, level, label=LABEL).eps
    # grad log p = grad p / p; with grad p itself, as printed, the step would not be the conditional model's.
    expected = model(U, level).eps - math.sqrt(1 - abar) * slope / p.detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, model(U, level, label=LABEL).eps, rtol=1e-9, atol=1e-9)
    printed = model(U, level).eps - math.sqrt(1 - abar) * slope
    assert (printed - found).abs().max() > 0.01


def test_a_conditional_model_is_told_the_label_and_rows_without_are_not_guided():
    process = ud.VPSDE()
    level = process.level(0.5)
    model = mixture(process)
    label = torch.tensor([0, -1, 2, -1])
    once = guided(process, 1.0)(U, level, label=label)
    assert torch.equal(once.x0[1::2], model(U, level).x0[1::2])
    # A model that knows classes: p(u | y) p(y | u)^s = p(u, y)^(1 + s) / p(u)^s up to a constant.
    told = ud.ClassifierGuidance(model, ud.MixtureClassifier(model), 1.0)(U, level, label=label)
    twice = ud.ClassifierFree(model, 2.0)(U, level, label=label)
    torch.testing.assert_close(told.score, twice.score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_chunks_change_nothing(chunk):
    process = ud.VPSDE()
    times = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=D)
    for level in (process.level(0.5), process.level(times, U)):
        whole, parts = (guided(process, 2.0, chunk=n)(U, level, label=LABEL) for n in (100, chunk))
        torch.testing.assert_close(parts.x0, whole.x0, rtol=1e-13, atol=1e-13)


def test_memory_grows_with_the_chunk_not_the_batch():
    network = torch.nn.Sequential(torch.nn.Linear(2, 50), torch.nn.Tanh(), torch.nn.Linear(50, 3))

    class Net(torch.nn.Module):
        classes = 3

        def __init__(self):
            super().__init__()
            self.inside = network.double()

        def forward(self, x, c):
            return self.inside(x)

    process = ud.VPSDE()
    classifier = ud.NeuralClassifier(process, Net())

    def most(batch, chunk):
        """The largest number of values that one backward pass keeps."""
        model = ud.ClassifierGuidance(Unconditional(process), classifier, 1.0, chunk)
        kept, peak = [0], [0]
        inner = model._gradient

        def watched(*args):
            kept[0] = 0
            return inner(*args)

        def pack(x):
            kept[0] += x.numel()
            peak[0] = max(peak[0], kept[0])
            return x

        model._gradient = watched
        u = torch.randn(batch, 2, dtype=D, generator=torch.Generator().manual_seed(0))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(u, process.level(0.5), label=torch.zeros(batch, dtype=torch.long))
        return peak[0]

    assert most(64, 8) == most(16, 8) == most(8, 8)
    assert most(64, 64) > 4 * most(64, 8)


@every("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_had_in_any_mode(mode):
    for process in (ud.VPSDE(), ud.Blurring(shape=(2,), blur_max=2.0)):
        model = ud.GaussianMixture(process, MEANS, 0.05, WEIGHTS)
        steered = ud.ClassifierGuidance(model, ud.MixtureClassifier(model), 1.0)
        expected = steered(U, process.level(0.5), label=LABEL).x0
        with mode():
            found = steered(U.clone(), process.level(0.5), label=LABEL.clone()).x0
        torch.testing.assert_close(found, expected)


@pytest.mark.slow  # a second or more
def test_a_guided_model_has_a_likelihood():
    # Guided with scale 1 an unconditional mixture is one of its components: its log density is known.
    process = ud.VPSDE()
    x = MEANS[:2].clone()
    label = torch.tensor([0, 1])
    one = torch.stack([torch.distributions.MultivariateNormal(MEANS[k], COVARIANCES[k]).log_prob(x[k]) for k in (0, 1)])
    found = ud.log_likelihood(guided(process, 1.0), x, trace=ud.ExactTrace(), label=label)
    free = ud.log_likelihood(mixture(process), x, trace=ud.ExactTrace(), label=label)
    torch.testing.assert_close(found.log_prob, free.log_prob, rtol=1e-3, atol=1e-3)  # the solver's own tolerance
    torch.testing.assert_close(found.log_prob, one, rtol=2e-2, atol=2e-2)  # and the bias of t_min


def test_pure_noise_says_nothing_of_a_class():
    process = ud.FlowMatching()  # alpha = 0 at t = 1
    level = process.level(1.0)
    assert torch.equal(guided(process, 3.0)(U, level, label=LABEL).x0, mixture(process)(U, level).x0)
    times = torch.tensor([1.0, 0.5, 1.0, 0.5], dtype=D)
    found = guided(process, 3.0)(U, process.level(times, U), label=LABEL)
    assert found.x0.isfinite().all()
    assert torch.equal(found.eps[::2], mixture(process)(U, process.level(times, U)).eps[::2])


@pytest.mark.parametrize("each", [False, True], ids=["one time", "a time each"])
def test_little_data_are_enough_to_know_a_class(each):
    # A state is guided that holds a millionth of data or more, and it is classifier-free guidance still: the gradient
    # is of some 20 numbers of order 1, is rounded by 20 u, and counts scale sigma^2 / alpha = 3 / 2e-6 times in x0.
    process, model = ud.VPSDE(), mixture(ud.VPSDE())
    level = process.level(torch.ones(4, dtype=D), U) if each else process.level(1.0)
    for alpha, on in ((2e-6, True), (5e-7, False)):
        asked = replace(level, alpha=0 * level.alpha + alpha, sigma=0 * level.sigma + 1.0)
        found = guided(process, 3.0)(U, asked, label=LABEL)
        free, plain = ud.ClassifierFree(model, 3.0)(U, asked, label=LABEL), model(U, asked)
        assert (free.x0 - plain.x0).abs().amin() > 0.01
        if on:
            torch.testing.assert_close(found.x0, free.x0, rtol=0, atol=20 * 2.3e-16 * 3 / alpha)  # 7e-9
        else:
            assert torch.equal(found.x0, plain.x0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: guided(ud.VPSDE(), math.nan), "scale must be .* got nan"),
        (lambda: guided(ud.VPSDE(), 1.0, chunk=0), "chunk must be .* got 0"),
        (
            lambda: ud.sample(guided(ud.VPSDE(), 1.0), shape=(2,), seeds=1),
            "classifier guidance needs the condition 'label'",
        ),
        (
            lambda: ud.ClassifierGuidance(
                mixture(ud.VPSDE()), ud.NeuralClassifier(ud.VPSDE(), ud.MLPEncoder((3,), width=8, classes=3)), 1.0
            ),
            r"classifier: its shape must be the model's, \(2,\), got \(3,\)",
        ),
        (
            lambda: ud.ClassifierGuidance(mixture(ud.VPSDE()), ud.MixtureClassifier(mixture(ud.EDM())), 1.0),
            r"classifier: its process must be the model's, VPSDE\(.*\), got EDM",
        ),
        (
            lambda: ud.ClassifierGuidance(
                mixture(ud.VPSDE()), ud.MixtureClassifier(ud.GaussianMixture(ud.VPSDE(), MEANS[:2], 0.1)), 1.0
            ),
            "classifier: its classes must be the model's, 3, got 2",
        ),
        (
            lambda: ud.sample(guided(ud.VPSDE(), 1.0), shape=(2,), seeds=1, label=torch.tensor([12])),
            "label must be from 0 to",
        ),
    ],
)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ParameterError, match=message):
        make()
