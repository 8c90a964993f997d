"""Models that diffusers has saved, loaded here: the same numbers and the same pictures from the same noise.

Bounds: diffusers computes its tables and steps in float32, this library its coefficients in float64. The running
product of T <= 1000 factors 1 - beta is off by T 2^-24 = 6e-5 at most, and by sqrt(T) 2^-24 = 2e-6 as rounding errors
go; pictures in [0, 1] inherit the latter. 1e-4 is asked for, a fortieth of a step of 8 bits.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError, RunError
from unidiff.noise import Seeded

diffusers = pytest.importorskip("diffusers")
from unidiff.interop.diffusers import Clipped, DiffusersDenoiser, load, load_grid  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

PICTURES = 1e-4
COUNT = 3


def unet(**changes: Any) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DModel(**{**small, **changes}).eval()


def pictures(x: torch.Tensor) -> torch.Tensor:
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets modules of diffusers draw the noise that `unidiff.sample` draws from the seeds 0, ..., COUNT - 1."""

    def patch(*modules: str) -> None:
        noise = Seeded(range(COUNT))
        for module in modules:
            path = f"diffusers.{module}.randn_tensor"
            monkeypatch.setattr(path, lambda shape, *_, **__: noise(torch.empty(tuple(shape))))

    return patch


DDPM_NOISE = ("pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm")
DDIM_NOISE = ("pipelines.ddim.pipeline_ddim", "schedulers.scheduling_ddim")


