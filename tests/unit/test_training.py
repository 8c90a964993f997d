"""The training loop against its definition: by hand, bit for bit when resumed, and by what it learns."""

from __future__ import annotations

import copy
import math
import random
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from tiny import RING as TINY
from tiny import equal, write

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.errors import ParameterError, RunFailed
from unidiff.objective.cross_entropy import CrossEntropy
from unidiff.philox import Streams, blocks_for, normal
from unidiff.training import batches
from unidiff.training.batches import BatchPlan, stream_seed
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.clipping import all_finite, clip_gradient
from unidiff.training.device import resolve_device, resolve_precision
from unidiff.training.ema import EMA
from unidiff.training.loop import Interrupted
from unidiff.training.power_average import Snapshots


def settings(**changes):
    given = {"steps": 6, "batch": 8, "lr": 0.01, "precision": "fp32", "log_every": 4, "checkpoint_every": 100}
    return ud.Training(**{**given, **changes})


def ring_model(seed=0, width=16):
    torch.manual_seed(seed)
    return ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), ud.MLP((2,), width=width, depth=1))


def dropout_model():
    torch.manual_seed(0)
    backbone = ud.UNet((1, 8, 8), width=8, multipliers=(1, 2), blocks=1, dropout=0.3)
    return ud.NeuralDenoiser(ud.NCSN(), ud.Score(), backbone)


RING, OBJECTIVE = ud.data.Ring(count=300).open(), ud.Denoising()


def fit(model, source=RING, **options):
    return ud.train(model, source, OBJECTIVE, options.pop("settings", settings()), **options)


def test_a_condition_that_nothing_makes_is_an_error():
    def points(**options):
        return ud.NeuralDenoiser(ud.DDPM(), ud.V(), ud.MLP((2,), width=4, depth=1, **options))

    message = "conditioning: nothing makes 'label', a condition of the network. Pass what does, such as Labels"
    with pytest.raises(ParameterError, match=message):
        fit(points(classes=3))

    class Other(ud.Labels):
        names = ()

        def conditions(self, x0, label, uniform):
            return {}

    with pytest.raises(ParameterError, match=message):
        fit(points(classes=3), (torch.zeros(9, 2), torch.zeros(9, dtype=torch.int64)), conditioning=Other())


# --- what surrounds a training ---


