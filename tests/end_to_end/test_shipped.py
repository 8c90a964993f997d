"""The models that come with unidiff: pinned, sampled, used in the place of a run, and never written to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from tiny import RING, refused, unidiff, write

import unidiff as ud
from unidiff.errors import RunError
from unidiff.recipe.shipped import shipped_recipes
from unidiff.run import shipped
from unidiff.run.shipped import SHIPPED, locate

ROOT = Path(__file__).parents[2]
FEW = ("--set", "sampling.solver=DDIM", "--set", "sampling.grid={type: Uniform, steps: 3}", "--count", 2)


def stamps() -> dict[str, tuple[int, int]]:
    """Every file and folder of the shipped models, with its size and when it was last written."""
    paths = sorted(shipped._FOLDER.rglob("*"))
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_each_is_pinned_and_small():
    rows = dict(re.findall(r"^\| `(\w+)` .*`(sha256:[0-9a-f]{64})` \|$", (ROOT / "docs/shipped.md").read_text(), re.M))
    assert rows == SHIPPED
    assert {path.name for path in shipped._FOLDER.iterdir()} == set(SHIPPED)
    for name in SHIPPED:
        folder = locate(f"shipped:{name}")
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_000_000


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_of_the_recipe_of_its_name_and_draws_digits(name):
    run = ud.load(f"shipped:{name}", device="cpu")
    own, recipe = run.recipe.to_dict(), ud.load_recipe(name).to_dict()
    assert {**own, "sampling": None} == {**recipe, "sampling": None}
    grid = ud.ArcLength(12) if run.denoiser.process.basis.shape else ud.Tapered(12)
    x = run.sample(ud.Sampling(ud.DDIM(), grid, count=20), **run.conditioned(20).in_turn(20)).x
    found = ud.evaluation.load_features("digits")(x).probabilities
    # A network without training has 0.85, real digits 0.9997; these 0.95 and more when they were shipped.
    assert found.amax(1).mean() > 0.9
    if run.denoiser.conditions:
        assert (found.argmax(1) == torch.arange(20) % 10).double().mean() >= 0.8


def test_it_stands_in_the_place_of_a_run_and_nothing_is_written_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = stamps()
    result = unidiff("sample", "shipped:ddpm_digits", *FEW)
    assert result.code == 0, result
    assert "drawn-001.png" in result.out
    assert (tmp_path / "drawn-001.png").is_file()
    recipe = {"evaluate": ["shipped:ddpm_digits"], "count": 20, "nfe": [2]}
    assert "needs runs" not in unidiff("check", write(tmp_path, recipe)).out
    for command in (["resume", "shipped:ddpm_digits"], ["run", "ddpm_digits", "--out", "shipped:ddpm_digits"]):
        assert "nothing is written there" in refused(*command)
    for command in (
        ["evaluate", "shipped:ddpm_digits"],
        ["run", "ddpm_digits"],
        ["reproduce", "higham-7"],
    ):
        assert "nothing is written there" in refused(*command, "--out", "shipped:mine"), command
    assert "nothing is written there" in refused("export", "shipped:ddpm_digits", "shipped:mine")
    assert stamps() == before


@pytest.mark.slow  # 1 s
def test_training_may_start_from_it(tmp_path):
    name = "ddpm_digits"
    recipe = {**yaml.safe_load(shipped_recipes()[name].read_text()), "start": f"shipped:{name}"}
    recipe |= {"training": {**RING["training"], "steps": 1}, "sampling": RING["sampling"]}
    assert unidiff("run", write(tmp_path, recipe), "--dry-run", "--device", "cpu", "--out", tmp_path / "new").code == 0


def test_an_unknown_name_a_damaged_file_and_a_directory_of_that_name(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"shipped:nothing: no model of this name .* shipped:ddpm_digits, "):
        ud.load("shipped:nothing")
    for command in ("sample", "compare", "evaluate", "likelihood"):
        assert "no model of this name" in refused(command, "shipped:nothing")
    monkeypatch.setitem(SHIPPED, "heat_digits", "sha256:0")
    shipped._verified.cache_clear()
    with pytest.raises(RunError, match="sha256:0 was shipped"):
        ud.load("shipped:heat_digits")
    shipped._verified.cache_clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shipped:mine").mkdir()
    with pytest.raises(RunError, match="not a run directory"):
        ud.load("shipped:mine")
