"""Distributions of training times: quantile functions against the distribution functions they invert."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError

EPS = torch.finfo(torch.float64).eps
TABLES = [ud.DDPM(), ud.DDPM(7), ud.NCSN(), ud.InverseHeat((4, 4), levels=9)]
CONTINUOUS = [ud.VPSDE(), ud.SubVPSDE(), ud.VESDE(), ud.FlowMatching(), ud.CosineVP(), ud.EDM(), ud.EDM(rho=1.0)]
CELLS = 4096
UNIFORM = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS


def normal_cdf(z):
    return 0.5 * torch.special.erfc(-z / math.sqrt(2))


def kolmogorov_smirnov(cdf, inside):
    """sup |empirical - cdf| of the midpoints' quantiles over the interior, of which the smallest possible is 1 / 2n."""
    steps = torch.arange(CELLS + 1, dtype=torch.float64) / CELLS
    return torch.maximum((cdf - steps[:-1]).abs(), (cdf - steps[1:]).abs())[inside].max().item()


@pytest.mark.parametrize("process", TABLES, ids=repr)
def test_uniform_times_meet_each_entry_of_a_table_equally_often(process):
    table = process.native_times()
    cells = 4 * len(table)
    times = ud.UniformTimes().draw(process, (torch.arange(cells, dtype=torch.float64) + 0.5) / cells)
    assert torch.equal(times, table.repeat_interleave(4))
    # The ends of [0, 1): the largest number below 1 stays inside the table.
    ends = ud.UniformTimes().draw(process, torch.tensor([0.0, 1 - EPS], dtype=torch.float64))
    assert ends.tolist() == [table[0], table[-1]]


@pytest.mark.parametrize("process", CONTINUOUS, ids=repr)
def test_uniform_times_are_uniform_above_t_min(process):
    uniform = torch.tensor([0.0, 0.25, 1 - EPS], dtype=torch.float64)
    expected = torch.tensor([process.t_min, process.t_min + 0.25 * (1 - process.t_min), 1.0], dtype=torch.float64)
    torch.testing.assert_close(ud.UniformTimes().draw(process, uniform), expected, rtol=4 * EPS, atol=0)


@pytest.mark.parametrize("process", CONTINUOUS, ids=repr)
@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.4, 0.3)])
def test_log_normal_times(process, mean, std):
    # Karras et al. 2022, table 1: log(sigma / alpha) ~ N(mean, std^2). The quantiles of n midpoints are at a distance
    # of 1 / 2n from the distribution, in the sense of Kolmogorov and Smirnov, and no sample is nearer.
    times = ud.LogNormal(mean, std).draw(process, UNIFORM)
    inside = (times > process.t_min) & (times < 1)
    z = (-process.log_snr(times) / 2 - mean) / std
    # A time is known to u, and log SNR rises by up to 2 rho / t or 1 / (1 - t) for each of these: 1e-9 in all.
    assert kolmogorov_smirnov(normal_cdf(z), inside) == pytest.approx(1 / (2 * CELLS), abs=1e-9)
    assert inside.sum() > CELLS / 2
    # Beyond the ends of the process the nearer one is taken.
    ends = -process.log_snr(torch.tensor([process.t_min, 1.0], dtype=torch.float64)) / 2
    low, high = (normal_cdf((ends - mean) / std) * CELLS).tolist()
    assert abs((times <= process.t_min).sum().item() - low) <= 0.5 + 1e-6
    assert abs((times >= 1).sum().item() - (CELLS - high)) <= 0.5 + 1e-6


@pytest.mark.parametrize("process", [*CONTINUOUS, ud.Blurring((4, 4))], ids=repr)
def test_logit_normal_times(process):
    # Esser et al. 2024, eq. 19: logit t ~ N(m, s^2); as above.
    times = ud.LogitNormal(-0.5, 0.8).draw(process, UNIFORM)
    inside = (times > process.t_min) & (times < 1)
    cdf = normal_cdf((times.logit() + 0.5) / 0.8)
    assert kolmogorov_smirnov(cdf, inside) == pytest.approx(1 / (2 * CELLS), abs=1e-12)
    assert inside.sum() > 0.8 * CELLS  # EDM(rho=7), whose t_min is 0.22, cuts off a sixth


def test_on_a_straight_path_log_normal_is_logit_normal():
    # sigma / alpha = t / (1 - t); a bisection ends within 2^-60, and log1p(-t) loses u / (1 - t).
    process = ud.FlowMatching()
    log, logit = (kind(0.3, 1.1).draw(process, UNIFORM) for kind in (ud.LogNormal, ud.LogitNormal))
    torch.testing.assert_close(log, logit, rtol=0, atol=8 * EPS)


