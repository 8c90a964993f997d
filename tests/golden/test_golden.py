"""The solvers against an independent library, diffusers: the same start, the same noise, the same model, every state.

diffusers keeps its tables and casts its states to float32, by name. Here its programs run with every `float32` in them
read as `float64`, and on the noise scales of our levels, so that nothing but the formulas is compared. Its endings of
lower order are switched off where the published method has none.

Bound: both programs compute the same numbers in another order. A step adds terms of size |x0| <= |u| / alpha <= 600
(alpha_T = 0.0064) with ten roundings of u = 2^-53 each: 1000 steps err by 1000 * 10 * 600 u = 7e-10 if none of them is
forgotten. 1e-9 is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from mixtures import started
from theirs import SCHEDULERS, diffusers, in_float64  # noqa: F401 (a fixture)

from unidiff import (
    DDIM,
    DDPM,
    DEIS,
    EDM,
    NCSN,
    PLMS,
    PNDM,
    VESDE,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    DPMSolverNoise,
    DPMSolverSinglestep,
    EDMStochastic,
    Euler,
    FlowMatching,
    GaussianMixture,
    Heun,
    LogRhoDEIS,
    LogSNR,
    Native,
    PredictorCorrector,
    ReverseDiffusion,
    Tapered,
    Uniform,
    UniPC,
    UniPCNoise,
)
from unidiff.process.level import Level

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of numpy, in diffusers
    pytest.mark.usefixtures("in_float64"),
]

F64 = torch.float64
DATA = ([[-0.7, 0.2], [0.6, 0.5], [0.1, -0.8]], torch.tensor([0.01, 0.05, 0.02], dtype=F64), [0.5, 0.3, 0.2])


@pytest.fixture(autouse=True)
def draws(monkeypatch) -> Callable[[torch.Tensor], torch.Tensor]:
    """Lets diffusers compute in float64, and both libraries draw the same noise: returns ours."""
    ours, theirs = (torch.Generator().manual_seed(5) for _ in range(2))

    def randn_tensor(shape, *args, **kwargs) -> torch.Tensor:
        return torch.randn(shape, generator=theirs, dtype=F64)

    for name in SCHEDULERS:
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{name}")
        if hasattr(module, "randn_tensor"):
            monkeypatch.setattr(module, "randn_tensor", randn_tensor)
    return lambda like: torch.randn(like.shape, generator=ours, dtype=F64)


def start(process) -> torch.Tensor:
    return started(process, torch.randn(16, 2, generator=torch.Generator().manual_seed(1), dtype=F64))


def theirs(name: str, **config: object) -> object:
    """A scheduler of diffusers on the table of DDPM(), which computes with the predicted noise."""
    return getattr(diffusers, f"{name}Scheduler")(beta_start=1e-4, beta_end=0.02, **config)


def on_levels(name: str, levels: list[Level], end: tuple[float, ...] = (0.0,), **config: object) -> object:
    """A scheduler that walks the noise scales sigma / alpha of our levels, then to `end`."""
    scheduler = theirs(name, **config)
    scheduler.set_timesteps(len(levels) + len(end) - 1)
    scheduler.sigmas = torch.tensor([level.sigma / level.alpha for level in levels] + list(end), dtype=F64)
    return scheduler


def walk(
    scheduler: object, model, levels: list[Level], u: torch.Tensor, scaled: bool, **kwargs
) -> Iterator[torch.Tensor]:
    """Its states after each step: u, or u / alpha where `scaled` (then u is alpha times its state)."""
    for time, level in zip(scheduler.timesteps, levels):
        u = scheduler.step(model(u * level.alpha if scaled else u, level).eps, time, u, **kwargs).prev_sample
        yield u


def same(ours, theirs, tolerance=1e-9) -> None:
    """Every state is the same; as many of ours as there are of theirs."""
    count = 0
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
        count += 1
    assert count > 10


# ---------------------------------------------------------------------------------------------- on the table


@pytest.mark.cases(1)
@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize(("variance", "name"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
def test_ancestral(draws, variance, name, steps):
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    scheduler = theirs("DDPM", variance_type=name, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    times = [*((scheduler.timesteps.double() + 1) / 1000).tolist(), 0.0]  # its entry i is counted from 0
    assert torch.allclose(torch.tensor(times[:-1], dtype=F64), Native().times(process)[:-1][:: 1000 // steps])
    levels = process.levels_at(times[:-1])
    _, *ours = (state.u for state in Ancestral(variance).trajectory(model, u, times, draws))
    states = list(walk(scheduler, model, levels, u, scaled=False))
    # With the large variance it draws noise in the last step too, unless that starts at the first entry of the table.
    # Ho et al. 2020, algorithm 2, do not: z = 0 where t = 1.
    count = steps - 1 if variance == 1 and steps < 1000 else steps
    same(ours[:count], states[:count])


@pytest.mark.cases(1)
@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim(draws, eta, steps):
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    scheduler = theirs("DDIM", clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    times = [*((scheduler.timesteps.double() + 1) / 1000).tolist(), 0.0]
    levels = process.levels_at(times[:-1])
    _, *ours = (state.u for state in DDIM(eta).trajectory(model, u, times, draws))
    same(ours, walk(scheduler, model, levels, u, scaled=False, eta=eta))


# ---------------------------------------------------------------------------------------------- in u / alpha


def unscaled(states, levels: list[Level]) -> Iterator[torch.Tensor]:
    """Our states as u / alpha; the clean one, if it comes, as it is."""
    return (u / (levels[i + 1].alpha if i + 1 < len(levels) else 1.0) for i, u in enumerate(states))


@pytest.mark.parametrize("grid", [Uniform(40), Tapered(40)], ids=repr)
@pytest.mark.parametrize(("name", "eta"), [("EulerDiscrete", 0.0), ("EulerAncestralDiscrete", 1.0)])
def test_ddim_is_euler_in_u_over_alpha(draws, name, eta, grid):
    # The ancestral sampler of k-diffusion goes to sigma_down and adds sigma_up: eq. 12 and 16 of DDIM at eta = 1.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(grid.times(process)[:-1])
    scheduler = on_levels(name, levels)
    scheduler.is_scale_input_called = True
    ours = unscaled(DDIM(eta).states(model, u, levels, draws), levels)
    same(ours, walk(scheduler, model, levels, u / levels[0].alpha, scaled=True))


@pytest.mark.parametrize(
    ("process", "solver", "grid"),
    [
        (DDPM(), EDMStochastic(churn=0), Uniform(40)),
        (DDPM(), EDMStochastic(churn=0), Tapered(40)),
        (EDM(rho=1.0), Heun(), Uniform(400)),  # where t is the noise scale
        (EDM(), EDMStochastic(churn=0), Uniform(18)),
    ],
    ids=repr,
)
def test_heun(draws, process, solver, grid):
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(grid.times(process)[:-1])
    scheduler = theirs("HeunDiscrete")
    scheduler.set_timesteps(len(levels))
    q = torch.tensor([level.sigma / level.alpha for level in levels] + [0.0], dtype=F64)
    scheduler.sigmas = torch.cat([q[:1], q[1:-1].repeat_interleave(2), q[-1:]])  # each step is two calls
    calls = [levels[0], *(level for level in levels[1:] for _ in range(2))]
    states = list(walk(scheduler, model, calls, u / levels[0].alpha, scaled=True))
    same(unscaled(solver.states(model, u, levels, draws), levels), [*states[1::2], states[-1]])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [Uniform(40), Tapered(40)], ids=repr)
def test_adams_bashforth(draws, order, grid):
    # Its last step continues the polynomial to sigma = 0; ours is a denoise there, and is left out. Its weights come
    # from an adaptive quadrature asked for 1e-4 only, but a Gauss-Kronrod rule of 21 points is exact for cubics.
    pytest.importorskip("scipy")
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(grid.times(process)[:-1])
    scheduler = on_levels("LMSDiscrete", levels)
    scheduler.is_scale_input_called = True
    *ours, _ = unscaled(AdamsBashforth(order, published_orders=True).states(model, u, levels, draws), levels)
    *states, _ = walk(scheduler, model, levels, u / levels[0].alpha, scaled=True, order=order)
    same(ours, states)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(draws, order):
    # diffusers interpolates the noise in log(sigma / alpha), Zhang & Chen 2023 (tAB) in the process's time. On VESDE
    # and NCSN, and only there, the two are one: log sigma is linear in t. Its states are those of a process with
    # alpha^2 + sigma^2 = 1 and the same sigma / alpha. Its step to sigma = 0 does not exist; it is left out.
    process = VESDE()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(Uniform(40).times(process)[:-1])
    scheduler = on_levels("DEISMultistep", levels, end=(), solver_order=order, lower_order_final=False)
    alpha = 1 / (1 + scheduler.sigmas**2).sqrt()
    *ours, _ = DEIS(order).states(model, u, levels, draws)
    state, states = u * alpha[0], []
    for i, level in enumerate(levels[:-1]):
        eps = model(state / alpha[i], level).eps
        state = scheduler.step(eps, scheduler.timesteps[i], state).prev_sample
        states.append(state / alpha[i + 1])
    same(ours, states)
    if order > 1:
        process = DDPM()
        model, levels = GaussianMixture(process, *DATA), process.levels_at(Uniform(40).times(process)[:-1])
        scheduler = on_levels("DEISMultistep", levels, end=(), solver_order=order, lower_order_final=False)
        *ours, _ = DEIS(order, published_orders=True).states(model, start(process), levels, draws)
        *_, other = walk(scheduler, model, levels[:-1], start(process), scaled=False)
        assert 1e-4 < (ours[-1] - other).abs().max() < 0.1  # elsewhere two methods for one flow


# ---------------------------------------------------------------------------------------------- in log(alpha / sigma)


@pytest.mark.parametrize("grid", [Uniform(40), Tapered(40)], ids=repr)
@pytest.mark.parametrize(("order", "eta"), [(1, 0.0), (2, 0.0), (1, 1.0), (2, 1.0)])
def test_dpm_solver(draws, order, eta, grid):
    # Its last step, to sigma = 0, is of first order, as published: our denoise.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(grid.times(process)[:-1])
    algorithm = "sde-dpmsolver++" if eta else "dpmsolver++"
    scheduler = on_levels("DPMSolverMultistep", levels, solver_order=order, algorithm_type=algorithm)
    same(
        DPMSolver(order, eta, published_orders=True).states(model, u, levels, draws),
        walk(scheduler, model, levels, u, scaled=False),
    )


def test_dpm_solver_of_order_3_takes_all_of_the_quadratic_term():
    # diffusers, like the authors' program, takes half of it: D2 (phi_2 / h - 1/2) where the expansion has twice that.
    # One step, from four values: ours is theirs and the other half, alpha_s D2 times the integral of r^2 e^y, halved.
    # Here D2, the coefficient of r^2, is found by solving for the quadratic, the integral by quadrature.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(LogSNR(40).times(process)[:-1])
    scheduler = on_levels("DPMSolverMultistep", levels, solver_order=3, algorithm_type="dpmsolver++")
    theirs_now = u
    count = 12
    states = [u]
    for i in range(count):  # theirs, so that both have the same values behind them
        prediction = model(theirs_now, levels[i])
        theirs_now = scheduler.step(prediction.eps, scheduler.timesteps[i], theirs_now).prev_sample
        states.append(theirs_now)
    values = [model(states[i], levels[i]).x0 for i in (count - 1, count - 2, count - 3)]
    nodes = [levels[i] for i in (count - 1, count - 2, count - 3)]
    t, s = levels[count - 1], levels[count]
    ours = DPMSolver(3)._mean(states[count - 1], values[0], t, s, nodes, values)
    h = (s.log_snr - t.log_snr) / 2
    r = torch.tensor([(node.log_snr - t.log_snr) / 2 / h for node in nodes], dtype=F64)  # 0, and below
    quadratic = torch.linalg.solve(torch.stack([r**0, r, r**2], 1), torch.stack(values).flatten(1))[2].reshape(u.shape)
    points, weights = (torch.as_tensor(part, dtype=F64) for part in np.polynomial.legendre.leggauss(20))
    share = (points + 1) / 2
    full = s.alpha * quadratic * (weights / 2 * h * torch.exp(h * (share - 1)) * share**2).sum()
    # Theirs is the expansion around t, in which the slope's term is the integral too: only this one differs.
    torch.testing.assert_close(ours - states[count], full / 2, rtol=1e-8, atol=1e-12)
    assert (full / 2).abs().max() > 1e-5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_singlestep(draws, order):
    # Steps equal in log SNR, divided by the intermediate points: theirs are part of the grid, ours of the step.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    fine = process.levels_at(LogSNR(24 * order + 1).times(process)[:-1])
    levels = fine[::order]
    config = {"solver_order": order, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
    scheduler = on_levels("DPMSolverSinglestep", fine, end=(), **config)
    states, v = [], u
    for i, level in enumerate(fine[:-1]):
        if order == 3:
            # Its second intermediate point is reached by the midpoint rule; in Lu et al. 2022a, algorithm 2, line 6,
            # by the rule that diffusers calls heun. With that one it is the published method.
            scheduler.register_to_config(solver_type="heun" if i % 3 == 1 else "midpoint")
        v = scheduler.step(model(v, level).eps, scheduler.timesteps[i], v).prev_sample
        states.append(v)
    *ours, _ = DPMSolverSinglestep(order).states(model, u, levels, draws)
    same(ours, states[order - 1 :: order])


@pytest.mark.parametrize("grid", [Uniform(40), Tapered(40)], ids=repr)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(draws, order, grid):
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(grid.times(process)[:-1])
    scheduler = on_levels("UniPCMultistep", levels, solver_order=order, solver_type="bh2")
    ours = UniPC(order, published_orders=True).states(model, u, levels, draws)
    same(ours, walk(scheduler, model, levels, u, scaled=False))


@pytest.mark.cases(1)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("noise", "variant"), [(False, "bh1"), (True, "bh1"), (True, "bh2")])
def test_unipc_bh1_and_for_the_noise(draws, order, noise, variant):
    # Its last step to sigma = 0 does not exist for the noise prediction; it is left out.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(Uniform(14).times(process)[:-1])
    config = {"solver_order": order, "solver_type": variant, "predict_x0": not noise}
    scheduler = on_levels("UniPCMultistep", levels, **config)
    *ours, _ = (UniPCNoise if noise else UniPC)(order, variant, published_orders=True).states(model, u, levels, draws)
    same(ours, islice(walk(scheduler, model, levels, u, scaled=False), len(levels) - 1))


@pytest.mark.cases(1)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_for_the_noise(draws, order):
    # As for the data; of order 3 neither of its rules for the second intermediate point is algorithm 2, line 6, so
    # that one is held by its measured order alone.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    fine = process.levels_at(LogSNR(12 * order + 1).times(process)[:-1])
    config = {"solver_order": order, "lower_order_final": False, "algorithm_type": "dpmsolver"}
    scheduler = on_levels("DPMSolverSinglestep", fine, end=(), final_sigmas_type="sigma_min", **config)
    states, v = [], u
    for i, level in enumerate(fine[:-1]):
        if order == 3:
            scheduler.register_to_config(solver_type="heun" if i % 3 == 1 else "midpoint")
        v = scheduler.step(model(v, level).eps, scheduler.timesteps[i], v).prev_sample
        states.append(v)
    *ours, _ = DPMSolverNoise(order).states(model, u, fine[::order], draws)
    same(ours, states[order - 1 :: order])


@pytest.mark.cases(1)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_in_log_rho(draws, order):
    # Its step to sigma = 0 does not exist; it is left out.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(Tapered(14).times(process)[:-1])
    scheduler = on_levels("DEISMultistep", levels, end=(), solver_order=order, lower_order_final=False)
    *ours, _ = LogRhoDEIS(order, published_orders=True).states(model, u, levels, draws)
    same(ours, walk(scheduler, model, levels[:-1], u, scaled=False))


@pytest.mark.cases(1)
@pytest.mark.parametrize("runge_kutta", [True, False])
def test_pndm(draws, runge_kutta):
    # On its own times, entries of the table: the evaluations of a step's end and of the next one's beginning are both
    # in its list. Its last step, to an alpha of its own, is left out.
    process = DDPM()
    model, u = GaussianMixture(process, *DATA), start(process)
    scheduler = theirs("PNDM", skip_prk_steps=not runge_kutta, timestep_spacing="leading")
    scheduler.set_timesteps(20)
    times = (torch.tensor(scheduler._timesteps[::-1].copy(), dtype=F64) + 1) / 1000
    levels, states, v = process.levels_at(times), [], u
    for i, t in enumerate(scheduler.timesteps):
        level = process.level(float(t + 1) / 1000)
        v = scheduler.step(model(v, level).eps, int(t), v).prev_sample
        if i % 4 == 3 or i >= 12 if runge_kutta else i > 0:
            states.append(v)
    *ours, _ = (PNDM if runge_kutta else PLMS)(published_orders=True).states(model, u, levels, draws)
    same(ours, states[: len(levels) - 1])


# ---------------------------------------------------------------------------------------------- flow matching, VE


def test_euler_on_flow_matching(draws):
    # Its last step, to sigma = 0, is u - t v = x0: our denoise.
    process = FlowMatching()
    model, u = GaussianMixture(process, *DATA), start(process)
    levels = process.levels_at(Uniform(40).times(process)[:-1])
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[level.time for level in levels])
    states, v = [], u
    for level, time in zip(levels, scheduler.timesteps):
        v = scheduler.step(model(v, level).velocity, time, v).prev_sample
        states.append(v)
    same(Euler().states(model, u, levels, draws), states)


def test_reverse_diffusion_and_langevin_corrector(draws):
    # diffusers averages the norms of score and noise over the batch, so a batch is one sample here; its pipeline
    # corrects before it predicts, the paper (algorithms 2 and 4) after. It ends with a step that adds noise of
    # sigma_min, ours with a denoise: left out.
    levels_count = 40
    process = NCSN(0.01, 50.0, levels_count)
    model, u = GaussianMixture(process, *DATA), start(process)[:1]
    levels = process.levels_at(Native().times(process)[:-1])
    scheduler = diffusers.ScoreSdeVeScheduler(levels_count, snr=0.16, sigma_min=0.01, sigma_max=50.0)
    scheduler.set_timesteps(levels_count)
    scheduler.discrete_sigmas = torch.tensor([level.sigma for level in reversed(levels)], dtype=F64)
    states, v = [], u
    for i, (t, s) in enumerate(pairwise(levels)):
        entry = (levels_count - 1 - i + 0.5) / (levels_count - 1)  # it rounds down to an index
        v = scheduler.step_pred(model(v, t).score, entry, v).prev_sample
        v = scheduler.step_correct(model(v, s).score, v).prev_sample
        states.append(v)
    solver = PredictorCorrector(ReverseDiffusion(), steps=1, snr=0.16)
    *ours, _ = solver.states(model, u, levels, draws)
    same(ours, states)
