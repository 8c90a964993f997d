"""What published programs do otherwise: each row of that table in docs/notation.md, the program's number rebuilt.

The programs are written out from their descriptions, a few lines each; only diffusers is there to be run.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import unidiff as ud
from unidiff.backbone.layers import sinusoidal
from unidiff.interop.diffusers.timesteps import Timesteps, timesteps_of
from unidiff.noise import Seeded

F64 = torch.float64


class Off(ud.Denoiser):
    """Knows the data, and predicts them with given errors."""

    def __init__(self, process: ud.Process, x: torch.Tensor, error: torch.Tensor) -> None:
        super().__init__()
        self.process, self.x0 = process, x - error

    def forward(self, u, level, **cond):
        return ud.Prediction(self.x0, (u - level.alpha * self.x0) / level.sigma, level)


def approximate(z: torch.Tensor) -> torch.Tensor:
    """The tanh approximation of the normal distribution function in the programs of DDPM and improved DDPM."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def test_the_decoder_of_ddpm_and_improved_ddpm():
    """log p(x_0 | x_1) with the variance beta-tilde_2, and bins by the tanh approximation."""
    process = ud.DDPM()
    betas = process.schedule.betas(1000)
    bars = (1 - betas).cumprod(0)
    scale = math.sqrt((1 - bars[0]) / (1 - bars[1]) * betas[1])  # index 1: entry 0 of the table is 0
    x = (torch.arange(256, dtype=F64) / 127.5 - 1)[None]
    error = 0.003 * torch.randn(1, 256, generator=torch.Generator().manual_seed(0), dtype=F64)

    def program(distribution) -> torch.Tensor:
        plus, minus = distribution((error + 1 / 255) / scale), distribution((error - 1 / 255) / scale)
        log_p = torch.where(x > 0.999, (1 - minus).clamp(min=1e-12).log(), (plus - minus).clamp(min=1e-12).log())
        return torch.where(x < -0.999, plus.clamp(min=1e-12).log(), log_p)

    def ours(**options) -> float:
        last = Timesteps((0.002, 0.001))  # of the native grid
        found = ud.variational_bound(Off(process, x, error), x, last, levels=256, **options)
        return float(found.terms[0, 0])

    exact, small = -program(torch.special.ndtr), ours(decoder_variance=0.0)
    assert small == pytest.approx(float(exact.sum()), rel=1e-11)  # a difference of two numbers near 1
    # The approximation is off by delta at most, a probability P by 2 delta, its logarithm by 2 delta / (P - 2 delta).
    z = torch.linspace(-6, 6, 10_001, dtype=F64)
    delta = float((approximate(z) - torch.special.ndtr(z)).abs().max())
    p = (-exact).exp()
    assert delta < 4e-4
    assert abs(small + float(program(approximate).sum())) < float((2 * delta / (p - 2 * delta)).sum())
    # A prediction that is right costs 0.41 bits less than with beta_1, the paper's and our default, in an inner bin.
    error.zero_()
    inner = math.log2(math.erf(1 / 255 / 2**0.5 / scale) / math.erf(1 / 255 / 2**0.5 / 0.01))
    outer = math.log2((1 + math.erf(1 / 255 / 2**0.5 / scale)) / (1 + math.erf(1 / 255 / 2**0.5 / 0.01)))
    assert inner == pytest.approx(0.4075, abs=1e-4)
    bits = (ours() - ours(decoder_variance=0.0)) / 256 / math.log(2)
    assert bits == pytest.approx((254 * inner + 2 * outer) / 256, rel=1e-9)


def test_the_step_of_ncsn():
    """x + step s + sqrt(2 step) z: the paper's step is half as long, so the program's 2e-5 is 4e-5 here."""
    process, step_lr = ud.NCSN(0.01, 1.0, 10), 2e-5
    model, u, draw = ud.GaussianMixture(process, [[-0.6], [0.5]], 0.04), torch.tensor([[0.3]], dtype=F64), Seeded([4])
    levels = process.levels_at(process.native_times().flip(0))
    x, draws = u, []
    for level in levels:
        step = step_lr * (level.sigma / levels[-1].sigma) ** 2
        draws.append(draw(x))
        x = x + step * model(x, level).score + math.sqrt(2 * step) * draws[-1]
    numbers = iter(draws)
    solver = ud.AnnealedLangevin(1, 2 * step_lr, denoise=False)
    *_, found = solver.states(model, u, levels, lambda like: next(numbers))
    torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-10)  # a score is a difference over 1e-4


def test_the_churn_of_edm():
    """The program raises the noise of its first step from 80 to 113; here it ends at the largest of the grid."""
    grid, asked = ud.Uniform(18), []

    class Watched(ud.GaussianMixture):
        def forward(self, u, level, **cond):
            asked.append(float(level.sigma))
            return super().forward(u, level, **cond)

    ud.sample(Watched(ud.EDM(), [[0.3]], 0.04), ud.EDMStochastic(churn=80.0), grid, seeds=1, dtype=F64)
    gamma = min(80 / 18, math.sqrt(2) - 1)
    assert 80 + gamma * 80 == pytest.approx(113.137, abs=1e-3)
    assert max(asked) == pytest.approx(80, rel=1e-12)
    # From the second step that is not at the ceiling on, the noise is the program's.
    scales = [float(level.sigma) for level in ud.EDM().levels_at(grid.times(ud.EDM())[:-1])]
    later = [scale * (1 + gamma) for scale in scales if scale * (1 + gamma) < 80]
    assert len(later) > 10
    assert all(min(abs(sigma / scale - 1) for sigma in asked) < 1e-9 for scale in later)


