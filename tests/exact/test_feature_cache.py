"""Cached features: bit for bit at interval 1, of the order of their polynomial, and none of another run or branch."""

from __future__ import annotations

import pytest
import torch
from pretend_gpu import pretend_gpu
from tiny import DIGITS, RING, refused, write
from torch import nn

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.guidance.base import Guided, extrapolate
from unidiff.noise import Seeded

F64 = torch.float64
TEXT = ud.Tokens(3, 5)
SMALL = {"width": 8, "multipliers": (1, 2), "blocks": 1}
NETWORKS = {
    "unet": lambda: ud.UNet((1, 8, 8), **SMALL, classes=3),
    "signal": lambda: ud.UNet((2, 8), **SMALL, attention=(4,), residual_resampling=True, learned_variance=True),
    "video": lambda: ud.UNet((1, 3, 4, 4), **SMALL, attention=(2,), factorized=True, conditions=(TEXT,)),
    "dit": lambda: ud.DiT((1, 8, 8), patch=4, width=8, depth=5, heads=2, classes=3),
    "video-dit": lambda: ud.DiT((1, 3, 4, 4), patch=2, width=8, depth=3, heads=2, factorized=True),
}


def network(name: str = "unet") -> ud.Backbone:
    """A network with no weight at 0, in float64."""
    made, generator = NETWORKS[name](), torch.Generator().manual_seed(0)
    for weight in made.parameters():
        size = 1 if weight.ndim == 1 else max(1, weight[0].numel())
        weight.data = torch.randn(weight.shape, generator=generator, dtype=F64) / size**0.5
    return made.double().eval()


def model(name: str = "unet") -> ud.NeuralDenoiser:
    return ud.NeuralDenoiser(ud.VPSDE(), ud.X0(), network(name), ud.LogSigma())  # smooth in time


def drawn(denoiser: ud.Denoiser, steps: int = 6, solver: ud.Solver = ud.DDIM(), **options) -> torch.Tensor:  # noqa: B008
    options = {"seeds": 3, "dtype": F64, **options}
    return ud.sample(denoiser, solver, ud.Uniform(steps), **options).x


LABEL = torch.tensor([0, 2, 1])


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_evaluation_is_forward_and_its_features_lead_back_to_it(name):
    whole, generator = network(name), torch.Generator().manual_seed(1)
    x = torch.randn(2, *whole.shape, generator=generator, dtype=F64)
    c, other = torch.tensor([30.0, 700.0], dtype=F64), torch.tensor([500.0, 10.0], dtype=F64)
    expected = whole(x, c)
    for depth in range(1, whole.deepest + 1):
        output, features = whole.evaluate(x, c, depth)
        assert torch.equal(output, expected)
        again, same = whole.evaluate(x, c, depth, features)
        assert same is features
        # Of a DiT before + (after - before), whose two roundings pass the few layers near the output.
        torch.testing.assert_close(again, expected, rtol=1e-12, atol=1e-12)
        moved, _ = whole.evaluate(x, other, depth, features)
        assert not torch.allclose(moved, expected, rtol=1e-3)  # the layers near are evaluated
        assert not torch.allclose(moved, whole(x, other), rtol=1e-6)  # the others are not


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_interval_one_is_the_plain_model_bit_for_bit(name):
    plain = model(name)
    for depth in (1, plain.backbone.deepest):
        assert torch.equal(drawn(ud.FeatureCache(1, depth).apply(plain)), drawn(plain))
    assert not torch.allclose(drawn(ud.FeatureCache(2).apply(plain)), drawn(plain), rtol=1e-3)


class Polynomial(nn.Module):
    """A network whose features are a polynomial of the step, which its noise condition counts."""

    shape, conditions, deepest = (1,), (), 1

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree, self.wholes = degree, 0

    def forward(self, x, c):
        return self.evaluate(x, c, 1)[0]

    def evaluate(self, x, c, depth, features=None):
        if features is None:
            self.wholes += 1
            features = c[:, None] ** self.degree
        return x + features, features


@pytest.mark.parametrize("order", range(4))
def test_features_that_are_a_polynomial_of_the_step_are_exact(order):
    # At steps 0, 3, 6, ... of 20 whole; from the whole evaluation number order + 1 on the polynomial has its degree.
    steps, interval = 20, 3
    process = ud.VPSDE()
    for degree, exact in ((order, True), (order + 1, False)):
        plain = Polynomial(degree)
        cached = ud.FeatureCache(interval, order=order).apply(ud.NeuralDenoiser(process, ud.X0(), plain))
        levels = process.levels_at(torch.linspace(1, 0.05, steps, dtype=F64))
        x = torch.zeros(1, 1, dtype=F64)
        found = [cached.backbone(x, torch.tensor([step], dtype=F64), _level=level) for step, level in enumerate(levels)]
        errors = [abs(float(value) - step**degree) for step, value in enumerate(found)][interval * order :]
        # Weights of at most 10 (order 3, two steps beyond), 4 terms, values up to 20^3: 40 * 8000 * 2^-53 = 4e-11.
        assert (max(errors) < 1e-10) == exact
        assert plain.wholes == 7


@pytest.mark.slow  # 300 evaluations, 1 s
@torch.no_grad()
@pytest.mark.parametrize(("order", "expected"), [(0, 1), (1, 2)])
def test_the_error_of_caching_is_of_the_order_of_the_polynomial_and_one(order, expected):
    # Steps of h: the features are off by O(h^(order + 1)), and so are the samples. Before there are two whole
    # evaluations the order is 0 for `interval` steps: h * O(h) more. The next power of h moves the rate by O(h).
    plain, u = model(), torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=F64)
    errors = []
    for steps in (24, 48):
        ends = []
        for denoiser in (plain, ud.FeatureCache(2, order=order).apply(plain)):
            levels = plain.process.levels_at(torch.linspace(0.8, 0.3, steps + 1, dtype=F64))
            *_, end, _ = ud.DDIM().states(denoiser, u, levels, Seeded([0]))
            ends.append(end)
        errors.append((ends[1] - ends[0]).norm())
    assert abs(float((errors[0] / errors[1]).log2()) - expected) < 0.2


