"""Runs written as pipelines of diffusers: the same pictures there, and the same model, to the bit, when read back.

Pictures: the bound of test_diffusers_bridge.py. What export adds to it is the rotation of one layer: its features
sin(c w), cos(c w) and those of c - 1 come from phases up to 1000, which float64 holds to 1000 * 2^-53 = 1e-13.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from theirs import (  # noqa: F401
    COUNT,
    DDIM_NOISE,
    DDPM_NOISE,
    DIT_NOISE,
    F64,
    LDM_NOISE,
    PICTURES,
    diffusers,
    drawn,
    in_float64,
    pictures,
    same_noise,
    sampled,
)
from tiny import DIGITS, refused, unidiff, write

import unidiff as ud
from unidiff.backbone.low_rank import LowRank, low_rank_layers
from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.interop.diffusers import export, load, load_grid
from unidiff.interop.diffusers.architecture import architecture_of
from unidiff.interop.diffusers.export import _pipeline as pipeline_of
from unidiff.interop.diffusers.export import shift_timestep
from unidiff.run.directory import RunDirectory
from unidiff.tasks.generation import GenerationRun
from unidiff.training.checkpoint import Checkpoint, Checkpoints

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("in_float64"),
]

UNET = {"type": "UNet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}
SMALLEST = {**UNET, "multipliers": [1], "attention": []}
DIT = {"type": "DiT", "width": 16, "depth": 2, "heads": 2}


def made(folder: Path, **parts: Any) -> GenerationRun:
    """A run as if it had been trained: every weight random, none zero."""
    recipe = ud.load_recipe(write(folder, {**DIGITS, "backbone": UNET, **parts}))
    network = recipe.backbone.build(shape=recipe.data.shape)
    model = ud.NeuralDenoiser(recipe.process, recipe.parameterization, network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float32) / max(1, p[0].numel()) ** 0.5)
    model.backbone.double().eval().requires_grad_(False)
    return GenerationRun(folder, recipe, {}, model, 8, torch.float32)


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether the weights read back in float32 are those of the run, which came from float32."""
    ours, theirs = a.float().state_dict(), b.state_dict()
    theirs = {name: value.to(ours[name]) for name, value in theirs.items()}
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# Everything that starts from noise of scale 1 and tells the network at unit scale has a table of diffusers.
EXPORTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scaled linear": ({"type": "DDPM", "schedule": {"type": "ScaledLinear"}}, {"type": "V"}),
    "zero snr": ({"type": "DDPM", "schedule": {"type": "ZeroTerminalSNR"}}, {"type": "V"}),
    "500 entries": ({"type": "DDPM", "T": 500}, {"type": "Eps"}),
    "vp": ({"type": "VPSDE"}, {"type": "Eps"}),
    "flow": ({"type": "FlowMatching"}, {"type": "X0"}),
}


@pytest.mark.parametrize(("process", "parameterization"), EXPORTED.values(), ids=EXPORTED)
def test_a_pipeline_draws_the_same(tmp_path, monkeypatch, process, parameterization):
    run = made(tmp_path, process=process, parameterization=parameterization, backbone=SMALLEST)
    written = export(run, tmp_path / "model")
    assert (written.pipeline, written.notices) == ("DDPMPipeline", ())
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "model", torch_dtype=F64)
    same_noise(monkeypatch, *DDPM_NOISE)
    theirs = drawn(pipeline, 5)
    grid = load_grid(tmp_path / "model", 5)
    assert grid.given == (1.0, 0.8, 0.6, 0.4, 0.2)
    ours = sampled(run.denoiser, ud.Ancestral(), grid)
    assert (pictures(ours) - theirs).abs().max() < PICTURES

    back = load(tmp_path / "model")
    assert (back.process, back.parameterization) == (run.denoiser.process, run.denoiser.parameterization)
    assert type(back.backbone) is type(run.denoiser.backbone)
    assert same_weights(back.backbone, run.denoiser.backbone)


def test_a_learned_variance(tmp_path, monkeypatch):
    run = made(tmp_path, backbone={**SMALLEST, "learned_variance": True}, parameterization="V", objective="Hybrid")
    export(run, tmp_path / "model")
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "model", torch_dtype=F64)
    assert pipeline.scheduler.config.variance_type == "learned_range"
    same_noise(monkeypatch, *DDPM_NOISE)
    # From trailing times its last step adds noise between variances of 1e-20 and beta, which is none of the model's.
    leading = {"timestep_spacing": "leading"}
    pipeline.scheduler = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config, **leading)
    theirs = drawn(pipeline, 5)
    ours = sampled(run.denoiser, ud.Ancestral(), load_grid(tmp_path / "model", 5, scheduler=leading))
    assert (pictures(ours) - theirs).abs().max() < PICTURES
    assert same_weights(load(tmp_path / "model").backbone, run.denoiser.backbone)


