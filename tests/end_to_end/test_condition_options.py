"""The options of guidance and conditions that sample, edit, inpaint, likelihood and compare share."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from pairs import some
from PIL import Image
from tiny import DIGITS, refused, unidiff, write

import unidiff as ud
from unidiff.cli.conditions import conditioned
from unidiff.cli.options import GuidanceOptions, ImageOptions, ModelOptions
from unidiff.errors import RunError

TRAINING = {**DIGITS["training"], "steps": 2, "preview_every": 0, "tensorboard": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with classes that have names, and a weaker one."""
    folder = tmp_path_factory.mktemp("runs")
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            (folder / "pets" / split / name).mkdir(parents=True)
            for number in range(6):
                pixels = torch.randint(0, 256, (8, 8), generator=generator).byte().numpy()
                Image.fromarray(pixels).save(folder / "pets" / split / name / f"{number}.png")
    data = {"type": "ImageFolder", "root": str(folder / "pets"), "size": 8, "channels": 1}
    backbone = {**DIGITS["backbone"], "classes": 2}
    recipe = {**DIGITS, "data": data, "training": TRAINING, "backbone": backbone, "conditioning": "labels"}
    for name, seed in (("strong", 0), ("weak", 1)):
        assert unidiff("run", write(folder, {**recipe, "seed": seed}, f"{name}.yaml"), "--out", folder / name).code == 0
    return folder


def drawn(folder, *words):
    result = unidiff("sample", folder / "strong", "--array", folder / "x.npy", "--out", folder / "x.png", *words)
    assert result.code == 0, result
    return torch.from_numpy(np.load(folder / "x.npy"))


def expected(model, run, label):
    sampling = run.recipe.sampling
    cond = {} if label is None else {"label": torch.tensor(label)}
    return ud.sample(model, sampling.solver, sampling.grid, seeds=2, **cond).x.clamp(-1, 1)


COUNT, GUIDED = ("--set", "sampling.count=2"), ("--class", "dog,cat", "--count", 1, "--guidance", 3)
OPTIONS = {
    "interval": ((*GUIDED, "--interval", "0.2,0.6"), lambda free: ud.GuidanceInterval(free, 0.2, 0.6), [1, 0]),
    "rescale": ((*GUIDED, "--rescale", 0.7), lambda free: ud.RescaledGuidance(free, 0.7), [1, 0]),
    "threshold": ((*GUIDED, "--threshold", 0.9), lambda free: ud.DynamicThreshold(free, 0.9), [1, 0]),
    "unguided": ((*COUNT, "--threshold", 0.9), lambda free: ud.DynamicThreshold(free.model, 0.9), None),
    "all": (
        (*GUIDED, "--rescale", 0.7, "--interval", "0,0.6", "--threshold", 0.9),
        lambda free: ud.DynamicThreshold(ud.RescaledGuidance(ud.GuidanceInterval(free, 0.0, 0.6), 0.7), 0.9),
        [1, 0],
    ),
    "condition": ((*COUNT, "--set", "cond.label=1"), lambda free: free.model, [1, 1]),
    "guided": (GUIDED, lambda free: free, [1, 0]),
}


@pytest.mark.parametrize("name", some(OPTIONS, lambda name: name in ("all", "condition")))
def test_options_are_those_of_the_library(runs, name):
    words, wrap, label = OPTIONS[name]
    run = ud.load(runs / "strong")
    wrapped = wrap(ud.ClassifierFree(run.denoiser, 3.0))
    torch.testing.assert_close(drawn(runs, *words), expected(wrapped, run, label), rtol=0, atol=1e-6)


def test_a_weaker_run_guides_as_in_the_library(runs):
    run, weak = ud.load(runs / "strong"), ud.load(runs / "weak").denoiser
    found = drawn(runs, *COUNT, "--weaker", runs / "weak", "--guidance", 2)
    torch.testing.assert_close(found, expected(ud.AutoGuidance(run.denoiser, weak, 2.0), run, None), rtol=0, atol=1e-6)