class Restless(torch.utils.data.Dataset):
    """Data that draw from every global random state."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return torch.rand(1, 8, 8) * np.random.rand() * random.random()


@pytest.mark.cases(1)
@pytest.mark.parametrize("what", ["train", "sample", "run"])
def test_global_random_states_are_left_alone(what, tmp_path):
    model, recipe = dropout_model(), ud.load_recipe(write(tmp_path, {**TINY, "seed": 3}))
    calls = {
        "train": lambda: fit(model, Restless(), settings=settings(steps=2)),
        "sample": lambda: ud.sample(model.eval(), ud.Ancestral(), ud.Uniform(2), seeds=2),
        "run": lambda: recipe.run(tmp_path / "run", Mock(), overwrite=True),
    }
    after = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        calls[what]()
        assert torch.equal(torch.get_rng_state(), before[0])
        assert all(map(np.array_equal, np.random.get_state(), before[1]))
        assert random.getstate() == before[2]
        after.append(torch.rand(1))
    assert after[0] != after[1]


# --- batches ---


@pytest.mark.parametrize(("batch", "count"), [(8, 20), (7, 7), (64, 10), (1, 3)])
def test_every_epoch_is_a_permutation(batch, count):
    plan = BatchPlan(3, batch, count)
    epochs = 4
    drawn = torch.cat([plan.indices(step) for step in range(-(-epochs * count // batch))])[: epochs * count]
    rows = drawn.reshape(epochs, count)
    assert torch.equal(rows.sort(1).values, torch.arange(count).expand(epochs, count))
    if count > 3:
        assert not torch.equal(rows[0], rows[1])


def test_batches_are_functions_of_seed_and_step():
    plan = BatchPlan(3, 8, 50)
    late = plan.indices(30), plan.uniform(30), plan.noise(30, (2,))
    assert equal(
        [*late], [BatchPlan(3, 8, 50).indices(30), BatchPlan(3, 8, 50).uniform(30), BatchPlan(3, 8, 50).noise(30, (2,))]
    )
    assert not torch.equal(late[2], plan.noise(31, (2,)))
    assert not torch.equal(late[2], BatchPlan(4, 8, 50).noise(30, (2,)))
    assert stream_seed(1, 2) != stream_seed(2, 1)


def test_draws_of_a_step_do_not_depend_on_those_drawn_with_it():
    seed = 2**40 + 3
    plan = BatchPlan(seed, 4, 50)
    for step in (15, 1000):
        for count in (2, 1500, 5000):  # of 16 steps together, of 2, and of one
            words = Streams([seed], purpose=1, part=step).words(0, 4 * blocks_for(count), torch.device("cpu"))
            alone = normal(words.view(4, -1))[:, :count].float()
            drawn = plan.noise(step, (count,))
            assert torch.equal(drawn, alone)
            drawn.zero_()  # the caller's own
            assert torch.equal(plan.noise(step, (count,), range(1, 3)), alone[1:3])
            assert torch.equal(plan.noise(step, (count,)), alone)
        generator = torch.Generator().manual_seed(stream_seed(seed, 1, step))
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        assert torch.equal(plan.uniform(step), (offset + torch.arange(4) / 4) % 1)
        plan.uniform(step).zero_()
        plan.indices(step).zero_()
        assert plan.uniform(step).any()
        assert plan.indices(step).any()


def test_seeds_of_streams_are_those_of_a_list_of_integers():
    for seed in (0, 7, 2**32 - 1, 2**32, 2**40 + 3, 2**62):
        entropy = [seed % 2**32, 2, 2**31, *([seed >> 32] if seed >> 32 else [])]
        (word,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        assert stream_seed(seed, 2, 2**31) == int(word) >> 1


@pytest.mark.parametrize("limit", [1e-3, 1e3, None])
def test_the_gradient_is_clipped_as_by_torch(limit):
    generator = torch.Generator().manual_seed(0)
    for dtypes in ([torch.float32] * 3, [torch.float32, torch.float64]):
        mine, theirs = ([torch.nn.Parameter(torch.zeros(5, 7, dtype=dtype)) for dtype in dtypes] for _ in range(2))
        for a, b in zip(mine[1:], theirs[1:]):  # the first has no gradient
            a.grad = torch.randn(5, 7, generator=generator, dtype=torch.float64).to(a.dtype)
            b.grad = a.grad.clone()
        expected = torch.nn.utils.clip_grad_norm_(theirs, limit or math.inf)
        assert torch.equal(clip_gradient(mine, limit), expected)
        assert mine[0].grad is None
        assert equal([a.grad for a in mine[1:]], [b.grad for b in theirs[1:]])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_number_that_is_not_finite_is_found(wrong, dtype):
    large = torch.full((3,), torch.finfo(dtype).max, dtype=dtype)
    for count in (1, 8, 33, 1000):  # within and beyond the registers of a processor
        values = torch.linspace(-1, 1, count).to(dtype)
        assert all_finite([large, values])
        for place in {0, count // 2, count - 1}:
            spoilt = values.clone()
            spoilt[place] = wrong
            assert not all_finite([large, spoilt])
            assert not all_finite([spoilt, large])


def test_weights_without_numbers_and_whole_ones_are_finite():
    assert all_finite([torch.empty(0), torch.ones(2, dtype=torch.long)])
    assert all_finite([])
    weights = [torch.nn.Parameter(torch.zeros(n)) for n in (0, 2)]
    for weight in weights:
        weight.grad = torch.full_like(weight, math.inf)
    assert clip_gradient(weights, None).isinf()
    assert weights[1].grad.isinf().all()  # without a limit it stays as it is


def test_a_large_batch_of_noise_is_not_kept():
    kept = batches._kept_noise.cache_info().currsize
    noise = BatchPlan(0, 64, 100).noise(0, (3, 16, 16))
    assert torch.equal(noise, BatchPlan(0, 64, 100).noise(0, (3, 16, 16)))
    assert batches._kept_noise.cache_info().currsize == kept


def test_draws_have_the_right_distribution():
    plan = BatchPlan(0, 1000, 50)
    uniform, noise = plan.uniform(5), plan.noise(5, (3,))
    # Spread evenly: one draw in each thousandth of [0, 1).
    assert torch.equal((uniform * 1000).floor().long().sort().values, torch.arange(1000))
    # 3000 standard normal numbers: mean within 5 / sqrt(3000), mean square within 5 sqrt(2 / 3000) of 1.
    assert abs(noise.mean()) < 5 / math.sqrt(3000)
    assert abs(noise.square().mean() - 1) < 5 * math.sqrt(2 / 3000)
    # Each draw is uniform over the steps: the mean of 400 has standard deviation 1 / sqrt(12 * 400).
    first = torch.stack([plan.uniform(step)[0] for step in range(400)])
    assert abs(first.mean() - 0.5) < 5 / math.sqrt(12 * 400)


# --- the numbers of a step ---


def test_learning_rate_by_hand():
    plan = ud.Training(steps=110, lr=0.5, warmup=10, lr_final=0.1)
    assert plan.lr_at(0) == pytest.approx(0.05)
    assert plan.lr_at(4) == pytest.approx(0.25)
    assert plan.lr_at(9) == plan.lr_at(10) == pytest.approx(0.5)
    assert plan.lr_at(60) == pytest.approx(0.5 * (0.1 + 0.9 * 0.5))
    assert plan.lr_at(109) == pytest.approx(0.5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.99))))
    constant = ud.Training(steps=20, lr=0.5, lr_final=1.0)
    assert {constant.lr_at(step) for step in range(20)} == {0.5}
    assert ud.Training(steps=5, lr=0.5, warmup=50).lr_at(4) == pytest.approx(0.05)


def test_average_equals_its_recursion():
    model = ring_model()
    weights = [parameter.detach().double().clone() for parameter in model.backbone.parameters()]
    decays = [min(0.9, (1 + s) / (10 + s)) for s in range(30)]
    plan = settings(steps=30, ema=0.9)
    assert [plan.ema_at(s) for s in range(30)] == decays

    average, by_hand = EMA(model.backbone), weights
    for decay in decays:
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model.backbone, decay)
        now = [parameter.detach().double() for parameter in model.backbone.parameters()]
        by_hand = [decay * old + (1 - decay) * new for old, new in zip(by_hand, now)]
    # Values of size about 10, 30 roundings of float32 each.
    for mine, theirs in zip(average.network.parameters(), by_hand):
        assert (mine.double() - theirs).abs().max() < 30 * 10 * 2**-24
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_step_equals_a_step_by_hand(clip):
    """Two AdamW steps written out: gradient of the mean loss, norm, clipping, Kingma & Ba's update, decoupled decay."""
    plan = settings(steps=2, lr=0.01, warmup=5, clip=clip, weight_decay=0.1, ema=0.9)
    model = ring_model()
    torch.nn.init.normal_(model.backbone.head.weight, generator=torch.Generator().manual_seed(1))
    reference = copy.deepcopy(model)
    seen = []
    averaged = fit(model, settings=plan, seed=5, on_step=seen.append)

    parameters = list(reference.backbone.parameters())
    first, second = [[torch.zeros_like(p) for p in parameters] for _ in range(2)]
    mean = [p.detach().clone() for p in parameters]
    norms, losses = [], []
    for step in range(2):
        batch = BatchPlan(5, 8, 300)
        u0 = RING.values[batch.indices(step)]
        uniform, eps = batch.uniform(step), batch.noise(step, (2,))
        index = (uniform * 50).long()
        alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 50, dtype=torch.float64), 0)[index].float()[:, None]
        noisy = alpha_bar.sqrt() * u0 + (1 - alpha_bar).sqrt() * eps
        guess = reference.backbone(noisy, 1000 * (index + 1).float() / 50)
        loss = (guess - eps).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
        scale = min(1.0, (clip or math.inf) / (norm + 1e-6))
        norms.append(norm)
        losses.append(loss.item())
        lr = 0.01 * (step + 1) / 5
        with torch.no_grad():
            for p, g, m, v, a in zip(parameters, gradients, first, second, mean):
                g = scale * g
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p.mul_(1 - lr * 0.1)
                p.sub_(lr * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8))
                decay = min(0.9, (1 + step) / (10 + step))
                a.mul_(decay).add_((1 - decay) * p)
    # The update is lr times a ratio; float32 gradients carry about 1e-5 of relative error, tiny ones more.
    for mine, theirs in zip(model.backbone.parameters(), parameters):
        assert (mine - theirs).abs().max() < 2e-2 * 0.004
    for mine, theirs in zip(averaged.backbone.parameters(), mean):
        assert (mine - theirs).abs().max() < 2e-2 * 0.004
    assert seen[-1].loss == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert seen[-1].grad_norm == pytest.approx(norms[-1], rel=1e-4)