@pytest.mark.slow  # a second or more
def test_ddim_of_the_same_folder(tmp_path, monkeypatch):
    run = made(tmp_path, process={"type": "VPSDE"})
    export(run, tmp_path / "model")
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "model", torch_dtype=F64)
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    same_noise(monkeypatch, *DDIM_NOISE)
    theirs = drawn(pipeline, 20)
    ours = sampled(run.denoiser, ud.DDIM(), load_grid(tmp_path / "model", 20))
    assert (pictures(ours) - theirs).abs().max() < PICTURES
    # And read as a stranger's, which it is without the folder `unidiff`.
    shutil.rmtree(tmp_path / "model" / "unidiff")
    stranger = load(tmp_path / "model")
    assert isinstance(stranger.process, ud.DDPM)
    again = sampled(stranger, ud.DDIM(), load_grid(tmp_path / "model", 20))
    assert (pictures(again) - theirs).abs().max() < PICTURES


def test_the_names_of_the_tables(tmp_path):
    def config(process: dict[str, Any], parameterization: str = "V") -> dict[str, Any]:
        run = made(tmp_path, process=process, parameterization=parameterization, backbone=SMALLEST)
        export(run, tmp_path / "m", overwrite=True)
        found: dict[str, Any] = json.loads((tmp_path / "m" / "scheduler" / "scheduler_config.json").read_text())
        return found

    linear = config({"type": "DDPM"}, "Eps")
    assert (linear["beta_schedule"], linear["beta_start"], linear["beta_end"]) == ("linear", 1e-4, 0.02)
    assert (linear["prediction_type"], linear["clip_sample"]) == ("epsilon", False)
    zero = config({"type": "DDPM", "schedule": {"type": "ZeroTerminalSNR", "schedule": {"type": "Cosine"}}})
    assert (zero["beta_schedule"], zero["rescale_betas_zero_snr"]) == ("squaredcos_cap_v2", True)
    written_out = config({"type": "VPSDE"})["trained_betas"]
    level = ud.VPSDE().level(0.3)
    assert math.prod(1 - beta for beta in written_out[:300]) == pytest.approx(level.alpha**2, rel=1e-12)


def test_told_the_index_computes_the_same_in_float64():
    for network in (
        ud.UNet((1, 8, 8), width=8, multipliers=(1,), blocks=1),
        ud.DiT((1, 8, 8), width=16, depth=1, heads=2),
    ):
        network = network.double()
        with torch.no_grad():
            for p in network.parameters():
                p.normal_(std=max(1, p[0].numel()) ** -0.5, generator=torch.Generator().manual_seed(1))
        x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
        c = torch.tensor([1.0, 2.5, 400.0, 1000.0], dtype=torch.float64)
        with torch.no_grad():
            # The phases, up to 1000, are off by 1000 2^-53 = 1e-13.
            assert (shift_timestep(network)(x, c - 1) - network(x, c)).abs().max() < 1e-11


def test_classes_of_a_unet(tmp_path):
    run = made(tmp_path, conditioning="labels", backbone={**UNET, "scale_shift": True})
    written = export(run, tmp_path / "model")
    assert "call its unet with class_labels, from 0; 10 is the null class" in written.notices[0]
    network = diffusers.DDPMPipeline.from_pretrained(tmp_path / "model", torch_dtype=F64).unet
    x = torch.randn(3, 1, 8, 8)
    level = run.denoiser.process.level(0.5)
    ours = run.denoiser.output(x, level, label=torch.tensor([0, 9, -1]))
    theirs = network(x, torch.tensor(499), class_labels=torch.tensor([0, 9, 10])).sample
    assert (ours - theirs).abs().max() < PICTURES
    back = load(tmp_path / "model")
    assert back.classes == 10
    assert same_weights(back.backbone, run.denoiser.backbone)


# ---------------------------------------------------------------------------------------------- latents


