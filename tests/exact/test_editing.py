"""Inpainting, editing and variations, against the closed-form flow and the exact conditional of Gaussian data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from propagation import F64

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.grid import Grid
from unidiff.process.level import noised

PROCESSES = [ud.VPSDE(), ud.DDPM(100), ud.EDM(), ud.FlowMatching(), ud.RenormalizedHeat((4, 6)), ud.InverseHeat((4, 6))]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def picture(process: ud.Process) -> tuple[ud.Denoiser, torch.Tensor]:
    """A model of images (1, 4, 6), and an image in float32."""
    return ud.GaussianMixture(process, normal(3, 1, 4, 6) / 2, 0.1), normal(1, 4, 6, seed=1).clamp(-1, 1).float()


@dataclass(frozen=True)
class Tenths(Grid):
    """1, 0.9, ..., 0.1, 0."""

    def times(self, process: ud.Process) -> torch.Tensor:
        return torch.arange(10, -1, -1, dtype=F64) / 10


# ---------------------------------------------------------------------------------------------- edit


@every_process
def test_an_edit_is_the_image_at_strength_0_and_a_sample_at_1(process):
    model, image = picture(process)
    grid = ud.Uniform(6)
    same = ud.edit(model, image, 0, grid=grid, seeds=3)
    assert torch.equal(same.x, image.expand(3, -1, -1, -1))
    assert same.nfe == 0
    for solver in (ud.ExponentialAdams(), ud.Ancestral()):
        whole = ud.sample(model, solver, grid, seeds=3)
        assert torch.equal(ud.edit(model, image, 1.0, solver, grid, 3).x, whole.x)
    assert ud.edit(model, image, 1.0, grid=grid).nfe == 6
    weak, strong = (ud.edit(model, image, strength, grid=ud.Uniform(20), seeds=8).x for strength in (0.05, 0.9))
    assert (weak - image).square().mean() < (strong - image).square().mean()


@pytest.mark.slow  # up to 3 s
@pytest.mark.cases(2)
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("process", [ud.VPSDE(), ud.FlowMatching()], ids=repr)
def test_an_edit_of_gaussian_data_is_in_closed_form(process, strength):
    # Along the flow u - alpha m is proportional to sqrt(alpha^2 C + sigma^2), down to sqrt(C) at the data.
    C, m, x = 0.3, 0.4, torch.tensor([1.1], dtype=F64)
    model, level = ud.GaussianMixture(process, [[m]], C), process.level(strength)
    variance = level.alpha**2 * C + level.sigma**2
    eps = ud.Seeded(range(6))(x.expand(6, 1))
    expected = m + math.sqrt(C / variance) * (level.alpha * (x - m) + level.sigma * eps)
    found = ud.edit(model, x, strength, ud.ExponentialAdams(), ud.Tapered(200), 6).x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # order 4 in 200 steps, and their end at q = 0
    # The process's own reverse draws x0 from p(x0 | u): mean m + alpha^2 C / variance (x - m), and the variance of that
    # draw, C sigma^2 / variance, beside that of its mean, (alpha C sigma / variance)^2.
    n, gain = 4000, level.alpha * C / variance
    x0 = ud.edit(model, x, strength, ud.Ancestral(), ud.Tapered(100), n).x
    spread = C * level.sigma**2 / variance + (gain * level.sigma) ** 2
    assert abs(float(x0.mean()) - m - gain * level.alpha * float(x - m)) < 5 * math.sqrt(spread / n)
    # Five standard errors of a variance, 5 sqrt(2 / n), and 1 / 100 for a method of first order in 100 steps.
    assert abs(float(x0.var()) / spread - 1) < 5 * math.sqrt(2 / n) + 0.01


def test_a_map_of_strengths_is_each_pixel_edited_alone():
    # Independent pixels: what a pixel becomes depends on its own strength and noise only.
    strengths = torch.tensor([0.0, 0.3, 0.8, 0.6], dtype=F64)
    process, image = ud.VPSDE(), torch.tensor([0.3, -0.8, 0.9, 0.1], dtype=F64)
    model = ud.GaussianMixture(
        process, [[0.2, 0.1, -0.4, 0.0]], torch.diag(torch.tensor([0.3, 0.1, 0.5, 0.2])).double()
    )
    together = ud.edit(model, image, strengths, ud.DDIM(), Tenths(), 5).x
    for pixel, strength in enumerate(strengths.tolist()):
        alone = ud.edit(model, image, strength, ud.DDIM(), Tenths(), 5).x
        torch.testing.assert_close(together[:, pixel], alone[:, pixel], rtol=1e-12, atol=1e-12)
    assert torch.equal(together[:, 0], image[:1].expand(5))


SHARES = torch.tensor([0.0, 0.2, 1.0, 0.0, 0.9, 0.4], dtype=F64)


@every_process
def test_strengths_below_the_last_time_are_raised_to_it(process):
    model, image = picture(process)
    for weak, raised in (
        (process.t_min / 3, process.t_min),
        (process.t_min * SHARES, process.t_min * SHARES.ceil()),
    ):
        found, expected = (ud.edit(model, image, strength, grid=ud.Uniform(4), seeds=2) for strength in (weak, raised))
        assert found.times.tolist() == expected.times.tolist() == [process.t_min, 0.0]
        assert torch.equal(found.x, expected.x)
        assert (found.x != image).any()


@pytest.mark.parametrize("process", [ud.VPSDE(), ud.FlowMatching(), ud.DDPM(100)], ids=repr)
def test_a_pixel_of_strength_1_is_that_of_a_sample(process):
    # Independent pixels: the free one starts from a sample's noise, whatever the image held there.
    image, strengths = torch.tensor([0.9, -0.8], dtype=F64), torch.tensor([1.0, 0.4])
    model = ud.GaussianMixture(process, [[0.2, 0.1]], 0.3)
    found = ud.edit(model, image, strengths, ud.DDIM(), Tenths(), 4)
    assert found.times.tolist() == Tenths().times(process).tolist()
    sample = ud.sample(model, ud.DDIM(), Tenths(), seeds=4, dtype=F64).x
    torch.testing.assert_close(found.x[:, 0], sample[:, 0], rtol=1e-12, atol=1e-12)
    assert (found.x[:, 1] - sample[:, 1]).abs().min() > 1e-3


def test_a_map_of_0_and_1_is_inpainting():
    model, image = picture(ud.VPSDE())
    known = torch.rand(4, 6, generator=torch.Generator().manual_seed(2)) < 0.5
    first = ud.inpaint(model, image, known, ud.DDIM(), ud.Uniform(5), 3)
    second = ud.edit(model, image, (~known).double(), ud.DDIM(), ud.Uniform(5), 3)
    assert torch.equal(first.x, second.x)


# ---------------------------------------------------------------------------------------------- inpaint


SOLVERS = [ud.ExponentialAdams(), ud.DDIM(), ud.Ancestral(), ud.Resampling(repeats=2, jump=2), ud.Heun()]


@every_process
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_known_pixels_are_kept_exactly(process, solver):
    model, image = picture(process)
    known = (torch.arange(24).reshape(4, 6) % 3 > 0).long()
    seen = []
    result = ud.inpaint(model, image, known, solver, ud.Uniform(6), 3, progress=lambda *steps: seen.append(steps))
    assert torch.equal(result.x[..., known == 1], image.expand(3, -1, -1, -1)[..., known == 1])
    assert result.x.isfinite().all()
    assert result.x.dtype == torch.float32
    assert seen[-1] == (6, 6)
    holes = result.x[..., known == 0]
    assert (holes[0] - holes[1]).abs().max() > 1e-3  # drawn, each sample its own
    # What the unknown pixels hold is not used.
    blank = torch.where(known == 1, image, 0.5)
    assert torch.equal(ud.inpaint(model, blank, known, solver, ud.Uniform(6), 3).x, result.x)


def law(
    model: ud.Denoiser, solver: ud.Solver, grid: Grid, x: torch.Tensor, free: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of what a solver makes of a linear model: each row follows one source of noise."""
    process, times, size = model.process, grid.times(model.process), x.numel()
    first = process.level(1.0)
    draws: list[torch.Tensor] = []
    with torch.no_grad():
        list(solver.trajectory(model, x[None], times, lambda like: draws.append(like) or torch.zeros_like(like)))
        start = torch.zeros((1 + len(draws)) * size + 1, size, dtype=F64)
        start[1 : size + 1] = torch.eye(size, dtype=F64)
        u = torch.where(free, process.prior_scale() * start, first.alpha * x + first.sigma * start)
        count = iter(range(1, len(draws) + 1))

        def noise(like: torch.Tensor) -> torch.Tensor:
            z, row = torch.zeros_like(like), next(count) * size + 1
            z[row : row + size] = torch.eye(size, dtype=F64)
            return z

        *_, last = solver.trajectory(model, u, times, noise)
    columns = last.u[1:] - last.u[0]
    return last.u[0], columns.mT @ columns