def test_clipping_bounds_the_gradient(monkeypatch):
    norms = []
    original = torch.optim.AdamW.step

    def spy(self, *args, **options):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(g.double().square().sum().item() for g in gradients)))
        return original(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    seen = []
    fit(ring_model(), settings=settings(clip=0.01, log_every=1), on_step=seen.append)
    assert all(norm <= 0.01 * (1 + 1e-5) for norm in norms)
    assert all(progress.grad_norm > 0.1 for progress in seen)  # reported as it was before


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_parts_equal_one_batch(parts):
    whole, split = [], []
    fit(one := ring_model(), settings=settings(log_every=1), on_step=whole.append)
    fit(many := ring_model(), settings=settings(log_every=1, accumulate=parts), on_step=split.append)
    # The gradients differ in the order of float32 sums, about 1e-6; Adam's first steps can turn the sign of a gradient
    # that is as small as that, and each of 6 steps moves a weight by at most about lr.
    assert [p.loss for p in split] == pytest.approx([p.loss for p in whole], rel=1e-4)
    assert [p.grad_norm for p in split] == pytest.approx([p.grad_norm for p in whole], rel=1e-3)
    differences = torch.cat([(a - b).flatten() for a, b in zip(one.backbone.parameters(), many.backbone.parameters())])
    assert differences.abs().mean() < 1e-5


def test_seeds_decide_the_run():
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(model := ring_model(), seed=seed)
        torch.rand(3)  # what else is drawn in the process has no influence
        runs[name] = model.backbone.state_dict()
    assert equal(dict(runs["a"]), dict(runs["b"]))
    assert not equal(dict(runs["a"]), dict(runs["c"]))


class Answers(torch.nn.Module):
    """A network whose answers have a given shape, which broadcasts against the right one; c and label are ignored."""

    def __init__(self, shape, answer, **attributes):
        super().__init__()
        self.shape, self.answer = shape, answer
        self.weight = torch.nn.Parameter(torch.ones(()))
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x, c, **cond):
        rows = x if self.answer[0] == "B" else x[: self.answer[0]]
        return (
            rows.flatten(1).mean(1).reshape(-1, *[1] * (len(self.answer) - 1)).expand(-1, *self.answer[1:])
            * self.weight
        )


