"""Fine-tuning what diffusers saved: a recipe that names its folder, the model before and after, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from prompted import KINDS
from theirs import F64, autoencoder, changed, diffusers, in_float64, transformer, unet  # noqa: F401 (a fixture)
from tiny import refused, unidiff

from unidiff.interop.diffusers import load
from unidiff.run.task import load_recipe

pytestmark = [
    pytest.mark.slow,  # transformers is imported, which takes seconds
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
TRAINING = {
    **{"steps": 3, "batch": 4, "lr": 0.01, "warmup": 0, "ema": 0.0, "precision": "fp32", "tensorboard": False},
    **{"log_every": 1, "preview_every": 0},
}
OTHERS = {
    "unet": lambda: diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()),
    "dit": lambda: diffusers.DiTPipeline(transformer(), autoencoder(), diffusers.DDIMScheduler()),
    "ldm": lambda: diffusers.LDMPipeline(
        autoencoder("VQModel"), unet(in_channels=2, out_channels=2), diffusers.DDIMScheduler()
    ),
}


def recipe(side: int, channels: int, **keys: object) -> dict[str, object]:
    data = {"type": "CaptionedFolder", "root": "photos", "size": side, "channels": channels}
    sampling = {"solver": "DDIM", "grid": {"type": "Uniform", "steps": 3}, "count": 2}
    return {"start": "base", "data": data, "training": TRAINING, "sampling": sampling, **keys}


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_a_recipe_starts_from_the_model_that_load_reads(tmp_path, monkeypatch, kind):
    """Process, parameterization, noise condition, conditions and scales are all filled in.

    Both are the same network, so that they differ by the roundings of the factors of `NeuralDenoiser`: 1e-12.
    """
    monkeypatch.chdir(tmp_path)
    (KINDS.get(kind) or OTHERS[kind])().to(F64).save_pretrained("base")
    side = {"sana": 32, "unet": 8}.get(kind, 16)
    written = recipe(side, 1 if kind != "sana" else 3)
    if kind == "dit":
        written["data"] = {"type": "Digits", "size": side}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(written))
    task = load_recipe("r.yaml")
    model = task.model({})
    model.backbone.load_state_dict(model.backbone.saved_weights(tmp_path / "base"))
    model = model.double().eval()
    options = {"size": (side, side)} if kind in KINDS else {}
    other = load(tmp_path / "base", scheduler={"clip_sample": False} if kind not in KINDS else None, **options).double()
    assert model.shape == other.shape
    assert model.conditions == other.conditions
    u = torch.randn(2, *model.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    cond = {"prompt": model.conditions[0].parse("a cat").expand(2, -1)} if kind in KINDS else {}
    cond |= {"label": torch.tensor([3, -1])} if kind == "dit" else {}
    for time in (0.2, 1.0):
        ours, theirs = (each(u, each.process.level(time), **cond) for each in (model, other))
        assert (ours.x0 - theirs.x0).abs().max() < 1e-12 * theirs.x0.abs().max()


def test_a_run_of_low_rank_changes(tmp_path, monkeypatch):
    """Trained, sampled, exported; read back by unidiff and by diffusers, whole and as its file of changes."""
    monkeypatch.chdir(tmp_path)
    pipeline = KINDS["stable_diffusion"]()
    pipeline.save_pretrained("base")
    (tmp_path / "photos").mkdir()
    for number in range(10):
        grey = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(grey).save(f"photos/{number}.png")
        (tmp_path / "photos" / f"{number}.txt").write_text("a cat" if number % 2 else "b")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe(16, 1, backbone={"lora": 2, "lora_alpha": 4})))
    assert (result := unidiff("run", "r.yaml", "--out", "run")).code == 0, result
    assert (result := unidiff("export", "run", "out")).code == 0, result
    drawn = {}
    sampling = ("--set", "sampling.solver=DDIM", "--set", "sampling.grid={type: Uniform, steps: 3}")
    for name in ("base", "run", "out"):
        options = ("--prompt", "a cat", "--guidance", 2, "--count", 2, "--array", "x.npy", "--out", "x.png")
        assert (result := unidiff("sample", name, *options, *sampling)).code == 0, result
        drawn[name] = np.load("x.npy")
    assert np.abs(drawn["run"] - drawn["base"]).max() > 1e-3  # something was learnt
    # In float32 the merged weights differ from the sum of two products by some roundings of 6e-8.
    assert np.abs(drawn["run"] - drawn["out"]).max() < 1e-5
    # diffusers reads the whole pipeline, and the file of changes into the old one.
    merged = diffusers.StableDiffusionPipeline.from_pretrained("out").unet
    pytest.importorskip("peft")  # with which diffusers reads changes; the above needs none
    pipeline.load_lora_weights("out", weight_name="pytorch_lora_weights.safetensors")
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    prompt = pipeline.encode_prompt("a cat", "cpu", 2, False)[0]
    with torch.no_grad():
        one, two = (net(x, 500, encoder_hidden_states=prompt).sample for net in (merged, pipeline.unet))
    assert (one - two).abs().max() < 1e-5 * two.abs().max()
    # So does unidiff.
    options = ("--prompt", "a cat", "--guidance", 2, "--count", 2, "--array", "x.npy", "--set", "lora=out")
    assert (result := unidiff("sample", "base", *options, *sampling, "--out", "x.png")).code == 0, result
    assert np.abs(np.load("x.npy") - drawn["out"]).max() < 1e-5


def test_recipes_that_cannot_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    KINDS["stable_diffusion"]().save_pretrained("base")

    def message(**keys: object) -> str:
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({**recipe(16, 1), **keys}))
        return refused("check", "r.yaml")

    backbone = {"lora": 2, "lora_layers": ["nothing"]}
    assert "no linear layer or convolution of the network is called nothing" in message(backbone=backbone)
    assert "start: nowhere/at/all: neither a run directory nor a folder" in message(start="nowhere/at/all")
    changed(tmp_path / "base" / "scheduler" / "scheduler_config.json", _class_name="SCMScheduler")
    assert "SCMScheduler" in message()
