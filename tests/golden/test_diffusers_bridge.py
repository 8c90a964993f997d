"""Models that diffusers has saved, loaded here: the same numbers and the same pictures from the same noise.

Both compute in float64: `in_float64` lets diffusers, which names float32 for its tables and its embedding of the time.

Bounds, with u = 2^-53: the running product of T <= 1000 factors 1 - beta is off by T u = 1.1e-13 at most, a network's
answer by 4e-12 (test_interop_weights.py), and the first step divides both by alpha_T >= 1 / 160: 7e-10, which later
steps shrink. 1e-9 is asked for.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from theirs import (
    COUNT,
    DDIM_NOISE,
    DDPM_NOISE,
    DIT_NOISE,
    LDM_NOISE,
    PICTURES,
    SMALLEST,
    autoencoder,
    changed,
    diffusers,
    drawn,
    in_float64,  # noqa: F401 (a fixture)
    pictures,
    same_noise,
    sampled,
    transformer,
    unet,
)

import unidiff as ud
from unidiff.errors import RunError
from unidiff.interop.diffusers import ClipSample, DiffusersDenoiser, load, load_grid
from unidiff.interop.diffusers.lora import add_lora
from unidiff.interop.diffusers.scheduler import read_scheduler

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("in_float64"),
]


# ---------------------------------------------------------------------------------------------- whole pipelines


@pytest.mark.parametrize(("clip", "spacing"), [(True, "leading"), (False, "trailing"), (False, "linspace")])
def test_ddpm_pipeline(tmp_path, monkeypatch, clip, spacing):
    scheduler = diffusers.DDPMScheduler(clip_sample=clip, timestep_spacing=spacing, steps_offset=0)
    pipeline = diffusers.DDPMPipeline(unet(), scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise(monkeypatch, *DDPM_NOISE)
    theirs = drawn(pipeline, 5)
    model = load(tmp_path)
    assert isinstance(model, ClipSample) == clip
    ours = sampled(model, ud.Ancestral(), load_grid(tmp_path, 5))
    assert (pictures(ours) - theirs).abs().max() < PICTURES


def test_ddpm_pipeline_with_a_learned_variance(tmp_path, monkeypatch):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", prediction_type="v_prediction")
    pipeline = diffusers.DDPMPipeline(unet(out_channels=2), scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise(monkeypatch, *DDPM_NOISE)
    theirs = drawn(pipeline, 5)
    model = load(tmp_path)
    assert model.learned_variance
    ours = sampled(model, ud.Ancestral(), load_grid(tmp_path, 5))
    assert (pictures(ours) - theirs).abs().max() < PICTURES
    changed(tmp_path / "scheduler" / "scheduler_config.json", variance_type="learned")
    with pytest.raises(
        RunError, match="variance_type must be 'learned_range' where a variance is learned, got 'learned'"
    ):
        load(tmp_path)


def test_ddpm_pipeline_on_its_native_grid(tmp_path, monkeypatch):
    pipeline = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(num_train_timesteps=20, beta_end=0.4))
    pipeline.save_pretrained(tmp_path)
    same_noise(monkeypatch, *DDPM_NOISE)
    theirs = drawn(pipeline, 20)
    model = load(tmp_path)
    ours = sampled(model, ud.Ancestral(), ud.Native())
    assert load_grid(tmp_path, 20).times(model.process).tolist() == ud.Native().times(model.process).tolist()
    assert (pictures(ours) - theirs).abs().max() < PICTURES


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_pipeline(tmp_path, monkeypatch, eta):
    pipeline = diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
    pipeline.save_pretrained(tmp_path)
    same_noise(monkeypatch, *DDIM_NOISE)
    theirs = drawn(pipeline, 10, eta=eta)
    ours = sampled(load(tmp_path), ud.DDIM(eta), load_grid(tmp_path, 10))
    assert (pictures(ours) - theirs).abs().max() < PICTURES


@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_ldm_pipeline(tmp_path, monkeypatch, kind):
    network = unet(in_channels=2, out_channels=2)
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    codec = autoencoder(kind)
    if kind == "VQModel":  # whose fresh codebook is so dense that rounding decides which entry is nearest
        torch.nn.init.normal_(codec.quantize.embedding.weight)
    pipeline = diffusers.LDMPipeline(codec, network, scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise(monkeypatch, *LDM_NOISE)
    theirs = drawn(pipeline, 10)
    model, codec = load(tmp_path), ud.codec.load_codec(tmp_path).double()
    assert model.shape == (2, 8, 8)
    latents = sampled(model, ud.DDIM(), load_grid(tmp_path, 10))
    ours = codec.decode(latents)
    assert theirs.shape == ours.shape == (COUNT, 1, 16, 16)
    assert (pictures(ours) - theirs).abs().max() < PICTURES


@pytest.mark.parametrize(("guidance", "clip"), [(1.0, False), (3.0, True)])
def test_dit_pipeline(tmp_path, monkeypatch, guidance, clip):
    scheduler = diffusers.DDIMScheduler(clip_sample=clip, prediction_type="v_prediction")
    pipeline = diffusers.DiTPipeline(transformer(), autoencoder(), scheduler)
    pipeline.save_pretrained(tmp_path)
    same_noise(monkeypatch, *DIT_NOISE)
    theirs = drawn(pipeline, 10, [0, 999, 7], guidance_scale=guidance)
    model, codec = load(tmp_path, scheduler={"clip_sample": False}), ud.codec.load_codec(tmp_path).double()
    assert model.classes == 1000
    guided = (
        ClipSample(ud.ClassifierFree(model, guidance)) if clip else model
    )  # what is guided is clipped, not its parts
    label = torch.tensor([0, 999, 7])
    latents = sampled(guided, ud.DDIM(), load_grid(tmp_path, 10), label=label)
    assert (pictures(codec.decode(latents)) - theirs).abs().max() < PICTURES


def test_ddim_on_times_that_its_own_step_misses(tmp_path):
    diffusers.DDIMPipeline(unet(**SMALLEST), diffusers.DDIMScheduler()).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for steps, spacing in ((15, "leading"), (10, "trailing")):
            load_grid(tmp_path, steps, scheduler={"timestep_spacing": spacing})
    for steps, spacing in ((10, "linspace"), (15, "trailing")):
        with pytest.warns(UserWarning, match=f"DDIMScheduler steps by 1000 // {steps} = "):
            load_grid(tmp_path, steps, scheduler={"timestep_spacing": spacing})


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


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "options", [{}, {"shift": 3.0, "num_train_timesteps": 500}, {"shift_terminal": 0.1}, {"use_karras_sigmas": True}]
)
def test_flow(tmp_path, options):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**options)
    T = scheduler.config.num_train_timesteps
    diffusers.DDPMPipeline(network := unet(), scheduler).save_pretrained(tmp_path)
    x = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = driven(scheduler, network, x, 12)
    model = load(tmp_path)
    ours = walked(model, ud.Euler(), load_grid(tmp_path, 12).times(model.process), x)
    assert (ours - theirs).abs().max() < PICTURES
    one = model(x, level := model.process.level(0.6))
    with torch.no_grad():
        velocity = network(x, torch.tensor(0.6 * T)).sample  # eps - x0, at timestep T t
    assert (one.eps - one.x0 - velocity).abs().max() < PICTURES
    assert (one.x0 - (x - level.time * velocity)).abs().max() < PICTURES


@pytest.mark.parametrize("options", [{}, {"prediction_type": "v_prediction"}, {"sigma_schedule": "exponential"}])
def test_noise_on_unscaled_data(tmp_path, options):
    scheduler = diffusers.EDMEulerScheduler(num_train_timesteps=20, sigma_max=10.0, rho=5.0, **options)
    diffusers.DDPMPipeline(network := unet(), scheduler).save_pretrained(tmp_path)
    x = 10 * torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model, theirs = load(tmp_path), driven(scheduler, network, x, 8)
    assert model.process == ud.EDM(0.002, 10.0, 5.0)
    # Euler's step in sigma is DDIM's.
    ours = walked(model, ud.DDIM(), load_grid(tmp_path, 8).times(model.process), x)
    assert (ours - theirs).abs().max() < 1e-7  # the grid's times are 10^(1/5) of sigma, which grows their rounding


def test_heun_on_a_flow(tmp_path):
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=2.0)
    diffusers.DDPMPipeline(network := unet(), scheduler).save_pretrained(tmp_path)
    x = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(6)
    theirs, model = driven(scheduler, network, x, 6), load(tmp_path)
    ours = walked(model, ud.Heun(), load_grid(tmp_path, 6).times(model.process), x)
    assert (ours - theirs).abs().max() < PICTURES


def test_a_circle_of_data_and_noise(tmp_path):
    """IPNDM's state is cos x0 + sin eps of pi t / 2, and its network predicts v: it steps with sin x + cos v."""
    scheduler = diffusers.IPNDMScheduler()
    diffusers.DDPMPipeline(network := unet(), scheduler).save_pretrained(tmp_path)
    x = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model, times = load(tmp_path), load_grid(tmp_path, 10).given
    scheduler.set_timesteps(10)
    assert times == pytest.approx(scheduler.timesteps.tolist(), abs=1e-12)
    for number in (0, 4, 9):
        with torch.no_grad():
            v = network(x, scheduler.timesteps[number]).sample
            ours = model(x, model.process.level(times[number])).eps
        # The ends of the circle are cut at log SNR = 40, an angle of 2e-9.
        assert (ours - (scheduler.betas[number] * x + scheduler.alphas[number] * v)).abs().max() < 1e-7