@pytest.mark.parametrize("times", [ud.LogNormal(-0.5, 0.7), ud.LogitNormal()], ids=repr)
@pytest.mark.parametrize("process", [ud.DDPM(10), ud.NCSN()], ids=repr)
def test_of_a_table_the_first_entry_above_is_drawn(process, times):
    table, drawn = process.native_times(), times.draw(process, UNIFORM)
    # The probability that an entry or an earlier one is drawn is that of the times up to it.
    of = -process.log_snr(table) / 2 if isinstance(times, ud.LogNormal) else table.logit()
    cdf = normal_cdf((of - times.mean) / times.std)[:-1]
    counts = (drawn[:, None] <= table[:-1]).sum(0)
    assert ((counts - cdf * CELLS).abs() <= 0.5 + 1e-6).all()
    assert set(drawn.tolist()) <= set(table.tolist())


def test_draws_are_those_of_the_last_release_bit_for_bit():
    uniform = torch.arange(1, 20_001, dtype=torch.float64) / 20_001
    for process in (ud.EDM(), ud.EDM(0.01, 50.0, 3.0)):
        for mean, std in ((-1.2, 1.2), (0.5, 0.3)):
            log_sigma = mean + std * torch.special.ndtri(uniform)
            inside = (log_sigma > math.log(process.sigma_min)) & (log_sigma < math.log(process.sigma_max))
            before = torch.exp((log_sigma - math.log(process.sigma_max)) / process.rho)
            assert inside.sum() > 19_900
            assert torch.equal(ud.LogNormal(mean, std).draw(process, uniform)[inside], before[inside])
    for process in CONTINUOUS:
        assert torch.equal(ud.UniformTimes().draw(process, uniform), process.t_min + (1 - process.t_min) * uniform)
    for process in TABLES:
        table = process.native_times()
        assert torch.equal(ud.UniformTimes().draw(process, uniform), table[(uniform * len(table)).long()])


def test_the_closed_form_of_edm_is_what_bisection_finds():
    process = ud.EDM()
    t = torch.linspace(process.t_min, 1, 33, dtype=torch.float64)
    # Bisection knows t to 2^-60 and rounding of the log SNR, 16 u at most; d log SNR / dt = 2 rho / t >= 14.
    torch.testing.assert_close(process.time_at(process.log_snr(t)), t, rtol=8 * EPS, atol=0)
    bisected = ud.Process.time_at(process, process.log_snr(t))
    torch.testing.assert_close(bisected, t, rtol=0, atol=8 * EPS)
    assert process.time_at(torch.tensor([-1e3])).item() == 1.0


def test_an_objective_trains_at_its_times():
    class Model:
        process = ud.EDM()

    class Levels(ud.Denoising):
        def losses(self, denoiser, u0, eps, level, **cond):
            return level.time.flatten()

    x, uniform = torch.zeros(64, 2, dtype=torch.float64), UNIFORM[::64]
    for times in (ud.UniformTimes(), ud.LogNormal(), ud.LogitNormal(0.5)):
        drawn = Levels(times=times).batch_losses(Model(), x, uniform, x)
        assert torch.equal(drawn, times.draw(Model.process, uniform))
    assert ud.Denoising().times == ud.UniformTimes()
    assert ud.Denoising(ud.MinSNR()).weighting == ud.MinSNR()


def test_models_of_one_process_trained_at_other_times_guide_each_other():
    def model():
        return ud.NeuralDenoiser(ud.EDM(), ud.Preconditioned(), ud.MLP((2,), width=8, depth=1))

    ud.AutoGuidance(model(), model(), 2.0)
    assert ud.EDM() == ud.EDM()
    with pytest.raises(TypeError, match="log_sigma_mean"):
        ud.EDM(log_sigma_mean=-0.8)


@pytest.mark.parametrize("objective", [ud.Denoising, ud.Hybrid, ud.SlicedScoreMatching])
def test_one_snr_for_all_modes_is_needed_for_its_logarithm(objective):
    with pytest.raises(ParameterError, match="times: LogNormal"):
        objective(times=ud.LogNormal()).check(ud.Blurring((4, 4)))
    ud.Denoising(times=ud.LogitNormal()).check(ud.Blurring((4, 4)))


@pytest.mark.parametrize("kind", [ud.LogNormal, ud.LogitNormal])
@pytest.mark.parametrize(("mean", "std", "name"), [(math.inf, 1.0, "mean"), (0.0, 0.0, "std"), (0.0, math.nan, "std")])
def test_numbers_without_meaning_are_rejected(kind, mean, std, name):
    with pytest.raises(ParameterError, match=name):
        kind(mean, std)


def test_the_old_method_still_draws_with_a_notice():
    with pytest.warns(DeprecationWarning, match="UniformTimes"):
        drawn = ud.DDPM(10).training_times(UNIFORM)
    assert torch.equal(drawn, ud.UniformTimes().draw(ud.DDPM(10), UNIFORM))