def test_features_are_those_of_one_batch_of_one_run():
    cached = ud.FeatureCache(3).apply(model())
    first = drawn(cached, label=LABEL)
    assert torch.equal(drawn(cached, label=LABEL), first)
    alone = torch.cat([drawn(cached, seeds=[i], label=LABEL[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(drawn(cached, batch=2, label=LABEL), first, rtol=1e-9, atol=1e-9)  # sums in other orders
    torch.testing.assert_close(alone, first, rtol=1e-9, atol=1e-9)


class InTurn(Guided):
    """Classifier-free guidance by two evaluations in turn: the conditional one, then the unconditional one."""

    def both(self, u, level, **cond):
        there, here = self.model(u, level, **cond), self.model(u, level, label=torch.full_like(LABEL, -1))
        return there, extrapolate(2.0, there, here)


@pytest.mark.parametrize("solver", [ud.DDIM(), ud.Heun(), ud.ExponentialAdams()], ids=repr)
def test_branches_of_guidance_share_no_features(solver):
    cached = ud.FeatureCache(2).apply(model())
    together, in_turn = ud.ClassifierFree(cached, 2.0), InTurn(cached)
    options = {"solver": solver, "label": LABEL}
    found, expected = drawn(in_turn, **options), drawn(together, **options)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)  # one batch of 6 for two of 3
    assert not torch.allclose(found, drawn(InTurn(model()), **options), rtol=1e-3)


def test_each_network_of_a_guided_model_keeps_its_own():
    guided, weaker = model(), model()
    with torch.no_grad():
        weaker.backbone.head.weight.mul_(0.5)
    apart = ud.AutoGuidance(ud.FeatureCache(2).apply(guided), ud.FeatureCache(2).apply(weaker), 2.0)
    joint = ud.FeatureCache(2).apply(ud.AutoGuidance(guided, weaker, 2.0))
    assert torch.equal(drawn(joint), drawn(apart))


def test_guidance_that_begins_late_begins_with_a_whole_evaluation():
    plain = model()
    late = ud.GuidanceInterval(ud.ClassifierFree(plain, 2.0), 0.0, 0.5)
    counted: list[int] = []
    with plain.backbone.middle[0].register_forward_hook(lambda layer, taken, given: counted.append(len(given))):
        drawn(ud.FeatureCache(100).apply(late), 8, label=LABEL)
    assert counted == [3, 6]  # and neither again


def test_a_solver_that_stays_at_a_level_has_bounded_memory():
    process = ud.VPSDE()
    cached = ud.FeatureCache(2).apply(model())
    levels = process.levels_at([0.9, 0.5])
    with torch.no_grad():
        for level in levels:
            for _ in range(20):
                cached(torch.zeros(1, 1, 8, 8, dtype=F64), level)
    (kept,) = [value for value in levels[0].place[0].made.values() if hasattr(value, "features")]
    assert len(kept.features) == 8


@pytest.mark.slow  # a pretended device
def test_there_are_no_host_waits():
    network = ud.UNet((1, 4), width=8, multipliers=(1,), blocks=1)
    with pretend_gpu() as gpu:
        cached = ud.FeatureCache(2).apply(ud.NeuralDenoiser(ud.VPSDE(), ud.X0(), network).to(gpu.device))
        for _ in range(2):
            before = len(gpu.waits)
            ud.sample(cached, ud.DDIM(), ud.Uniform(4), device=gpu.device)
        # The first draw of all has what is done once; each asks at its end whether its samples are finite.
        assert len(gpu.waits) == before + 1


def test_what_cannot_be_cached_is_one_message(tmp_path):
    mlp = ud.NeuralDenoiser(ud.VPSDE(), ud.X0(), ud.MLP((2,), width=8, depth=1))
    with pytest.raises(ParameterError, match=r"acceleration: FeatureCache needs a UNet, or a DiT .*, got MLP"):
        ud.FeatureCache().apply(mlp)
    with pytest.raises(ParameterError, match="depth must be at most 4 for this UNet, got 5"):
        ud.FeatureCache(2, 5).apply(model())
    heat = ud.NeuralDenoiser(ud.InverseHeat((8, 8)), ud.X0(), network())
    with pytest.raises(ParameterError, match="acceleration: FeatureCache needs a process whose modes have one SNR"):
        ud.FeatureCache().apply(heat)
    cached = ud.FeatureCache().apply(model())
    with pytest.raises(ParameterError, match="denoiser: the model keeps features already"):
        ud.Compiled().apply(cached)
    with pytest.raises(ParameterError, match="acceleration: cached features have no gradients"):
        drawn(cached, grad=True)
    for arguments, message in (
        ({"interval": 0}, "interval must be an integer >= 1"),
        ({"order": 5}, "order must be an integer from 0 to 4"),
    ):
        with pytest.raises(ParameterError, match=message):
            ud.FeatureCache(**arguments)
    cases = [
        (RING, "FeatureCache", "sampling.acceleration: FeatureCache needs a UNet"),
        (DIGITS, {"type": "FeatureCache", "depth": 9}, "sampling.acceleration.depth must be at most 4 for this UNet"),
    ]
    for recipe, cache, message in cases:
        changed = {**recipe, "sampling": {**recipe["sampling"], "acceleration": cache}}
        assert message in refused("check", write(tmp_path, changed))