def test_shifted_snr():
    scheduler = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=3.0, rescale_betas_zero_snr=True)
    process = read_scheduler(dict(scheduler.config) | {"_class_name": "CogVideoXDDIMScheduler"}, "here").process
    alpha = process.alpha(process.native_times())
    assert (alpha**2 - scheduler.alphas_cumprod).abs().max() < 1e-5  # theirs is in float32: 1000 factors
    assert alpha[-1] == 0


def test_scores_of_an_exploding_process(tmp_path, monkeypatch):
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
    assert torch.allclose(prediction.score, score, rtol=0, atol=PICTURES * float(score.abs().max()))
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
    assert abs(second.sigma / float(scheduler.discrete_sigmas[18]) - 1) < PICTURES
    assert (ours - theirs).abs().max() < PICTURES * 10  # of states of size 10


# ---------------------------------------------------------------------------------------------- tables, predictions


TABLES: dict[str, dict[str, Any]] = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "trained": {"trained_betas": [0.01 + 0.0005 * i for i in range(60)], "num_train_timesteps": 60},
    "zero_snr": {"rescale_betas_zero_snr": True},
}


@pytest.mark.cases(6)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("table", TABLES)
def test_predictions_on_every_table(tmp_path, table, prediction):
    if (table, prediction) == ("zero_snr", "epsilon"):
        pytest.skip("ill posed: see the errors")
    options = {"num_train_timesteps": 1000, **TABLES[table], "prediction_type": prediction, "clip_sample": False}
    scheduler = diffusers.DDPMScheduler(**options)
    diffusers.DDPMPipeline(network := unet(**SMALLEST), scheduler).save_pretrained(tmp_path)
    model = load(tmp_path)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    T = options["num_train_timesteps"]
    alpha_bar = torch.tensor([level.alpha**2 for level in model.process.levels_at(model.process.native_times())])
    # T roundings of 2^-53 in the product of each library; where the SNR is 0, so is it.
    assert torch.allclose(alpha_bar, scheduler.alphas_cumprod, rtol=2 * T * 2.0**-53, atol=1e-9)
    for index in (0, T // 3, T - 2):
        with torch.no_grad():
            output = network(x, torch.tensor(index)).sample
            theirs = scheduler.step(output, index, x).pred_original_sample
            ours = model(x, model.process.level((index + 1) / T))
        # At the noisiest they divide by sqrt(alpha-bar), whose relative error is half of that above.
        assert (ours.x0 - theirs).abs().max() < PICTURES * max(1.0, float(theirs.abs().max()))


@pytest.mark.slow  # a second or more
def test_other_samplers_of_a_table_tell_the_same_model(tmp_path):
    """As saved after `pipeline.scheduler = Other.from_config(pipeline.scheduler.config)`, each from the last."""
    values = {"num_train_timesteps": 50, "beta_start": 0.001, "beta_end": 0.02, "clip_sample": False}
    scheduler: Any = diffusers.DDPMScheduler(**values, prediction_type="v_prediction", variance_type="fixed_large")
    diffusers.DDPMPipeline(unet(**SMALLEST), scheduler).save_pretrained(tmp_path)
    for name in (
        *("PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "LMSDiscrete"),
        *("EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"),
        *("DDIMParallel", "DDPMParallel", "DDIM", "EulerDiscrete", "DDPM"),
    ):
        scheduler = getattr(diffusers, f"{name}Scheduler").from_config(scheduler.config)
        scheduler.save_pretrained(tmp_path / "scheduler")
        changed(tmp_path / "scheduler" / "scheduler_config.json", tensor_format="pt")  # of the first versions
        model = load(tmp_path)
        assert isinstance(model, DiffusersDenoiser)
        assert (model.process, model.parameterization) == (ud.DDPM(50, ud.Linear(0.001, 0.02)), ud.V())
        times = load_grid(tmp_path, 10).times(model.process)
        assert times[0] <= 1
        assert times[-1] == 0
        assert bool((times.diff() < 0).all())
    assert load(tmp_path, scheduler={"_class_name": "DDIMScheduler"}).process == ud.DDPM(50, ud.Linear(0.001, 0.02))
    with pytest.raises(RunError, match="prediction_type must be 'flow_prediction' on a flow, got 'v_prediction'"):
        load(tmp_path, scheduler={"_class_name": "FlowMatchEulerDiscreteScheduler"})


def test_flow_sigmas_of_the_multistep_solvers(tmp_path):
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    diffusers.DDPMPipeline(unet(**SMALLEST), diffusers.UniPCMultistepScheduler(**options)).save_pretrained(tmp_path)
    model = load(tmp_path)
    assert (model.process, model.parameterization) == (ud.FlowMatching(0.001), ud.Velocity())
    scheduler = diffusers.UniPCMultistepScheduler(**options)
    scheduler.set_timesteps(9)
    x = torch.randn(1, 1, 8, 8)
    output = torch.randn(1, 1, 8, 8)
    scheduler._step_index = 3
    theirs = scheduler.convert_model_output(output, sample=x)
    level = model.process.level(float(load_grid(tmp_path, 9).given[3]))
    # The scheduler rounds its timesteps to integers: its noise scale is within 1 / 1000 of the time told.
    ours = model.parameterization.solve(output, x, level).x0
    assert (ours - theirs).abs().max() < 1.1e-3 * float(output.abs().max())


# ---------------------------------------------------------------------------------------------- LoRA


LAYER = "down_blocks.1.attentions.0.to_q"


def low_rank(network: Any) -> dict[str, torch.Tensor]:
    """A change of rank 2 of a matrix and of a convolution."""
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(*shape, generator=generator) for shape in ((2, 16), (16, 2)))
    c, d = (torch.randn(*shape, generator=generator) for shape in ((2, 1, 3, 3), (8, 2, 1, 1)))
    names = [f"unet.{layer}.lora_{part}.weight" for layer in (LAYER, "conv_in") for part in "AB"]
    return dict(zip(names, (a, b, c, d)))


def test_a_lora_is_a_product_added_to_the_weights(tmp_path):
    diffusers.DDPMPipeline(network := unet(), diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    tensors = low_rank(network)
    a, b, c, d = tensors.values()
    save_file(tensors, tmp_path / "lora.safetensors")
    x = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model = load(tmp_path, lora=tmp_path / "lora.safetensors", lora_scale=0.5)
    plain = load(tmp_path)
    with torch.no_grad():
        network.get_submodule(LAYER).weight += 0.5 * b @ a
        network.conv_in.weight += 0.5 * torch.einsum("orij,rckl->ockl", d, c)
        level = model.process.level(0.5)
        expected = load(tmp_path)
        expected.model.backbone.network.load_state_dict(network.state_dict())
        assert (model(x, level).x0 - expected(x, level).x0).abs().max() < PICTURES
        assert (model(x, level).x0 - plain(x, level).x0).abs().max() > 1e-3
    # Alpha / r of peft's config, which diffusers keeps in the file, and of a layer's own.
    facts = json.dumps({"unet.r": 2, "unet.lora_alpha": 1.0, "unet.alpha_pattern": {"conv_in": 4.0}})
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": facts})
    bare = unet()
    add_lora(bare, tmp_path / "lora.safetensors")
    assert torch.allclose(bare.get_submodule(LAYER).weight, unet().get_submodule(LAYER).weight + 0.5 * b @ a)
    own = unet().conv_in.weight + 2 * torch.einsum("orij,rckl->ockl", d, c)
    assert torch.allclose(bare.conv_in.weight, own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"unet.{LAYER}.lora_A.weight": torch.zeros(2, 8)}, r"that layer of the network has \(16, 16\)"),
        (
            {"unet.nowhere.lora_A.weight": torch.zeros(2, 8)},
            "its nowhere has .*that layer of the network has none",
        ),
        ({"lora_unet_down.lora_down.weight": torch.zeros(2, 8)}, "is not a change of the network in the layout"),
        ({"text_encoder.a.lora_A.weight": torch.zeros(2, 8)}, "is not a change of the network in the layout"),
    ],
    ids=str,
)
def test_a_lora_of_another_network_is_an_error(tmp_path, changes, message):
    network = unet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_file({**low_rank(network), **changes}, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(RunError, match=message):
        add_lora(network, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(RunError, match=r"there is no such file.*Pass the \.safetensors file of a LoRA"):
        add_lora(network, tmp_path / "nothing.safetensors")