@pytest.mark.slow  # 3 s: the flow of a network
def test_likelihood_under_the_samples_own_classes(runs):
    words = ("likelihood", runs / "strong", "--count", 2, "--levels", 0, "--tolerance", 0.1, "--json")
    run = ud.load(runs / "strong")
    source = run.recipe.data.open("test")
    for option, label in (("own", source.labels[:2]), ("dog", torch.tensor([1, 1])), (None, None)):
        result = unidiff(*words, *(() if option is None else ("--class", option)))
        assert result.code == 0, result
        cond = {} if label is None else {"label": label}
        x = source.batch(torch.arange(2))
        exact = ud.log_likelihood(run.denoiser, x, ud.Hutchinson(), rtol=0.1, atol=0.1, seeds=range(2), **cond)
        found = json.loads(result.out)
        assert found["flow"]["nats"] == pytest.approx(float(exact.nats[0]), rel=1e-6)
        assert found.get("classes") == (None if option is None else [option])


def test_names_of_classes_with_commas_are_quoted():
    for written, expected in (
        (["0, cat ,7"], [0, "cat", 7]),
        (['"black, small",white', "3"], ["black, small", "white", 3]),
        (['" say ""miau"" "', "dog"], ['say "miau"', "dog"]),
        ([""], [""]),
        (["1,"], [1, ""]),
        (None, []),
    ):
        assert GuidanceOptions(written).names == expected
    with pytest.raises(RunError, match=r"^--class cat,\"a,b: quotes go around a whole name, as in"):
        GuidanceOptions(['cat,"a,b'])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--class", 0, "--class", "cow"), "the classes of {run} are 0 to 1, called cat, dog, got 'cow'"),
        (("--interval", "0,1"), "--interval 0,1: this is an option of guidance. Set its scale with --guidance"),
        (("--rescale", "0.5"), "--rescale 0.5: this is an option of guidance"),
        (("--weaker", "x"), "--weaker x: this is an option of guidance"),
        (("--guidance", 2, "--weaker", "x", "--classifier", "y"), "guide by it or by --classifier y, not by both"),
        (("--guidance", 2, "--interval", "0.5"), "write two times from 0 to 1, as in --interval 0.2,0.8"),
        (("--class", 0, "--guidance", 2, "--interval", "0.5,2"), "--interval 0.5,2 must be a time from low = 0.5 to 1"),
        (("--class", 0, "--guidance", 2, "--rescale", 2), "--rescale 2 must be a number from 0 to 1, got 2"),
        (("--threshold", 0), "--threshold 0 must be a number in (0, 1], got 0"),
        (("--guidance", 2, "--weaker", "nowhere"), "nowhere: not a run directory"),
        (("--set", "cond.label=three"), "write a number or a list of numbers, such as [0.5,1]"),
        (("--set", "cond.label=null"), "write a number or a list of numbers, such as [0.5,1]"),
        (("--set", "cond.label=7"), "--set cond.label=7 must be from 0 to 1, or -1 (unconditional), got 7"),
        (("--class", 1, "--set", "cond.label=0"), "--set cond.label=0: --class chooses it too. Leave one of them out"),
        (("--set", "cond.pitch=1"), "--set cond.pitch=1: the model has no condition of this name; it accepts label"),
        (("--set", "cond.seeds=3"), "--set cond.seeds=3: the model has no condition of this name; it accepts label"),
        (("--set", "cond.progress=3"), "--set cond.progress=3: the model has no condition of this name"),
    ],
)
def test_what_is_refused(runs, words, message):
    assert message.format(run=runs / "strong") in refused("sample", runs / "strong", *words)


