"""ControlNets and a refiner that diffusers saves: the latents of its own pipelines, in float64 from the same noise.

Bounds as in test_diffusers_prompts.py: 1e-5, 100 roundings of float32, in which diffusers makes the control image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from prompted import KINDS, controlnet, xl
from theirs import COUNT, F64, diffusers, in_float64  # noqa: F401 (a fixture)
from tiny import refused, unidiff

import unidiff as ud
from unidiff.errors import ParameterError, RunError
from unidiff.interop.diffusers import load, load_grid
from unidiff.noise import Seeded

pytestmark = [
    pytest.mark.slow,  # transformers is imported, which takes seconds
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
PIPELINES = {
    "stable_diffusion": (diffusers.StableDiffusionControlNetPipeline, {"requires_safety_checker": False}),
    "xl": (diffusers.StableDiffusionXLControlNetPipeline, {}),
}


def images(seed: int) -> torch.Tensor:
    """Images in [0, 1], exact in float32, one for each sample."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 257, (COUNT, 3, 16, 16), generator=generator).double() / 256


def noise_of(model: Any) -> torch.Tensor:
    return Seeded(range(COUNT))(torch.empty(COUNT, *model.shape, dtype=F64))


def ours(model: Any, folder: Any, steps: int = 4, **cond: Any) -> torch.Tensor:
    prompt = model.conditions[0].parse("a red cat").expand(COUNT, -1)
    grid, guided = load_grid(folder, steps), ud.ClassifierFree(model, 2.0)
    return ud.sample(guided, ud.DDIM(), grid, None, COUNT, dtype=F64, prompt=prompt, **cond).x


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", PIPELINES)
def test_the_same_latents_under_control(tmp_path, kind):
    base = KINDS[kind]().to(F64)
    nets = [controlnet(base.unet, seed) for seed in (1, 2)]
    base.save_pretrained(tmp_path / "base")
    for number, net in enumerate(nets):
        net.save_pretrained(tmp_path / f"net{number}")
    pipeline_class, options = PIPELINES[kind]
    parts = {name: part for name, part in base.components.items() if name != "image_encoder"}
    folders, shown = [tmp_path / "net0", tmp_path / "net1"], [images(3), images(4)]
    for used, scales in ((1, [0.8]), (2, [0.8, -0.5]))[kind == "xl" :]:
        pipeline = pipeline_class(**parts, controlnet=nets[0] if used == 1 else nets, **options).to(F64)
        pipeline.set_progress_bar_config(disable=True)
        model = load(tmp_path / "base", control=folders[:used], control_scale=scales).double()
        theirs = pipeline(
            prompt=["a red cat"] * COUNT,
            image=shown[0] if used == 1 else shown,
            controlnet_conditioning_scale=scales[0] if used == 1 else scales,
            latents=noise_of(model),
            num_inference_steps=4,
            guidance_scale=2.0,
            output_type="latent",
        ).images
        cond = {name: 2 * image - 1 for name, image in zip(("control", "control_2"), shown[:used])}
        x = ours(model, tmp_path / "base", **cond)
        assert (x - theirs).abs().max() < 1e-5 * theirs.abs().max()
        black = ours(model, tmp_path / "base", **{name: -torch.ones_like(value) for name, value in cond.items()})
        assert (black - x).abs().max() > 1e-3  # the image is seen
    if kind == "xl":
        return
    # A pipeline that keeps its own ControlNets is read with them.
    pipeline.save_pretrained(tmp_path / "whole")
    kept = load(tmp_path / "whole", control_scale=scales).double()
    assert torch.equal(ours(kept, tmp_path / "whole", **cond), x)
    # At scale 0 it is the model without, bit for bit.
    plain = ours(load(tmp_path / "base").double(), tmp_path / "base")
    none = load(tmp_path / "base", control=folders, control_scale=0.0).double()
    assert torch.equal(ours(none, tmp_path / "base", **cond), plain)
    with pytest.raises(ParameterError, match="control"):
        ours(model, tmp_path / "base")  # without its images


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pipeline = KINDS["stable_diffusion"]()
    pipeline.save_pretrained(folder / "sd")
    controlnet(pipeline.unet, 1).save_pretrained(folder / "edges")
    grey = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    for number, values in enumerate(grey):
        Picture.fromarray(values).save(folder / f"{number}.png")
    return folder


