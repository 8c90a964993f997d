"""What is in a folder that diffusers saved, and what is refused: one sentence, what was found and what is supported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from theirs import SMALLEST, autoencoder, changed, diffusers, transformer, unet

import unidiff as ud
from unidiff.errors import ParameterError, RunError
from unidiff.interop.diffusers import ClipSample, DiffusersDenoiser, load, load_grid
from unidiff.interop.diffusers.scheduler import Timesteps

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_a_dit_of_other_latents(tmp_path):
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    diffusers.DiTPipeline(transformer(), autoencoder(latent_channels=4), scheduler).save_pretrained(tmp_path)
    with pytest.raises(RunError, match="latents of its vae have 4 channels, and its network takes 2"):
        load(tmp_path)
    changed(tmp_path / "vae" / "config.json", _class_name="AutoencoderOobleck")
    with pytest.raises(RunError, match="AutoencoderOobleck; supported are AutoencoderKL"):
        load(tmp_path)
    config = tmp_path / "transformer" / "config.json"
    changed(config, _class_name="Transformer2DModel")  # as the first DiT were saved
    shutil.rmtree(tmp_path / "vae")
    assert isinstance(load(tmp_path), DiffusersDenoiser)


# ---------------------------------------------------------------------------------------------- classes, variances


def test_classes_of_a_unet(tmp_path):
    network = unet(num_class_embeds=3, out_channels=2)  # the second channel as a learned variance
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(clip_sample=False)).save_pretrained(tmp_path)
    model = load(tmp_path)
    x = torch.randn(2, 1, 8, 8)
    label = torch.tensor([2, 0])
    with torch.no_grad():
        output = network(x, torch.tensor(499), class_labels=label).sample[:, :1]
        assert torch.equal(model.output(x, model.process.level(0.5), label=label), output)
        assert model(x, model.process.level(0.5), label=label).variance_interpolation is not None
    assert model.classes == 3
    for wrong in ({}, {"label": torch.tensor([-1, 0])}):
        with pytest.raises(ParameterError, match="no null class"):
            model(x, model.process.level(0.5), **wrong)
    with pytest.raises(ParameterError, match="the 3 classes are 0 to 2"):
        model(x, model.process.level(0.5), label=torch.tensor([3, 0]))


# ---------------------------------------------------------------------------------------------- models alone


def test_a_model_alone_is_told_its_process(tmp_path):
    unet().save_pretrained(tmp_path)
    with pytest.raises(ParameterError, match=r"process and parameterization: .* a model without a scheduler"):
        load(tmp_path)
    with pytest.raises(ParameterError, match="parameterization"):
        load(tmp_path, process=ud.DDPM())
    model = load(tmp_path, process=ud.DDPM(T=500), parameterization=ud.V())
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = unet()(x, torch.tensor(249)).sample
    assert torch.equal(model.output(x, model.process.level(0.5)), expected)
    with pytest.raises(RunError, match="a model without a scheduler"):
        load_grid(tmp_path, 10)
    for entries, name in ({"_class_name": "AutoencoderKL"}, "AutoencoderKL"), ({"architectures": ["CLIP"]}, "CLIP"):
        other = tmp_path / name
        other.mkdir()
        (other / "config.json").write_text(json.dumps(entries))
        with pytest.raises(RunError, match=f"the model is of type {name}; supported here is UNet2DModel or DiT"):
            load(other)
    with pytest.raises(ParameterError, match="nothing to replace"):
        load(tmp_path, scheduler={}, process=ud.DDPM(), parameterization=ud.V())


# ---------------------------------------------------------------------------------------------- errors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    diffusers.DDPMPipeline(unet(**SMALLEST), diffusers.DDPMScheduler()).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "LCMScheduler"}, "LCMScheduler is unsupported; supported are DDPMScheduler"),
        ({"thresholding": True}, "thresholding=True was found"),
        ({"prediction_type": "flow"}, "prediction_type 'flow' was found; supported on a table are 'epsilon'"),
        ({"beta_schedule": "laplace"}, "beta_schedule 'laplace' was found; supported are linear"),
        ({"beta_schedule": "bogus"}, "diffusers refuses this DDPMScheduler: bogus"),
        ({"rescale_betas_zero_snr": True}, "Eps cannot be converted to data at t = 1"),
        ({"beta_end": 2.0}, "beta_max must be .* got 2.0"),
        ({"trained_betas": [0.1, 0.2, 0.3]}, "T: 1000 was given; the schedule is a table of 3 entries"),
        ({"num_train_timesteps": -5}, "num_train_timesteps must be an integer >= 1"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps must be .* got '1000'"),
        ({"trained_betas": [[0.1]]}, "trained_betas must be a list of numbers"),
        ({"clip_sample_range": "a"}, "clip_sample_range must be a number above 0"),
        ({"variance_type": "bogus"}, "variance_type must be fixed_small or"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}, "shift must be .* got 0"),
        ({"new_option": 3}, "knows no option new_option of DDPMScheduler"),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "timestep_type 'continuous' was found",
        ),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas=True was found"),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
            "'epsilon' was found; supported on a flow is 'flow_prediction'",
        ),
    ],
    ids=str,
)
def test_unsupported_schedulers(saved, entries, message):
    path = saved / "scheduler" / "scheduler_config.json"
    if "_class_name" in entries:
        path.write_text(json.dumps(entries))
    else:
        changed(path, **entries)
    with pytest.raises(RunError, match=message):
        load(saved)


def test_a_pipeline_in_one_folder(saved, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in saved.rglob("*.*"):
        shutil.copy(path, flat)
    x = torch.randn(1, 1, 8, 8)
    ours, same = load(flat), load(saved)
    with torch.no_grad():
        level = ours.process.level(0.5)
        assert torch.equal(ours(x, level).x0, same(x, level).x0)
    assert load_grid(flat, 10) == load_grid(saved, 10)


def test_parts_that_are_null_and_sizes_that_differ(saved):
    changed(saved / "model_index.json", text_encoder=None, image_encoder=[], controlnet=[None, None])
    changed(saved / "unet" / "config.json", sample_size=[8, 4])
    changed(saved / "scheduler" / "scheduler_config.json", clip_sample_range=0.5)
    model = load(saved)
    assert model.shape == (1, 8, 4)
    x0 = model(torch.randn(1, 1, 8, 4), model.process.level(1.0)).x0
    assert x0.abs().max() == 0.5
    changed(saved / "model_index.json", scheduler=[None, None])
    with pytest.raises(RunError, match="DDPMPipeline consists of unet; supported"):
        load(saved)


def test_times(saved):
    for steps in (0, -1, 2.5):
        with pytest.raises(ParameterError, match="steps must be an integer >= 1"):
            load_grid(saved, steps)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="has no times for 1001 steps"):
        load_grid(saved, 1001)
    with pytest.raises(RunError, match="has no times for 1000 steps"):  # whose first would be the entry after the last
        load_grid(saved, 1000, scheduler={"steps_offset": 1})
    for given in ((), (1.1, 0.5), (0.5, 0.5), (0.5, 0.0), (float("nan"),)):
        with pytest.raises(ParameterError, match="strictly decreasing"):
            Timesteps(given)


def test_options_of_a_scheduler_are_replaced(saved):
    assert isinstance(load(saved), ClipSample)
    assert isinstance(load(saved, scheduler={"clip_sample": False}), DiffusersDenoiser)
    given = load_grid(saved, 10, scheduler={"timestep_spacing": "trailing"}).given
    assert given == tuple(i / 10 for i in range(10, 0, -1))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "of type UNet2DConditionModel; supported here is UNet2DModel or DiT"),
        ({"in_channels": 3}, "diffusers cannot read this UNet2DModel"),
        ({"sample_size": None}, "no sample_size"),
        ({"sample_size": [8, 8, 8]}, "sample_size \\[8, 8, 8\\] was found; supported are an integer or two"),
        ({"class_embed_type": "timestep"}, "not those of the network in config.json: missing class_embedding"),
        ({"class_embed_type": "identity"}, "class_embed_type 'identity' was found"),
        ({"mid_block_type": None}, "not those of the network in config.json: unexpected mid_block"),
    ],
    ids=str,
)
def test_unsupported_models(saved, entries, message):
    changed(saved / "unet" / "config.json", **entries)
    with pytest.raises(RunError, match=message):
        load(saved)


def test_channels_that_do_not_fit(tmp_path):
    unet(in_channels=2, out_channels=3).save_pretrained(tmp_path)
    with pytest.raises(
        RunError, match="2 channels go in and 3 come out; supported are 2, or 4 with a learned variance"
    ):
        load(tmp_path, process=ud.DDPM(), parameterization=ud.Eps())
    unet(time_embedding_type="learned", num_train_timesteps=10).save_pretrained(tmp_path)
    with pytest.raises(RunError, match="time_embedding_type 'learned' was found"):
        load(tmp_path, process=ud.DDPM(), parameterization=ud.Eps())


def test_missing_and_wrong_files(saved, tmp_path, monkeypatch):
    def refused(pattern: str, path: Path | str = saved, **options: Any) -> None:
        with pytest.raises(RunError, match=pattern):
            load(path, **options)

    monkeypatch.delenv("UNIDIFF_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    refused("no folder, and no name on the hub", tmp_path / "nothing")
    refused("the hub does not give it: offline", "somebody/something")
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    refused("switched off by the environment variable UNIDIFF_OFFLINE", "somebody/something")
    refused(r"neither model_index.json \(a pipeline\) nor config.json \(a model\) is there", tmp_path)
    with pytest.raises(ParameterError, match="has a scheduler, which says it"):
        load(saved, process=ud.DDPM())

    weights = saved / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:1000])
    refused("cannot read this UNet2DModel")
    weights.unlink()
    refused(r"the weights are missing.*as a pickle only \(.bin\), pass allow_pickle=True")
    variant = weights.with_suffix(".fp16.safetensors")
    variant.write_bytes(kept)
    refused(r"only a variant of it there: diffusion_pytorch_model.fp16.safetensors")
    variant.unlink()
    torch.save(unet(**SMALLEST).state_dict(), saved / "unet" / "diffusion_pytorch_model.bin")
    refused("the weights are a pickle.*pass allow_pickle=True")
    load(saved, allow_pickle=True)

    (saved / "scheduler" / "scheduler_config.json").unlink()
    refused("scheduler_config.json is missing")
    index = saved / "model_index.json"
    changed(index, text_encoder=["transformers", "CLIPTextModel"])
    refused(r"told of more than classes \(text_encoder\)")
    index.write_text(json.dumps({"_class_name": "WuerstchenPipeline", "prior": ["a", "b"]}))
    refused("the WuerstchenPipeline consists of prior; supported is a pipeline of a unet or a transformer")
    index.write_text("no json")
    refused("no readable JSON")
    shutil.rmtree(saved)


def test_without_diffusers(saved, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"pip install 'unidiff\[diffusers\]'"):
        load(saved)