@pytest.fixture
def codec(tmp_path: Path) -> dict[str, Any]:
    """Digits as latents of 2x4x4, by a codec that nobody has trained."""
    torch.manual_seed(1)
    made = ud.codec.AutoencoderKL(latent_channels=2, channels=(8, 8)).build(1)
    made.set_scale(0.7)
    made.float().save(tmp_path / "codec")
    return {"type": "Latent", "data": {"type": "Digits"}, "codec": str(tmp_path / "codec"), "cache": False}


def test_latents_of_a_unet(tmp_path, monkeypatch, codec):
    run = made(tmp_path, data=codec, backbone={**UNET, "attention": []}, process={"type": "CosineVP"})
    assert export(run, tmp_path / "model").pipeline == "LDMPipeline"
    pipeline = diffusers.LDMPipeline.from_pretrained(tmp_path / "model", torch_dtype=F64)
    same_noise(monkeypatch, *LDM_NOISE)
    theirs = drawn(pipeline, 10)
    shutil.rmtree(tmp_path / "codec")  # the export has its own
    back = load(tmp_path / "model")
    assert same_weights(back.backbone, run.denoiser.backbone)
    latents = sampled(back, ud.DDIM(), load_grid(tmp_path / "model", 10))
    ours = ud.codec.load_codec(tmp_path / "model").double().decode(latents)
    assert (pictures(ours) - theirs).abs().max() < PICTURES


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_latents_of_a_transformer(tmp_path, monkeypatch, codec, guidance):
    run = made(tmp_path, data=codec, backbone=DIT, conditioning="labels")
    written = export(run, tmp_path / "model")
    assert (written.pipeline, written.notices) == ("DiTPipeline", ())
    pipeline = diffusers.DiTPipeline.from_pretrained(tmp_path / "model", torch_dtype=F64)
    same_noise(monkeypatch, *DIT_NOISE)
    theirs = drawn(pipeline, 10, [0, 9, 3], guidance_scale=guidance)
    back = load(tmp_path / "model")
    assert back.classes == 10
    assert same_weights(back.backbone, run.denoiser.backbone)
    guided = back if guidance == 1 else ud.ClassifierFree(back, guidance)
    label = torch.tensor([0, 9, 3])
    latents = sampled(guided, ud.DDIM(), load_grid(tmp_path / "model", 10), label=label)
    ours = ud.codec.load_codec(tmp_path / "model").double().decode(latents)
    assert (pictures(ours) - theirs).abs().max() < PICTURES


def test_a_transformer_of_latents_without_classes(tmp_path, codec):
    run = made(tmp_path, data=codec, backbone=DIT)
    assert "pass zeros" in export(run, tmp_path / "model").notices[0]
    assert same_weights(load(tmp_path / "model").backbone, run.denoiser.backbone)
    pipeline = diffusers.DiTPipeline.from_pretrained(tmp_path / "model", torch_dtype=F64)
    assert len(drawn(pipeline, 2, [0, 0])) == 2


# ---------------------------------------------------------------------------------------------- networks alone


def test_without_a_scheduler_the_network_goes_alone(tmp_path):
    for process, parameterization, reason in (
        ({"type": "InverseHeat", "shape": [8, 8], "blur_max": 4.0}, "X0", "whose modes differ in SNR"),
        ({"type": "NCSN"}, "Score", "diffusers' tables support Eps, X0 and V, not Score"),
        ({"type": "NCSN"}, "Eps", "start from noise of scale 1"),
        ({"type": "SubVPSDE"}, "X0", "tables cannot resolve"),
        ({"type": "FlowMatching"}, "Velocity", "not Velocity"),
    ):
        run = made(tmp_path, process=process, parameterization=parameterization, backbone=SMALLEST)
        written = export(run, tmp_path / "model", overwrite=True)
        assert written.pipeline is None
        assert reason in written.notices[0]
        assert not (tmp_path / "model" / "model_index.json").exists()
        assert not (tmp_path / "model" / "scheduler").exists()
        x, c = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 700.0])
        theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "model" / "unet", torch_dtype=F64)(x, c).sample
        assert (theirs - run.denoiser.backbone(x, c)).abs().max() < PICTURES
        back = load(tmp_path / "model")
        assert back.process == run.denoiser.process
        assert same_weights(back.backbone, run.denoiser.backbone)