def drawn(pipeline: Any, steps: int, **options: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    images: torch.Tensor = pipeline(COUNT, num_inference_steps=steps, output_type="pt", **options).images
    return images


# ---------------------------------------------------------------------------------------------- whole pipelines


@pytest.mark.parametrize(("clip", "spacing"), [(True, "leading"), (False, "trailing"), (False, "linspace")])
def test_ddpm_pipeline(tmp_path, same_noise, clip, spacing):
    scheduler = diffusers.DDPMScheduler(clip_sample=clip, timestep_spacing=spacing, steps_offset=0)
    pipeline = diffusers.DDPMPipeline(unet(), scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise(*DDPM_NOISE)
    theirs = drawn(pipeline, 5)
    model = load(tmp_path)
    assert isinstance(model, Clipped) == clip
    ours = ud.sample(model, ud.Ancestral(), load_grid(tmp_path, 5), seeds=COUNT).x
    assert (pictures(ours) - theirs).abs().max() < PICTURES


def test_ddpm_pipeline_with_a_learned_variance(tmp_path, same_noise):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", prediction_type="v_prediction")
    pipeline = diffusers.DDPMPipeline(unet(out_channels=2), scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise(*DDPM_NOISE)
    theirs = drawn(pipeline, 5)
    model = load(tmp_path)
    assert model.learned_variance
    ours = ud.sample(model, ud.Ancestral(), load_grid(tmp_path, 5), seeds=COUNT).x
    assert (pictures(ours) - theirs).abs().max() < PICTURES
    changed(tmp_path / "scheduler" / "scheduler_config.json", variance_type="learned")
    with pytest.raises(RunError, match="variance_type 'learned' was found"):
        load(tmp_path)


def test_ddpm_pipeline_on_its_native_grid(tmp_path, same_noise):
    pipeline = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(num_train_timesteps=20, beta_end=0.4))
    pipeline.save_pretrained(tmp_path)
    same_noise(*DDPM_NOISE)
    theirs = drawn(pipeline, 20)
    model = load(tmp_path)
    ours = ud.sample(model, ud.Ancestral(), ud.Native(), seeds=COUNT).x
    assert load_grid(tmp_path, 20).times(model.process).tolist() == ud.Native().times(model.process).tolist()
    assert (pictures(ours) - theirs).abs().max() < PICTURES


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_pipeline(tmp_path, same_noise, eta):
    pipeline = diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
    pipeline.save_pretrained(tmp_path)
    same_noise(*DDIM_NOISE)
    theirs = drawn(pipeline, 10, eta=eta)
    ours = ud.sample(load(tmp_path), ud.DDIM(eta), load_grid(tmp_path, 10), seeds=COUNT).x
    assert (pictures(ours) - theirs).abs().max() < PICTURES


def autoencoder(kind: str = "AutoencoderKL", **changes: Any) -> Any:
    torch.manual_seed(1)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    small: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "latent_channels": 2, "block_out_channels": (8, 8)}
    return getattr(diffusers, kind)(
        **{**small, **blocks, "norm_num_groups": 4, "scaling_factor": 0.3, **changes}
    ).eval()


@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_ldm_pipeline(tmp_path, same_noise, kind):
    network = unet(in_channels=2, out_channels=2)
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    codec = autoencoder(kind)
    if kind == "VQModel":  # whose fresh codebook is so dense that rounding decides which entry is nearest
        torch.nn.init.normal_(codec.quantize.embedding.weight)
    pipeline = diffusers.LDMPipeline(codec, network, scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise("pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond")
    pipeline.set_progress_bar_config(disable=True)
    theirs = torch.from_numpy(pipeline(COUNT, num_inference_steps=10, output_type="np").images).permute(0, 3, 1, 2)
    model, codec = load(tmp_path), ud.load_codec(tmp_path)
    assert model.shape == (2, 8, 8)
    latents = ud.sample(model, ud.DDIM(), load_grid(tmp_path, 10), seeds=COUNT).x
    ours = codec.decode(latents)
    assert theirs.shape == ours.shape == (COUNT, 1, 16, 16)
    assert (pictures(ours) - theirs).abs().max() < PICTURES


def transformer(**changes: Any) -> Any:
    torch.manual_seed(0)
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 2, "out_channels": 4, "num_layers": 2}
    network = diffusers.DiTTransformer2DModel(**{**small, "sample_size": 8, **changes})
    with torch.no_grad():
        for p in network.parameters():  # whose gates start at zero
            p.normal_(std=max(1, p[0].numel()) ** -0.5)
    return network.eval()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_dit_pipeline(tmp_path, same_noise, guidance):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction")
    pipeline = diffusers.DiTPipeline(transformer(), autoencoder(), scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise("pipelines.dit.pipeline_dit")
    pipeline.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 10, "output_type": "pt", "guidance_scale": guidance}
    theirs = pipeline([0, 999, 7], **given).images
    model, codec = load(tmp_path), ud.load_codec(tmp_path)
    assert model.classes == 1000
    guided = model if guidance == 1 else ud.ClassifierFree(model, guidance)
    label = torch.tensor([0, 999, 7])
    latents = ud.sample(guided, ud.DDIM(), load_grid(tmp_path, 10), seeds=COUNT, label=label).x
    assert (pictures(codec.decode(latents)) - theirs).abs().max() < PICTURES


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


def driven(scheduler: Any, network: Any, x: torch.Tensor, steps: int) -> torch.Tensor:
    """A scheduler's own loop, as its pipelines write it."""
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            output = network(scaled, t).sample
            x = scheduler.step(output, t, x).prev_sample
    return x


def walked(model: ud.Denoiser, solver: ud.Solver, times: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        *_, last = solver.trajectory(model, u, times, torch.randn_like)
    return last.u


def test_euler_on_a_table(tmp_path):
    # T - 1 is a multiple of N - 1, so that its steps lie on the table; between entries the curves differ.
    scheduler = diffusers.EulerDiscreteScheduler(num_train_timesteps=41, beta_end=0.4, beta_schedule="scaled_linear")
    diffusers.DDPMPipeline(network := unet(), scheduler).save_pretrained(tmp_path)
    x = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(11)
    theirs = driven(scheduler, network, x * scheduler.init_noise_sigma, 11)
    model = load(tmp_path)
    times = load_grid(tmp_path, 11).times(model.process)
    # Its state is u / alpha; Euler's step in it is DDIM's (Song, Meng & Ermon 2021, section 4.3).
    start = x * scheduler.init_noise_sigma * model.process.level(1.0).alpha
    ours = walked(model, ud.DDIM(), times, start)
    assert times[0] == 1
    assert (pictures(ours) - pictures(theirs)).abs().max() < PICTURES


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow(tmp_path, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    diffusers.DDPMPipeline(network := unet(), scheduler).save_pretrained(tmp_path)
    x = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = driven(scheduler, network, x, 12)
    model = load(tmp_path)
    ours = walked(model, ud.Euler(), load_grid(tmp_path, 12).times(model.process), x)
    assert (ours - theirs).abs().max() < PICTURES
    one = model(x, level := model.process.level(0.6))
    with torch.no_grad():
        velocity = network(x, torch.tensor(600.0)).sample  # eps - x0, at timestep 1000 t
    assert (one.eps - one.x0 - velocity).abs().max() < 1e-5
    assert (one.x0 - (x - level.t * velocity)).abs().max() < 1e-5


def test_scores_of_an_exploding_process(tmp_path, same_noise):
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=20, sigma_max=10.0)
    network = unet(time_embedding_type="fourier")
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.process == ud.VESDE(0.01, 10.0, 1e-5)
    noise = torch.randn(2, COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x = 10 * noise[0]
    # The scheduler tells the network sigma at times of its own, 1, ..., sampling_eps, and steps on another list, of N
    # noise scales; the two agree at the first step.
    with torch.no_grad():
        score = network(x, torch.tensor(10.0)).sample
        prediction = model(x, model.process.level(1.0))
    assert torch.allclose(prediction.score, score, rtol=0, atol=1e-6 * float(score.abs().max()))
    scheduler.set_timesteps(20)
    scheduler.set_sigmas(20)
    from diffusers.schedulers import scheduling_sde_ve

    scheduling_sde_ve.randn_tensor, before = lambda *_, **__: noise[1], scheduling_sde_ve.randn_tensor
    try:
        theirs = scheduler.step_pred(score, scheduler.timesteps[0], x).prev_sample
    finally:
        scheduling_sde_ve.randn_tensor = before
    first, second = (model.process.level(t) for t in (1.0, 18 / 19))
    with torch.no_grad():
        ours = ud.ReverseDiffusion().step(model, x, first, second, lambda _: noise[1])
    assert abs(second.sigma / float(scheduler.discrete_sigmas[18]) - 1) < 1e-6
    assert (ours - theirs).abs().max() < 1e-4 * 10  # of states of size 10


# ---------------------------------------------------------------------------------------------- tables, predictions


TABLES: dict[str, dict[str, Any]] = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "trained": {"trained_betas": [0.01 + 0.0005 * i for i in range(60)], "num_train_timesteps": 60},
    "zero_snr": {"rescale_betas_zero_snr": True},
}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("table", TABLES)
def test_predictions_on_every_table(tmp_path, table, prediction):
    if (table, prediction) == ("zero_snr", "epsilon"):
        pytest.skip("ill posed: see the errors")
    options = {"num_train_timesteps": 1000, **TABLES[table], "prediction_type": prediction, "clip_sample": False}
    scheduler = diffusers.DDPMScheduler(**options)
    diffusers.DDPMPipeline(network := SMALLEST, scheduler).save_pretrained(tmp_path)
    model = load(tmp_path)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    T = options["num_train_timesteps"]
    alpha_bar = torch.tensor([level.alpha**2 for level in model.process.levels_at(model.process.native_times())])
    # T roundings of 2^-24 in their product, each of a factor; where the SNR is 0, so is it.
    assert torch.allclose(alpha_bar.float(), scheduler.alphas_cumprod, rtol=T * 2.0**-24, atol=1e-9)
    for index in (0, T // 3, T - 2):
        with torch.no_grad():
            output = network(x, torch.tensor(index)).sample
            theirs = scheduler.step(output, index, x).pred_original_sample
            ours = model(x, model.process.level((index + 1) / T))
        # At the noisiest they divide by sqrt(alpha-bar), whose relative error is half of that above.
        assert (ours.x0 - theirs).abs().max() < 1e-4 * max(1.0, float(theirs.abs().max()))


SMALLEST = unet(block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))


VALUES = {"num_train_timesteps": 50, "beta_start": 0.001, "beta_end": 0.02}


@pytest.mark.parametrize(
    "name",
    [
        *("PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "LMSDiscrete"),
        *("EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"),
        *("DDIMParallel", "DDPMParallel"),
    ],
)
def test_other_samplers_of_a_table_tell_the_same_model(tmp_path, name):
    scheduler = getattr(diffusers, f"{name}Scheduler")(**VALUES, prediction_type="v_prediction")
    diffusers.DDPMPipeline(SMALLEST, scheduler).save_pretrained(tmp_path)
    model = load(tmp_path, scheduler={"clip_sample": False} if "Parallel" in name else None)
    assert isinstance(model, DiffusersDenoiser)
    assert (model.process, model.parameterization) == (ud.DDPM(50, ud.Linear(0.001, 0.02)), ud.V())
    times = load_grid(tmp_path, 10).times(model.process)
    assert times[0] <= 1
    assert times[-1] == 0
    assert bool((times.diff() < 0).all())


def test_flow_sigmas_of_the_multistep_solvers(tmp_path):
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    diffusers.DDPMPipeline(SMALLEST, diffusers.UniPCMultistepScheduler(**options)).save_pretrained(tmp_path)
    model = load(tmp_path)
    assert (model.process, model.parameterization) == (ud.FlowMatching(0.001), ud.Velocity())
    scheduler = diffusers.UniPCMultistepScheduler(**options)
    scheduler.set_timesteps(9)
    x = torch.randn(1, 1, 8, 8)
    output = torch.randn(1, 1, 8, 8)
    scheduler._step_index = 3
    theirs = scheduler.convert_model_output(output, sample=x)
    level = model.process.level(float(load_grid(tmp_path, 9).given[3]))
    # The scheduler rounds its timesteps to whole numbers: its noise scale is within 1 / 1000 of the time told.
    ours = model.parameterization.solve(output, x, level).x0
    assert (ours - theirs).abs().max() < 1.1e-3 * float(output.abs().max())


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
        assert model(x, model.process.level(0.5), label=label).variance is not None
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
    with pytest.raises(ParameterError, match="nothing to replace"):
        load(tmp_path, scheduler={}, process=ud.DDPM(), parameterization=ud.V())


# ---------------------------------------------------------------------------------------------- errors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    diffusers.DDPMPipeline(SMALLEST, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def changed(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "LCMScheduler"}, "LCMScheduler is unsupported; supported are DDPMScheduler"),
        ({"thresholding": True}, "thresholding=True was found"),
        ({"prediction_type": "flow"}, "prediction_type 'flow' was found; supported on a table are 'epsilon'"),
        ({"beta_schedule": "laplace"}, "beta_schedule 'laplace' was found; supported are linear"),
        ({"beta_schedule": "bogus"}, "diffusers refuses this DDPMScheduler: bogus"),
        ({"rescale_betas_zero_snr": True}, "Eps cannot be converted to data at t = 1"),
        ({"beta_end": 2.0}, "beta_max: 2.0 was given"),
        ({"trained_betas": [0.1, 0.2, 0.3]}, "T: 1000 was given; the schedule is a table of 3 entries"),
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


def test_options_of_a_scheduler_are_replaced(saved):
    assert isinstance(load(saved), Clipped)
    assert isinstance(load(saved, scheduler={"clip_sample": False}), DiffusersDenoiser)
    given = load_grid(saved, 10, scheduler={"timestep_spacing": "trailing"}).given
    assert given == tuple(i / 10 for i in range(10, 0, -1))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "of type UNet2DConditionModel; supported here is UNet2DModel or DiT"),
        ({"in_channels": 3}, "diffusers cannot read this UNet2DModel"),
        ({"sample_size": None}, "no sample_size"),
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

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    refused("no folder, and no name on the hub", tmp_path / "nothing")
    refused("the hub does not give it: offline", "somebody/something")
    refused(r"neither model_index.json \(a pipeline\) nor config.json \(a model\) is there", tmp_path)
    with pytest.raises(ParameterError, match="has a scheduler, which says it"):
        load(saved, process=ud.DDPM())

    weights = saved / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:1000])
    refused("cannot read this UNet2DModel")
    weights.unlink()
    refused("the weights are missing")
    torch.save(SMALLEST.state_dict(), saved / "unet" / "diffusion_pytorch_model.bin")
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


def test_without_diffusers(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"pip install 'unidiff\[diffusers\]'"):
        load("anything")
