"""Numbers that a machine cannot serve are refused; where memory runs out, one sentence says what to lower."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny import RING, refused, unidiff, write
from torch import nn

import unidiff as ud
from unidiff import acceleration, memory
from unidiff.backbone.mlp import MLP
from unidiff.cli.options import GuidanceOptions, sample_conditions
from unidiff.data.base import TensorSource
from unidiff.errors import ParameterError
from unidiff.memory import OutOfMemory, as_bytes, enough_memory, memory_of, require_memory
from unidiff.run import forecast as forecasting
from unidiff.run.forecast import forecast, memory_of_weights, remarks
from unidiff.solver import sample as sampling_module
from unidiff.tasks.conditioned import _labels
from unidiff.training.loop import accelerator_for
from unidiff.training.settings import Training

CPU = torch.device("cpu")
TOO_MUCH = 2**50  # float32 values: more than any address space holds


def changed(recipe, **values):
    return {**recipe, "training": {**recipe["training"], **values}}


# --- one door for all allocators ---


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\nmore lines"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("unable to mmap 192184 bytes from file <a.safetensors>: Cannot allocate memory (12)"),
        OSError(12, "Cannot allocate memory"),
        ImportError("liba.so: failed to map segment from shared object: Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_every_allocator_is_understood(error):
    with pytest.raises(OutOfMemory, match=r"^out of memory .*Lower x") as failure, enough_memory("Lower x."):
        raise error
    assert failure.value.exit_code == 1
    assert "\n" not in str(failure.value)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), enough_memory():
        raise RuntimeError("shapes differ")


class Hungry(ud.GaussianMixture):
    def forward(self, u, level, **cond):
        torch.empty(TOO_MUCH)
        return super().forward(u, level, **cond)


def test_sampling_and_likelihood_name_the_batch():
    model = Hungry(ud.VPSDE(), [[0.0, 1.0]], 0.1)
    x = torch.zeros(2, 2)
    for call in (
        lambda: ud.sample(model, ud.DDIM(), ud.Uniform(2), seeds=2),
        lambda: ud.log_likelihood(model, x, ud.ExactTrace()),
        lambda: ud.edit(model, x[0], 0.5, ud.DDIM(), ud.Uniform(2), seeds=2),
    ):
        with pytest.raises(OutOfMemory, match="Lower the batch"):
            call()


@pytest.mark.slow  # a second or more
def test_training_keeps_its_checkpoint_and_goes_on(tmp_path, monkeypatch):
    original, calls = MLP.forward, 0

    def hungry(self, *args, **cond):
        nonlocal calls
        calls += 1
        return torch.empty(TOO_MUCH) if calls > 4 else original(self, *args, **cond)

    recipe = write(tmp_path, RING)
    with monkeypatch.context() as patch:
        patch.setattr(MLP, "forward", hungry)
        message = refused_late("run", recipe, "--out", tmp_path / "run")
    assert "training.accumulate" in message
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003"]
    assert unidiff("run", recipe, "--out", tmp_path / "run", "--resume").code == 0


def refused_late(*words):
    result = unidiff(*words)
    assert result.code == 1
    assert "Traceback" not in result.err
    return result.err.splitlines()[-1]


# --- limits and forecasts ---


def test_the_least_limit_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert memory_of("cpu") == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_of() > 1_000_000
    require_memory("batch", 10**6, "it", "Lower it.")
    with pytest.raises(ParameterError, match=r"batch: it need at least 1e\+03 EB, .* Lower it."):
        require_memory("batch", 10**21, "it", "Lower it.")
    assert [as_bytes(n) for n in (1500, 2_500_000, 10**10, 10**30)] == ["1.5 kB", "2.5 MB", "10 GB", "1.0e+30 bytes"]


def test_a_forecast_counts_what_autograd_keeps():
    """Two layers without bias on 8 values keep their inputs and, of the ReLU between, its result: the same tensor.

    So 4 bytes x (8 + 16) of a sample, and 2 x (8 x 16 + 16 x 8) operations.
    """

    class Network(nn.Sequential):
        def forward(self, x, c):
            return super().forward(x)

    def sketch():
        with torch.device("meta"):
            return Network(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 8, bias=False))

    training = Training(10, batch=6, accumulate=3)
    needs = forecast(256, sketch, (8,), training, accelerator_for(training, "cpu"), operations=True)
    assert (needs.weights, needs.sample, needs.flops) == (memory_of_weights(256, training), 4 * (8 + 16), 2 * 256)
    assert needs.weights == 20 * 256  # weight, gradient, average, two moments
    assert needs.memory == needs.weights + 2 * needs.sample  # 6 samples in 3 parts
    assert "of memory and about 1 s on cpu" in needs.text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("backbone.depth=1000000000000", "backbone.depth must be at most 1000, got 1000000000000"),
        ("backbone.width=1000000000000000000000000000000", "backbone.width must be at most 65536"),
        ("training.batch=100000000", "training.batch must be an integer from 1 to 1000000"),
    ],
)
def test_numbers_out_of_all_proportion_are_refused(tmp_path, change, message):
    assert message in refused("check", write(tmp_path, RING), "--set", change)


def test_what_does_not_fit_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.run.forecast.memory_of", lambda device: 10**6)
    monkeypatch.setattr(memory, "memory_of", lambda device="cpu": 10**6)
    path, out = write(tmp_path, RING), tmp_path / "run"
    words = ("run", path, "--out", out, "--set")
    assert "backbone: its weights and the optimiser need at least" in refused(*words, "backbone.width=512")
    assert "on 100,000 samples need at least" in (error := refused(*words, "training.batch=100000"))
    assert "raise training.accumulate" in error
    assert not out.exists()
    model = ud.GaussianMixture(ud.VPSDE(), [[0.0, 1.0]], 0.1)
    with pytest.raises(ParameterError, match=r"^count: 1,000,000 samples of shape \(2,\) need at least 16 MB"):
        ud.sample(model, ud.DDIM(), ud.Uniform(2), seeds=1_000_000)


def test_a_batch_whose_activations_do_not_fit_is_refused_before_sampling(monkeypatch):
    """The widest layer has 16 numbers, and the SiLU after it 16 more: 128 bytes a sample, its table of any size."""
    monkeypatch.setattr("unidiff.solver.request.memory_of", lambda device: 100 * 128)
    monkeypatch.setattr(memory, "memory_of", lambda device="cpu": 100 * 128)
    seen: list[int] = []

    class Network(ud.MLP):
        def forward(self, x, c, **cond):
            seen.append(len(x))
            return super().forward(x, c, **cond)

    model = ud.NeuralDenoiser(ud.VPSDE(), ud.Eps(), Network((2,), width=16, depth=1))
    for call in (
        lambda count, batch: ud.sample(model, ud.DDIM(), ud.Uniform(2), seeds=count, batch=batch),
        lambda count, batch: ud.edit(model, torch.zeros(2), 0.5, ud.DDIM(), ud.Uniform(2), seeds=count, batch=batch),
    ):
        seen.clear()
        with pytest.raises(ParameterError, match=r"^batch: the layers of the network on 300 samples .*Lower the"):
            call(300, 300)
        assert seen == [1, 2]
        call(300, 20)
        assert max(seen) == 20


@pytest.mark.parametrize(("data", "key"), [
    (ud.data.Ring(count=10**12), "count"), (ud.data.Notes(count=10**10), "count"), (ud.data.Digits(size=8192), "size"),
    (ud.data.CaptionedDigits(copies=1000, size=1024), "copies"),
])  # fmt: skip
def test_data_out_of_all_proportion_name_their_key(monkeypatch, data, key):
    monkeypatch.setattr(memory, "memory_of", lambda device="cpu": 10**10)
    with pytest.raises(ParameterError, match=rf"^{key}: [\d,]+ .* need at least .*Lower the {key}"):
        data.open()


def test_a_dry_run_says_what_it_needs(tmp_path):
    result = unidiff("run", write(tmp_path, RING), "--dry-run", "--out", tmp_path / "run")
    assert "     needs  at least " in result.out
    assert " of memory and about " in result.out


def test_what_is_seldom_meant_is_said():
    source = TensorSource(torch.zeros(40, 2), "x")
    assert list(remarks(Training(10, batch=40, warmup=10), source, CPU)) == []
    many, warm = remarks(Training(10, batch=400, warmup=40), source, CPU)
    assert many == "training.batch is 400, but the data have 40 samples: each of them is seen 10 times in a step."
    assert warm == "training.warmup is 40, more than the 10 steps: the learning rate reaches 0.25 of lr only."


def test_bf16_on_a_processor_that_emulates_it_is_said(monkeypatch):
    source = TensorSource(torch.zeros(40, 2), "x")
    for has, expected in ((True, []), (False, ["training.precision is bf16, which this cpu emulates"])):
        monkeypatch.setattr(forecasting, "has_bf16", lambda device, has=has: has)
        found = remarks(Training(10, batch=4, precision="bf16"), source, CPU)
        assert [sentence.split(", many")[0] for sentence in found] == expected
        assert list(remarks(Training(10, batch=4), source, CPU)) == []  # auto takes it only where it is fast


# --- freed memory ---

FAULTS = """
import resource
from unidiff.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(2):
        one, other = bytearray(b"1") * 40_000_000, bytearray(b"1") * 9_000_000
        del one, other
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain, kept = faults(), keep_freed_memory()
faults()
print(plain, kept, faults())
"""


def test_freed_memory_is_kept_for_the_next_allocation():
    before, kept, after = subprocess.check_output([sys.executable, "-c", FAULTS], text=True).split()
    if kept == "False":
        pytest.skip("this C library has no setting for it")
    # Blocks larger than glibc ever keeps by itself, 32 MiB, are cleared page by page each time: here those of 40 MB.
    assert int(before) >= 2 * 40_000_000 // resource.getpagesize() / 512  # huge pages have the size of 512
    assert int(after) < int(before) / 100


@pytest.mark.parametrize("way", [None, ud.FeatureCache()])
def test_sampling_on_a_cpu_keeps_the_memory_that_it_frees(monkeypatch, way):
    asked: list[bool] = []
    for module in (sampling_module, acceleration):
        monkeypatch.setattr(module, "keep_freed_memory", lambda: asked.append(True))
    network = ud.UNet((1, 4, 4), width=2, multipliers=(1,), blocks=1)
    ud.Sampling(acceleration=way).accelerated(ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network))
    assert asked


def test_classes_whose_names_are_other_numbers_are_said_and_chosen_by_name():
    names = ("0", "1", "10", "11", "2")
    source = TensorSource(torch.zeros(40, 2), "x", labels=torch.zeros(40).long(), class_names=names)
    expected = "Classes are numbered in the order of their names as texts: 0 is 0, 1 is 1, 2 is 10, 3 is 11, 4 is 2."
    assert list(remarks(Training(10, batch=4), source, CPU)) == [expected]
    run = SimpleNamespace(manifest=SimpleNamespace(data=SimpleNamespace(class_names=[*names])), directory="o")
    said: list[str] = []
    assert _labels(run, sample_conditions(GuidanceOptions(["2,10,0,3"])), 5, said.append) == [4, 2, 0, 3]
    assert said == [
        "class 2 is the name of class number 4 of o; it is taken as the name.",
        "class 10 is the name of class number 2 of o; it is taken as the name.",
    ]
    with pytest.raises(ParameterError, match="got 'cat'"):
        _labels(run, sample_conditions(GuidanceOptions(["cat"])), 5, said.append)


# --- a network that diverged ---


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_network_that_diverged_is_said_whatever_its_loss(tmp_path, clip):
    recipe = write(tmp_path, changed(RING, lr=100.0, clip=clip, steps=20, checkpoint_every=100))
    message = refused_late("run", recipe, "--out", tmp_path / "run")
    assert "the network diverged: its loss is" in message
    assert "No checkpoint had been saved" in message


def test_weights_that_are_not_finite_are_the_fault_of_training(tmp_path):
    from safetensors.torch import load_file, save_file

    from unidiff.files import digest

    assert unidiff("run", write(tmp_path, RING), "--out", tmp_path / "run").code == 0
    (folder, *_) = sorted((tmp_path / "run/checkpoints").iterdir(), reverse=True)
    path, state = folder / "ema.safetensors", folder / "state.json"
    old, weights = digest(path), load_file(path)
    next(iter(weights.values())).view(-1)[0] = math.nan
    save_file(weights, path)
    state.write_text(state.read_text().replace(old.removeprefix("sha256:"), digest(path).removeprefix("sha256:")))
    assert "training diverged, its weights are not finite" in refused("sample", tmp_path / "run")


def test_a_run_of_broken_samples_alone_has_failed(tmp_path, monkeypatch):
    from unidiff.tasks import generation_report

    original = generation_report.draw

    def broken(*args, **options):
        solution = original(*args, **options)
        solution.x.fill_(math.nan)
        return solution

    monkeypatch.setattr(generation_report, "draw", broken)
    message = refused_late("run", write(tmp_path, RING), "--out", tmp_path / "run")
    assert "4 of 4 samples are not finite. Training may have diverged" in message


# --- tolerances below the number format ---


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-12), (torch.float64, 1e-17)])
def test_a_tolerance_below_the_rounding_of_states_is_refused(dtype, tolerance):
    model = ud.GaussianMixture(ud.VPSDE(), [[0.0, 1.0]], 0.1)
    solver = ud.ProbabilityFlow(rtol=tolerance, atol=tolerance)
    with pytest.raises(ParameterError, match=r"rtol \+ atol must be >= .*, the rounding of float.* states"):
        ud.sample(model, solver, ud.Uniform(2), seeds=1, dtype=dtype)
    with pytest.raises(ParameterError, match="the rounding of"):
        ud.log_likelihood(model, torch.zeros(1, 2, dtype=dtype), ud.ExactTrace(), rtol=tolerance, atol=tolerance)
    # A method of fixed steps has no use for it.
    fixed = ud.ProbabilityFlow("rk4", rtol=tolerance, atol=tolerance)
    assert ud.sample(model, fixed, ud.Uniform(2), seeds=1, dtype=dtype).x.isfinite().all()


def test_a_flow_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr("unidiff.solver.ode._MOST_EVALUATIONS", 20)
    with pytest.raises(ParameterError, match="took 20 evaluations and has not ended"):
        ud.sample(ud.GaussianMixture(ud.VPSDE(), [[0.0, 1.0]], 0.1), ud.ProbabilityFlow(), ud.Uniform(2), seeds=1)
