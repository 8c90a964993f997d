"""Runs, recipes and scripts of the last release still work."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from tiny import unidiff

import unidiff as ud

BEFORE = Path(__file__).parents[1] / "data" / "before"
RUNS = BEFORE / "runs"
RENAMED = ["Heat", "Simple", "Sigma2", "RandomHoles", "energy_distance", "HeatBlur", "Codec", "Data", "Trace", "Start"]


@pytest.mark.parametrize(("name", "cond"), [("generation", {"label": torch.arange(4)}), ("heat", {})])
def test_a_run_draws_what_it_drew(name, cond, monkeypatch):
    def generators(noise, seeds):
        noise.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def drawn(noise, like):
        return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in noise.generators])

    monkeypatch.setattr(ud.Seeded, "__init__", generators)  # the noise of before: everything else is as it was
    monkeypatch.setattr(ud.Seeded, "__call__", drawn)
    stored = torch.load(RUNS / name / "samples.pt")
    found = ud.load(RUNS / name).sample(**cond).x
    # A sample is the clean image of the last of three evaluations of a network of about 40 layers; processors and
    # versions of torch add in another order. A layer loses sqrt(n) roundings of 2^-24 with n = 72 products, 40 layers
    # sqrt(40) of these, three steps their sum: 3 sqrt(40 * 72) 2^-24 = 1e-5 of the largest value, at most tenfold by
    # the division by alpha at t = 1.
    bound = 10 * 3 * (40 * 72) ** 0.5 * 2**-24 * float(stored.abs().max())
    torch.testing.assert_close(found, stored, rtol=0, atol=bound)
    assert (stored - stored.roll(1, 0)).abs().max() > 100 * bound  # another seed or label would be seen


@pytest.mark.slow  # a second or more
def test_an_autoencoder_is_read():
    codec = ud.codec.load_codec(RUNS / "autoencoder")
    assert codec.layout.scale > 0
    x = ud.data.Digits(16).open("test").batch(torch.arange(2))
    assert codec.decode(codec.encode(x)).shape == x.shape


@pytest.mark.parametrize("name", ["generation", "heat", "classifier", "autoencoder"])
def test_a_run_is_described_by_its_own_recipe(name):
    assert unidiff("check", RUNS / name / "recipe.yaml").code == 0


@pytest.mark.parametrize(
    "name",
    ["generation", *(pytest.param(name, marks=pytest.mark.slow) for name in ("heat", "classifier", "autoencoder"))],
)
def test_a_finished_run_resumed_stays_as_it_is(name, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(RUNS / name, run)
    (run / "samples").mkdir()
    weights = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    log = (run / "metrics.jsonl").read_text()
    result = unidiff("run", run / "recipe.yaml", "--resume", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out.splitlines()[-1])["status"] == "finished"
    assert {path: path.read_bytes() for path in weights} == weights
    assert (run / "metrics.jsonl").read_text() == log


@pytest.mark.parametrize("path", sorted((BEFORE / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_right(path, tmp_path):
    result = unidiff("check", path)
    assert result.code == 0, result.err
    old = re.findall(r"\b(Heat|Simple|Sigma2)\b", path.read_text())
    assert all(name in result.err for name in old), "a notice names what has a new name"


@pytest.mark.parametrize("name", RENAMED)
def test_a_name_of_before_works_with_a_notice(name):
    with pytest.warns(DeprecationWarning, match=name):
        value = getattr(ud, name)
    assert value is not None


def test_a_script_of_before_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = ud.InverseHeat((2,), 0.8, levels=8)
        objective = ud.Denoising(weighting=ud.EpsilonWeighting())
        assert objective == ud.Denoising(weighting=ud.EpsilonWeighting())
        assert isinstance(process, ud.InverseHeat)
        x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert abs(float(ud.evaluation.energy_distance(x[:25], x[25:]).value)) < 1
        assert ud.inverse.HeatBlur(shape=(2, 3), blur=0.7) is not None
