"""A model asked about another process: against the exact denoiser of that process.

The data are a Gaussian mixture, so both the model's answer and the truth are closed formulas. The time of equal log SNR
is found to rounding, so log SNR, a number of 20 at most, is met to about 64 u = 1e-14. The expected data move by a
few units per unit of log SNR; where noise is read from them they are divided by sigma / alpha >= 0.01: 1e-12. The
tests ask for 1e-10.
"""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch

import unidiff as ud
from unidiff import DDIM, DDPM, EDM, NCSN, VESDE, VPSDE, FlowMatching, GaussianMixture, Rescheduled, SubVPSDE, Uniform
from unidiff.basis import Pixel
from unidiff.errors import ParameterError

F64 = torch.float64
MEANS = torch.tensor([[-0.7, 0.2], [0.6, 0.5], [0.1, -0.8]], dtype=F64)
VARIANCES = torch.tensor([0.01, 0.05, 0.02], dtype=F64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=F64)

# Processes that ask for no less noise than DDPM knows, sigma / alpha >= 0.0100005.
NEW = [VPSDE(), VESDE(), EDM(sigma_min=0.02), FlowMatching(t_min=0.01), SubVPSDE(t_min=0.04), NCSN(0.02, 50.0, 20)]
every_new = pytest.mark.parametrize("process", NEW, ids=repr)


def mixture(process) -> GaussianMixture:
    return GaussianMixture(process, MEANS, VARIANCES, WEIGHTS)


def states(process, level, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise, eps = torch.randn(2, count, 2, generator=generator, dtype=F64)
    x0 = mixture(process).draw(noise, torch.rand(count, generator=generator, dtype=F64))
    return process.perturb(x0, eps, level)


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@every_new
@pytest.mark.parametrize("own", [DDPM(), VPSDE(t_min=1e-4), EDM(), VESDE(0.001, 200.0), FlowMatching()], ids=repr)
def test_prediction_is_that_of_the_new_process(own, process):
    model = Rescheduled(mixture(own), process)
    truth = mixture(process)
    noisiest = process.time_at(own.log_snr(torch.tensor(1.0, dtype=F64))).item()
    for t in [process.t_min, 0.1, 0.35, 0.6, 0.9, 1.0]:
        if not process.t_min <= t <= noisiest:
            continue
        level = process.level(t)
        u = states(process, level)
        actual, expected = model(u, level), truth(u, level)
        close(actual.x0, expected.x0)
        close(actual.eps, expected.eps)
        close(actual.score * level.sigma, expected.score * level.sigma)
        close(process.perturb(actual.x0, actual.eps, level), u)
        assert actual.level == level
    assert noisiest > 0.9


@every_new
def test_one_time_per_sample(process):
    model, truth = Rescheduled(mixture(DDPM()), process), mixture(process)
    t = torch.tensor([process.t_min, 0.31, 0.35, 0.6, 0.9], dtype=F64)
    level = process.level(t, torch.zeros(5, 2, dtype=F64))
    u = states(process, level, 5)
    actual, expected = model(u, level), truth(u, level)
    close(actual.x0, expected.x0)
    close(actual.eps, expected.eps)
    for i, one in enumerate(process.levels_at(t)):
        close(model(u[i : i + 1], one).x0, actual.x0[i : i + 1])


def test_states_in_float32_keep_their_type():
    process = EDM(sigma_min=0.02)
    model, truth = Rescheduled(mixture(DDPM()), process), mixture(process)
    t = torch.tensor([0.3, 0.6, 0.9], dtype=F64)
    level = process.level(t, torch.zeros(3, 2))
    u = states(process, process.level(t, torch.zeros(3, 2, dtype=F64)), 3).float()
    actual, expected = model(u, level), truth(u, level)
    assert actual.x0.dtype == actual.eps.dtype == torch.float32
    # log SNR of size 10 in float32 (2^-24) is known to 1e-6, a state to 1e-7 of |u / alpha| <= 40.
    close(actual.x0, expected.x0, 1e-5)


def test_its_own_process_changes_nothing():
    process = DDPM()
    model = Rescheduled(mixture(process), process)
    for t in (process.t_min, 0.4, 1.0):
        level = process.level(t)
        u = states(process, level)
        close(model(u, level).x0, mixture(process)(u, level).x0)


def test_conditions_and_networks_pass_through():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x, c, label):
            seen.append((c, label))
            return torch.zeros_like(x)

    own, process = DDPM(), EDM(sigma_min=0.02)
    model = Rescheduled(ud.NeuralDenoiser(own, ud.V(), Network()), process)
    label = torch.tensor([3, 1])
    level = process.level(0.5)
    model(torch.zeros(2, 2, dtype=F64), level, label=label)
    ((c, got),) = seen
    assert torch.equal(got, label)
    # The network hears of the time of its own process with the same log SNR.
    assert own.log_snr(c[:1] / 1000).item() == pytest.approx(level.log_snr, rel=1e-10)


# ---------------------------------------------------------------------------------------------- more and less noise


