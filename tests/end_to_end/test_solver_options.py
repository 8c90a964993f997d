"""`--solver` and `--steps`: the short text of compare wherever samples are drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from tiny import RING, refused, unidiff, write

import unidiff as ud

RUN = "shipped:ddpm_digits"


@pytest.mark.slow  # a training, and its end once more
def test_run_and_check_write_them_into_the_recipe(tmp_path):
    path = write(tmp_path, RING)
    facts = json.loads(unidiff("check", path, "--solver", "heun@karras:5", "--steps", 7, "--json").out)
    assert facts["recipe"]["sampling"]["solver"] == {"type": "Heun"}
    assert facts["recipe"]["sampling"]["grid"] == {"type": "Karras", "steps": 7, "rho": 5.0}
    folder = tmp_path / "run"
    assert unidiff("run", path, "--steps", 2, "--set", "training.report=false", "--out", folder).code == 0
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["sampling"]["grid"] == {"type": "Uniform", "steps": 2}
    assert unidiff("resume", folder).code == 0  # nothing is repeated


def test_samples_are_those_of_the_long_form(tmp_path):
    short, long = tmp_path / "short.npy", tmp_path / "long.npy"
    out = ("--out", tmp_path / "x.png", "--count", 2)
    assert unidiff("sample", RUN, "--solver", "ddim:0.5@logsnr", "--steps", 3, "--array", short, *out).code == 0
    words = "sampling.solver={type: DDIM, eta: 0.5}", "sampling.grid={type: LogSNR, steps: 3}"
    assert unidiff("sample", RUN, "--set", words[0], "--set", words[1], "--array", long, *out).code == 0
    np.testing.assert_array_equal(np.load(short), np.load(long))


def test_steps_alone_change_the_grid_alone():
    task = ud.load_recipe("ncsn_digits", ["sampling.grid={type: Karras, rho: 3}"])
    assert task.drawn_with(None, 9).sampling.grid == ud.Karras(9, 3.0)
    assert task.drawn_with("ddim", None).sampling.grid == ud.Karras(50, 3.0)
    assert task.drawn_with("ddim", 9).sampling.solver == ud.DDIM()
    native = ud.load_recipe("ddpm_digits", ["sampling.grid=native"])
    assert native.drawn_with(None, 20).sampling.grid == ud.Uniform(20)  # every 50th time of the table
    assert native.drawn_with("ddim", None).sampling.grid == ud.Native()
    plain = ud.load_recipe("ddpm_digits", ["sampling.grid=null"])
    assert plain.drawn_with("ddim", None).sampling.grid is None


def test_edit_and_inpaint_take_them(tmp_path):
    image, mask = tmp_path / "x.npy", tmp_path / "mask.npy"
    np.save(image, np.zeros((1, 8, 8), np.float32))
    np.save(mask, np.eye(8, dtype=bool))
    options = ("--solver", "ddim@uniform", "--steps", 2, "--count", 1, "--out", tmp_path / "x.png")
    assert "2 evaluations" in unidiff("edit", RUN, image, "--strength", 1, *options).out
    assert "2 evaluations" in unidiff("inpaint", RUN, image, mask, *options).out


def test_mistakes_are_one_message(tmp_path):
    write(tmp_path, RING)
    for words, message in [
        (["--steps", 0], "--steps must be an integer from 1"),
        (["--solver", "ddmi"], "--solver ddmi: there is no solver 'ddmi'. Did you mean 'ddim'?"),
        (["--solver", "ddim:x"], "--solver ddim:x: eta must be a number, got 'x'"),
        (["--solver", "ddim@kar:y"], "--solver ddim@kar:y: rho must be a number, got 'y'"),
        (["--solver", "ddim@native", "--steps", 3], "Native() has a number of steps of its own"),
        (["--solver", "ddim", "--set", "sampling.solver=heun"], "`--set sampling.solver=heun` sets this too"),
        (["--steps", 3, "--set", "sampling.grid=Uniform"], "--steps 3: `--set sampling.grid=Uniform` sets this too"),
    ]:
        assert message in refused("sample", RUN, *words)
        assert message in refused("check", tmp_path / "tiny.yaml", *words)
    assert "--steps: this recipe is a comparison of solvers" in refused("run", "compare_exact", "--steps", 5)
    assert "--solver: this recipe is the training of a" in refused(
        "check", "classifier_digits_noisy", "--solver", "ddim"
    )
