"""The commands on what diffusers has saved, in the place of a run directory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from theirs import SMALLEST, autoencoder, changed, diffusers, transformer, unet
from tiny import refused, unidiff

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.interop.diffusers import load
from unidiff.pretrained import is_saved

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.slow,  # four pipelines of diffusers are made and saved
]
THREE = ("--set", "sampling.grid={type: Uniform, steps: 3}", "--count", 2)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch, tmp_path):
    """The reference flow is followed in a few steps, and what is written without --out is written here."""
    for module in ("comparison_models", "tuned"):
        monkeypatch.setattr(f"unidiff.tasks.{module}._MOST_STEPS", 8)
        monkeypatch.setattr(f"unidiff.tasks.{module}._TOLERANCE", 10.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A pipeline of pixels, pixels of a flow, latents, and latents of classes; small and random."""
    top = tmp_path_factory.mktemp("saved")
    small = unet(**SMALLEST)
    diffusers.DDPMPipeline(small, diffusers.DDPMScheduler(num_train_timesteps=20)).save_pretrained(top / "pixels")
    diffusers.DDPMPipeline(small, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)).save_pretrained(top / "flow")
    latents = unet(**SMALLEST, in_channels=2, out_channels=2)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    diffusers.LDMPipeline(autoencoder(), latents, scheduler).save_pretrained(top / "latents")
    diffusers.DiTPipeline(transformer(num_layers=1), autoencoder(), scheduler).save_pretrained(top / "classes")
    # As the published pipelines have them.
    changed(top / "classes" / "model_index.json", id2label={str(n): f"kind {n}" for n in range(1000)})
    return top


def done(*words: object) -> dict[str, object]:
    result = unidiff(*words, "--json")
    assert result.code == 0, result
    return json.loads(result.out.splitlines()[-1])


def test_samples_are_those_of_the_model(saved, tmp_path):
    done("sample", saved / "pixels", *THREE, "--array", "x.npy", "--set", "sampling.solver=DDIM")
    model = load(saved / "pixels")
    same = ud.sample(model, ud.DDIM(), ud.Uniform(3), None, 2, dtype=torch.float32).x.clamp(-1, 1)
    assert np.array_equal(np.load("x.npy"), same.numpy())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn-001.png", "x.npy"]
    assert not list((saved / "pixels").glob("*.png"))
    # Its scheduler clips, which can be replaced as in `load`.
    done("sample", saved / "pixels", *THREE, "--array", "y.npy", "--set", "scheduler.clip_sample=false")
    assert not np.array_equal(np.load("x.npy"), np.load("y.npy"))


def test_latents_are_decoded_and_edited(saved):
    done("sample", saved / "latents", *THREE, "--array", "x.npy")
    assert np.load("x.npy").shape == (2, 1, 16, 16)
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save("image.png")
    assert done("edit", saved / "latents", "image.png", *THREE)["strength"] == 0.6
    assert "this is a latent model" in refused("inpaint", saved / "latents", "image.png", "image.png")


def test_inpainting_keeps_the_known_pixels(saved):
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(image).save("image.png")
    Image.fromarray(np.where(np.arange(8) < 4, 0, 255).astype(np.uint8)[None].repeat(8, 0)).save("mask.png")
    done("inpaint", saved / "pixels", "image.png", "mask.png", *THREE, "--array", "x.npy")
    assert np.allclose(np.load("x.npy")[:, 0, :, :4], image[:, :4] / 127.5 - 1, atol=1e-6)


def test_classes_have_the_names_of_the_pipeline(saved):
    named = done("sample", saved / "classes", *THREE, "--class", "kind 3", "--guidance", 2, "--array", "x.npy")
    assert named["classes"] == ["kind 3"]
    done("sample", saved / "classes", *THREE, "--class", 3, "--guidance", 2, "--array", "y.npy")
    assert np.array_equal(np.load("x.npy"), np.load("y.npy"))
    changed(saved / "classes" / "model_index.json", id2label=None)
    assert "the classes of" in refused("sample", saved / "classes", *THREE, "--class", "kind 3")


def test_a_flow_is_sampled_at_its_own_times(saved):
    run = ud.load(saved / "flow")
    times = run.recipe.sampling.grid.times(run.denoiser.process)
    plain = torch.linspace(1, 1e-3, 50, dtype=torch.float64)[1:]
    assert len(times) == 51
    assert bool((times[1:50] > plain + 1e-4)[:-1].all())  # shifted to the noise


def test_compared_tuned_and_evaluated(saved):
    options = ("--solvers", "ddim,exponential", "--nfe", "2,3", "--count", 20)
    rows = done("compare", saved / "pixels", saved / "flow", *options, "--out", "compared")["rows"]
    assert {row["model"] for row in rows} == {"pixels", "flow"}
    tuned = done("tune", saved / "pixels", "--nfe", 3, "--count", 20, "--solvers", "adamsbashforth")
    assert done("sample", saved / "pixels", "--sampling", tuned["file"], "--count", 2)["nfe"] == 3
    assert "--data: it is missing" in refused("evaluate", saved / "pixels", "--count", 20)
    rng = np.random.default_rng(0)
    np.save("data.npy", rng.uniform(-1, 1, (300, 1, 8, 8)).astype(np.float32))
    data = ("--data", "{type: ArrayFile, path: data.npy}", "--features", "pixels")
    assert done("evaluate", saved / "pixels", "--count", 20, "--nfe", 2, *data, "--out", "evaluated")


def test_what_is_no_model_is_one_message(saved, tmp_path, monkeypatch):
    for words in (("report",), ("resume",)):
        assert "It is a model in the format of diffusers: sample," in refused(*words, saved / "pixels")
    assert "Use it from Python, with samples of your own" in refused("likelihood", saved / "pixels")
    (tmp_path / "empty").mkdir()
    for name in ("empty", "runs/nothing", "nothing"):
        assert f"{name}: not a run directory" in refused("sample", name)
    assert "switched off by the environment variable UNIDIFF_OFFLINE" in refused("sample", "hub:somebody/something")
    assert "switched off by the environment variable UNIDIFF_OFFLINE" in refused("compare", "somebody/something")
    assert "training" in refused("sample", saved / "pixels", "--set", "training.steps=3")
    for name, expected in (("somebody/something", True), ("runs/x", False), ("a/b/c", False), ("a/b.yaml", False)):
        assert is_saved(name) is expected
    (tmp_path / "somebody").mkdir()
    assert not is_saved("somebody/something")


def test_a_model_is_trained_further(saved, tmp_path):
    settings = ud.Training(steps=2, batch=2, lr=1e-2, ema=0.0, tensorboard=False)
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = load(saved / "pixels", scheduler={"clip_sample": False})
    with pytest.raises(ParameterError, match=r"all of its weights are frozen. Call denoiser.requires_grad_\(True\)"):
        ud.train(model, images, ud.Denoising(), settings)
    before = {name: value.clone() for name, value in model.backbone.network.state_dict().items()}
    trained = ud.train(model.requires_grad_(True), images, ud.Denoising(), settings)
    trained.backbone.network.save_pretrained(saved / "pixels" / "unet")  # in place of the first one
    again = load(saved / "pixels").model.backbone.network.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in again.items())
    own = trained.backbone.network.state_dict()
    assert all(torch.equal(value, own[name].cpu()) for name, value in again.items())
