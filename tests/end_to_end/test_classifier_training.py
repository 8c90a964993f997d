"""Classifiers of noisy states: trained by a recipe, held against Bayes' rule, and used to guide."""

from __future__ import annotations

import json
import math
import shutil
from unittest.mock import Mock

import pytest
import torch
from tiny import RING, equal, metrics, refused, shipped_with, unidiff, write

import unidiff as ud
from unidiff.backbone.encoder import Encoder
from unidiff.errors import ParameterError, RecipeError
from unidiff.objective.cross_entropy import CrossEntropy
from unidiff.recipe.registry import PUBLIC
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

JUDGE = {name: RING[name] for name in ("data", "process", "training")}
JUDGE["classifier"] = {"type": "MLPEncoder", "width": 16, "depth": 1}
NAMES = shipped_with("classifier")
ENCODERS = [ud.MLPEncoder((2, 3), width=8, classes=5), ud.UNetEncoder((1, 8, 8), width=8, patch=2, classes=5)]


def test_every_encoder_is_tested():
    assert set(PUBLIC.choices(Encoder).values()) == {type(encoder) for encoder in ENCODERS}


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: type(encoder).__name__)
def test_encoders_map_pixels_to_classes(encoder):
    x = torch.randn(3, *encoder.shape)
    c = torch.tensor([0.0, 500.0, 1000.0])
    # Before training every class is as probable as the others, and cross entropy is log 5.
    assert torch.equal(encoder(x, c), torch.zeros(3, 5))
    process = ud.VPSDE()
    level = process.level(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), x)
    loss = CrossEntropy().losses(ud.NeuralClassifier(process, encoder), x, x, level, label=torch.tensor([0, 4, 2]))
    torch.testing.assert_close(loss, torch.full((3,), math.log(5)))
    for p in encoder.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both = encoder(x, c)
        assert (encoder(x, c.flip(0)) - both)[0].abs().max() > 1e-4  # it knows the noise
    torch.testing.assert_close(encoder(x[:1], c[:1]), both[:1], rtol=1e-4, atol=1e-5)
    logits, features = encoder.with_features(x, c)
    assert torch.equal(logits, encoder(x, c))
    assert features.shape == (3, {"MLPEncoder": 8, "UNetEncoder": 8 + 8 + 16}[type(encoder).__name__])


class Handed(torch.nn.Module):
    """A network whose logits are the two pixels that it is shown."""

    classes = 2

    def forward(self, x, c):
        self.told = c
        return x


