"""Every shipped recipe of a U-Net, untrained and narrow, is exported, and plain diffusers computes and draws the same.

Both compute in float64. The network is the same up to 1e-10 of its answer (test_interop_weights.py). The first step
divides that by alpha_T >= 1 / 160 to have x0, which for random weights is of that size too; later steps divide by less
and shrink what came before. So states agree to 1e-10 of their largest number a step, and 1e-8 in all is asked for.
They are compared before they are clipped to [-1, 1], which would hide most of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from theirs import COUNT, DDIM_NOISE, DDPM_NOISE, LDM_NOISE, diffusers, drawn, in_float64, pictures, same_noise  # noqa: F401
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

import unidiff as ud
from unidiff.errors import RunError
from unidiff.interop.diffusers import export, load, load_grid
from unidiff.recipe.shipped import shipped_recipes
from unidiff.tasks.generation import GenerationRun

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("in_float64"),
]
F64, BOUND = torch.float64, 1e-8
WRITTEN = {name: yaml.safe_load(path.read_text()) for name, path in shipped_recipes().items()}
UNETS = {name: recipe for name, recipe in WRITTEN.items() if recipe.get("backbone", {}).get("type") == "UNet"}
# Conditionings other than labels are images, which diffusers' U-Net has no way to take.
IMAGES = [name for name, recipe in UNETS.items() if recipe.get("conditioning", {"type": "Labels"})["type"] != "Labels"]
SIGNALS = [name for name, recipe in UNETS.items() if recipe["data"]["type"] == "Notes"]
# A preconditioned network goes without a pipeline, as that of another process does.
PLAIN = [name for name, recipe in UNETS.items() if recipe["parameterization"]["type"] != "Preconditioned"]
DDPMS = [name for name in PLAIN if UNETS[name]["process"]["type"] == "DDPM" and name not in IMAGES + SIGNALS]
OTHERS = [name for name in UNETS if name not in DDPMS + IMAGES + SIGNALS]


def untrained(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> GenerationRun:
    """A run of a shipped recipe whose network is eight channels wide, every weight random."""
    monkeypatch.chdir(folder)
    for codec in (name for name, recipe in WRITTEN.items() if "codec" in recipe):
        coding = ud.load_recipe(codec)
        coding.codec.build(coding.data.shape[0]).float().save(folder / "runs" / codec)
    recipe = ud.load_recipe(name, ["backbone.width=8"])
    network = recipe.backbone.build(shape=recipe.data.shape)
    model = ud.NeuralDenoiser(recipe.process, recipe.parameterization, network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float32) / max(1, p[0].numel()) ** 0.5)
    model.backbone.double().eval().requires_grad_(False)
    return GenerationRun(folder, recipe, {}, model, 8, torch.float32)


def test_there_are_recipes_of_each_kind():
    assert {"ddpm_digits", "ddpm_digits_classes", "ddpm_mnist", "ddpm_mnist_cpu", "ldm_mnist_cpu"} <= set(DDPMS)
    assert {"ncsn_mnist_cpu", "heat_digits", "blurring_mnist", "inpainting_mnist_cpu"} <= {*OTHERS, *IMAGES}
    assert {UNETS[name]["backbone"].get("patch", 1) for name in DDPMS} == {1, 2}


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_are_refused_in_one_sentence(name, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="images"):
        export(untrained(name, tmp_path, monkeypatch), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", DDPMS)
def test_a_ddpm_recipe_draws_the_same_in_diffusers(name, tmp_path, monkeypatch):
    run = untrained(name, tmp_path, monkeypatch)
    written = export(run, tmp_path / "model")
    pipeline = getattr(diffusers, str(written.pipeline)).from_pretrained(tmp_path / "model", torch_dtype=F64)
    patch, classes = run.recipe.backbone.arguments["patch"], run.denoiser.classes
    label = {} if classes is None else {"label": torch.arange(COUNT) - 1}
    if classes is not None:  # which the pipeline does not pass on: see docs/diffusers.md
        named = label["label"].where(label["label"] >= 0, classes)
        plain = pipeline.unet.forward
        pipeline.unet.forward = lambda x, t, **options: plain(x, t, class_labels=named, **options)
    ddpm = written.pipeline == "DDPMPipeline"
    same_noise(monkeypatch, *(DDPM_NOISE if ddpm else (*LDM_NOISE, *DDIM_NOISE)), patch=patch)
    states, step = [], pipeline.scheduler.step
    pipeline.scheduler.step = lambda *given, **options: states.append(step(*given, **options)) or states[-1]
    images = drawn(pipeline, 5)
    solver = ud.Ancestral() if ddpm else ud.DDIM()
    ours = ud.sample(run.denoiser, solver, load_grid(tmp_path / "model", 5), seeds=COUNT, dtype=F64, **label).x
    theirs = pixel_shuffle(states[-1].prev_sample, patch)
    assert (len(states), theirs.dtype) == (5, F64)
    assert (ours - theirs).abs().max() < BOUND * float(ours.abs().max())
    codec = ud.codec.load_codec(tmp_path / "model").double() if patch == 1 and not ddpm else None
    whole = ours if codec is None else codec.decode(ours)
    assert (pictures(whole) - images).abs().max() < BOUND * float(ours.abs().max())
    back = load(tmp_path / "model").backbone
    assert back.shape == run.denoiser.shape
    weights = run.denoiser.backbone.state_dict()
    assert all(torch.equal(value, weights[key].float()) for key, value in back.state_dict().items())


@pytest.mark.slow  # most of a second each; test_a_ddpm_recipe_draws_the_same_in_diffusers exports, too
@pytest.mark.parametrize("name", OTHERS)
def test_another_process_exports_its_network(name, tmp_path, monkeypatch):
    run = untrained(name, tmp_path, monkeypatch)
    written = export(run, tmp_path / "model")
    assert written.pipeline is None
    network = diffusers.UNet2DModel.from_pretrained(tmp_path / "model" / "unet", torch_dtype=F64).eval()
    patch = run.recipe.backbone.arguments["patch"]
    assert (len(written.notices) == 2) == (patch > 1)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, *run.denoiser.shape, dtype=F64, generator=generator)
    c = torch.tensor([3.0, 700.0], dtype=F64)
    with torch.no_grad():
        theirs = pixel_shuffle(network(pixel_unshuffle(x, patch), c).sample, patch)
        assert theirs.std() > 0.1
        assert (theirs - run.denoiser.backbone(x, c)).abs().max() < 1e-10


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", IMAGES)
def test_a_recipe_with_images_or_captions_as_conditions_says_why_not(name, tmp_path, monkeypatch):
    kind = "caption" if name == "captioned_digits" else "image"
    run = untrained(name, tmp_path, monkeypatch)
    with pytest.raises(RunError, match=f"UNet2DModel has no {kind} condition"):
        export(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()
