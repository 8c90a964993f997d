"""Recipes of the last release: what left the process is read where it is now."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

import unidiff as ud
from unidiff.errors import RecipeError

BEFORE = Path(__file__).parents[1] / "data" / "before" / "runs" / "generation"
NETWORK = "backbone: {type: MLP, width: 8, depth: 1}\ntraining: {steps: 1}\n"
REST = f"parameterization: Preconditioned\ndata: Ring\n{NETWORK}"
CLASSIFIER = "data: Digits\nclassifier: {type: MLPEncoder, width: 8, depth: 1}\ntraining: {steps: 1}\n"


def read(folder, text, overrides=(), run=False):
    """The recipe of a text, as the recipe.yaml of a run directory or of any other."""
    (folder / "recipe.yaml").write_text(text)
    if run:
        (folder / "checkpoints").mkdir(exist_ok=True)
    return ud.load_recipe(folder / "recipe.yaml", overrides)


@pytest.mark.parametrize(
    ("process", "objective", "expected"),
    [
        ("{type: EDM, log_sigma_mean: -0.5, log_sigma_std: 0.3}", "", ud.LogNormal(-0.5, 0.3)),
        ("{type: edm, log_sigma_mean: 0.25}", "objective: {type: Denoising, weighting: MinSNR}\n", ud.LogNormal(0.25)),
        ("EDM", "objective: Denoising\n", ud.LogNormal()),
        ("{type: EDM, log_sigma_std: 0.3}", "objective: {type: Denoising, times: LogitNormal}\n", ud.LogitNormal()),
    ],
)
def test_the_training_times_of_edm_are_read_as_those_of_the_objective(tmp_path, process, objective, expected):
    text = f"process: {process}\n{objective}{REST}"
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        recipe = read(tmp_path, text)
    assert recipe.objective.times == expected
    assert recipe.process == ud.EDM()
    assert [str(n.message) for n in notices if "objective.times" in str(n.message)] or "times" in objective
    assert "weighting: MinSNR" not in objective or recipe.objective.weighting == ud.MinSNR()
    # What it is resolved to is read without a notice, and is the same.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path, recipe.to_yaml()) == recipe


def test_overrides_of_the_old_keys_are_read_too(tmp_path):
    with pytest.warns(DeprecationWarning, match="LogNormal, mean: -0.8"):
        recipe = read(tmp_path, f"process: EDM\n{REST}", ["process={type: EDM, log_sigma_mean: -0.8}"])
    assert recipe.objective.times == ud.LogNormal(-0.8)


def test_a_classifier_keeps_the_times_of_its_edm(tmp_path):
    with pytest.warns(DeprecationWarning, match="`times`"):
        recipe = read(tmp_path, f"process: {{type: EDM, log_sigma_mean: -0.8, log_sigma_std: 1.0}}\n{CLASSIFIER}")
    assert recipe.loss().times == ud.LogNormal(-0.8, 1.0)
    assert recipe.process == ud.EDM()


def test_an_edm_below_another_process_loses_what_it_never_used(tmp_path):
    base = "{type: EDM, sigma_max: 50.0, log_sigma_mean: -1.2, log_sigma_std: 1.2}"
    process = f"{{type: Blurring, shape: [8, 8], base: {base}}}"
    text = f"process: {process}\nparameterization: X0\nbackbone: {{type: MLP, width: 8, depth: 1}}\ndata: Digits\n"
    recipe = read(tmp_path, f"{text}training: {{steps: 1}}\n")
    assert recipe.process.base == ud.EDM(sigma_max=50.0)
    assert recipe.objective.times == ud.UniformTimes()


@pytest.mark.parametrize("run", [False, True], ids=["recipe", "run of the last release"])
def test_a_network_is_passed_what_it_was_trained_with(tmp_path, run):
    # A resolved recipe without the key is of the last release, whose networks were all passed 1000 t.
    recipe = read(tmp_path, f"process: VPSDE\n{REST}", run=run)
    expected = ud.Timestep() if run else ud.LogSigma()
    assert recipe.noise_condition == expected
    assert recipe.model({}).noise_condition == expected
    # From now on the key is written, and what is written is what is read.
    assert read(tmp_path, recipe.to_yaml(), run=True).noise_condition == expected
    assert read(
        tmp_path, recipe.to_yaml(), ["noise_condition={type: TableIndex, T: 10}"]
    ).noise_condition == ud.TableIndex(10)


def test_a_real_run_of_the_last_release_is_passed_a_thousand_t(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(BEFORE, run)
    assert "noise_condition" not in (run / "recipe.yaml").read_text()
    assert ud.load(run, device="cpu").denoiser.noise_condition == ud.Timestep()


HEAT = "process: {type: RenormalizedHeat, shape: [8, 8], noise: NOISE}\nparameterization: X0\ndata: Digits\n"
STRINGS = [("white", ud.WhiteNoise()), ("gradient", ud.GaussianFreeField()), ("data", ud.DataSpectrum())]


@pytest.mark.parametrize(("old", "expected"), STRINGS)
@pytest.mark.parametrize("run", [False, True], ids=["recipe", "run of the last release"])
def test_a_string_of_before_is_read_as_its_class(tmp_path, old, expected, run):
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        recipe = read(tmp_path, HEAT.replace("NOISE", old) + NETWORK, run=run)
    assert recipe.process.noise == expected
    said = [f"{old} is now called {type(expected).__name__}" in str(notice.message) for notice in notices]
    assert any(said) != run  # a finished run is not edited, so it is read in silence
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path, recipe.to_yaml()) == recipe


@pytest.mark.parametrize(("old", "expected"), [("spectral", ud.pde.Spectral()), ("fd", ud.pde.FiniteDifferences())])
def test_the_kind_of_a_domain_is_its_discretization(tmp_path, old, expected):
    with pytest.warns(DeprecationWarning, match=r"'domain.kind' is now called 'discretization'"):
        recipe = read(tmp_path, f"domain: {{type: Interval, cells: 8, kind: {old}}}\ntimes: [1.0]\n")
    assert recipe.domain == ud.pde.Interval(8, 1.0, expected)


def test_a_condition_that_does_not_fit_is_an_error_at_its_key(tmp_path):
    with pytest.raises(RecipeError, match=r"noise_condition: .*alpha = 0"):
        read(tmp_path, f"process: FlowMatching\nnoise_condition: LogSigma\n{REST}")
    text = f"process: {{type: Blurring, shape: [8, 8]}}\ntimes: LogNormal\n{CLASSIFIER}"
    with pytest.raises(RecipeError, match=r"times: .*LogNormal"):
        read(tmp_path, text)