@pytest.mark.parametrize("process", [ud.VESDE(), ud.EDM(), ud.Blurring(shape=(2,), blur_max=2.0)], ids=repr)
def test_a_network_sees_states_of_size_1(process):
    # u / sqrt(alpha^2 + sigma^2), as the network of a NeuralDenoiser; pixels as they are where modes differ in SNR.
    u = torch.tensor([[0.3, -0.8], [1.0, 0.5], [-0.2, 0.7]], dtype=torch.float64)
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    network = Handed()
    classifier = ud.NeuralClassifier(process, network)
    pixels = process.basis.inverse(u)
    sizes = [1.0 if process.basis.shape else math.hypot(level.alpha, level.sigma) for level in process.levels_at(times)]
    expected = pixels / torch.tensor(sizes, dtype=torch.float64)[:, None]
    torch.testing.assert_close(classifier(u, process.level(times, u)), expected, rtol=1e-14, atol=0)  # 5 roundings
    assert network.told.tolist() == (1000 * times).tolist()
    found = classifier(u, process.level(0.5))
    torch.testing.assert_close(found, pixels / sizes[1], rtol=1e-14, atol=0)
    assert network.told.tolist() == [500.0] * 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ud.UNetEncoder((1, 8, 8)), "classes must be .*, got None"),
        (lambda: ud.UNetEncoder((2,), classes=3), "shape"),
        (lambda: ud.UNetEncoder((1, 6, 6), multipliers=(1, 2, 2), classes=3), "6x6 pixels cannot be halved 2 times"),
        (lambda: ud.MLPEncoder((2,), width=3, classes=3), "width must be .* got 3"),
    ],
)
def test_encoders_that_cannot_be_are_refused(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


@pytest.mark.slow  # trains for 5 s
def test_a_trained_classifier_comes_near_bayes_rule():
    # On the ring the best classifier is known at every noise level. Its cross entropy is the least; a small network of
    # 300 steps is to come within 0.2 nats of it, from log 8 = 2.08 at the start.
    ring, process = ud.data.Ring(count=4000), ud.VPSDE()
    torch.manual_seed(0)
    classifier = ud.NeuralClassifier(process, ud.MLPEncoder((2,), width=64, depth=2, classes=8))
    settings = ud.Training(steps=300, batch=256, lr=3e-3, warmup=20, ema=0.98, precision="fp32", tensorboard=False)
    trained = ud.train(classifier, ring.open(), CrossEntropy(), settings, conditioning=ud.Labels(0.0))
    best = ud.MixtureClassifier(ud.GaussianMixture(process, ring.means, ring.std**2))
    test = ring.open("test")
    u0, label = test.batch(torch.arange(1000)), test.labels[:1000]
    eps = torch.randn(u0.shape, generator=torch.Generator().manual_seed(1))
    for t in (0.05, 0.2, 0.5):
        level = process.level(t)
        u = process.perturb(u0, eps, level)
        with torch.no_grad():
            found, least = (-c.log_prob(u, level, label).mean().item() for c in (trained, best))
        assert least - 0.02 < found < least + 0.2, (t, found, least)
    # It guides an unconditional model to where the exact classifier does.
    model = ud.GaussianMixture(process, ring.means, ring.std**2)
    plain = ud.ClassifierGuidance(_Plain(model), trained, 1.0)
    label = torch.arange(8).repeat_interleave(10)
    x = ud.sample(plain, ud.DDIM(), ud.Uniform(40), (2,), 80, label=label).x
    assert (torch.cdist(x, ring.means.float()).argmin(1) == label).double().mean() > 0.75


class _Plain(ud.Denoiser):
    """A mixture that knows of no classes."""

    def __init__(self, model):
        super().__init__()
        self.model, self.process = model, model.process

    def forward(self, u, level, **cond):
        return self.model(u, level, **cond)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, recipe in (("plain", RING), ("judge", JUDGE), ("other", {**JUDGE, "process": {"type": "DDPM", "T": 60}})):
        result = unidiff("run", write(folder, recipe, f"{name}.yaml"), "--out", folder / name, "--json")
        assert result.code == 0, result.err
    return folder


@pytest.mark.slow  # a second or more
def test_a_classifier_is_trained_and_read_back(runs):
    manifest = json.loads((runs / "judge/manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert all(0 <= value <= 1 for value in manifest["accuracy"].values())
    assert [line["step"] for line in metrics(runs / "judge")] == [3, 6, 8]
    classifier = ud.load_classifier(runs / "judge")
    assert classifier.classes == 8
    saved = Checkpoints(runs / "judge/checkpoints").load(print)
    assert equal(dict(classifier.backbone.state_dict()), dict(saved.ema))
    recipe = ud.load_recipe(runs / "judge/recipe.yaml")
    assert recipe.classifier.arguments["classes"] == 8


@pytest.mark.slow  # 1 s: two trainings
def test_a_classifier_is_resumed_bit_for_bit(runs, tmp_path):
    # Killed after its second checkpoint: the third is gone.
    shutil.copytree(runs / "judge", tmp_path / "judge")
    shutil.rmtree(tmp_path / "judge/checkpoints/step-00000008")
    result = unidiff("run", runs / "judge.yaml", "--out", tmp_path / "judge", "--resume")
    assert result.code == 0, result.err
    a, b = (ud.load_classifier(folder / "judge").backbone.state_dict() for folder in (runs, tmp_path))
    assert equal(dict(a), dict(b))
    with pytest.raises(Interrupted):  # by a signal in its report
        ud.load_recipe(runs / "judge.yaml").run(tmp_path / "judge", Mock(), resume=True, stop=lambda: True)


def test_it_guides_from_the_command_line(runs, tmp_path):
    words = ["sample", runs / "plain", "--class", "0,3", "--count", 2, "--json", "--out", tmp_path / "x.png"]
    result = unidiff(*words, "--guidance", 2, "--classifier", runs / "judge")
    assert result.code == 0, result.err
    assert json.loads(result.out)["count"] == 4
    assert "got DDPM(T=60" in refused(*words, "--guidance", 2, "--classifier", runs / "other")
    assert "Set its scale with --guidance" in refused(*words, "--classifier", runs / "judge")
    assert "not of a classifier" in refused(*words, "--guidance", 2, "--classifier", runs / "plain")
    assert "the training of a classifier; it does not generate samples" in refused("sample", runs / "judge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"type": "Spiral"}},
            r"classifier\.classes: the number of classes of Spiral\(.*\) is unknown until it is read",
        ),
        ({"classifier": {"type": "MLPEncoder", "classes": 3}}, r"classifier\.classes must be 8, .* got 3"),
        ({"classifier": {"type": "UNetEncoder"}}, r"classifier: it does not fit the samples of Ring"),
        ({"classifier": {"type": "MLP"}}, r"expected an encoder, got MLP, a backbone"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        ud.load_recipe(write(tmp_path, {**JUDGE, **changes}))


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_recipes_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    monkeypatch.delenv("UNIDIFF_DATA", raising=False)
    monkeypatch.setattr("unidiff.search_paths.cache", lambda: tmp_path / "cache")
    assert unidiff("check", name).code == 0
    changes = ["training.steps=2", "training.batch=4", "training.precision=fp32", "classifier.width=8"]
    words = [word for change in changes for word in ("--set", change)]
    result = unidiff("run", name, "--out", tmp_path / "run", *words)
    assert result.code == 0, result.err
    assert "accuracy" in result.out
    recipe = ud.load_recipe(name)
    assert recipe.smaller_recipe is None or recipe.smaller_recipe in NAMES


def test_the_shipped_classifiers_know_the_noise_of_the_models():
    assert "classifier_mnist_noisy" in NAMES
    for judge, model in (("mnist", "mnist_cpu"), ("digits", "digits")):
        assert ud.load_recipe(f"classifier_{judge}_noisy").process == ud.load_recipe(f"ddpm_{model}").process
