"""Every shipped recipe is right, and runs a few steps from end to end."""

from __future__ import annotations

import dataclasses
import json

import pytest
from pairs import some
from PIL import Image
from tiny import metrics, refused, shipped_with, unidiff

import unidiff as ud
from unidiff.recipe.shipped import shipped_recipes

NAMES = shipped_with("backbone")
CODECS = shipped_with("codec")
# One of each kind in `make test`: a conditional U-Net, a transformer, blurring, images as conditions, latents.
QUICK = {"ncsn_digits", "dit_digits", "heat_digits"}
COMPARISONS = shipped_with("solvers")


@pytest.fixture(autouse=True)
def codecs(tmp_path_factory, monkeypatch, made={}):  # noqa: B006 (made once for all)
    """A working directory with a run of each codec's recipe, the networks narrow and fresh."""
    if not made:
        made["folder"] = tmp_path_factory.mktemp("codecs")
        for name in CODECS:
            coding = ud.load_recipe(name)
            codec = dataclasses.replace(coding.codec, channels=(8,) * len(coding.codec.channels))
            codec.build(coding.data.shape[0]).save(made["folder"] / "runs" / name)
    monkeypatch.chdir(made["folder"])


def overrides(name):
    """The recipe made tiny: few steps, few and narrow layers, few evaluations. What it is made of stays."""
    recipe = ud.load_recipe(name)
    changes = ["training.steps=2", "training.batch=4", "training.accumulate=1", "training.preview_every=1"]
    changes += [
        "training.precision=fp32",
        "training.compile=false",
        "sampling.count=2",
    ]
    changes += ["sampling.grid.steps=3"] * hasattr(recipe.sampling.grid, "steps")
    if recipe.start or recipe.teacher:  # whose process and network are those of the shipped model
        return [word for change in changes for word in ("--set", change)]
    # A short table, so that the recipe's own grid stays and is still short.
    changes += [f"process.{size}=3" for size in ("T", "levels") if size in vars(recipe.process)]
    known = {**recipe.backbone.arguments, **vars(recipe.sampling.solver)}
    small = {"width": "backbone.width=8", "blocks": "backbone.blocks=1", "heads": "backbone.heads=1"}
    small["steps_per_level"] = "sampling.solver.steps_per_level=1"
    changes += [change for key, change in small.items() if key in known]
    return [word for change in changes for word in ("--set", change)]


def test_there_are_recipes():
    assert {"ncsn_digits", "ddpm_digits", "ncsn_mnist_cpu", "ddpm_mnist_cpu"} <= set(NAMES)
    assert "compare_exact" in COMPARISONS


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_right(name):
    recipe = ud.load_recipe(name)
    assert unidiff("check", name).code == 0
    assert recipe.smaller_recipe is None or recipe.smaller_recipe in NAMES
    assert shipped_recipes()[name].read_text().startswith("# "), "the first line says what it is, for `unidiff list`"


@pytest.mark.parametrize("name", some(NAMES, lambda name: name in QUICK))
def test_a_recipe_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    monkeypatch.delenv("UNIDIFF_DATA", raising=False)
    monkeypatch.setattr("unidiff.search_paths.cache", lambda: tmp_path / "cache")
    changes = overrides(name)
    offline = "fallback:" in shipped_recipes()[name].read_text()
    if isinstance(ud.load_recipe(name).data, ud.data.ImageFolder) and not offline:
        assert "cifar10-jpg" in refused("run", name, "--out", tmp_path / "run", *changes)
        for number in range(20):
            Image.new("RGB", (32, 32), (10 * number, 90, 200 - 10 * number)).save(tmp_path / f"{number:02d}.png")
        changes += ["--set", f"data.root={tmp_path}"]
    result = unidiff("run", name, "--out", tmp_path / "run", "--json", *changes)
    assert result.code == 0, result.err
    summary = json.loads(result.out.splitlines()[-1])
    assert [line["step"] for line in metrics(tmp_path / "run")] == [2]
    samples = {path.name for path in (tmp_path / "run/samples").iterdir()}
    assert {"grid.png", "trajectory.png", "trajectory.gif", "step-00000001.png"} <= samples
    assert bool(summary["data"]["stand_in"]) == offline
    assert ("8x8 digits" in result.err) == offline
    loaded = ud.load(tmp_path / "run")
    told = loaded.recipe.conditions()
    cond = {} if told is None else told.examples(loaded.recipe.data, 2, loaded.recipe.classes).cond
    assert loaded.sample(**cond).x.isfinite().all()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.slow  # a second or more
def test_a_codec_is_right_and_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    monkeypatch.delenv("UNIDIFF_DATA", raising=False)
    monkeypatch.setattr("unidiff.search_paths.cache", lambda: tmp_path / "cache")
    coding = ud.load_recipe(name)
    assert unidiff("check", name).code == 0
    assert coding.smaller_recipe in (None, *CODECS)
    assert shipped_recipes()[name].read_text().startswith("# ")
    changes = ["training.steps=2", "training.batch=4", "training.preview_every=1", "training.precision=fp32"]
    changes += [f"codec.channels={[8] * len(coding.codec.channels)}"]
    words = [word for change in changes for word in ("--set", change)]
    result = unidiff("run", name, "--out", tmp_path / "run", "--json", *words)
    assert result.code == 0, result.err
    summary = json.loads(result.out.splitlines()[-1])
    assert bool(summary["data"]["stand_in"]) == ("fallback:" in shipped_recipes()[name].read_text())
    assert {"reconstructions.png", "step-00000001.png"} <= {path.name for path in (tmp_path / "run/samples").iterdir()}
    assert ud.codec.load_codec(tmp_path / "run").layout.scale > 0


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.slow  # whole comparisons
def test_a_comparison_is_right_and_runs(name, tmp_path):
    comparing = ud.load_recipe(name)
    assert unidiff("check", name).out.startswith("solvers:")
    assert not comparing.runs, "a shipped recipe knows of nobody's runs"
    assert shipped_recipes()[name].read_text().startswith("# ")
    result = unidiff("compare", name, "--nfe", 2, "--count", 20, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out.splitlines()[-1])
    assert found["rows"]
    assert len({row["label"] for row in found["rows"]}) + len(found["notes"]) >= len(comparing.solvers)


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", NAMES)
def test_shipped_recipe_loads(name, tmp_path):
    made = ud.load_recipe(name)
    (tmp_path / "again.yaml").write_text(made.to_yaml())
    assert ud.load_recipe(tmp_path / "again.yaml") == made
    assert made.smaller_recipe is None or made.smaller_recipe in shipped_recipes()
