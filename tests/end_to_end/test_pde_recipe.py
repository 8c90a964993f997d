"""`unidiff run` with a recipe that has a `domain`: the equation is solved, files are whole, mistakes have a place."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import refused, shipped_with, unidiff, write

import unidiff as ud
from unidiff import pde
from unidiff.errors import ParameterError
from unidiff.recipe.shipped import shipped_recipes

FILES = ["evolution.csv", "evolution.json", "profiles.png", "shares.png", "values.npy"]
TINY = {"domain": {"type": "Rectangle", "cells": [6, 8]}, "times": [0, 0.1], "start": {"type": "RandomField"}}
EVOLUTIONS = shipped_with("domain")


def test_figure_7(tmp_path):
    result = unidiff("run", "eigenmodes", "--out", tmp_path / "out", "--device", "cpu")
    assert result.code == 0, result
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    facts = json.loads((tmp_path / "out/evolution.json").read_text())
    assert facts["environment"]["unidiff"] == ud.__version__
    rows = facts["rows"]
    assert [row["t"] for row in rows] == [1.5, 15, 150, 1500]
    # w_1 e^(-2 lambda_1 D t) / sum_k w_k e^(-2 lambda_k D t), evaluated with 60 digits.
    expected = [0.00021412789348813, 0.0067726089710344, 0.15467763926518, 0.99918822969169]
    assert [row["share_1"] for row in rows] == pytest.approx(expected, rel=1e-11)
    assert all(row["gradient_energy"] == pytest.approx(11.15, rel=1e-13) for row in rows)
    with (tmp_path / "out/evolution.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in line.items()} for line in table] == rows
    values = np.load(tmp_path / "out/values.npy")
    assert values.shape == (4, 100)
    # The integral of (du/dx)^2 over the cosine interpolant, and the height of the last steady state.
    assert np.abs(values[3]).max() == pytest.approx(1.5237, abs=1e-4)
    for name in ("profiles.png", "shares.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == (921, 672)  # 4.8 x 3.5 inches of 192 dots
            assert len(set(picture.convert("L").tobytes())) > 20
    shown = result.out.splitlines()
    assert shown[4].split()[0] == "1500"
    assert shown[4].split()[4] == "0.99919"
    evolving = ud.load_recipe("eigenmodes")
    flow = pde.evolve_modes(evolving.domain, evolving.start.modes(evolving.domain), 150, diffusivity=1e-4, R=11.15)
    torch.testing.assert_close(torch.from_numpy(values[2]), flow.values, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", EVOLUTIONS)
def test_a_shipped_evolution_is_right(name, tmp_path):
    checked = unidiff("check", name)
    assert checked.code == 0
    assert "# Valid. Nothing is trained" in checked.out
    (tmp_path / "again.yaml").write_text(checked.out)
    assert ud.load_recipe(tmp_path / "again.yaml") == ud.load_recipe(name)
    assert json.loads(unidiff("check", name, "--json").out)["recipe"] == ud.load_recipe(name).to_dict()
    assert shipped_recipes()[name].read_text().startswith("# ")


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("domain", [{"type": "Rectangle", "cells": [6, 8]}, {"type": "Box", "cells": [3, 4, 5]}])
def test_domains_of_more_dimensions(domain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = unidiff("run", write(tmp_path, {**TINY, "domain": domain}), "--json", "--set", "R=2")
    assert result.code == 0, result
    facts = json.loads(result.out.splitlines()[-1])
    assert (facts["directory"], facts["recipe"]["R"]) == ("runs/tiny", 2.0)
    assert sorted(path.name for path in (tmp_path / "runs/tiny").iterdir()) == FILES
    assert np.load("runs/tiny/values.npy").shape == (2, *domain["cells"])


@pytest.mark.slow  # a second or more
def test_an_evolution_is_not_overwritten_by_accident(tmp_path):
    words = ["run", write(tmp_path, TINY), "--out", tmp_path / "out"]
    assert "nothing was written" in unidiff(*words, "--dry-run").out
    assert not (tmp_path / "out").exists()
    assert unidiff(*words).code == 0
    before = (tmp_path / "out/evolution.json").read_text()
    assert "--overwrite" in refused(*words, "--set", "R=3")
    assert (tmp_path / "out/evolution.json").read_text() == before
    assert unidiff(*words, "--set", "R=3", "--overwrite").code == 0
    assert json.loads((tmp_path / "out/evolution.json").read_text())["recipe"]["R"] == 3
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    assert "not an evolution" in refused("run", tmp_path / "tiny.yaml", "--out", tmp_path / "full", "--overwrite")
    assert "does not train a model" in refused(*words, "--resume")


@pytest.mark.parametrize("failing", ["unidiff.plot.save_fields", "unidiff.plot.save_graphs"])
def test_a_failure_leaves_no_half_of_it(tmp_path, monkeypatch, failing):
    def full(*args):
        raise OSError(28, "No space left on device")

    path = write(tmp_path, TINY)
    monkeypatch.setattr(failing, full)
    result = unidiff("run", path, "--out", tmp_path / "out")
    assert result.code == 1
    assert "No space left" in result.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"domain": {"type": "Interval", "cells": 1}}, "domain.cells must be an integer >= 2, got 1"),
        (
            {"domain": {"type": "Interval", "cells": 10**10}},
            "must be at most",
        ),
        ({"domain": {"type": "Rectangle", "cells": 4}}, "domain.cells"),
        ({"domain": {"type": "Intervall"}}, "Did you mean 'Interval'?"),
        (
            {"domain": {"type": "Interval", "discretization": "Spectrum"}},
            "unknown discretization 'Spectrum'. Did you mean 'Spectral'?",
        ),
        ({"domain": {"type": "DDPM"}}, "expected a domain, got DDPM, a process"),
        (
            {"start": {"type": "Eigenmodes", "terms": [[48, 1.0]]}},
            "terms must be an integer from 1 to 47, got 48",
        ),
        ({"start": {"type": "Eigenmodes", "terms": [[3]]}}, "start.terms"),
        ({"times": []}, "times"),
        ({"times": [1, -2]}, ", got -2.0"),
        ({"R": 0}, "R must be a finite number > 0, got 0.0"),
        ({"diffusivity": -1}, "diffusivity must be a finite number > 0, got -1.0"),
        ({"clean": 1}, "clean must be a number in [0, 1), got 1.0"),
        ({"steps": 5}, "steps: unknown key"),
    ],
)
def test_mistakes_in_the_recipe_are_shown_in_place(tmp_path, change, said):
    path = write(tmp_path, {**TINY, **change})
    for command in ("run", "check"):
        message = refused(command, path)
        assert said in message
        assert "tiny.yaml:" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_recipe_has_one_kind(tmp_path):
    path = write(tmp_path, TINY)
    assert type(ud.load_recipe(path)) is ud.tasks.HeatFlow
    assert type(ud.load_recipe("ddpm_digits")) is ud.tasks.Generation
    message = refused("compare", path)
    assert "a solution of the renormalised heat equation" in message
    assert "no `solvers`" in message
    with pytest.raises(ParameterError, match="times"):
        ud.tasks.HeatFlow(domain=ud.pde.Interval(), times=())


def test_the_current_directory_can_be_the_place(tmp_path, monkeypatch):
    path = write(tmp_path, TINY)
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    assert unidiff("run", path, "--out", ".", "--device", "cpu").code == 0
    assert sorted(entry.name for entry in place.iterdir()) == FILES
    assert "an evolution is already there" in refused("run", path, "--out", ".", "--device", "cpu")