def drawn(folder: Any, *words: object) -> np.ndarray:
    grid = ("--set", "sampling.grid={type: Uniform, steps: 3}", "--count", 2, "--prompt", "a cat", "--guidance", 2)
    result = unidiff("sample", folder / "sd", *grid, *words, "--array", "x.npy", "--out", "x.png")
    assert result.code == 0, result
    return np.load("x.npy")


def test_the_command_takes_controls(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = ("--control", saved / "edges", "--control-image", saved / "0.png")
    x = drawn(saved, *one)
    plain = drawn(saved)
    assert x.shape == plain.shape
    assert np.abs(x - plain).max() > 1e-3
    assert np.array_equal(drawn(saved, *one, "--control-scale", 0), plain)
    both = drawn(saved, *one, "--control-image", saved / "1.png")
    assert both.shape == (4, *x.shape[1:])  # two of each image
    assert np.allclose(both[:2], x, atol=1e-5)
    twice = drawn(saved, *one, *one, "--control-scale", 0.5, "--control-scale", 0.5)
    assert np.allclose(twice, x, atol=1e-5)  # the features add up


def test_controls_that_do_not_fit(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, net = saved / "sd", saved / "edges"
    assert "this model needs the condition 'control', an image of shape (3, 16, 16)" in refused(
        "sample", folder, "--control", net
    )
    assert "--control-image: 2 ControlNets need 2 images, one each, got 1." in refused(
        "sample", folder, "--control", net, "--control", net, "--control-image", saved / "0.png"
    )
    assert "control_scale: " in refused("sample", folder, "--control-scale", 0.5)
    assert "is not a pipeline that diffusers saved" in refused("sample", "shipped:ddpm_digits", "--control", net)
    assert "none.png: no such file" in refused("sample", folder, "--control", net, "--control-image", "none.png")
    assert "the model is of type UNet2DConditionModel; supported here is ControlNetModel" in refused(
        "sample", folder, "--control", folder / "unet", "--control-image", saved / "0.png"
    )
    with pytest.raises(RunError, match="control_scale must be a finite number, or one for each of 1"):
        load(folder, control=net, control_scale=[1.0, 2.0])
    KINDS["xl"]().save_pretrained(tmp_path / "xl")
    with pytest.raises(RunError, match=r"cross_attention_dim is 8, and that of the network 16.*another network"):
        load(tmp_path / "xl", control=net)


@pytest.mark.usefixtures("in_float64")
def test_the_same_latents_with_a_refiner(tmp_path):
    kind = "StableDiffusionXLImg2ImgPipeline"
    base = xl(channels=4).to(F64)  # the pipeline of a refiner takes four channels for latents, and others for images
    refiner = xl(kind, ids=5, channels=4, requires_aesthetics_score=True).to(F64)
    base.save_pretrained(tmp_path / "base")
    refiner.save_pretrained(tmp_path / "refiner")
    model = load(tmp_path / "base", refiner=tmp_path / "refiner", refiner_from=0.2).double()
    shared: dict[str, Any] = {"prompt": ["a red cat"] * COUNT, "num_inference_steps": 5, "guidance_scale": 2.0}
    for pipeline in (base, refiner):
        pipeline.set_progress_bar_config(disable=True)
    shared["negative_prompt"] = ["a dog"] * COUNT
    x = base(latents=noise_of(model), denoising_end=0.8, output_type="latent", **shared).images
    theirs = refiner(image=x, denoising_start=0.8, output_type="latent", **shared).images
    prompt = model.conditions[0].parse("a red cat").expand(COUNT, -1)
    guided = ud.ClassifierFree(model, 2.0, {"prompt": model.conditions[0].parse_negative("a dog")[None]})
    grid = load_grid(tmp_path / "base", 5)
    found = ud.sample(guided, ud.DDIM(), grid, None, COUNT, dtype=F64, prompt=prompt).x
    assert (found - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_a_model_refined_by_itself_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    xl().save_pretrained("base")
    words = ("sample", "base", "--prompt", "a cat", "--guidance", 2, "--count", 1, "--array", "x.npy", "--steps", 4)
    assert unidiff(*words).code == 0
    plain = np.load("x.npy")
    result = unidiff(*words, "--refiner", "base", "--refiner-from", 0.4)
    assert result.code == 0, result
    assert np.array_equal(np.load("x.npy"), plain)
    assert "refiner_from: base has no refiner" in refused(*words, "--refiner-from", 0.4)
    assert "--refiner-from 2 must be a number from 0 to 1" in refused(*words, "--refiner", "base", "--refiner-from", 2)
