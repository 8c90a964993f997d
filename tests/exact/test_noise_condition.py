"""What a network is passed of the noise level, and levels whose rates are computed when they are read."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.guidance.base import repeat_level, slice_level

F64 = torch.float64


class Recorder(nn.Module):
    """A network that returns its input and keeps what it was passed."""

    def __init__(self, classes=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.classes = classes

    def forward(self, x, c, **cond):
        self.pixels, self.c = x, c
        return x


TIMES = torch.tensor([0.2, 0.5, 0.9], dtype=F64)


@pytest.mark.parametrize(
    ("condition", "process", "expected"),
    [
        (ud.Timestep(), ud.VPSDE(), lambda t: 1000 * t),
        (ud.Timestep(50), ud.FlowMatching(), lambda t: 50 * t),
        (ud.TableIndex(40), ud.DDPM(40), lambda t: 40 * t - 1),
        (ud.NoiseScale(), ud.VESDE(0.01, 50.0), lambda t: 0.01 * 5000**t),
        (ud.LogSigma(), ud.EDM(0.002, 80.0, 7.0), lambda t: math.log(80 * t**7) / 4),
        (ud.LogSigma(), ud.CosineVP(), lambda t: -float(ud.CosineVP().log_snr(torch.tensor(t, dtype=F64))) / 8),
    ],
)
def test_networks_are_passed_the_number_of_the_condition(condition, process, expected):
    u = torch.ones(3, 2, dtype=torch.float32)
    for model in (
        ud.NeuralDenoiser(process, ud.X0(), Recorder(), condition),
        ud.NeuralClassifier(process, Recorder(2), condition),
    ):
        network = model.backbone
        # At one time, a number in float64 rounded once; at one for each sample, of coefficients in float32.
        model(u, process.level(0.5))
        assert network.c.tolist() == [torch.tensor(expected(0.5), dtype=F64).float().item()] * 3
        model(u, process.level(TIMES, u))
        # A few roundings of 2^-24, of terms no larger than 40 for the result of the index at 0.2.
        torch.testing.assert_close(network.c, torch.tensor([expected(t) for t in TIMES.tolist()]), rtol=1e-6, atol=4e-6)
        assert model.with_backbone(Recorder(2)).noise_condition == condition


def test_by_default_it_is_the_parameterizations_own():
    def of(process, parameterization):
        return ud.NeuralDenoiser(process, parameterization, Recorder()).noise_condition

    for parameterization in (ud.Eps(), ud.X0(), ud.V(), ud.Score(), ud.Velocity()):
        assert of(ud.VPSDE(), parameterization) == ud.Timestep()
    for process in (ud.EDM(), ud.VESDE(), ud.DDPM(), ud.VPSDE()):
        assert of(process, ud.Preconditioned()) == ud.LogSigma()
    # Where log(sigma / alpha) is infinite or differs from mode to mode.
    for process in (ud.FlowMatching(), ud.DDPM(10, ud.ZeroTerminalSNR()), ud.Blurring((2,))):
        assert of(process, ud.Preconditioned()) == ud.Timestep()
    assert ud.NeuralClassifier(ud.EDM(), Recorder(2)).noise_condition == ud.Timestep()


@pytest.mark.parametrize(
    ("condition", "process"),
    [(ud.LogSigma(), ud.FlowMatching()), (ud.LogSigma(), ud.Blurring((2,))), (ud.NoiseScale(), ud.InverseHeat((2,)))],
)
def test_a_condition_that_is_no_finite_number_is_rejected(condition, process):
    for make in (
        lambda: ud.NeuralDenoiser(process, ud.X0(), Recorder(), condition),
        lambda: ud.NeuralClassifier(process, Recorder(2), condition),
    ):
        with pytest.raises(ParameterError, match="noise_condition"):
            make()
    with pytest.raises(ParameterError, match="noise_condition"):
        ud.VelocityNetwork(ud.PerSampleHeat(ud.RenormalizedHeat((2,), 1.0)), Recorder(), ud.LogSigma())


def test_networks_see_pixels_in_the_dtype_of_their_weights():
    for process in (ud.VPSDE(), ud.Blurring((2,))):
        u = torch.ones(3, 2, dtype=F64)
        network = Recorder()
        assert ud.NeuralDenoiser(process, ud.X0(), network)(u, process.level(0.5)).x0.dtype == F64
        assert network.pixels.dtype == torch.float32
        assert network.c.dtype == F64


# ---- levels

PROCESSES = [ud.VPSDE(), ud.DDPM(20), ud.EDM(), ud.FlowMatching(), ud.Blurring((2,)), ud.InverseHeat((2,))]


@pytest.fixture
def differentiations(monkeypatch):
    """How often rates were computed."""
    calls = []
    plain = ud.Process._rates
    monkeypatch.setattr(ud.Process, "_rates", lambda self, t: calls.append(len(t)) or plain(self, t))
    return calls


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_training_computes_no_rates(process, differentiations):
    model = ud.NeuralDenoiser(process, ud.X0(), Recorder())
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    ud.Denoising().batch_losses(model, x, torch.linspace(0, 0.9, 4, dtype=F64), x)
    assert differentiations == []


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize(("solver", "expected"), [(ud.DDIM(), []), (ud.Euler(), [7]), (ud.Heun(), [7])])
def test_a_grid_is_differentiated_at_most_once(process, solver, expected, differentiations):
    model = ud.GaussianMixture(process, [[-0.5, 0.1]], 0.1)
    times = ud.Uniform(7).times(process)
    *_, _ = solver.trajectory(model, torch.zeros(1, 2, dtype=F64), times, ud.Seeded([0]))
    assert differentiations == expected


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_rates_follow_a_level_through_rows_and_pickles(process):
    like = torch.zeros(3, 2, dtype=F64)
    whole = process.level(TIMES, like)
    # The rates of one time at a time, by another path; both from the same operations, so equal but for vectorisation.
    for level, rows in (
        (whole, [0, 1, 2]),
        (slice_level(whole, slice(1, 3)), [1, 2]),
        (slice_level(slice_level(whole, slice(1, 3)), slice(1, 2)), [2]),
        (repeat_level(whole), [0, 1, 2, 0, 1, 2]),
    ):
        for one in (level, pickle.loads(pickle.dumps(level)), copy.deepcopy(level)):
            for name in ("time", "alpha", "sigma", "log_snr", "alpha_rate", "sigma_rate"):
                each = [getattr(process.level(float(TIMES[row])), name) for row in rows]
                expected = torch.stack([torch.as_tensor(value, dtype=F64).reshape(-1) for value in each])
                torch.testing.assert_close(getattr(one, name).reshape(len(rows), -1), expected, rtol=1e-12, atol=1e-300)
    level = process.level(0.5)
    assert pickle.loads(pickle.dumps(level)).time == 0.5
    assert slice_level(level, slice(0, 1)) is level


def test_rates_can_be_read_where_a_level_was_made_in_inference_mode():
    for process in (ud.DDPM(10), ud.Blurring((3,)), ud.InverseHeat((3,)), ud.RenormalizedHeat((3,))):
        with torch.inference_mode():
            grid = process.levels_at(torch.linspace(0.5, 1, 3))
            batch = process.level(torch.rand(2), torch.zeros(2, 3))
        for level in (*grid, batch):
            assert torch.as_tensor(level.alpha_rate).isfinite().all()


@pytest.mark.parametrize("process", [ud.DDPM(10), ud.EDM(), ud.RenormalizedHeat((2,))], ids=repr)
@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap"])
def test_rates_can_be_read_first_inside_a_transform(process, transform):
    u = torch.linspace(-1, 1, 6, dtype=F64).reshape(3, 2)

    def levels():
        return process.levels_at(TIMES)[1], process.level(TIMES, u)

    def square(x, level):
        return 0.5 * (level.alpha_rate * x + level.sigma_rate).square()

    for level, fresh in zip(levels(), levels()):
        out = {
            "jvp": lambda level: torch.func.jvp(lambda x: square(x, level), (u,), (torch.ones_like(u),))[1],
            "grad": lambda level: torch.func.grad(lambda x: square(x, level).sum())(u),
            "vmap": lambda level: torch.func.vmap(lambda x: square(x, level))(u[None])[0],
        }[transform](level)
        a, b = fresh.alpha_rate, fresh.sigma_rate
        assert torch.equal(out, square(u, fresh) if transform == "vmap" else (a * u + b) * a)
        for one in (level, pickle.loads(pickle.dumps(level)), copy.deepcopy(level)):  # afterwards it is as any other
            assert torch.equal(torch.as_tensor(one.alpha_rate), torch.as_tensor(a))