IMAGES = TensorSource(torch.rand(40, 1, 8, 8), "images", labels=torch.arange(40) % 3)
NO_LABELS = TensorSource(torch.rand(40, 1, 8, 8), "images")
OBJECTIVES = {
    "Denoising": ud.Denoising(),
    "ExplicitScoreMatching": ud.ExplicitScoreMatching(),
    "SlicedScoreMatching": ud.SlicedScoreMatching(),
    "SlicedScoreMatchingVR": ud.SlicedScoreMatchingVR(),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "answer", [("B", 3, 8, 8), ("B", 1, 1, 1), ("B", 1, 8, 1), (1, 1, 8, 8), ("B", 1), ("B", 2, 8, 8)]
)
def test_predictions_of_another_shape_are_an_error_in_every_objective(objective, answer):
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), Answers((1, 8, 8), answer))
    before = model.backbone.weight.item()
    got = str(tuple(4 if size == "B" else size for size in answer)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ParameterError, match=rf"predictions must have shape \(4, 1, 8, 8\), got {got}"):
        ud.train(model, NO_LABELS, OBJECTIVES[objective], settings(batch=4))
    assert model.backbone.weight.item() == before


@pytest.mark.parametrize("channels", [1, 3])
def test_a_learned_variance_needs_twice_the_channels(channels):
    network = Answers((1, 8, 8), ("B", channels, 8, 8), learned_variance=True)
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), network)
    with pytest.raises(ParameterError, match=r"predictions must have shape \(4, 2, 8, 8\)"):
        ud.train(model, NO_LABELS, ud.Hybrid(), settings(batch=4))


