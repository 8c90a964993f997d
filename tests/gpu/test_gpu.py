"""The device path on a real GPU: every case of `device_cases` against the CPU, and training on the card."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from device_cases import CASES, on_cpu, trained
from safetensors.torch import load_file
from tiny import RING, start, unidiff, write

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.recipe.registry import PUBLIC
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted, accelerator_for

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _full_precision():
    """float32 products in float32: TF32 keeps 10 bits of 23."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_card_computes_what_the_cpu_does(case, monkeypatch):
    # Sliced score matching draws its directions on the device, whose generator gives other numbers from the same seed.
    monkeypatch.setattr(torch, "randint_like", lambda like, high: torch.randint(high, like.shape).to(like))
    expected, found = (on_cpu(case.task(device, 4)) for device in (CPU, CARD))
    # In float64 sums in another order differ by 1e-16 of their terms. A step multiplies that by at most sigma / alpha
    # of the noisiest level, 1e2 to 1e4 here, and there are few steps: 1e-16 * 1e4 * 10 = 1e-11, and 1e-8 leaves room
    # for a denoiser's sensitivity, 1 / sigma_min^2 = 1e3 for these mixtures. Adaptive methods may choose other steps
    # within their tolerance of 1e-3. Four steps of AdamW in float32 move a weight by 4 lr = 0.04; a gradient next to 0,
    # whose sign is that of its rounding, may move its weight the other way, but few are: all within 1e-3 here.
    tolerance = 1e-2 if case.adaptive else 1e-3 if case.name.startswith("train") else 1e-8
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def images() -> TensorSource:
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return TensorSource(x, "noise", labels=torch.arange(64) % 3)


def unet() -> ud.NeuralDenoiser:
    torch.manual_seed(0)
    network = ud.UNet((1, 8, 8), width=16, multipliers=(1, 2), blocks=1, attention=(4,), classes=3, dropout=0.1)
    return ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), network)


def settings(**changes: object) -> ud.Training:
    given = {"steps": 12, "batch": 16, "lr": 1e-3, "precision": "fp32", "checkpoint_every": 100, "log_every": 100}
    return ud.Training(**{**given, **changes})  # type: ignore[arg-type]


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    def train(checkpoints: Checkpoints | None = None, stop_at: int | None = None) -> list[torch.Tensor]:
        steps: list[int] = []
        options = {
            "conditioning": ud.Labels(0.2),
            "accelerator": accelerator_for(settings(), "cuda:0"),
            "checkpoints": checkpoints,
            "on_step": lambda progress: steps.append(progress.step),
            "stop": lambda: stop_at is not None and len(steps) + 1 >= stop_at,
        }
        result = ud.train(unet(), images(), ud.Denoising(), settings(), **options)  # type: ignore[arg-type]
        return [value.cpu() for value in result.backbone.state_dict().values()]

    deterministic = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        whole = train()
        kept = Checkpoints(tmp_path)
        with pytest.raises(Interrupted):
            train(kept, stop_at=5)
        resumed = train(kept)
    finally:
        torch.backends.cudnn.deterministic = deterministic
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_step_in_bf16_follows_the_one_in_fp32():
    # bf16 keeps 8 bits: activations and so the loss differ by about 2^-8 of themselves per layer, in random directions
    # over some 10 layers: sqrt(10) 2^-8 = 0.012. Three times that.
    losses = []
    for precision in ("fp32", "bf16"):
        seen: list[float] = []
        options = settings(steps=2, precision=precision, log_every=1)
        ud.train(
            unet(), images(), ud.Denoising(), options, conditioning=ud.Labels(0.2),
            accelerator=accelerator_for(options, "cuda:0"), on_step=lambda step, seen=seen: seen.append(step.loss),
        )  # fmt: skip
        losses.append(seen)
    assert all(math.isfinite(loss) for loss in losses[1])
    assert losses[1] == pytest.approx(losses[0], rel=0.036)
    assert losses[1] != losses[0]


def test_a_checkpoint_of_the_card_goes_on_on_the_cpu(tmp_path):
    kept = Checkpoints(tmp_path)
    source = images()

    def train(device: str, steps: int) -> ud.NeuralDenoiser:
        accelerator = accelerator_for(settings(), device)
        options = {"accelerator": accelerator, "checkpoints": kept, "conditioning": ud.Labels(0.2)}
        return ud.train(unet(), source, ud.Denoising(), settings(steps=steps), **options)  # type: ignore[arg-type]

    on_card = train("cuda:0", 3)
    back = train("cpu", 3)  # reads the checkpoint, and has nothing left to do
    for a, b in zip(on_card.backbone.parameters(), back.backbone.parameters(), strict=True):
        assert a.device.type == "cuda"
        assert b.device.type == "cpu"
        assert torch.equal(a.cpu(), b)
    train("cpu", 4)  # the optimizer's state came over as well