@pytest.mark.parametrize(
    ("solver", "bound"), [(ud.ExponentialAdams(), 1e-3), (ud.Ancestral(), 0.03)], ids=["ExponentialAdams", "Ancestral"]
)
def test_inpainting_of_independent_pixels_is_exact(solver, bound):
    # No pixel tells of another: the free one keeps N(0.2, 0.25), to the solver's error (order 4 and 1 in 60 steps:
    # 1 / 60 of the variance) and what a VP start leaves out, 0.0066 of the mean.
    model = ud.GaussianMixture(ud.VPSDE(), [[-0.3, 0.2]], torch.diag(torch.tensor([0.5, 0.25])).double())
    x, strength = torch.tensor([0.7, 0.0], dtype=F64), torch.tensor([0.0, 1.0])
    mean, covariance = law(ud.Replacement(model, x, strength), solver, ud.Tapered(60), x, strength == 1)
    expected = torch.tensor([0.7, 0.2], dtype=F64), torch.diag(torch.tensor([0.0, 0.25], dtype=F64))
    torch.testing.assert_close(mean, expected[0], rtol=0, atol=0.0066 * 0.2 + 1e-4)
    torch.testing.assert_close(covariance, expected[1], rtol=0, atol=bound)


@pytest.mark.slow  # a second or more
def test_resampling_takes_the_bias_of_replacement_away():
    # Against the exact conditional, N(0.8, 0.36); the moments are exact, nothing is drawn. Table: docs/inverse.md.
    model = ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0]], torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64))
    operator, x = ud.inverse.Inpainting([1, 0]), torch.tensor([1.0, 0.0], dtype=F64)
    exact = ud.inverse.conditioned(model, operator, x[:1])
    torch.testing.assert_close(exact.means, torch.tensor([[1.0, 0.8]], dtype=F64))
    strength = torch.tensor([0.0, 1.0])
    told = ud.Replacement(model, x, strength)
    off = []
    for repeats in (1, 2, 5, 10):
        mean, covariance = law(told, ud.Resampling(ud.Ancestral(), repeats, 1), ud.Tapered(50), x, strength == 1)
        off.append((0.8 - float(mean[1]), float(covariance[1, 1]) - 0.36))
    bias = [mean for mean, _ in off]
    assert bias == sorted(bias, reverse=True)
    assert bias == pytest.approx([0.320, 0.185, 0.075, 0.036], abs=1e-3)
    # More passes would find the conditional, were it not for Ancestral's own small variance in 50 steps, 10% off.
    assert abs(off[-1][1]) < 0.04