def test_edits_under_a_named_class(runs):
    image = runs / "pets/test/dog/0.png"
    guided = ("--class", "dog", "--guidance", 2, "--rescale", 0.5, "--count", 1, "--json", "--out", runs / "e.png")
    mask = Image.fromarray(np.full((8, 8), 255, np.uint8))
    mask.save(runs / "mask.png")
    for words in (("edit", runs / "strong", image), ("inpaint", runs / "strong", image, runs / "mask.png")):
        result = unidiff(*words, *guided)
        assert result.code == 0, result
        assert json.loads(result.out)["classes"] == ["dog"]
        assert json.loads(result.out)["rescale"] == 0.5


def test_results_record_the_conditions(runs):
    words = ("sample", runs / "strong", "--out", runs / "x.png", "--set", "sampling.count=1", "--json")
    facts = json.loads(unidiff(*words, "--set", "cond.label=1").out)
    assert facts["cond.label"] == 1
    facts = json.loads(unidiff(*words, "--class", "dog", "--guidance", 2, "--interval", "0,0.5").out)
    assert (facts["classes"], facts["guidance"], facts["interval"]) == (["dog"], 2.0, [0.0, 0.5])
    np.save(runs / "pet.npy", np.zeros((1, 8, 8), np.float32))
    words = ("edit", runs / "strong", runs / "pet.npy", "--count", 1, "--out", runs / "x.png", "--json")
    assert json.loads(unidiff(*words, "--set", "cond.label=1").out)["cond.label"] == 1


def test_options_are_offered_where_they_are_taken(runs):
    assert "cond.NAME" in unidiff("sample", "--help").out
    assert "cond.NAME" not in unidiff("run", "--help").out
    own = (runs / "strong" / "recipe.yaml").read_text()
    foreign = runs / "foreign"
    foreign.mkdir()
    (foreign / "recipe.yaml").write_text(own.replace("type: Eps", "type: no_such_module:Eps"))
    (foreign / "manifest.json").write_text((runs / "strong" / "manifest.json").read_text())
    assert "--allow-imports" in refused("export", foreign, runs / "out")
    assert "cannot be imported" in refused("export", foreign, runs / "out", "--allow-imports")


@pytest.mark.parametrize(
    ("conditions", "remedy"),
    [
        ((ud.Label(3),), "Choose classes with --class."),
        ((ud.Image(1, (8, 8)),), "Pass one with --image."),
        ((ud.Scalar(name="pitch"),), "Set one with --set cond.pitch=VALUE."),
        ((), "is unconditional: leave it out, or guide by --classifier."),
    ],
)
def test_guidance_names_an_option_that_the_model_has_a_use_for(runs, conditions, remedy):
    run = ud.load(runs / "strong")
    run.denoiser.conditions = conditions
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe))
    object.__setattr__(run.recipe, "conditioning", None)
    with pytest.raises(RunError) as raised:
        conditioned(run, GuidanceOptions(guidance=2.0), ImageOptions(), ModelOptions(), print)
    assert str(raised.value).endswith(remedy)


def test_a_negative_condition_is_led_away_from(runs, tmp_path):
    run = ud.load(runs / "strong", device="cpu")
    words = ("sample", runs / "strong", "--class", 1, "--count", 2, "--out", tmp_path / "x.png")
    guided = ("--guidance", 2, "--set", "negative.label=0", "--array", tmp_path / "x.npy", "--set", "sampling.seed=3")
    assert unidiff(*words, *guided).code == 0
    model = ud.ClassifierFree(run.denoiser, 2.0, {"label": torch.tensor([0])})
    sampling = run.recipe.sampling
    x = ud.sample(model, sampling.solver, sampling.grid, seeds=range(3, 5), label=torch.tensor([1, 1])).x
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), x.clamp(-1, 1), atol=1e-6)
    message = refused(*words, "--set", "negative.label=0")
    assert "--set negative.label=0: negative conditions are of classifier-free guidance" in message
    assert "from 0 to 1" in refused(*words, "--guidance", 2, "--set", "negative.label=7")
    assert "negative.nothing" in refused(*words, "--guidance", 2, "--set", "negative.nothing=7")
