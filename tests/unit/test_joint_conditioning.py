"""Several conditions of one model: each dropped by itself or all together, in training, recipes and runs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tiny import equal, refused, unidiff, write

import unidiff as ud
from unidiff.conditioning.base import Examples
from unidiff.errors import DataError, ParameterError, RecipeError
from unidiff.tasks.comparison_models import described
from unidiff.tasks.generation import Conditioned
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted

BOTH = ud.Joint((ud.Labels(0.2), ud.SuperResolution(4, dropout=0.3)), joint_dropout=0.1)
RECIPE: dict = {
    "data": {"type": "Digits"},
    "process": {"type": "DDPM", "T": 50},
    "parameterization": {"type": "V"},
    "backbone": {"type": "UNet", "width": 8, "multipliers": [1], "blocks": 1, "patch": 2},
    "conditioning": ["labels", {"type": "SuperResolution", "factor": 4, "dropout": 0.1}],
    "training": {"steps": 2, "batch": 4, "tensorboard": False, "precision": "fp32"},
    "sampling": {"solver": {"type": "DDIM"}, "grid": {"type": "Uniform", "steps": 2}, "count": 4},
}


def test_each_is_dropped_by_itself_and_all_together():
    count = 20000
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(count, 1, 8, 8, generator=generator) + 0.1  # no block mean is 0
    label = torch.randint(10, (count,), generator=generator)
    uniform = torch.rand(count, BOTH.draws, generator=generator, dtype=torch.float64)
    cond = BOTH.conditions(x0, label, uniform)
    gone = {"label": cond["label"] == -1, "image": (cond["image"] == 0).flatten(1).all(1)}
    # Independent of one another but for the joint dropout j: P(label) = j + (1 - j) 0.2, P(both) = j + (1 - j) 0.06.
    # Binomial numbers, within five standard deviations.
    for found, share in (
        (gone["label"], 0.1 + 0.9 * 0.2),
        (gone["image"], 0.1 + 0.9 * 0.3),
        (gone["label"] & gone["image"], BOTH.dropout),
    ):
        assert abs(int(found.sum()) - count * share) < 5 * math.sqrt(count * share * (1 - share))
    assert BOTH.dropout == pytest.approx(0.1 + 0.9 * 0.06)
    # What is kept is what each part alone makes, row by row.
    assert torch.equal(cond["label"][~gone["label"]], label[~gone["label"]])
    measured = ud.SuperResolution(4).measure(x0, uniform[:, :0])
    assert torch.equal(cond["image"][~gone["image"]], measured[~gone["image"]])
    rows = BOTH.conditions(x0[5:9], label[5:9], uniform[5:9])
    assert all(torch.equal(rows[name], cond[name][5:9]) for name in cond)


def test_examples_are_those_of_the_same_samples():
    test = ud.data.Digits().open("test")
    cond, truth = BOTH.examples(ud.data.Digits(), 30, 10)
    assert (cond["label"] >= 0).all()  # nothing is dropped
    assert torch.equal(cond["image"], ud.SuperResolution(4).measure(truth, truth[:, :0]))
    data, labels = test.batch(torch.arange(len(test))), test.labels
    for x, label in zip(truth, cond["label"]):
        assert label in labels[(data == x).flatten(1).all(1)]


@dataclass(frozen=True)
class Brightness(ud.Conditioning):
    """The mean of an image as a number, and its sign as a caption of one word."""

    dropout: float = 0.25

    def built_for(self, data):
        return (ud.Scalar(-1.0, 1.0, name="brightness"), ud.Tokens(3, 2, name="caption"))

    def null(self, cond):
        return {
            condition.name: condition.null(len(cond["caption"]), cond["brightness"]) for condition in self.built_for(0)
        }

    def conditions(self, x0, label, uniform):
        mean = x0.flatten(1).mean(1).clamp(-1, 1)
        cond = {"brightness": mean, "caption": (mean > 0).long()[:, None].expand(-1, 3).clone()}
        dropped = uniform[:, 0] < self.dropout
        null = self.null(cond)
        return {name: torch.where(dropped.reshape(-1, *[1] * (v.ndim - 1)), null[name], v) for name, v in cond.items()}


def test_a_conditioning_of_ones_own_is_joined_trained_and_resumed(tmp_path):
    joint = ud.Joint((ud.Labels(0.2), Brightness(), ud.SuperResolution(4)), joint_dropout=0.5)
    data, settings = ud.data.Digits(), ud.Training(**RECIPE["training"])
    arguments = {"classes": None, "image": None, "conditions": ()}
    needed = joint.network(data, arguments)
    assert needed == {"classes": 10, "conditions": Brightness().built_for(data), "image": 1}
    assert joint.network(data, {**arguments, **needed}) == needed  # also from the resolved recipe of a run

    def fit(**options):
        torch.manual_seed(0)
        network = ud.UNet((1, 8, 8), 8, (1,), 1, attention=(4,), heads=2, patch=2, **needed)
        model = ud.NeuralDenoiser(ud.DDPM(50), ud.V(), network)
        return ud.train(model, data.open(), ud.Denoising(), settings, conditioning=joint, **options)

    model = fit()
    with pytest.raises(Interrupted):
        fit(checkpoints=Checkpoints(tmp_path), stop=iter([True]).__next__)
    assert equal(fit(checkpoints=Checkpoints(tmp_path)).backbone.state_dict(), model.backbone.state_dict())
    cond, _ = joint.examples(data, 3, 10)
    assert sorted(cond) == ["brightness", "caption", "image", "label"]
    short = {**cond, "caption": cond["caption"][:, :1]}  # a caption of one word, padded
    x = ud.sample(ud.ClassifierFree(model, 2.0), ud.DDIM(), ud.Uniform(2), seeds=3, **short).x
    # A sample does not depend on its batch, to the rounding of float32 convolutions and two steps.
    one = {name: value[1:2] for name, value in short.items()}
    torch.testing.assert_close(
        ud.sample(ud.ClassifierFree(model, 2.0), ud.DDIM(), ud.Uniform(2), seeds=[1], **one).x,
        x[1:2],
        rtol=0,
        atol=1e-4,
    )
    null = joint.conditions(x.clamp(-1, 1), cond["label"], torch.zeros(3, joint.draws, dtype=torch.float64))
    assert null["brightness"].isnan().all()
    assert (null["caption"] == -1).all()
    assert (null["image"] == 0).all()


def test_a_recipe_takes_a_list(tmp_path):
    recipe = ud.load_recipe(write(tmp_path, RECIPE))
    assert recipe.conditioning == ud.Joint((ud.Labels(), ud.SuperResolution(4, dropout=0.1)))
    assert (recipe.backbone.arguments["classes"], recipe.backbone.arguments["image"]) == (10, 1)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert ud.load_recipe(tmp_path / "again.yaml") == recipe
    one = ud.load_recipe(write(tmp_path, {**RECIPE, "conditioning": "labels"}))
    assert one.conditioning == ud.Labels()


@pytest.mark.slow  # two whole commands
def test_a_run_of_both_and_its_samples_from_the_command_line(tmp_path):
    run, array = tmp_path / "run", tmp_path / "x.npy"
    result = unidiff("run", write(tmp_path, RECIPE), "--out", run)
    assert result.code == 0, result.err
    assert (run / "samples" / "conditions.png").is_file()
    image = ud.data.Digits().open("test").batch(torch.tensor([20]))[0]
    np.save(tmp_path / "digit.npy", image.numpy())
    words = ["--class", "3,8", "--image", tmp_path / "digit.npy", "--guidance", 2, "--count", 1, "--array", array]
    result = unidiff("sample", run, *words, "--out", tmp_path / "x.png")
    assert result.code == 0, result.err
    loaded = ud.load(run, device="cpu")
    cond = {"label": torch.tensor([3, 8]), "image": ud.SuperResolution(4).measure(image[None], torch.zeros(1, 0))}
    cond["image"] = cond["image"].repeat(2, 1, 1, 1)
    x = ud.sample(ud.ClassifierFree(loaded.denoiser, 2.0), ud.DDIM(), ud.Uniform(2), seeds=2, **cond).x
    np.testing.assert_allclose(np.load(array), x.clamp(-1, 1).numpy(), atol=1e-5)
    # The likelihood is that given the images and, but for --class, the classes of the samples; the result says which.
    test = loaded.recipe.data.open("test")
    for words, label, said in (((), test.labels[:2], "own"), (("--class", "5"), torch.tensor([5, 5]), "5")):
        options = ("--count", 2, "--levels", 0, "--tolerance", 0.1, "--json")
        facts = json.loads(unidiff("likelihood", run, *options, *words).out)
        assert facts["conditions"] == {"label": said, "image": "own"}
        x = test.batch(torch.arange(2))
        own = {"label": label, "image": ud.SuperResolution(4).measure(x, torch.zeros(2, 0))}
        exact = ud.log_likelihood(loaded.denoiser, x, ud.Hutchinson(), rtol=0.1, atol=0.1, seeds=2, **own)
        assert facts["flow"]["nats"] == pytest.approx(float(exact.nats[0]), rel=1e-6)
    assert "choose the image of this class too" in refused("sample", run, "--class", 3)
    # One value beside two images is that of both.
    words = [
        "--image",
        tmp_path / "digit.npy",
        "--image",
        tmp_path / "digit.npy",
        "--set",
        "cond.label=3",
        "--count",
        1,
    ]
    result = unidiff("sample", run, *words, "--array", array, "--out", tmp_path / "x.png")
    assert result.code == 0, result.err
    cond["label"] = torch.tensor([3, 3])
    x = ud.sample(loaded.denoiser, ud.DDIM(), ud.Uniform(2), seeds=2, **cond).x
    np.testing.assert_allclose(np.load(array), x.clamp(-1, 1).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditioning": ["labels", "labels"]}, r"conditioning.*conditions of different names, got 'label' twice"),
        ({"conditioning": []}, r"conditioning.*one conditioning or more"),
        ({"conditioning": ["labels", {"type": "SuperResolution", "factor": 3}]}, r"factor must be a divisor"),
        ({"conditioning": ["labels", "SuperResolutoin"]}, r"conditioning\[1\].*SuperResolution"),
        (
            {"conditioning": {"type": "Joint", "parts": ["labels"], "joint_dropout": 2.0}},
            r"conditioning\.joint_dropout must be a number from 0 to 1, got 2.0",
        ),
        (
            {"conditioning": ["labels", {"type": "SuperResolution", "factor": 5}]},
            r":10:3: conditioning\[1\]\.factor must be a divisor",
        ),
        (
            {"conditioning": ["labels", {"type": "Joint", "parts": ["labels"]}]},
            r"conditioning\[1\] must be one conditioning",
        ),
        (
            {"conditioning": None, "backbone": {"type": "MLP", "conditions": [{"type": "Scalar"}]}},
            r"backbone\.conditions: it is set, but the recipe has no conditioning",
        ),
    ],
)
def test_recipes_that_do_not_fit_are_one_clear_error(changes, words, tmp_path):
    with pytest.raises(RecipeError, match=words):
        ud.load_recipe(write(tmp_path, {**RECIPE, **changes}))


def test_data_that_do_not_fit_and_nested_parts_are_refused():
    with pytest.raises(ParameterError, match=r"parts\[0\] must be one conditioning"):
        ud.Joint((BOTH,))
    bare = ud.TensorSource(torch.zeros(4, 1, 8, 8), "bare")
    with pytest.raises(DataError, match="bare has no labels"):
        BOTH.check(bare, 10)


@dataclass(frozen=True)
class Corner(ud.Conditioning):
    """The first pixel, as a condition that only the network of a recipe describes."""

    dropout: float = 0.1

    def conditions(self, x0, label, uniform):
        return {"corner": x0.flatten(1)[:, 0]}


CORNER = {"type": f"{__name__}:Corner"}
SCALAR = {"type": "Scalar", "name": "corner", "low": -1.0, "high": 1.0}


def test_a_conditioning_that_does_not_say_what_it_makes_joins_conditions_of_the_network(tmp_path):
    network = {**RECIPE["backbone"], "conditions": [SCALAR]}
    for conditioning in (CORNER, ["labels", CORNER]):
        path = write(tmp_path, {**RECIPE, "backbone": network, "conditioning": conditioning})
        result = unidiff("run", path, "--out", tmp_path / "out", "--dry-run", "--allow-imports")
        assert result.code == 0, result.err
    recipe = ud.load_recipe(path, allow_imports=True)
    joint, data = recipe.conditioning, recipe.data.open()
    settings = replace(recipe.training, steps=1)
    ud.train(recipe.model({}), data, ud.Denoising(), settings, conditioning=joint)  # the network takes what it makes


WRONG = {
    "not taken": ({"conditioning": ["labels", CORNER]}, "it makes the condition 'corner', and those of the network"),
    "not made": (
        {
            "conditioning": CORNER,
            "backbone": {**RECIPE["backbone"], "conditions": [SCALAR, {**SCALAR, "name": "other"}]},
        },
        "it makes no 'other', a condition of the network",
    ),
    "another kind": (
        {
            "conditioning": CORNER,
            "backbone": {**RECIPE["backbone"], "conditions": [{"type": "Embedding", "shape": [2], "name": "corner"}]},
        },
        "what it makes is not a condition that the network was built for: corner must be floats",
    ),
    "identity of images": (
        {"conditioning": {"type": "Identity", "name": "y"}},
        "it makes the condition 'y', and those of the network are: none",
    ),
    "identity and labels": (
        {"conditioning": ["labels", {"type": "Identity", "name": "y"}]},
        "it makes the condition 'y', and those of the network are: label",
    ),
    "a network without conditions": (
        {"conditioning": {"type": "Identity", "name": "y"}, "backbone": {**RECIPE["backbone"], "conditions": [SCALAR]}},
        "backbone.conditions: it is set, but the recipe has no conditioning",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=list(WRONG))
def test_what_would_fail_at_the_first_step_fails_in_a_dry_run(tmp_path, changes, message):
    words = ("run", write(tmp_path, {**RECIPE, **changes}), "--out", tmp_path / "out", "--allow-imports")
    assert message in refused(*words, "--dry-run").replace("\n", " ")
    assert message in refused(*words).replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_recipe_builds_a_network_of_vectors_for_them(tmp_path):
    changes = {"data": {"type": "Ring"}, "backbone": {"type": "MLP"}, "conditioning": {"type": "Identity", "name": "y"}}
    path = write(tmp_path, {**RECIPE, **changes})
    assert ud.load_recipe(path).backbone.arguments["conditions"] == (ud.Embedding((2,), name="y"),)
    assert unidiff("run", path, "--out", tmp_path / "out", "--dry-run").code == 0


def test_all_conditions_are_named_in_a_result():
    several = {"label": torch.tensor([1, 0]), "image": torch.zeros(2, 1, 8, 8), "caption": torch.zeros(2, 3)}
    said = "test images in turn, 2 of them; classes 0, 1 in turn; 2 values of caption in turn"
    assert described(Conditioned(None, Examples(several, torch.zeros(2, 1, 8, 8)))) == said
    assert described(Conditioned(None, Examples({"label": torch.tensor([3, 8])}))) == "classes 3, 8 in turn"
    assert described(Conditioned(None, Examples({}))) is None