def test_known_pixels_walk_the_forward_process():
    # Under a deterministic solver their noise stays what it was: u = alpha x + sigma eps at every time.
    process = ud.VPSDE()
    model, x = ud.GaussianMixture(process, [[0.0, 0.0]], 0.3), torch.tensor([0.6, 0.0], dtype=F64)
    told, eps = ud.Replacement(model, x, torch.tensor([0.0, 1.0])), normal(4, 2)
    u = process.perturb(x, eps, process.level(1.0))
    for state in list(ud.DDIM().trajectory(told, u, ud.Uniform(8).times(process), torch.randn_like))[:-1]:
        level = process.level(state.t)
        torch.testing.assert_close(state.u[:, 0], level.alpha * x[0] + level.sigma * eps[:, 0], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------- resampling, variations


def test_resampling_once_is_the_solver():
    model, _ = picture(ud.VPSDE())
    for solver in (ud.Ancestral(), ud.DDIM()):
        once = ud.sample(model, ud.Resampling(solver, 1, 3), ud.Uniform(7), seeds=2)
        assert torch.equal(once.x, ud.sample(model, solver, ud.Uniform(7), seeds=2).x)
    assert ud.sample(model, ud.Resampling(ud.DDIM(), 3, 2), ud.Uniform(7), seeds=2).nfe == 3 * 6 + 1
    for bad in ({"repeats": 0}, {"jump": 0}, {"repeats": 1.5}):
        with pytest.raises(ParameterError, match=next(iter(bad))):
            ud.Resampling(**bad)


@pytest.mark.parametrize("process", PROCESSES[:4], ids=repr)
def test_noising_again_is_the_forward_process(process):
    # alpha_s x + sigma_s eps at s must become alpha_t x + sigma_t eps' at t: as coefficients of x, eps and z.
    s, t = process.level(0.3), process.level(0.7)
    of_x, of_eps = (
        float(noised(torch.full((1,), value, dtype=F64), s, t, torch.zeros(1, dtype=F64)))
        for value in (s.alpha, s.sigma)
    )
    of_z = float(noised(torch.zeros(1, dtype=F64), s, t, torch.ones(1, dtype=F64)))
    assert of_x == pytest.approx(t.alpha, rel=1e-12)
    assert math.hypot(of_eps, of_z) == pytest.approx(t.sigma, rel=1e-12)


@pytest.mark.slow  # a second or more
def test_variations_of_gaussian_data_are_in_closed_form():
    # VE to 80: the latent is (x - m) / sqrt(C) to 0.002^2 / C at one end and m / 80 at the other.
    C, m, x = 0.3, 0.4, torch.tensor([1.1], dtype=F64)
    model, eps = ud.GaussianMixture(ud.EDM(), [[m]], C), ud.Seeded(range(5))(torch.empty(5, 1, dtype=F64))
    for amount in (0.0, 0.3, 1.0):
        angle = amount * math.pi / 2
        z = math.cos(angle) * (x - m) / math.sqrt(C) + math.sin(angle) * eps
        found = ud.variations(model, x, amount, seeds=5)
        torch.testing.assert_close(found, m + math.sqrt(C) * z, rtol=0, atol=m / 80 + 2e-3)  # adaptive: tolerance 1e-5


# ---------------------------------------------------------------------------------------------- refusals


def test_bad_edits_are_refused():
    model, image = picture(ud.VPSDE())
    for strength in (math.nan, -0.1, 1.1, torch.full((4, 6), math.nan)):
        with pytest.raises(ParameterError, match="strength"):
            ud.edit(model, image, strength)
    for strength in (torch.zeros(6, 4), torch.zeros(2, 1, 4, 6)):
        with pytest.raises(ParameterError, match="each pixel of the image"):
            ud.edit(model, image, strength)
    for wrong in (image[:, :3], 255 * image.abs(), image * math.nan):
        with pytest.raises(ParameterError, match="image"):
            ud.edit(model, wrong, 0.5)
    with pytest.raises(ParameterError, match="known"):
        ud.inpaint(model, image, torch.full((4, 6), 0.5))
    with pytest.raises(ParameterError, match="seeds"):
        ud.edit(model, image, 0.5, seeds=0)
    with pytest.raises(ParameterError, match="amount"):
        ud.variations(model, image, math.nan)
    with pytest.raises(ParameterError, match="draws noise"):
        ud.variations(model, image, 0.5, ud.Ancestral())
    with pytest.raises(ParameterError, match=r"label must be from 0 to .*got 12"):
        ud.edit(model, image, 0.0, seeds=1, label=torch.tensor([12]))


def test_models_told_images_are_edited():
    network = ud.UNet((1, 4, 4), width=4, multipliers=(1,), blocks=1, image=1)
    model, told = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network), torch.full((2, 1, 4, 4), 0.5)
    image, known = torch.zeros(1, 4, 4), torch.arange(4) < 2
    x = ud.inpaint(model, image, known, ud.DDIM(), ud.Uniform(2), seeds=2, image=told).x
    assert torch.equal(x[..., :2], torch.zeros(2, 1, 4, 2))
    with pytest.raises(ParameterError, match="image: this model needs the condition 'image'"):
        ud.edit(model, image, 0.5, seeds=2)
