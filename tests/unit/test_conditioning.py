"""Conditions in training, recipes and the command: the labels the network is told, and when nothing is said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import RING, equal, refused, unidiff, write

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.errors import DataError, ParameterError, RecipeError
from unidiff.training.batches import BatchPlan
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

SOURCE = ud.data.Ring(count=300).open()
SETTINGS = {"steps": 6, "batch": 8, "lr": 0.01, "precision": "fp32", "log_every": 4, "checkpoint_every": 100}
CLASSES: dict = {**RING, "conditioning": {"type": "Labels", "dropout": 0.25}}


def model(classes=8):
    torch.manual_seed(0)
    return ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), ud.MLP((2,), width=16, depth=1, classes=classes))


def fit(denoiser, labels=None, **options):
    settings = ud.Training(**{**SETTINGS, **options.pop("settings", {})})
    return ud.train(denoiser, SOURCE, ud.Denoising(), settings, conditioning=labels or ud.Labels(0.25), **options)


def test_labels_are_dropped_as_often_as_asked():
    source, plan = SOURCE, BatchPlan(5, 100, 300)
    for dropout in (0.0, 0.25, 1.0):
        dropped = 0
        for step in range(100):
            indices = plan.indices(step)
            told = ud.Labels(dropout).conditions(
                torch.zeros(100, 2), source.labels[indices], plan.condition_draws(step)
            )
            label = told["label"]
            assert ((label == source.labels[indices]) | (label == -1)).all()
            dropped += int((label == -1).sum())
        # A binomial number of 10000: within five standard deviations.
        assert abs(dropped - 10000 * dropout) <= 5 * math.sqrt(10000 * dropout * (1 - dropout))
    # A function of seed and step, and apart from the times and noises.
    draws = plan.condition_draws(7)
    assert torch.equal(draws, BatchPlan(5, 100, 300).condition_draws(7))
    for other in (plan.condition_draws(8), BatchPlan(6, 100, 300).condition_draws(7), plan.uniform(7)):
        assert not torch.equal(draws, other)


def test_a_step_of_training_by_hand():
    # Without decay of the average and with one step, AdamW moves each weight by lr against the sign of its gradient.
    trained = fit(model(), settings={"steps": 1, "clip": None, "ema": 0.0})
    hand = model()
    plan = BatchPlan(0, 8, len(SOURCE))
    indices, uniform, eps = plan.indices(0), plan.uniform(0), plan.noise(0, (2,))
    label = SOURCE.labels[indices].masked_fill(plan.condition_draws(0)[:, 0] < 0.25, -1)
    u0 = SOURCE.batch(indices)
    level = hand.process.level(ud.UniformTimes().draw(hand.process, uniform), u0)
    u = level.alpha * u0 + level.sigma * eps
    (hand.backbone(u, 1000 * level.time.flatten(), label=label) - eps).square().mean(1).mean().backward()
    for (name, before), after in zip(hand.backbone.named_parameters(), trained.backbone.parameters()):
        gradient = before.grad
        expected = before - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = fit(model()).backbone.state_dict()
    with pytest.raises(Interrupted):
        fit(model(), checkpoints=Checkpoints(tmp_path), stop=iter([False, False, True]).__next__)
    assert equal(fit(model(), checkpoints=Checkpoints(tmp_path)).backbone.state_dict(), whole)
    # Parts of a batch see the labels of their rows: the same run, to rounding.
    parts = fit(model(), settings={"accumulate": 4}).backbone.state_dict()
    assert all(torch.allclose(parts[name], whole[name], rtol=1e-3, atol=1e-5) for name in whole)


@pytest.mark.slow  # trains for 4 s
def test_a_trained_model_knows_its_classes():
    # Eight points: told its class, the network knows x0, so that the best denoiser at t = 1 is the point itself.
    trained = fit(model(), ud.Labels(0.2), settings={"steps": 400, "batch": 128, "warmup": 10, "ema": 0.99})
    ring, label = ud.data.Ring(), torch.arange(8).repeat_interleave(20)
    for scale, share in ((1.0, 0.6), (3.0, 0.9)):
        guided = ud.ClassifierFree(trained, scale)
        x = ud.sample(guided, ud.DDIM(), ud.Uniform(20), seeds=160, label=label).x
        right = (torch.cdist(x, ring.means.float()).argmin(1) == label).double().mean()
        assert right > share, (scale, right)


def test_data_without_labels_are_refused():
    bare = TensorSource(torch.zeros(4, 2), "bare")
    with pytest.raises(DataError, match="bare has no labels"):
        ud.train(model(), bare, ud.Denoising(), ud.Training(**SETTINGS), conditioning=ud.Labels())
    with pytest.raises(DataError, match="has the label 7, but the network has 3 classes"):
        fit(model(3))
    with pytest.raises(ParameterError, match=r"dropout must be .* got 1.5"):
        ud.Labels(1.5)


def test_a_recipe_gives_the_network_the_classes_of_the_data(tmp_path):
    recipe = ud.load_recipe(write(tmp_path, CLASSES))
    assert recipe.backbone.arguments["classes"] == 8
    assert recipe.conditioning == ud.Labels(0.25)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert ud.load_recipe(tmp_path / "again.yaml") == recipe
    short = ud.load_recipe(write(tmp_path, {**RING, "conditioning": "labels"}))
    assert short.conditioning == ud.Labels()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"conditioning": None, "backbone": {"type": "MLP", "classes": 8}},
            r"backbone\.classes: it is set, but the recipe has no label",
        ),
        ({"backbone": {"type": "MLP", "classes": 9}}, r"backbone\.classes must be 8, .* got 9"),
        (
            {"data": {"type": "TwoMoons"}, "backbone": {"type": "MLP", "classes": 5}},
            r"must be 2, the classes .* got 5",
        ),
        ({"conditioning": {"type": "Labels", "dropout": 2}}, r"conditioning\.dropout must be .* got 2.0"),
        ({"data": {"type": "Spiral"}}, r"backbone\.classes: the number of classes of .* is unknown"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        ud.load_recipe(write(tmp_path, {**CLASSES, **changes}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    digits = {"data": {"type": "Digits"}, "backbone": {"type": "UNet", "width": 8, "multipliers": [1], "blocks": 1}}
    for name, recipe in (("plain", RING), ("classes", {**CLASSES, **digits})):
        assert unidiff("run", write(folder, recipe, f"{name}.yaml"), "--out", folder / name).code == 0
    return folder


@pytest.mark.slow  # a second or more
def test_samples_of_classes_from_the_command_line(runs, tmp_path):
    words = ["sample", runs / "classes", "--array", tmp_path / "x.npy", "--out", tmp_path / "x.png", "--json"]
    result = unidiff(*words, "--class", "3,0,7", "--count", 2, "--guidance", 2.5)
    assert result.code == 0, result.err
    summary = json.loads(result.out)
    assert (summary["count"], summary["classes"], summary["guidance"]) == (6, [3, 0, 7], 2.5)
    loaded = ud.load(runs / "classes")
    guided, sampling = ud.ClassifierFree(loaded.denoiser, 2.5), loaded.recipe.sampling
    label = torch.tensor([3, 3, 0, 0, 7, 7])
    expected = ud.sample(guided, sampling.solver, sampling.grid, seeds=6, label=label).x.clamp(-1, 1)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected.numpy(), atol=1e-6)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.height >= 3 * 64  # three rows of two, 8 pixels each drawn 8 times as large
    assert json.loads(unidiff(*words, "--class", 3).out)["count"] == 8
    assert json.loads(unidiff(*words, "--class", "3,4", "--set", "sampling.count=3").out)["count"] == 6
    assert json.loads(unidiff(*words).out)["classes"] is None


def test_what_the_command_line_refuses(runs):
    run, plain = runs / "classes", runs / "plain"
    assert "are 0 to 9, got 12" in refused("sample", run, "--class", "3,12")
    assert "is not conditioned on classes" in refused("sample", plain, "--class", 3)
    for option in ("--image", "--mask"):
        assert "is not conditioned on images" in refused("sample", plain, option, "digit.png")
    assert "--guidance nan must be a number of magnitude up to 1e+06, or one for each sample, (B,), got nan" in refused(
        "sample", run, "--class", 3, "--guidance", "nan"
    )
    assert "guidance requires a condition" in refused("sample", run, "--guidance", 2)
    assert "--guidance 1e+300 must be a number of magnitude up to 1e+06" in refused(
        "sample", run, "--class", 3, "--guidance", 1e300
    )
    same = ("--array", run / "same", "--out", run / "same")
    assert "--array writes to this file" in refused("sample", run, *same)
    assert not (run / "same").exists()
    recipe, manifest = (run / "recipe.yaml").read_text(), (run / "manifest.json").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("dropout: 0.25", "dropout: 0"))
    assert "conditioning.dropout was 0.25, is 0" in refused("sample", run, "--class", 3, "--guidance", 2)
    (run / "manifest.json").unlink()  # which knows the recipe of before
    assert "trained with dropout 0" in refused("sample", run, "--class", 3, "--guidance", 2)
    (run / "recipe.yaml").write_text(recipe)
    (run / "manifest.json").write_text(manifest)
    assert "are 0 to 9, got 'three'" in refused("sample", run, "--class", "three")
    assert "--count must be an integer from 1 to 10000000, got 0" in refused("sample", run, "--class", 3, "--count", 0)