def test_pure_noise_is_asked_at_the_models_own_end():
    # FlowMatching at t = 1 is pure noise, DDPM at its own end is not quite: alpha_T = 0.0064. There sigma = 1 and u is
    # what the model takes for a state of its own, at sqrt(alpha^2 + sigma^2) = 1.
    own, process = DDPM(), FlowMatching(t_min=0.01)
    v, mean = 0.04, torch.tensor([[0.3, -0.2]], dtype=F64)
    model = Rescheduled(GaussianMixture(own, mean, v), process)
    u = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    level, end = process.level(1.0), own.level(1.0)
    prediction = model(u, level)
    close(prediction.x0, GaussianMixture(own, mean, v)(u, end).x0, 1e-14)
    assert torch.equal(prediction.eps, u)
    # The truth is the mean of the data. One Gaussian is expected alpha v (u - alpha m) / (alpha^2 v + sigma^2) off it.
    a, s = end.alpha, end.sigma
    close(prediction.x0 - mean, a * v / (a**2 * v + s**2) * (u - a * mean), 1e-14)
    # All of a batch, among them t = 1.
    batch = process.level(torch.tensor([1.0, 0.5], dtype=F64), u[:2])
    close(model(u[:2], batch).x0[:1], prediction.x0[:1], 1e-14)


@pytest.mark.parametrize(
    ("own", "process"),
    [
        (DDPM(), EDM()),
        (DDPM(), FlowMatching()),
        (NCSN(), VESDE(sigma_min=0.005)),
        (VPSDE(t_min=0.01), VPSDE()),
        (EDM(), SubVPSDE()),
    ],
    ids=repr,
)
def test_less_noise_than_the_model_knows_is_refused(own, process):
    with pytest.raises(ParameterError) as refusal:
        Rescheduled(mixture(own), process)
    asked, known = (p.level(p.t_min) for p in (process, own))
    message = str(refusal.value)
    assert message.startswith("process: ")
    assert repr(process) in message
    new, trained = (level.sigma / level.alpha for level in (asked, known))
    assert f"sigma / alpha = {new:.12g}, but the model was trained only down to {trained:.12g}" in message
    assert "Raise its t_min or sigma_min" in message
    # The named time is the one at which the model begins to know; d log SNR / d log t is at most 14 here.
    named = float(message.split("t >= ")[1].split(" ")[0])
    assert process.level(named).log_snr == pytest.approx(known.log_snr, abs=1e-9)


def test_the_remedy_works():
    own = DDPM()
    refused = FlowMatching()
    with pytest.raises(ParameterError) as refusal:
        Rescheduled(mixture(own), refused)
    named = float(str(refusal.value).split("t >= ")[1].split(" ")[0])
    Rescheduled(mixture(own), FlowMatching(t_min=named))
    Rescheduled(mixture(own), EDM(sigma_min=0.0101))


def test_another_basis_is_refused():
    class Other(DDPM):
        basis: ClassVar[Pixel] = object()

    with pytest.raises(ParameterError, match="a different basis"):
        Rescheduled(mixture(DDPM()), Other())


# ---------------------------------------------------------------------------------------------- whole runs


@pytest.mark.cases(4)
@every_new
@pytest.mark.parametrize("solver", [DDIM(), DDIM(1.0)], ids=repr)
def test_a_run_is_the_run_of_the_native_model(process, solver):
    own = VPSDE(beta_max=80.0, t_min=1e-4)  # knows more noise than all but FlowMatching, and less
    native, model = mixture(process), Rescheduled(mixture(own), process)
    grid = Uniform(40)
    seeds = range(20)
    expected = ud.sample(native, solver, grid, (2,), seeds, dtype=F64)
    actual = ud.sample(model, solver, grid, (2,), seeds, dtype=F64)
    assert actual.nfe == expected.nfe == 40
    if not isinstance(process, FlowMatching):
        # Every prediction agrees to 1e-10; 40 of them, each moving the end of the run by at most ten times its error.
        close(actual.x, expected.x, 40 * 10 * 1e-10)
        return
    # At t = 1 the model believes in alpha_1 = e^-20 (see above): x0 errs by 2e-9 v |u|, the first step by 1/40 of that.
    close(actual.x, expected.x, 1e-7)


@pytest.mark.slow  # 2 s: runs of 200 steps
def test_a_run_on_flow_matching_ends_where_its_flow_does():
    # One Gaussian N(m, v): the flow is linear, and a run errs natively by its O(1 / N) steps. The rescheduled model
    # differs in its first prediction alone, by alpha_T v |u - alpha_T m| (see above) with alpha_T = 0.0064 of DDPM; the
    # step from 1 to s keeps alpha(s) of it. The flow carries a difference at s to sqrt(v) / sqrt(alpha(s)^2 v +
    # sigma(s)^2) < 1 times it at the end, to the order of the steps.
    v, steps = 0.04, 200
    mean = torch.tensor([[0.3, -0.2]], dtype=F64)
    own, process = DDPM(), FlowMatching(t_min=0.01)
    seeds = range(50)
    native = ud.sample(GaussianMixture(process, mean, v), DDIM(), Uniform(steps), (2,), seeds, dtype=F64, keep=2)
    model = Rescheduled(GaussianMixture(own, mean, v), process)
    actual = ud.sample(model, DDIM(), Uniform(steps), (2,), seeds, dtype=F64)
    u = native.path[0].u
    kept = float(process.alpha(native.times[1]))
    first = kept * float(own.level(1.0).alpha) * v * (u.abs().max() + 1).item()
    assert (actual.x - native.x).abs().max().item() <= first
    # The exact flow carries u to m + sqrt(v) u; the order of DDIM is 1 (tests/test_solvers.py).
    exact = mean + math.sqrt(v) * u
    assert (actual.x - exact).abs().max().item() <= (native.x - exact).abs().max().item() + first
    assert (native.x - exact).abs().max().item() < 5 / steps
