"""A recipe with `stages`: samples of several trained runs, pinned by digest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import DIGITS, refused, unidiff, write

import unidiff as ud
from unidiff.tasks.generation import load_generation

SMALL = {**DIGITS, "training": {**DIGITS["training"], "steps": 2, "preview_every": 0, "tensorboard": False}}
RUNS: dict[str, dict[str, Any]] = {
    "base": {**SMALL, "conditioning": {"type": "Labels"}},
    "twin": {**SMALL, "conditioning": {"type": "Labels"}, "seed": 1},
    "up": {
        **SMALL,
        "data": {"type": "Digits", "size": 16},
        "process": {"type": "FlowMatching"},
        "parameterization": {"type": "Velocity"},
        "conditioning": {"type": "SuperResolution", "factor": 2, "noise": 0.1},
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, recipe in RUNS.items():
        assert unidiff("run", write(folder, recipe, f"{name}.yaml"), "--out", folder / name).code == 0
    return folder


def recipe_of(runs: Path, tmp_path: Path, *changes: dict[str, Any], **keys: Any) -> Path:
    """A recipe of the two stages, with changes to each."""
    stages = [{"run": str(runs / name)} for name in ("base", "up")]
    for stage, change in zip(stages, changes):
        stage.update(change)
    return write(tmp_path, {"stages": stages, "classes": [3, 7], "count": 3, "batch": 2, **keys}, "cascade.yaml")


@pytest.mark.slow  # three runs are trained
def test_a_recipe_draws_what_the_same_cascade_draws_in_code(runs, tmp_path):
    out = tmp_path / "out"
    refiner = {"run": str(runs / "twin"), "t": 0.3}
    solver = {"solver": {"type": "DDIM", "eta": 1.0}, "grid": {"type": "Uniform", "steps": 3}}
    recipe = recipe_of(runs, tmp_path, {"guidance": 2.0, "refiner": refiner, **solver})
    assert unidiff("run", recipe, "--out", out, "--dry-run").code == 0
    assert not out.exists()
    done = unidiff("run", recipe, "--out", out, "--json")
    assert done.code == 0, done.err
    assert {path.name for path in out.iterdir()} == set(ud.tasks.CascadeSampling.files)
    assert json.loads(done.out)["nfe"] == [3, 4]  # conditional and null are one batch
    base, twin, up = (load_generation(runs / name) for name in RUNS)
    guided = ud.ClassifierFree(ud.Split(base.model, twin.model, 0.3), 2.0)
    first = ud.Stage(guided, ud.DDIM(1.0), ud.Uniform(3))
    second = ud.Stage(up.model, ud.DDIM(), ud.Uniform(4), ud.SuperResolution(2, noise=0.1))
    x = ud.Cascade([first, second]).sample(3, batch=2, label=torch.tensor([3, 7, 3])).x
    assert x.shape == (3, 1, 16, 16)
    assert torch.equal(torch.from_numpy(np.load(out / "samples.npy")), x)
    # The saved recipe has the digests, and draws the same.
    again = unidiff("run", out / "recipe.yaml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "samples.npy").read_bytes() == (out / "samples.npy").read_bytes()
    stages = json.loads((out / "manifest.json").read_text())["recipe"]["stages"]
    digests = [stages[0]["digest"], stages[0]["refiner"]["digest"], stages[1]["digest"]]
    assert len(set(digests)) == 3
    assert all(digest.startswith("sha256:") for digest in digests)
    assert yaml.safe_load((out / "recipe.yaml").read_text())["stages"] == stages
    # Another run in the place of one is refused.
    changed = yaml.safe_load((out / "recipe.yaml").read_text())
    changed["stages"][0]["refiner"]["run"] = str(runs / "base")
    message = refused("run", write(tmp_path, changed), "--out", tmp_path / "third")
    assert "base: the run has changed since the cascade was drawn" in message
    assert not (tmp_path / "third").exists()
    # The directory is not mistaken for a run that was trained.
    assert "the sampling of a cascade" in refused("sample", out)


Y = {"type": "Identity", "name": "y"}
WRONG: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "t": ([{"refiner": {"run": "x", "t": 1.5}}], {}, "stages[0].refiner.t must be a number from 0 to 1, got 1.5"),
    "guidance": ([{"guidance": 1e9}], {}, "stages[0].guidance must be a number of magnitude up to"),
    "no stages": ([], {"stages": []}, "stages must be a list of at least one stage, got []"),
    "count": ([], {"count": 0}, "count must be an integer"),
    "a class": ([], {"classes": [-1]}, "classes must be an integer"),
    "noise": (
        [{}, {"conditioning": {"type": "Identity", "name": "y", "noise": -1}}],
        {},
        "noise must be a number >= 0",
    ),
    "no run": ([], {}, "base: not a run directory"),
}
WRONG_RUNS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "no such class": ([], {"classes": [12]}, "base are 0 to 9, got 12"),
    "no class": ([{"guidance": 2.0}], {"classes": []}, "classes: classifier-free guidance needs the condition 'label'"),
    "no such condition": ([], {"cond": {"y": 1}}, "cond.y: no stage takes a condition 'y' from outside the cascade"),
    "made by a stage": ([], {"cond": {"image": [[[0.0]]]}}, "cond.image: no stage takes a condition 'image' from"),
    "a class twice": ([], {"cond": {"label": 3}}, "cond.label: `classes` chooses it too. Leave one of them out"),
    "no words": ([], {"classes": [], "cond": {"label": "three"}}, "cond.label: write a number or a list of numbers"),
    "no image": ([], {"images": ["x.png"]}, "images: no stage takes a condition 'image' from outside"),
    "a first stage with a condition": ([{"conditioning": "Labels"}], {}, "the first stage has none before it"),
    "a wrong condition": ([{}, {"conditioning": Y}], {}, "makes the condition 'y'"),
    "no dropout": ([{}, {"guidance": 2.0}], {}, "stages[1].guidance: "),
}


@pytest.mark.parametrize(("changes", "keys", "message"), WRONG.values(), ids=list(WRONG))
def test_a_mistake_is_one_message_and_nothing_is_written(tmp_path, changes, keys, message):
    found = refused("run", recipe_of(tmp_path, tmp_path, *changes, **keys), "--out", tmp_path / "out")
    assert message in found.replace("\n", " ")
    assert found == refused(
        "run", recipe_of(tmp_path, tmp_path, *changes, **keys), "--out", tmp_path / "out", "--dry-run"
    )
    assert not (tmp_path / "out").exists()


def test_a_check_says_which_runs_are_not_there_yet(tmp_path):
    recipe = recipe_of(tmp_path, tmp_path, {"refiner": {"run": str(tmp_path)}})
    result = unidiff("check", recipe)
    assert result.code == 0
    assert f"# It needs runs that are not there: {tmp_path / 'base'}, {tmp_path / 'up'}.\n" in result.out
    assert json.loads(unidiff("check", recipe, "--json").out)["missing"] == [
        str(tmp_path / "base"),
        str(tmp_path / "up"),
    ]
    started = write(tmp_path, {**SMALL, "start": str(tmp_path / "none")}, "start.yaml")
    assert json.loads(unidiff("check", started, "--json").out)["missing"] == [str(tmp_path / "none")]


@pytest.mark.slow  # as above
@pytest.mark.parametrize(("changes", "keys", "message"), WRONG_RUNS.values(), ids=list(WRONG_RUNS))
def test_runs_that_do_not_fit_are_one_message(runs, tmp_path, changes, keys, message):
    found = refused("run", recipe_of(runs, tmp_path, *changes, **keys), "--out", tmp_path / "out", "--dry-run")
    assert message in found.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # as above
def test_stages_of_other_sizes_or_processes_do_not_fit(runs, tmp_path):
    stages = [{"run": str(runs / "up")}]
    message = refused("run", write(tmp_path, {"stages": stages}), "--out", tmp_path / "out", "--dry-run")
    assert "image" in message
    assert "(stages[0])" in message
    stages = [{"run": str(runs / "base")}, {"run": str(runs / "base")}]
    message = refused("run", write(tmp_path, {"stages": stages}), "--out", tmp_path / "out", "--dry-run")
    assert "stages[1]: Labels(dropout=0.1) makes no condition" in message
    other = {"run": str(runs / "up"), "t": 0.2}
    message = refused("run", recipe_of(runs, tmp_path, {"refiner": other}), "--out", tmp_path / "out")
    assert "stages[0].refiner: " in message
    assert "its process must be the model's" in message
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class Measured(ud.Conditioning):
    """A number and a vector of an image."""

    dropout: float = 0.1

    def built_for(self, data):
        return ud.Scalar(-1, 1, name="mean"), ud.Embedding((2,), name="corner")

    def conditions(self, x0, label, uniform):
        return {"mean": x0.flatten(1).mean(1), "corner": x0[:, 0, 0, :2]}


@pytest.mark.slow  # two runs are trained
def test_every_condition_goes_to_each_stage_that_has_it_as_in_the_library(tmp_path):
    text = {**SMALL, "backbone": {**SMALL["backbone"], "attention": [4]}}
    data, measured = {"type": "CaptionedDigits", "copies": 1}, {"type": f"{__name__}:Measured"}
    enlarged = {"type": "SuperResolution", "factor": 2}
    recipes = {
        "text": {**text, "data": data, "conditioning": ["Captions", measured]},
        "large": {
            **text,
            "data": {**data, "size": 16},
            "backbone": {**text["backbone"], "attention": [8]},
            "conditioning": ["Captions", enlarged],
        },
    }
    for name, recipe in recipes.items():
        path = write(tmp_path, recipe, f"{name}.yaml")
        assert unidiff("run", path, "--out", tmp_path / name, "--allow-imports").code == 0
    text, large = (load_generation(tmp_path / name, allow_imports=True) for name in recipes)
    stages = [ud.Stage(text.model, ud.DDIM(), ud.Uniform(4))]
    stages += [ud.Stage(large.model, ud.DDIM(), ud.Uniform(4), ud.SuperResolution(2))]
    words = ("a red three on blue", "a one on red")
    caption = torch.full((3, 5), -1)
    for row, said in zip(caption, [*words, words[0]]):
        row[: len(said.split())] = ud.Captions().built_for(text.recipe.data)[0].parse(said)
    corner = torch.tensor([[0.5, 1.0], [0.0, 1.0], [1.0, 0.0]])
    x = ud.Cascade(stages).sample(3, batch=2, caption=caption, corner=corner, mean=torch.full((3,), 0.25)).x
    cascade = {"stages": [{"run": str(tmp_path / name)} for name in recipes], "count": 3, "batch": 2}
    cascade["cond"] = {"caption": list(words), "corner": corner.tolist()}
    path, out = write(tmp_path, cascade, "cascade.yaml"), tmp_path / "out"
    done = unidiff("run", path, "--out", out, "--allow-imports", "--set", "cond.mean=0.25")
    assert done.code == 0, done.err
    assert torch.equal(torch.from_numpy(np.load(out / "samples.npy")), x)
    again = unidiff("run", out / "recipe.yaml", "--out", tmp_path / "again", "--allow-imports")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "samples.npy").read_bytes() == (out / "samples.npy").read_bytes()
    # An image of one's own, where no stage makes it.
    small = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for number, image in enumerate(small):
        np.save(tmp_path / f"{number}.npy", image.numpy())
    cascade = {"stages": [cascade["stages"][1]], "images": [str(tmp_path / f"{n}.npy") for n in (0, 1)], "count": 3}
    done = unidiff("run", write(tmp_path, cascade), "--out", tmp_path / "one", "--set", "cond.caption=[a, on]")
    assert done.code == 0, done.err
    image = small[[0, 1, 0]].repeat_interleave(2, 2).repeat_interleave(2, 3)
    caption = torch.tensor([[0], [1], [0]])
    x = ud.Cascade([ud.Stage(large.model, ud.DDIM(), ud.Uniform(4))]).sample(3, image=image, caption=caption).x
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "one" / "samples.npy")), x)
    for word, message in (
        ("cond.caption=a tree", "cond.caption: 'tree' is not one of its words"),
        ("cond.caption=[a, a tree]", "cond.caption: 'tree' is not one of its words"),
        ("cond.mean=1", "cond.mean: no stage takes a condition 'mean' from outside the cascade"),
        ("classes=[1]", "classes: no stage takes a condition 'label' from outside the cascade"),
        ("images=[]", "images: this model needs"),
        ("images=[none.png]", "none.png"),
        ("mask=mask.png", "mask"),
    ):
        found = refused("run", tmp_path / "tiny.yaml", "--out", tmp_path / "two", "--dry-run", "--set", word)
        assert message in found.replace("\n", " ")
