"""A recipe with `stages`: samples of several trained runs, pinned by digest."""

from __future__ import annotations

import json
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
    "no such class": ([], {"classes": [12]}, "label must be from 0 to 9"),
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