@pytest.mark.parametrize("answer", [("B", 1), ("B", 4), (1, 3), ("B", 3, 1)])
def test_logits_of_another_shape_are_an_error(answer):
    classifier = ud.NeuralClassifier(ud.DDPM(50), Answers((1, 8, 8), answer, classes=3))
    with pytest.raises(ParameterError, match=r"logits must have shape \(4, 3\)"):
        ud.train(classifier, IMAGES, CrossEntropy(), settings(batch=4), conditioning=ud.Labels())


def test_points_of_another_shape_are_an_error():
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), Answers((2,), ("B", 1)))
    with pytest.raises(ParameterError, match=r"predictions must have shape \(8, 2\), got \(8, 1\)"):
        fit(model)


def test_samples_are_not_broadcast_either():
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), Answers((1, 8, 8), ("B", 3, 8, 8)))
    with pytest.raises(ParameterError, match="predictions must have shape"):
        ud.sample(model, ud.DDIM(), ud.Uniform(2), seeds=[0])


@pytest.mark.parametrize("shape", [(), (1,), (8, 1), (8, 2)])
def test_losses_of_another_shape_are_an_error(shape):
    class Mine(ud.Denoising):
        def losses(self, *given, **cond):
            return super().losses(*given, **cond).mean().expand(shape)

    with pytest.raises(ParameterError, match=r"losses must have shape \(8,\)"):
        ud.train(ring_model(), RING, Mine(), settings())


def test_weights_of_another_shape_are_an_error():
    class Mine(ud.UniformWeighting):
        def weight(self, parameterization, level):
            return torch.ones(8)  # (B,), which a batch of 8 images of 8 columns would not contradict

    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), Answers((1, 8, 8), ("B", 1, 8, 8)))
    with pytest.raises(
        ParameterError, match=r"weights must be a number or have 4 axes like the state, got shape \(8,\)"
    ):
        ud.train(model, NO_LABELS, ud.Denoising(Mine()), settings())


def test_a_wrapped_network_keeps_what_its_model_knows():
    class Wrapper(torch.nn.Module):  # as DistributedDataParallel: the attributes of the network are not its own
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *given, **cond):
            return self.module(*given, **cond)

    network = Answers((1, 8, 8), ("B", 2, 8, 8), learned_variance=True, classes=3)
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), network)
    twin = model.with_backbone(Wrapper(network))
    assert (twin.learned_variance, twin.classes, twin.shape) == (True, 3, (1, 8, 8))
    x, level = torch.rand(4, 1, 8, 8), model.process.level(0.5)
    assert all(torch.equal(a, b) for a, b in zip(twin.network_output(x, level), model.network_output(x, level)))
    classifier = ud.NeuralClassifier(ud.DDPM(50), Answers((1, 8, 8), ("B", 3), classes=3))
    twin = classifier.with_backbone(Wrapper(classifier.backbone))
    assert torch.equal(twin(x, level), classifier(x, level))


def test_settings_are_checked():
    for wrong in (
        {"steps": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"ema": 1.0},
        {"accumulate": 3},
        {"keep": 0},
    ):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            settings(**wrong)


# --- resuming ---


def interrupted_at(step):
    count = 0

    def stop():
        nonlocal count
        count += 1
        return count == step

    return stop