def test_changes_of_low_rank_are_merged(tmp_path):
    run = made(tmp_path, backbone=SMALLEST)
    network = copy.deepcopy(run.denoiser.backbone)
    LowRank(rank=2).add(network)
    for layer in low_rank_layers(network).values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    export(dataclasses.replace(run, model=run.denoiser.with_backbone(network)), tmp_path / "model")
    x, c = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 700.0])
    # Weights are read back in float32: rounding of 6e-8 in a sum of some hundred products, through a dozen layers.
    assert (load(tmp_path / "model").backbone(x, c) - network(x, c)).abs().max() < 1e-4


def test_what_a_process_measured_comes_back(tmp_path):
    run = made(tmp_path, process={"type": "RenormalizedHeat", "shape": [8, 8]}, parameterization="X0")
    fitted = run.recipe.process.fit([torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))])
    model = ud.NeuralDenoiser(fitted, run.denoiser.parameterization, run.denoiser.backbone)
    export(dataclasses.replace(run, model=model), tmp_path / "model")
    back = load(tmp_path / "model").process
    assert back.measured().keys() == fitted.measured().keys() != set()
    assert all(torch.equal(back.measured()[name], value) for name, value in fitted.measured().items())


def test_an_export_of_a_class_from_outside_is_read_where_that_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "outside_process.py").write_text("import unidiff as ud\n\n\nclass Mine(ud.NCSN):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = made(tmp_path, process={"type": "NCSN"}, parameterization="Eps", backbone=SMALLEST)
    export(run, tmp_path / "model")
    path = tmp_path / "model" / "unidiff" / "model.yaml"
    text = path.read_text()
    path.write_text(text.replace("type: NCSN", "type: outside_process:Mine"))
    assert path.read_text() != text
    with pytest.raises(ud.errors.RecipeError, match="allow_imports=True in Python"):
        load(tmp_path / "model")
    assert type(load(tmp_path / "model", allow_imports=True).process).__name__ == "Mine"


def test_a_transformer_of_more_classes_than_its_pipeline_knows_goes_alone(codec):
    layout = ud.codec.load_codec(codec["codec"]).layout
    dit = ud.DiT((2, 4, 4), width=16, depth=1, heads=2, classes=1001)
    with pytest.raises(ParameterError, match="index 1000 for the null class, so 1001 classes are too many"):
        pipeline_of(architecture_of(dit), dit, layout)
    dit = ud.DiT((2, 4, 4), width=16, depth=1, heads=2, classes=1000)
    assert pipeline_of(architecture_of(dit), dit, layout) == "DiTPipeline"


def test_a_transformer_on_pixels_goes_alone(tmp_path):
    for conditioning in (None, "labels"):
        run = made(tmp_path, backbone=DIT, conditioning=conditioning)
        written = export(run, tmp_path / "model", overwrite=True)
        assert "no pipeline of a DiT on pixels" in written.notices[0]
        network = diffusers.DiTTransformer2DModel.from_pretrained(
            tmp_path / "model" / "transformer", torch_dtype=F64
        ).eval()
        x, c = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 700.0])
        label = torch.tensor([7, -1])
        told = {} if conditioning is None else {"label": label}
        theirs = network(x, c, class_labels=label.where(label >= 0, 1000)).sample
        assert (theirs - run.denoiser.backbone(x, c, **told)).abs().max() < PICTURES
        assert same_weights(load(tmp_path / "model").backbone, run.denoiser.backbone)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patch": 4}, "no pipeline that folds patches of 4 x 4 pixels"),
        ({"patch": 2, "learned_variance": True}, "LDMPipeline does not support a learned variance"),
    ],
)
def test_patches_that_no_pipeline_folds_go_alone(tmp_path, changes, reason):
    objective = {"objective": "Hybrid"} if "learned_variance" in changes else {}
    run = made(tmp_path, backbone={**SMALLEST, **changes}, **objective)
    written = export(run, tmp_path / "model")
    assert written.pipeline is None
    assert reason in written.notices[0]
    assert f"takes pixel_unshuffle(image, {changes['patch']})" in written.notices[1]
    back = load(tmp_path / "model")
    assert (back.shape, back.backbone.patch) == ((1, 8, 8), changes["patch"])
    assert same_weights(back.backbone, run.denoiser.backbone)


def test_folded_images_read_as_those_of_a_stranger(tmp_path):
    run = made(tmp_path, backbone={**SMALLEST, "patch": 2})
    export(run, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "unidiff")
    assert load(tmp_path / "model").shape == (4, 4, 4)
    codec = ud.codec.load_codec(tmp_path / "model")
    x = torch.randn(2, 1, 8, 8)
    folded = torch.nn.functional.pixel_unshuffle(x, 2)
    assert torch.equal(codec.encode(x), folded)
    assert torch.equal(codec.decode(folded), x)