def test_the_curve_of_dpm_solver_between_entries():
    """Its log alpha is linear in t between the entries, ours a monotone cubic in log SNR; on them they are one."""
    process = ud.DDPM()
    table = process.native_times()
    bars = process.schedule.log_alpha_bar(1000)

    def program(t: torch.Tensor) -> torch.Tensor:
        """The log SNR from log alpha, interpolated."""
        log_alpha = torch.from_numpy(np.interp(t.numpy(), table.numpy(), (bars / 2).numpy()))
        return 2 * log_alpha - torch.log(-torch.expm1(2 * log_alpha))

    torch.testing.assert_close(program(table), process.log_snr(table), rtol=1e-10, atol=1e-10)
    middle = (table[1:] + table[:-1]) / 2
    difference = (program(middle) - process.log_snr(middle)).abs()
    assert float(difference[0]) == pytest.approx(float(difference.max()))  # where the table is coarsest in log SNR
    assert float(difference.max()) == pytest.approx(0.0529, abs=1e-4)
    assert float(difference[99:].max()) < 1e-4


def test_the_frequencies_of_dit():
    """exp(-ln(10000) i / 128); ours, as diffusers' DiT, are over 127."""
    c = torch.tensor([0.0, 10.0, 999.0], dtype=F64)

    def embedding(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        phase = c[:, None] * torch.exp(-math.log(10_000) * torch.arange(128, dtype=F64) / count)
        return phase, torch.cat([phase.sin(), phase.cos()], 1)

    (program, their), (own, our) = embedding(128), embedding(127)
    noise = ud.DiT((1, 8, 8), width=8, depth=1, heads=2).embedding
    # A phase of 999 rounds at 1e-13.
    torch.testing.assert_close(sinusoidal(c, 256, noise.shift), our, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sinusoidal(c, 256), their, rtol=1e-10, atol=1e-10)
    difference = (program - own).abs().amax(1)
    assert difference.tolist() == pytest.approx([0.0, 0.029, 2.88], abs=5e-3)


@pytest.mark.parametrize(("option", "expected"), [("use_karras_sigmas", 0.035), ("use_lu_lambdas", 0.197)])
def test_the_sigmas_of_diffusers(option, expected):
    """Its times are rounded to entries for the network; its steps are taken at the exact sigmas between them."""
    diffusers = pytest.importorskip("diffusers")
    process, steps = ud.DDPM(), 8
    options = {"solver_order": 1, "final_sigmas_type": "zero", "beta_schedule": "linear", option: True}
    scheduler = diffusers.DPMSolverMultistepScheduler(**options)
    config = {**scheduler.config, "_class_name": "DPMSolverMultistepScheduler"}
    model = ud.GaussianMixture(process, [[-0.6, 0.3], [0.5, -0.2]], 0.04)
    scheduler.set_timesteps(steps)
    x = theirs = torch.tensor([[0.4, -0.3]], dtype=F64)
    for entry in scheduler.timesteps:
        eps = model(theirs, process.level(float(entry + 1) / 1000)).eps
        theirs = scheduler.step(eps, entry, theirs).prev_sample

    class Rounded(ud.Denoiser):
        """Asked at a time, answers with the noise that is predicted for the nearest entry."""

        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def forward(self, u, level, **cond):
            entry = entries[times.index(level.time)]
            eps = model(u, process.level(entry)).eps
            return ud.Prediction((u - level.sigma * eps) / level.alpha, eps, level)

    entries = timesteps_of(config, steps, "scheduler").given  # what load_grid gives
    assert entries == tuple(float(entry + 1) / 1000 for entry in scheduler.timesteps)
    sigmas = scheduler.sigmas[:-1].double()
    times = process.time_at(-2 * sigmas.log()).tolist()
    *_, ours = ud.DDIM().trajectory(Rounded(), x, [*times, 0.0], torch.zeros_like)
    # Their sigmas are float32, and log SNR between them some 2e-6 from ours; eight steps.
    torch.testing.assert_close(ours.u, theirs, rtol=1e-4, atol=1e-4)
    *_, grid = ud.DDIM().trajectory(model, x, Timesteps(entries).times(process), torch.zeros_like)
    assert (grid.u - theirs).abs().max() > 1e-4
    # By how much the noise scales of the rounded times differ.
    scheduler.set_timesteps(50)
    levels = process.levels_at([float(entry + 1) / 1000 for entry in scheduler.timesteps])
    pairs = zip(levels, scheduler.sigmas[:-1].tolist(), strict=True)
    moved = max(abs(math.log(level.sigma / level.alpha / sigma)) for level, sigma in pairs)
    assert moved == pytest.approx(expected, abs=1e-3)
