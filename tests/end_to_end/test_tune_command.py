"""`unidiff tune`: the file that it writes, what reads it, and its refusals."""

from __future__ import annotations

import json
from unittest import mock

import pytest
import yaml
from tiny import RING, refused, unidiff, write

import unidiff as ud
from unidiff.cli.signals import Interruption

pytestmark = pytest.mark.slow  # trains a run, and fits a grid and weights to it with all the runs that these take
WORDS = ["--nfe", 3, "--count", 20, "--solvers", "exponentialadams"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    classes = {"backbone": {**RING["backbone"], "classes": 8}, "conditioning": {"type": "Labels", "dropout": 0.5}}
    recipe = {**RING, **classes, "training": {**RING["training"], "steps": 2}}
    assert unidiff("run", write(folder, recipe), "--out", folder / "run").code == 0
    return folder / "run"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_what_samples_are_drawn_with(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files(run)
    result = unidiff("tune", run, *WORDS, "--coefficients", "--json")
    assert result.code == 0, result
    facts = json.loads(result.out)
    assert facts["file"] == "run-nfe3.yaml"
    assert facts["error"] <= facts["default_error"]
    assert {row["what"] for row in facts["rows"]} == {"", "guidance 3", *(f"class {k}" for k in range(8))}
    assert files(run) == before
    text = (tmp_path / "run-nfe3.yaml").read_text()
    assert text.startswith("# unidiff tune ")
    section = yaml.safe_load(text)["sampling"]
    assert sorted(section) == ["grid", "solver"]
    drawn = unidiff("sample", run, "--sampling", "run-nfe3.yaml", "--count", 2, "--set", "sampling.seed=7", "--json")
    assert json.loads(drawn.out)["nfe"] == 3
    recipe = ud.load_recipe(write(tmp_path, {**RING, "sampling": section}))
    assert (repr(recipe.sampling.solver), repr(recipe.sampling.grid)) == (facts["solver"], facts["grid"])


def test_mistakes_are_one_message_before_any_work(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "notes.yaml"
    other.write_text("mine: 1\n")
    with mock.patch("unidiff.tasks.tuned.tune", side_effect=AssertionError):
        assert "--nfe must be an integer" in refused("tune", run, "--nfe", 2)
        assert "--count must be an integer" in refused("tune", run, "--nfe", 3, "--count", 3)
        assert "not a sampling section" in refused("tune", run, *WORDS, "--out", other)
        assert "does not exist" in refused("tune", run, *WORDS, "--out", tmp_path / "none/x.yaml")
        assert "--at-guidance high" in refused("tune", run, *WORDS, "--at-guidance", "high")
        assert "`sampling` is what is tuned" in refused("tune", run, *WORDS, "--set", "sampling.seed=1")
    assert "--solvers: 'bogus'" in refused("tune", run, *WORDS[:-1], "bogus")
    message = refused("tune", run, "--nfe", 3, "--solver", "heun", "--count", 20)
    assert "takes 2 steps in 3 evaluations; 3 or more can be tuned. Name others, or raise nfe." in message
    assert "draw no noise" in refused("tune", run, *WORDS[:-1], "ancestral")
    assert "notes.yaml" in refused("sample", run, "--sampling", other)
    assert "none.yaml" in refused("sample", run, "--sampling", tmp_path / "none.yaml")
    other.write_text("sampling: {grid: {type: FixedGrid, interior: [0.2, 0.4]}}\n")
    assert "decreasing times" in refused("sample", run, "--sampling", other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.yaml"]


def test_an_interruption_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mock.patch("unidiff.evaluation.fit.torch.linalg.solve", side_effect=Interruption(2)):
        result = unidiff("tune", run, *WORDS)
    assert result.code == 130
    assert "interrupted by SIGINT" in result.err
    assert not [*tmp_path.iterdir()]