# ---------------------------------------------------------------------------------------------- errors, places


def test_networks_that_diffusers_lacks(tmp_path):
    for backbone, message in (
        ({**UNET, "groups": None}, "groups; train with one number, groups"),
        ({"type": "MLP", "width": 8}, "diffusers has no equivalent of MLP, only of UNet and DiT"),
    ):
        with pytest.raises(RunError, match=message):
            export(made(tmp_path, backbone=backbone), tmp_path / "model")
        assert not (tmp_path / "model").exists()


def test_a_network_that_is_told_an_image():
    with pytest.raises(ParameterError, match="UNet2DModel has no image condition"):
        architecture_of(ud.UNet((1, 8, 8), width=8, multipliers=(1,), groups=4, image=1))


def test_places(tmp_path, monkeypatch):
    run = made(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="this is a file"):
        export(run, tmp_path / "file")
    with pytest.raises(RunError, match="files that are not an exported model"):
        export(run, tmp_path)
    place = tmp_path / "model"
    export(run, place)
    with pytest.raises(RunError, match="exists already"):
        export(run, place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("unidiff.interop.diffusers.native.save_file", full)
        with pytest.raises(RunFailed, match="No space left"):
            export(run, place, overwrite=True)
        with pytest.raises(RunFailed, match="No space left"):
            export(run, tmp_path / "new" / "deep")
        assert not (tmp_path / "new").exists()

    def meanwhile(*_: Any, **__: Any) -> None:
        shutil.copytree(place, tmp_path / "new")  # what another process has exported

    with monkeypatch.context() as patch:
        patch.setattr("unidiff.interop.diffusers.native.save_file", meanwhile)
        with pytest.raises(RunError, match="exists already"):
            export(run, tmp_path / "new")
    assert {path.relative_to(tmp_path / "new") for path in (tmp_path / "new").rglob("*")} >= {Path("unidiff")}
    shutil.rmtree(tmp_path / "new")
    with pytest.raises(RunError, match="File name too long"):
        export(run, tmp_path / ("x" * 300))
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before

    for error, seen in ((OSError(28, "No space left on device"), RunFailed), (KeyboardInterrupt(), KeyboardInterrupt)):
        attempts: list[Path] = []

        def fails(source: Path, target: Path, error: BaseException = error, attempts: list[Path] = attempts) -> None:
            if target == place and not attempts:  # when the older export is out of its place
                attempts.append(source)
                raise error
            os.rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", fails)
            patch.setattr("unidiff.files._exchanged", lambda *folders: False)  # as on other systems than Linux
            with pytest.raises(seen):
                export(run, place, overwrite=True)
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (tmp_path / "link").symlink_to(place)
    export(run, tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"link", "model", "file", "tiny.yaml"}
    (place / "NOTES.md").write_text("of mine")
    with pytest.raises(RunError, match=r"NOTES.md is not part of the exported model"):
        export(run, place, overwrite=True)
    assert (place / "NOTES.md").read_text() == "of mine"
    with pytest.raises(RunError, match="run must be a run or its directory, got a NeuralDenoiser"):
        export(run.denoiser, tmp_path / "other")  # type: ignore[arg-type]

    with pytest.raises(ParameterError, match="was exported from unidiff, which determines it"):
        load(place, process=ud.DDPM())
    (place / "unidiff" / "weights.safetensors").unlink()
    with pytest.raises(RunError, match="there is no such file"):
        load(place)


def test_the_command(tmp_path):
    run = made(tmp_path)
    files = RunDirectory(tmp_path / "run")
    files.create(run.recipe.to_yaml(), {}, {})
    weights = run.denoiser.backbone.state_dict()
    Checkpoints(files.checkpoints).save(Checkpoint(8, weights, weights, {}, {}))
    done = unidiff("export", tmp_path / "run", tmp_path / "model")
    assert done.code == 0, done
    assert f"diffusers.DDPMPipeline.from_pretrained('{tmp_path / 'model'}')" in done.out
    assert "exists already" in refused("export", tmp_path / "run", tmp_path / "model")
    done = unidiff("export", tmp_path / "run", tmp_path / "model", "--overwrite", "--json")
    assert json.loads(done.out)["pipeline"] == "DDPMPipeline"
    assert "not a run directory" in refused("export", tmp_path / "model", tmp_path / "other")
    back = load(tmp_path / "model")
    assert same_weights(back.backbone, run.denoiser.backbone)
    # The folder is a run for the other commands.
    few = ("--set", "sampling.grid={type: Uniform, steps: 2}", "--count", 2, "--out", tmp_path / "x.png")
    assert unidiff("sample", tmp_path / "model", *few).code == 0


def test_an_unfolding_codec_is_none_of_latents(tmp_path):
    export(made(tmp_path, backbone={**UNET, "patch": 2, "attention": []}), tmp_path / "model")
    run = ud.load(tmp_path / "model")
    assert not run.recipe.data.coded
    assert run.denoiser.shape == (1, 8, 8)


def test_the_card_has_what_is_known(tmp_path):
    run = made(tmp_path, backbone=SMALLEST)
    files = RunDirectory(tmp_path / "run")
    files.create(run.recipe.to_yaml(), {}, {}, {"training_seconds": 12.5, "seed": 7})
    weights = run.denoiser.backbone.state_dict()
    Checkpoints(files.checkpoints).save(Checkpoint(8, weights, weights, {}, {}))
    (files.samples / "grid.png").write_bytes(b"a picture")
    loaded = ud.load(files.path)
    row = {"name": "run", "count": 20, "digest": loaded.digest, "measures": {"frechet": {"value": 1.25, "error": 0.5}}}
    content = {"rows": [row], "floor": {**row, "name": "real data"}, "features": {"network": "pixels"}}
    other = tmp_path / "evaluate-run"
    other.mkdir()
    (other / "evaluate.json").write_text(json.dumps({**content, "reference": {"data": "digits | test"}}))
    export(loaded, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    front, _, text = card.removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(front)["pipeline_tag"] == "unconditional-image-generation"
    assert (tmp_path / "model" / "samples.png").read_bytes() == b"a picture"
    for part in (
        "# run",
        "| predicts | Eps() |",
        "| seconds | 12.5 |",
        "| seed | 7 |",
        "![samples of the model](samples",
    ):
        assert part in text
    assert "| frechet | 1.25 +- 0.5 | 1.25 +- 0.5 |" in text
    assert "against digits \\| test" in text
    written = re.search(r"```yaml\n(.*?)\n```", text, re.S)
    assert written is not None
    assert written[1] == loaded.recipe.to_yaml().rstrip()
    use = re.findall(r"```python\n(.*?)```", text, re.S)[1].replace("'model'", repr(str(tmp_path / "model")))
    exec(use.replace("sample(model", "sample(model, grid=ud.Uniform(2)"), {})
    # Another model's evaluation is not this one's.
    (other / "evaluate.json").write_text(json.dumps({**content, "rows": [{**row, "digest": "sha256:0"}]}))
    export(loaded, tmp_path / "model", overwrite=True)
    assert "Evaluation" not in (tmp_path / "model" / "README.md").read_text()


def test_push_uploads_the_model_and_nothing_else(tmp_path, monkeypatch):
    export(made(tmp_path, backbone=SMALLEST), tmp_path / "model")
    (tmp_path / "model" / "private.txt").write_text("mine")
    calls: list[tuple[str, Any]] = []
    for name in ("create_repo", "upload_folder"):
        fake = functools.partial(lambda called, *given, **options: calls.append((called, (given, options))), name)
        monkeypatch.setattr(f"huggingface_hub.HfApi.{name}", fake)
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    assert "UNIDIFF_OFFLINE, and uploads with them" in refused("push", tmp_path / "model", "me/digits")
    monkeypatch.setenv("UNIDIFF_OFFLINE", "0")
    assert not calls
    assert unidiff("push", tmp_path / "model", "me/digits", "--private").out == "https://huggingface.co/me/digits\n"
    assert calls[0] == ("create_repo", (("me/digits",), {"private": True, "exist_ok": True}))
    patterns = calls[1][1][1]["allow_patterns"]
    assert sorted(patterns) == ["README.md", "model_index.json", "scheduler/*", "unet/*", "unidiff/*"]
    assert "not an exported model" in refused("push", tmp_path, "me/digits")
    assert "is named OWNER/NAME" in refused("push", tmp_path / "model", "digits")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *_, **__: (_ for _ in ()).throw(OSError("401")))
    assert "(401). Log in with `hf auth login`" in refused("push", tmp_path / "model", "me/digits")