@pytest.mark.parametrize("name", PUBLIC.choices(ud.codec.AutoencoderConfig))
def test_a_codec_computes_on_the_card_what_it_does_on_the_cpu(name):
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    codec = PUBLIC.choices(ud.codec.AutoencoderConfig)[name]().build(1).double()
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        expected = codec.encode(x)
        z = codec.to(CARD).encode(x.to(CARD))
        back = codec.decode(z)
        # Sums of 10^4 terms in another order, over some 20 layers, in float64. The linear attention of diffusers'
        # AutoencoderDC casts to float32 whatever it is given: 2^-24 a rounding, times 100 for the layers behind it.
        bound = 100 * 2.0**-24 if name == "AutoencoderDC" else 1e-9
        torch.testing.assert_close(z.cpu(), expected, rtol=bound, atol=bound)
        torch.testing.assert_close(back.cpu(), codec.to(CPU).decode(expected), rtol=bound, atol=bound)


def test_the_number_of_waits_does_not_grow_with_the_steps():
    # CUDA itself reports each synchronisation of the host.
    model = ud.GaussianMixture(ud.VPSDE(), [[-0.6, 0.3], [0.5, -0.2]], 0.04).to(CARD)
    counts = []
    for steps in (4, 8):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                ud.sample(
                    model,
                    ud.ExponentialAdams(),
                    ud.Uniform(steps),
                    (2,),
                    3,
                    device=CARD,
                    label=torch.tensor([0, 1, -1]),
                )
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counts.append(len([warning for warning in seen if "synchroniz" in str(warning.message)]))
    assert counts[0] == counts[1], counts


def test_trained_weights_are_on_the_card():
    weights = trained(unet(), images(), ud.Denoising(), CARD, 2, conditioning=ud.Labels(0.2))
    assert weights.device.type == "cuda"


def drawn(model: ud.Denoiser, **options: object) -> torch.Tensor:
    label = torch.tensor([0, 1, 2, 1, 0])
    with torch.autocast("cuda", torch.bfloat16, enabled=options.pop("bf16", False)):
        options = {"seeds": 5, "batch": 2, "device": CARD, "label": label, **options}
        return ud.sample(model, ud.ExponentialAdams(), ud.Uniform(5), **options).x  # type: ignore[arg-type]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("way", [ud.CudaGraphs(), ud.CudaGraphs(channels_last=True), ud.Compiled(channels_last=True)])
def test_accelerated_samples_are_the_plain_ones(way, bf16):
    network = unet().backbone
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=1 / max(1, weight[0].numel()) ** 0.5)
    model = ud.ClassifierFree(ud.NeuralDenoiser(ud.DDPM(50), ud.X0(), network), 2.0).to(CARD).eval()
    plain, fast = drawn(model, bf16=bf16), drawn(way.apply(model), bf16=bf16)
    # The same products in another order over some 30 layers, in 24 bits (TF32 is off) or in 8; three times sqrt(30) of
    # a rounding, times 3 for the guidance of scale 2 and 5 for the sum of the weights of a multistep method.
    bound = 3 * 30**0.5 * (2.0**-8 if bf16 else 2.0**-24) * 3 * 5 * float(plain.abs().max())
    assert (fast - plain).abs().max() <= bound
    again = drawn(way.apply(model), bf16=bf16)
    assert torch.equal(again, fast)


def test_a_recorded_network_follows_its_weights():
    model = unet().to(CARD).eval()
    fast = ud.CudaGraphs().apply(model)
    before = drawn(fast)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    torch.testing.assert_close(drawn(fast), drawn(model), rtol=1e-5, atol=1e-5)
    assert not torch.equal(drawn(fast), before)


@pytest.mark.parametrize("changes", [{"compile": True}, {"channels_last": True}, {"gradient_checkpointing": True}])
def test_a_training_executed_otherwise_is_the_plain_one(changes):
    found = []
    for options in ({}, changes):
        network = ud.UNet((1, 8, 8), width=16, multipliers=(1, 2), blocks=1, attention=(4,))
        torch.manual_seed(0)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=1 / max(1, weight[0].numel()) ** 0.5)
        own = settings(steps=2, lr=1e-2, **options)
        model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), network)
        ud.train(model, images(), ud.Denoising(), own, accelerator=accelerator_for(own, "cuda:0"))
        found.append(torch.cat([weight.detach().flatten() for weight in network.parameters()]))
    # Two steps of AdamW move a weight by at most 2 lr; one whose gradient is next to 0 perhaps the other way.
    assert (found[0] - found[1]).abs().max() <= 0.04
    assert ((found[0] - found[1]).abs() > 1e-3).double().mean() < 0.01


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_cards_are_one(tmp_path):
    recipe = write(tmp_path, {**RING, "training": {**RING["training"], "batch": 16}})
    assert unidiff("run", recipe, "--out", tmp_path / "one", "--device", "cuda:0").code == 0
    array = tmp_path / "two.npy"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unidiff")
    for command in (("run", recipe, "--out", tmp_path / "two"), ("sample", tmp_path / "two", "--array", array)):
        process = start(*command, "--device", "cuda", module=launcher)
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert array.exists()
    one, two = (load_file(tmp_path / name / "checkpoints/step-00000008/model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-3)
