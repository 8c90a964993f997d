"""What is in a folder that diffusers saved, and what is refused: one sentence, what was found and what is supported."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from theirs import SMALLEST, autoencoder, changed, diffusers, transformer, unet

import unidiff as ud
from unidiff.errors import ParameterError, RunError
from unidiff.interop.diffusers import ClipSample, DiffusersDenoiser, load, load_grid
from unidiff.interop.diffusers.scheduler import _ON_A_TABLE, _OTHERS, _SAME_TIMES, read_scheduler
from unidiff.interop.diffusers.timesteps import Timesteps
from unidiff.interop.diffusers.unsupported import UNSUPPORTED

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SCHEDULERS = (*_ON_A_TABLE, *_OTHERS)
# At most 50 times, times that go back and forth, at least two times.
FEWER = ("LCMScheduler", "TCDScheduler", "RePaintScheduler", "UnCLIPScheduler")


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
        with pytest.raises(ParameterError, match="the network has no null class"):
            model(x, model.process.level(0.5), **wrong)
    with pytest.raises(ParameterError, match="label must be from 0 to 2"):
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
        ({"_class_name": "NewScheduler"}, "NewScheduler is unsupported; supported are DDPMScheduler"),
        ({"thresholding": True}, "thresholding=True is not part of a model"),
        (
            {"prediction_type": "flow"},
            "prediction_type must be epsilon or sample or v_prediction on a table of betas, got 'flow'",
        ),
        ({"beta_schedule": "laplace"}, "beta_schedule must be linear, .*, got 'laplace'"),
        ({"beta_schedule": "bogus"}, "diffusers rejects this DDPMScheduler: bogus"),
        ({"rescale_betas_zero_snr": True}, "Eps cannot be converted to data at t = 1"),
        ({"beta_end": 2.0}, "beta_max must be .* got 2.0"),
        ({"trained_betas": [0.1, 0.2, 0.3]}, "T must be 3, the number of entries of the schedule, got 1000"),
        ({"num_train_timesteps": -5}, "num_train_timesteps must be an integer >= 1"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps must be an integer >= 1, got '1000'"),
        ({"trained_betas": [[0.1]]}, "trained_betas must be a list of numbers"),
        ({"clip_sample_range": "a"}, "clip_sample_range must be a number"),
        ({"clip_sample": "false"}, "clip_sample must be true or false, got 'false'"),
        ({"rescale_betas_zero_snr": 0}, "rescale_betas_zero_snr must be true or false, got 0"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": "no"}, "use_flow_sigmas must be true or"),
        ({"beta_start": "0.1"}, "beta_start must be a number, got '0.1'"),
        ({"beta_schedule": True}, "beta_schedule must be a string, got True"),
        ({"steps_offset": 0.5}, "steps_offset must be an integer, got 0.5"),
        ({"variance_type": "bogus"}, "variance_type must be fixed_small or"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}, "shift must be a number > 0, got 0"),
        ({"new_option": 3}, "unknown option new_option of DDPMScheduler"),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "timestep_type must be discrete on a table of betas, got 'continuous'",
        ),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True},
            "invert_sigmas must be False, .* got True",
        ),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
            "prediction_type must be 'flow_prediction' on a flow, got 'epsilon'",
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


def test_a_string_is_not_an_option_that_is_true_or_false(saved):
    changed(saved / "unet" / "config.json", flip_sin_to_cos="false")
    with pytest.raises(RunError, match=r"config.json: flip_sin_to_cos must be true or false, got 'false'"):
        load(saved)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"predict_epsilon": False}, ud.X0()),
        ({"predict_epsilon": False, "prediction_type": "sample"}, ud.X0()),
        ({"predict_epsilon": True}, ud.Eps()),
        ({"predict_epsilon": True, "prediction_type": "epsilon"}, ud.Eps()),
        ({"predict_epsilon": None, "prediction_type": "v_prediction"}, ud.V()),
        ({"tensor_format": "np"}, ud.Eps()),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["DDPMScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler"])
def test_old_options_say_what_they_said_in_2022(saved, name, entries, expected):
    old = {"_class_name": name, "beta_start": 0.001, "clip_sample": False, "timesteps": 500, **entries}
    (saved / "scheduler" / "scheduler_config.json").write_text(json.dumps(old))
    model = load(saved)
    assert (model.process, model.parameterization) == (ud.DDPM(500, ud.Linear(0.001, 0.02)), expected)
    assert len(load_grid(saved, 10).given) == 10


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"predict_epsilon": False, "prediction_type": "epsilon"},
            "predict_epsilon: False contradicts prediction_type",
        ),
        ({"predict_epsilon": True, "prediction_type": "v_prediction"}, "predict_epsilon: True contradicts"),
        ({"predict_epsilon": "no"}, "predict_epsilon must be true or false, got 'no'"),
        ({"timesteps": 500, "num_train_timesteps": 1000}, "timesteps: 500 contradicts num_train_timesteps = 1000"),
        *(({"new_option": value}, "unknown option new_option") for value in (False, 0, "", [], {}, 0.0)),
    ],
    ids=str,
)
def test_options_are_used_or_named_whatever_their_value(saved, entries, message):
    (saved / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler", **entries}))
    with pytest.raises(RunError, match=message):
        load(saved)
    with pytest.raises(RunError, match=message):
        load_grid(saved, 10)


@pytest.mark.slow  # 2 s
def test_every_option_of_a_scheduler_is_known_with_any_value_it_may_have(saved):
    """As diffusers writes it: what `load` does not use is how diffusers samples."""
    for name in SCHEDULERS:
        if name not in _SAME_TIMES:  # which needs another package
            getattr(diffusers, name)().save_pretrained(saved / "scheduler")
        if name == "DDIMScheduler":
            changed(saved / "scheduler" / "scheduler_config.json", set_alpha_to_one=False, steps_offset=1)
        if name == "PNDMScheduler":
            changed(saved / "scheduler" / "scheduler_config.json", skip_prk_steps=True, set_alpha_to_one=True)
        assert load(saved).shape == (1, 8, 8)


@pytest.mark.cases(5)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name not in FEWER])
def test_as_many_times_as_steps_or_an_error(saved, name, spacing):
    path = saved / "scheduler" / "scheduler_config.json"
    options = {} if name in _OTHERS else {"timestep_spacing": spacing}
    path.write_text(json.dumps({"_class_name": name, "num_train_timesteps": 100, **options}))
    multistep = name.startswith(("DPMSolver", "UniPC", "DEIS", "SASolver")) and name not in _SAME_TIMES
    for steps in (1, 10, 99, 100):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of DDIM's own step
            # They spread one time more than that over the table, and leave one out: 101 do not fit.
            if steps == 100 and multistep and (spacing != "trailing" or "Singlestep" in name):
                with pytest.raises(RunError, match="has no times for 100 steps") as raised:
                    load_grid(saved, steps)
                assert len(str(raised.value)) < 400
            else:
                given = load_grid(saved, steps).given
                assert len(given) == steps


@pytest.mark.slow  # 2 s
def test_times_of_two_stage_steps_are_those_of_the_steps(saved):
    """Heun's and KDPM2's lists name each evaluation; sigma halves of KDPM2 are no times of its steps."""
    path = saved / "scheduler" / "scheduler_config.json"

    def given(name: str) -> tuple[float, ...]:
        path.write_text(json.dumps({"_class_name": name, "timestep_spacing": "linspace"}))
        return load_grid(saved, 10).given

    expected = pytest.approx([(999 * i / 9 + 1) / 1000 for i in range(9, -1, -1)], abs=1e-6)
    for name in ("Heun", "KDPM2", "KDPM2Ancestral", "Euler", "LMS"):
        assert list(given(f"{name}DiscreteScheduler")) == expected
    for skip in (False, True):
        path.write_text(json.dumps({"_class_name": "PNDMScheduler", "skip_prk_steps": skip}))
        assert load_grid(saved, 10).given == tuple((100 * i + 1) / 1000 for i in range(9, -1, -1))


def test_a_model_beside_a_scheduler(saved, tmp_path):
    """Both configs in one folder, without model_index.json."""
    flat = tmp_path / "flat"
    shutil.copytree(saved / "unet", flat)
    diffusers.DDIMScheduler(clip_sample=False, prediction_type="sample").save_pretrained(flat)
    assert load(flat).parameterization == ud.X0()
    assert len(load_grid(flat, 10).given) == 10
    with pytest.raises(ParameterError, match="has a scheduler"):
        load(flat, process=ud.DDPM())


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
    with pytest.raises(RunError, match="has no times for 1,001 steps"):
        load_grid(saved, 1001)
    with pytest.raises(RunError, match="has no times for 1,000 steps"):  # whose first would be the entry after the last
        load_grid(saved, 1000, scheduler={"steps_offset": 1})
    for given in ((), (1.1, 0.5), (0.5, 0.5), (0.5, 0.0), (float("nan"),)):
        with pytest.raises(ParameterError, match="strictly decreasing"):
            Timesteps(given)


def test_options_of_a_scheduler_are_replaced(saved):
    assert isinstance(load(saved), ClipSample)
    assert isinstance(load(saved, scheduler={"clip_sample": False}), DiffusersDenoiser)
    given = load_grid(saved, 10, scheduler={"timestep_spacing": "trailing"}).given
    assert given == tuple(i / 10 for i in range(10, 0, -1))


@pytest.mark.slow  # a second or more
def test_every_scheduler_is_read_or_says_what_to_take():
    names = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    assert not {*UNSUPPORTED} & {*SCHEDULERS}
    for name in names:
        if name in SCHEDULERS:
            model = read_scheduler({"_class_name": name}, name)
            model.parameterization.check(model.process)
        else:  # one sentence
            with pytest.raises(RunError, match=rf"^{name}: the scheduler {name} [^.]*; take [^.]+\.$|; take "):
                read_scheduler({"_class_name": name}, name)
    assert {"EDMEulerScheduler", "IPNDMScheduler", "LCMScheduler", "TCDScheduler", "SASolverScheduler"} < {*SCHEDULERS}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "of type UNet2DConditionModel; supported here is UNet2DModel or DiT"),
        ({"in_channels": 3}, "diffusers cannot read this UNet2DModel"),
        ({"sample_size": None}, "sample_size must be .* got None"),
        ({"sample_size": [8, 8, 8]}, r"sample_size must be an integer or two, \[height, width\], got \[8, 8, 8\]"),
        ({"class_embed_type": "timestep"}, "not those of the network in config.json: missing class_embedding"),
        ({"class_embed_type": "identity"}, "class_embed_type must be null; .* got 'identity'"),
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
    with pytest.raises(RunError, match="out_channels must be in_channels = 2, or 4 with a learned variance, got 3"):
        load(tmp_path, process=ud.DDPM(), parameterization=ud.Eps())
    unet(time_embedding_type="learned", num_train_timesteps=10).save_pretrained(tmp_path)
    with pytest.raises(RunError, match="time_embedding_type must be 'positional' or 'fourier', got 'learned'"):
        load(tmp_path, process=ud.DDPM(), parameterization=ud.Eps())


def test_missing_and_wrong_files(saved, tmp_path, monkeypatch):
    def refused(pattern: str, path: Path | str = saved, **options: Any) -> None:
        with pytest.raises(RunError, match=pattern):
            load(path, **options)

    monkeypatch.delenv("UNIDIFF_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    refused("neither a folder nor a name on the hub", tmp_path / "nothing")
    refused(r"something cannot be downloaded from the Hugging Face hub \(offline\)", "somebody/something")
    monkeypatch.setenv("UNIDIFF_OFFLINE", "1")
    refused("switched off by the environment variable UNIDIFF_OFFLINE", "somebody/something")
    refused(r"neither model_index.json \(a pipeline\) nor config.json \(a model\) exists", tmp_path)
    with pytest.raises(ParameterError, match="has a scheduler, which determines it"):
        load(saved, process=ud.DDPM())

    weights = saved / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:1000])
    refused("cannot read this UNet2DModel")
    weights.unlink()
    refused(r"the weights are missing.*as a pickle only \(.bin\), pass allow_pickle=True")
    variant = weights.with_suffix(".fp16.safetensors")
    variant.write_bytes(kept)
    refused(r"only a variant of it is there: diffusion_pytorch_model.fp16.safetensors")
    variant.unlink()
    torch.save(unet(**SMALLEST).state_dict(), saved / "unet" / "diffusion_pytorch_model.bin")
    refused("the weights are a pickle.*pass allow_pickle=True")
    load(saved, allow_pickle=True)

    (saved / "scheduler" / "scheduler_config.json").unlink()
    refused("scheduler_config.json is missing")
    index = saved / "model_index.json"
    changed(index, text_encoder=["transformers", "CLIPTextModel"])
    refused(r"has conditions other than classes \(text_encoder\)")
    index.write_text(json.dumps({"_class_name": "WuerstchenPipeline", "prior": ["a", "b"]}))
    refused("the WuerstchenPipeline consists of prior; supported is a pipeline of a unet or a transformer")
    index.write_text("no json")
    refused("not readable JSON")
    shutil.rmtree(saved)


def test_without_diffusers(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RunError, match=r"pip install 'unidiff-diffusion\[diffusers\]'"):
        load(saved)
