"""A model trained in code and saved: what the library and every command do with it is what they do with a run."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import refused, unidiff

import unidiff as ud
from unidiff.backbone.control import Controlled
from unidiff.backbone.low_rank import add_low_rank, merge_low_rank
from unidiff.errors import DataError, ParameterError, RunError

SETTINGS = ud.Training(steps=3, batch=8, tensorboard=False, log_every=1)
SAMPLING = ud.Sampling(ud.DDIM(), ud.Uniform(3), count=4)


def model(**options):
    return ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2,), width=8, depth=1, **options))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    ring = ud.data.Ring(count=60)
    trained = ud.train(model(), ring, ud.Denoising(), SETTINGS)
    directory = tmp_path_factory.mktemp("saved") / "mine"
    assert ud.save(trained, directory, data=ring, training=SETTINGS, sampling=SAMPLING) == directory
    return trained, directory


def test_the_run_is_the_model(saved):
    trained, directory = saved
    run = ud.load(directory)
    assert torch.equal(run.sample().x, ud.sample(trained, ud.DDIM(), ud.Uniform(3), seeds=4).x)
    assert (run.step, run.recipe.training, run.recipe.process) == (3, SETTINGS, ud.VPSDE())
    assert run.manifest.status == "saved"


@pytest.mark.slow  # six commands, of which one trains
def test_every_command_takes_it(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, directory = saved
    for words in (
        ("sample", directory, "--count", 4, "--out", "samples.png"),
        ("compare", directory, "--solvers", "ddim", "--nfe", 2, "--count", 20, "--out", "compared"),
        ("evaluate", directory, "--count", 30, "--out", "evaluated"),
        ("likelihood", directory, "--count", 4),
        ("report", directory),
    ):
        result = unidiff(*words)
        assert result.code == 0, (words, result.err)
    page = (directory / "report.html").read_text("utf-8")
    assert "its training is not repeated by it" in page
    assert "unidiff run recipe.yaml" not in page
    # A multilayer perceptron is nothing that diffusers has: the answer of any such run.
    assert "cannot be exported" in refused("export", directory, "exported")
    assert "`start: " in refused("run", directory / "recipe.yaml", "--out", directory, "--resume")
    assert "`start: " in refused("resume", directory)
    begun = unidiff(
        *("run", directory / "recipe.yaml", "--set", f"start={directory}", "--set", "training.steps=1"),
        *("--out", tmp_path / "begun"),
    )
    assert begun.code == 0, begun.err


def test_without_data_what_needs_none_is_done(tmp_path):
    labelled = model(classes=3)
    directory = ud.save(labelled, tmp_path / "run", conditioning=ud.Labels(), sampling=SAMPLING)
    label = torch.tensor([0, 1, 2, -1])
    x = ud.sample(labelled, ud.DDIM(), ud.Uniform(3), seeds=4, label=label).x
    assert torch.equal(ud.load(directory).sample(label=label).x, x)
    with pytest.raises(DataError, match="saved without its data"):
        ud.load(directory).recipe.data.open()
    with pytest.raises(RunError, match="already there"):
        ud.save(labelled, directory, conditioning=ud.Labels())
    ud.save(labelled, directory, conditioning=ud.Labels(), overwrite=True)
    ud.save(ud.load(directory).denoiser, tmp_path / "again", conditioning=ud.Labels())


def test_what_was_measured_of_the_data_is_kept(tmp_path):
    process = ud.RenormalizedHeat(shape=(2,), blur_max=40.0, noise=ud.DataSpectrum()).fit([torch.randn(50, 2)])
    own = ud.NeuralDenoiser(process, ud.X0(), ud.MLP((2,), width=8, depth=1))
    run = ud.load(ud.save(own, tmp_path / "run"))
    assert torch.equal(*(ud.sample(each, grid=3, seeds=2).x for each in (own, run.denoiser)))


def test_what_a_recipe_cannot_name_is_an_error(tmp_path):
    class Plain(torch.nn.Module):
        shape = (2,)

        def forward(self, x, c):
            return x

    grown = model()
    grown.backbone.more = torch.nn.Linear(2, 2)
    for wrong, said in (
        (ud.NeuralDenoiser(ud.VPSDE(), ud.V(), Plain()), "Derive it from unidiff.Backbone"),
        (grown, "its weights are not those of a new MLP"),
        (ud.GaussianMixture(ud.VPSDE(), [[0.0]], 1.0), "must be a NeuralDenoiser"),
        (model(classes=2), "no label conditioning"),
        (ud.NeuralDenoiser(ud.VPSDE(), ud.V(), Controlled(model().backbone, [], [])), "made of another network"),
    ):
        with pytest.raises(ParameterError, match=said):
            ud.save(wrong, tmp_path / "run")
    with pytest.raises(
        ParameterError, match=r"data must be data with samples of the network's shape, \(2,\), got Digits"
    ):
        ud.save(model(), tmp_path / "run", data=ud.data.Digits())
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_model_are_named(tmp_path):
    broken = model()
    with torch.no_grad():
        next(broken.parameters())[0] = math.nan
    name = next(iter(broken.backbone.state_dict()))
    with pytest.raises(ParameterError, match=f"its weight '{name}' has NaN or infinity"):
        ud.save(broken, tmp_path / "run")
    changed = model()
    add_low_rank(changed.backbone, 1, None, ["*"])
    with pytest.raises(ParameterError, match=r"merge_low_rank\(model.backbone\)"):
        ud.save(changed, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    merge_low_rank(changed.backbone)
    ud.save(changed, tmp_path / "run")


def test_a_picture_of_a_run_has_the_conditions_that_it_needs(tmp_path):
    network = ud.UNet((1, 8, 8), width=8, multipliers=(1,), blocks=1, groups=4, image=1)
    zoom = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network)
    kinds: dict[str, ud.data.Dataset | None] = {"with": ud.data.Digits(), "without": None}
    for name, data in kinds.items():
        ud.save(zoom, tmp_path / name, data=data, conditioning=ud.SuperResolution(2), sampling=SAMPLING)
        assert ud.load(tmp_path / name).plot().images