CASES = {
    "plain": (ring_model, "ring", {}),
    "accumulated": (ring_model, "ring", {"accumulate": 2, "warmup": 3, "weight_decay": 0.01}),
    "bf16": (ring_model, "ring", {"precision": "bf16"}),
    "muon": (ring_model, "ring", {"optimizer": ud.Muon(weight_decay=0.1), "warmup": 2, "posthoc_every": 2}),
    "adafactor": (ring_model, "ring", {"optimizer": ud.Adafactor()}),
    "schedule-free": (ring_model, "ring", {"optimizer": ud.ScheduleFree(), "warmup": 3}),
    "radam": (ring_model, "ring", {"optimizer": torch.optim.RAdam}),
    "nadam": (ring_model, "ring", {"optimizer": ud.TorchOptimizer("NAdam", {"weight_decay": 0.1})}),
    "dropout": (dropout_model, "digits", {"batch": 4, "accumulate": 2, "steps": 3}),
    "dropout-bf16": (dropout_model, "digits", {"batch": 4, "precision": "bf16"}),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("case", CASES)
def test_resumed_is_the_same_bit_for_bit(case, tmp_path):
    make, data, changes = CASES[case]
    source = RING if data == "ring" else ud.data.Digits().open()
    plan = settings(**changes)

    def metrics_of(seen):
        return [(p.step, p.loss, p.lr, p.grad_norm) for p in seen if p.loss is not None]

    whole = []
    checkpoints = Checkpoints(tmp_path / "whole")
    model = fit(make(), source, settings=plan, checkpoints=checkpoints, on_step=whole.append)
    expected = checkpoints.load(print)
    assert equal(dict(model.backbone.state_dict()), dict(expected.ema))
    assert not equal(dict(expected.ema), dict(expected.model))
    for step in sorted({1, plan.steps // 2, plan.steps - 1}):
        checkpoints = Checkpoints(tmp_path / str(step))
        seen = []
        with pytest.raises(Interrupted, match=f"step {step}"):
            fit(make(), source, settings=plan, checkpoints=checkpoints, on_step=seen.append, stop=interrupted_at(step))
        torch.manual_seed(99)
        fresh = make()
        resumed = fit(fresh, source, settings=plan, checkpoints=checkpoints, on_step=seen.append)
        found = checkpoints.load(print)
        for part in ("step", "model", "ema", "optimizer", "averages"):
            assert equal(getattr(found, part), getattr(expected, part)), (step, part)
        pairs = [Snapshots(tmp_path / name / "averages").paths() for name in (str(step), "whole")]
        assert pairs[0].keys() == pairs[1].keys()
        assert all(pairs[0][key].read_bytes() == pairs[1][key].read_bytes() for key in pairs[0])
        assert metrics_of(seen) == metrics_of(whole), step
        assert equal(dict(resumed.backbone.state_dict()), dict(expected.ema))


def test_interrupted_twice_and_at_the_last_step(tmp_path):
    checkpoints = Checkpoints(tmp_path / "a")
    fit(ring_model(), checkpoints=checkpoints)
    expected = checkpoints.load(print)
    again = Checkpoints(tmp_path / "b")
    for _ in range(2):
        with pytest.raises(Interrupted):
            fit(ring_model(), checkpoints=again, stop=interrupted_at(2))
    fit(ring_model(), checkpoints=again, stop=interrupted_at(2))  # the last step: there is nothing left to interrupt
    assert equal(again.load(print).model, expected.model)
    seen = []
    fit(ring_model(), checkpoints=again, on_step=seen.append)  # a finished run, resumed
    assert seen == []
    assert equal(again.load(print).model, expected.model)


# --- what goes wrong ---


class Poisoned(TensorSource):
    """Data that turn into infinities from some step on."""

    calls = 0

    def to(self, device):
        return self

    def batch(self, indices, device="cpu"):
        self.calls += 1
        return super().batch(indices, device) * (math.inf if self.calls > 4 else 1.0)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_before_the_checkpoint(tmp_path, log_every):
    checkpoints = Checkpoints(tmp_path)
    source = Poisoned(RING.values, "poisoned")
    plan = settings(steps=20, log_every=log_every, checkpoint_every=3)
    seen = []
    with pytest.raises(RunFailed, match="not finite") as failure:
        fit(ring_model(), source, settings=plan, checkpoints=checkpoints, on_step=seen.append)
    assert failure.value.exit_code == 1
    assert "step-00000003" in str(failure.value)
    assert [path.name for path in checkpoints.paths()] == ["step-00000003"]
    assert all(value.isfinite().all() for value in checkpoints.load(print).model.values())
    assert all(math.isfinite(p.loss) for p in seen if p.loss is not None)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    """The loss of a step is that of the weights before it: the last step's weights need a look of their own."""
    original = torch.optim.AdamW.step

    def poison(self, *args, **options):
        original(self, *args, **options)
        with torch.no_grad():
            self.param_groups[0]["params"][0].view(-1)[0] = math.nan

    monkeypatch.setattr(torch.optim.AdamW, "step", poison)
    with pytest.raises(RunFailed, match="No checkpoint had been saved"):
        fit(ring_model(), settings=settings(steps=1), checkpoints=Checkpoints(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x", "meta"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ParameterError, match="device"):
        resolve_device(name)


def test_precision():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_precision("fp32", torch.device("cpu")) == torch.float32
    assert resolve_precision("bf16", torch.device("cpu")) == torch.bfloat16
    assert resolve_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


# --- what is learned ---


def energy_distance(x, y):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, the V-statistic; its own pairs count as zeros."""
    mean = [torch.cdist(a.double(), b.double()).mean() for a, b in ((x, y), (x, x), (y, y))]
    return float(2 * mean[0] - mean[1] - mean[2])


@pytest.fixture(scope="module")
def learned():
    torch.manual_seed(0)
    data = ud.data.Ring(count=10000, std=0.1)
    model = ud.NeuralDenoiser(ud.DDPM(100, ud.Linear(1e-3, 0.1)), ud.Eps(), ud.MLP((2,), width=64, depth=2))
    plan = ud.Training(steps=600, batch=256, lr=3e-3, ema=0.99, precision="fp32", log_every=500)
    untrained = copy.deepcopy(model)
    return data, untrained, fit(model, data.open(), settings=plan)


@pytest.mark.slow  # trains for 13 s
def test_it_learns_the_ring(learned):
    data, untrained, model = learned
    count = 1000
    truth = data.open("test").values[:count]
    drawn, before = (ud.sample(m, ud.Ancestral(), ud.Native(), (2,), count).x for m in (model, untrained))
    # For equal distributions the statistic of n and n points has mean 2 E|X - X'| / n, here at most 2 * 1.4 / 1000,
    # and a standard deviation of that order. A network that has not seen the eight components, but knows mean and
    # covariance, would draw a Gaussian: its distance is the scale against which a learned one must be small.
    floor = 2 * float(torch.cdist(truth, truth).mean()) / count
    gaussian = torch.randn(count, 2, generator=torch.Generator().manual_seed(1)) * truth.std(0) + truth.mean(0)
    reached = energy_distance(drawn, truth)
    assert reached < 5 * floor
    assert reached < energy_distance(gaussian, truth) / 2
    assert reached < energy_distance(before, truth) / 20


@pytest.mark.slow  # trains for 9 s
def test_its_score_is_near_the_exact_one(learned):
    data, untrained, model = learned
    exact = ud.GaussianMixture(model.process, data.means, data.std**2)
    x = data.open("test").values[:2000]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    for t in (0.2, 0.5, 0.9):
        level = model.process.level(t)
        u = model.process.perturb(x, noise, level)
        with torch.no_grad():
            truth, guess, before = (d(u, level).eps for d in (exact, model, untrained))
        # Relative squared error of the noise, which is the score up to -sigma; an untrained network, zero, has 1.
        assert (before - truth).square().mean() / truth.square().mean() == pytest.approx(1, abs=1e-6)
        assert (guess - truth).square().mean() / truth.square().mean() < 0.02, t
