"""Networks that are compiled, recorded or checkpointed give the numbers of those that are not."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch
from tiny import RING, refused, write
from torch import nn

import unidiff as ud
from unidiff import acceleration
from unidiff.backbone.layers import sinusoidal
from unidiff.errors import ParameterError
from unidiff.training.execution import executed
from unidiff.training.loop import accelerator_for

F64 = torch.float64


def randomized(network: nn.Module) -> nn.Module:
    """The network with no weight at 0, in float64."""
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=F64) / max(1, weight[0].numel()) ** 0.5
    return network.double()


def guided() -> ud.Denoiser:
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), randomized(ud.MLP((2,), width=8, depth=1, classes=3)))
    weaker = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), randomized(ud.MLP((2,), width=4, depth=1, classes=3)))
    return ud.AutoGuidance(ud.ClassifierFree(model, 2.0), weaker, 1.5)


def drawn(model: ud.Denoiser, **options: object) -> torch.Tensor:
    label = torch.tensor([0, 1, 2, 1, 0])
    return ud.sample(model, ud.ExponentialAdams(), ud.Uniform(5), seeds=5, dtype=F64, batch=2, label=label, **options).x


class Linear(nn.Module):
    """A network of one matrix product, for which no C++ is compiled: that alone takes 20 s."""

    shape, conditions = (4,), ()

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture
def recordings(monkeypatch):
    """Recorded graphs without CUDA: what replays one computes it again, and writes to where it wrote before."""
    made = []

    def record(evaluate, device):
        output = evaluate()
        made.append(device)
        return output, lambda: output.copy_(evaluate())

    monkeypatch.setattr(acceleration, "_record", record)
    return made


@pytest.mark.slow  # a second or more
def test_a_recorded_network_gives_the_same_samples(recordings):
    model = guided()
    twin = model.with_networks(acceleration._Recorded)
    # A multistep method keeps earlier predictions: they must not be those that the next replay writes.
    assert torch.equal(drawn(twin), drawn(model))
    assert len(recordings) == 4  # two networks; batches of 2 and of 1; classifier-free guidance doubles its own
    before = drawn(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    assert torch.equal(drawn(twin), drawn(model))
    assert not torch.equal(drawn(model), before)
    assert len(recordings) == 4
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(drawn(twin), drawn(model))
    assert len(recordings) == 8


def test_a_recorded_network_refuses_gradients(recordings):
    with pytest.raises(ParameterError, match="acceleration: a CUDA graph has no gradients"):
        drawn(guided().with_networks(acceleration._Recorded), grad=True)


def test_a_copy_of_a_recorded_network_records_anew(recordings):
    model = guided().with_networks(acceleration._Recorded)
    drawn(model)
    made = len(recordings)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(drawn(twin), drawn(model))
    assert len(recordings) == 3 * made


def test_memory_is_estimated_of_the_layers_themselves(recordings):
    network = acceleration._Recorded(randomized(ud.MLP((2,), width=8, depth=1)))
    with acceleration.plainly():
        network(torch.zeros(1, 2, dtype=F64), torch.zeros(1, dtype=F64))
    assert not recordings


def test_what_cannot_be_accelerated_is_one_message(tmp_path):
    with pytest.raises(ParameterError, match=r"acceleration: CudaGraphs needs a model on a CUDA device, got .* cpu"):
        ud.CudaGraphs().apply(guided())
    with pytest.raises(ParameterError, match="GaussianMixture has no network that Compiled could make faster"):
        ud.Compiled().apply(ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0]], 1.0))
    with pytest.raises(ParameterError, match="denoiser must be a Denoiser, got an object of Linear"):
        ud.Compiled().apply(Linear())
    recipe = {**RING, "sampling": {**RING["sampling"], "acceleration": "CudaGraphs"}}
    message = refused("run", write(tmp_path, recipe), "--out", tmp_path / "run", "--device", "cpu")
    assert "sampling.acceleration: CudaGraphs needs a model on a CUDA device, got one on cpu." in message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # torch's compiler is imported
def test_a_failure_of_the_compiler_is_one_message(monkeypatch):
    def broken(graph, inputs):
        raise FileNotFoundError("no g++ here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    with pytest.raises(ParameterError, match=r"acceleration: torch.compile failed for Linear on cpu \(.*no g\+\+ here"):
        drawn_linear(ud.Compiled().apply(ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), Linear())))


def drawn_linear(model: ud.Denoiser) -> torch.Tensor:
    return ud.sample(model, ud.DDIM(), ud.Uniform(4), seeds=3, dtype=F64).x


@pytest.mark.slow  # torch's compiler is imported
def test_a_compiled_network_gives_the_same_samples():
    network = Linear().double()
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), network)
    found = drawn_linear(ud.Compiled().apply(model))
    # Sums of 4 products in another order, four times: 4 * 4 roundings of 2^-53, times 1 / alpha(1) = 160 at the start.
    torch.testing.assert_close(found, drawn_linear(model), rtol=0, atol=16 * 2.0**-53 * 160 * 4)
    assert torch._dynamo.utils.counters["inductor"] or torch._dynamo.utils.counters["stats"]["unique_graphs"]


def images(**changes: object) -> ud.Denoiser:
    torch.manual_seed(0)
    size = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.3}
    network = ud.UNet((1, 8, 8), **{**size, **changes})
    return ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), randomized(network).float())


def test_channels_last_are_the_same_samples_and_leave_the_model_alone(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    model = images().eval()
    model.backbone.double()
    own = {name: value.stride() for name, value in model.state_dict().items()}
    fast = ud.Compiled(channels_last=True).apply(model)
    assert {name: value.stride() for name, value in model.state_dict().items()} == own
    (kernel,) = [weight for name, weight in fast.named_parameters() if name.endswith("stem.weight")]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    samples = [ud.sample(each, ud.DDIM(), ud.Uniform(2), seeds=2, dtype=F64).x for each in (model, fast)]
    # Sums of up to 9 * 24 products in another order, in some 20 layers, in float64: 1e-16 * 216 * 20 = 5e-13 of the
    # values, times 1 / alpha(1) = 160 at the first of two steps.
    bound = 160 * 5e-13 * float(samples[0].abs().max())
    torch.testing.assert_close(samples[1], samples[0], rtol=0, atol=bound)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_whose_layers_are_quantized_to_int8_is_the_network_to_the_steps_of_its_numbers():
    torch.manual_seed(0)
    network = ud.MLP((2,), width=32, depth=1)
    model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), torch.ao.quantization.quantize_dynamic(network, {nn.Linear}))
    assert ud.sample(model, ud.DDIM(), ud.Uniform(3), seeds=4).x.isfinite().all()
    plain, quantized = network.embedding, model.backbone.embedding
    c = torch.linspace(0, 1000, 9)

    def layer_error(layer: nn.Linear, x: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        # Weights are rounded to 255 values up to the largest, activations of a batch to 127 of their range (7 bits, as
        # products of 8 would overflow); "error" is what the input has already.
        weight, reach = layer.weight.abs(), x.abs() + error
        dw, dx = weight.max() / 127, (x.max() - x.min() + 2 * error.max()) / 127
        return (error + dx) @ (weight + dw).T + reach.sum(1, keepdim=True) * dw

    e = sinusoidal(c, plain.width)
    hidden = plain.inner(e)
    error = 1.1 * layer_error(plain.inner, e, torch.zeros_like(e))  # the derivative of SiLU is at most 1.1
    bound = 1.1 * layer_error(plain.outer, nn.functional.silu(hidden), error)
    found = (quantized(c) - plain(c)).abs()
    assert (found <= bound).all()
    assert 0 < found.max() < plain(c).abs().max() / 5


def weights(network: dict[str, object] = {}, **changes: object) -> torch.Tensor:  # noqa: B006
    settings = ud.Training(steps=2, batch=4, lr=1e-2, precision="fp32", accumulate=2, **changes)
    data = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = images(**network)
    ud.train(model, data, ud.Denoising(), settings, accelerator=accelerator_for(settings, "cpu"))
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_gradient_checkpointing_trains_the_same_bits():
    assert torch.equal(weights(gradient_checkpointing=True), weights())  # its dropout is drawn twice alike


def test_channels_last_train_the_same_weights():
    plain = {"dropout": 0.0}  # which draws in the order of the memory
    found, expected = weights(plain, channels_last=True), weights(plain)
    assert (found - expected).abs().max() <= 0.02  # see the last test
    assert ((found - expected).abs() > 1e-4).double().mean() < 0.01


def test_gradient_checkpointing_keeps_less():
    kept = []
    for on in (False, True):
        network = copy.deepcopy(images().backbone)
        parallel = executed(network, ud.Training(steps=1, gradient_checkpointing=on))
        sizes: dict[int, int] = {}

        def note(value: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        own = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            loss = parallel(torch.randn(16, 1, 8, 8), torch.zeros(16)).square().sum()
        kept.append(sum(size for place, size in sizes.items() if place not in own))
        loss.backward()
        assert not any("forward" in vars(layer) for layer in network.modules())
    assert kept[1] < kept[0] / 2
    with pytest.raises(ParameterError, match=r"training.gradient_checkpointing: Linear has no list of blocks"):
        executed(Linear(), ud.Training(steps=1, gradient_checkpointing=True))


@pytest.mark.slow  # torch's compiler is imported
def test_a_compiled_training_is_the_plain_one(monkeypatch):
    # The graphs that torch.compile finds, forward and backward, executed without C++: 20 s for each to be compiled.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    small = {"multipliers": (1,), "attention": (8,)}
    found, expected = weights(small, compile=True, gradient_checkpointing=True), weights(small)
    # Two steps of AdamW move a weight by at most 2 lr = 0.02. Roundings of 2^-24 move a gradient by 1e-6 of itself, and
    # AdamW's ratio with it; where a gradient is next to 0 by more, in few weights.
    assert (found - expected).abs().max() <= 0.02
    assert ((found - expected).abs() > 1e-4).double().mean() < 0.01
