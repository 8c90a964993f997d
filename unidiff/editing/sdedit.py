"""SDEdit: noise to a time, then denoise; and variations, by the probability flow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.basis import Basis
from unidiff.batching import Progress, batches
from unidiff.condition import check_conditions
from unidiff.denoiser import Counted, Denoiser
from unidiff.editing.inversion import decode, encode
from unidiff.editing.repaint import Replacement, check_strength
from unidiff.errors import require
from unidiff.grid import Grid, default_grid
from unidiff.noise import Seeded, seeds_of
from unidiff.precision import precise
from unidiff.process.level import axpby
from unidiff.solver.base import Solver
from unidiff.solver.ode import ProbabilityFlow
from unidiff.solver.sample import DEFAULT_SOLVER, Solution, check_request

__all__ = ["edit", "inpaint", "variations"]

_FLOW = ProbabilityFlow()


@torch.no_grad()
def edit(
    denoiser: Denoiser,
    image: Tensor,
    /,
    strength: float | Tensor,
    solver: Solver = DEFAULT_SOLVER,
    grid: Grid | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    latent: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
    **cond: Tensor,
) -> Solution:
    """Change an image: noise to the time t = strength, then denoise (SDEdit, Meng et al. 2022, algorithm 1).

    At strength 0 it is the image itself, at 1 a sample of the model, the image forgotten. With a map of strengths each
    pixel changes by its own (Levin & Fried 2023; `Replacement`): those of strength 0 are kept exactly.

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), in [-1, 1] if it has three axes.
        strength: The time to start from, in [0, 1]; times below the process's t_min are raised to it. Or one for each
            pixel, (*shape) or broadcast against it, such as (H, W).
        solver: The method. A solver of several steps loses order where a pixel of a map comes free.
        grid: The times; those below the strength are walked. The process's default if not given.
        seeds: One seed per sample, or their number.
        latent: Whether the image is a codec's latent, (c, h, w), whose numbers have no range.
        batch: Samples drawn together; all if not given.
        progress: Called with (steps done, steps in all) after each step.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Returns:
        The samples, in the image's dtype and on its device.

    Raises:
        ParameterError: If strength is out of range, or image, strength and model do not fit one another.
    """
    process = denoiser.process
    _check_image(denoiser, image, latent)
    spread = check_strength(torch.as_tensor(strength, dtype=torch.float64), image)
    spread = spread.to(image.device, precise(image.device))
    spread = torch.where(spread > 0, spread.clamp(min=process.t_min), 0.0)
    _, seeds, cond = check_request(denoiser, image.shape, seeds, cond, image.device)
    start = float(spread.max())
    uniform = bool((spread == start).all())
    times = _times_below(denoiser, start, grid)
    solver.check(process)
    if start == 0:
        return Solution(image.expand(len(seeds), *image.shape).clone(), times, 0)
    model = denoiser if uniform else Replacement(denoiser, image, spread)
    # In a basis of modes a blur mixes pixels: those that are to be forgotten hold the mean of the others.
    forgotten = (spread == 1).expand(image.shape)
    filled = torch.where(forgotten, image[~forgotten].mean(), image)
    drawn, nfe, steps = [], 0, len(times) - 1
    for part in batches(seeds, batch, cond, progress):
        noise, counted = Seeded(part.seeds), Counted(model)
        x = image.expand(len(part.seeds), *image.shape)
        u = process.start(noise, torch.empty_like(x)) if start == 1 else None
        if u is None or not uniform:
            tied = process.perturb(process.basis.forward(filled.expand_as(x)), noise(x), process.level(start, x))
            # What is free from the beginning starts from noise alone, as a sample does.
            u = tied if u is None else _where(process.basis, spread == 1, u, tied)
        for done, state in enumerate(solver.trajectory(counted, u, times, noise, **part.cond)):
            u = state.u
            if done > 0:
                part.progress(done, steps)
        drawn.append(torch.where(spread == 0, x, process.basis.inverse(u).to(image.dtype)))
        nfe = max(nfe, counted.nfe)
    return Solution(torch.cat(drawn), times, nfe)


@torch.no_grad()
def variations(
    denoiser: Denoiser,
    image: Tensor,
    /,
    amount: float,
    solver: Solver = _FLOW,
    grid: Grid | None = None,
    seeds: int | Sequence[int] = 1,
    **cond: Tensor,
) -> Tensor:
    """Variations of an image: its latent, turned by a right angle times `amount` towards new noise, and decoded.

    z' = cos(a) z + sin(a) eps, a = amount pi / 2, is standard normal if z is: a variation is as likely a sample as the
    image. At amount 0 it is the round trip of `encode` and `decode`, at 1 a sample.

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), in [-1, 1] if it has three axes.
        amount: How far, in [0, 1].
        solver: A deterministic solver.
        grid: The times, walked both ways.
        seeds: One seed per variation, or their number.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Returns:
        The variations, (B, *shape).

    Raises:
        ParameterError: If amount is out of range, the image does not fit the model, or the solver draws noise.
    """
    _check_image(denoiser, image)
    require(0 <= amount <= 1, "amount", amount, "a number from 0 to 1")
    seeds = seeds_of(seeds)
    cond = check_conditions(cond, denoiser, len(seeds), image.device)
    first = {name: value[:1] for name, value in cond.items()}
    latent = encode(denoiser, image[None], solver, grid, **first).expand(len(seeds), *image.shape)
    angle = amount * math.pi / 2
    turned = axpby(math.cos(angle), latent, math.sin(angle), Seeded(seeds)(latent))
    return decode(denoiser, turned, solver, grid, **cond)


@torch.no_grad()
def inpaint(
    denoiser: Denoiser,
    image: Tensor,
    /,
    known: Tensor,
    solver: Solver = DEFAULT_SOLVER,
    grid: Grid | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
    **cond: Tensor,
) -> Solution:
    """Complete an image: the known pixels are kept exactly, the others are drawn by the model (`Replacement`).

    With `Resampling` for a solver this is RePaint (Lugmayr et al. 2022), the known pixels' noise carried on instead of
    drawn anew at each step: of the same distribution at every time.

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), in [-1, 1] if it has three axes; what it holds at unknown pixels is not
            used, as long as it is a number.
        known: True or 1 where pixels are known, (*shape) or broadcast against it, such as (H, W).
        solver: The method.
        grid: The times; the process's default if not given.
        seeds: One seed per sample, or their number.
        batch: Samples drawn together; all if not given.
        progress: Called with (steps done, steps in all) after each step.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Returns:
        The samples, in the image's dtype and on its device.

    Raises:
        ParameterError: If image and known do not fit each other or the model.
    """
    known = torch.as_tensor(known)
    require(bool(((known == 0) | (known == 1)).all()), "known", tuple(known.shape), "an array of 0 and 1")
    strength = 1 - known.to(torch.float64)
    return edit(denoiser, image, strength, solver, grid, seeds, latent=False, batch=batch, progress=progress, **cond)


def _where(basis: Basis, chosen: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Modes of the picture that has the pixels of one state where `chosen`, of another elsewhere."""
    return basis.forward(torch.where(chosen, basis.inverse(first), basis.inverse(second)))


def _check_image(denoiser: Denoiser, image: Tensor, latent: bool = False) -> None:
    """Refuse an image that is not of the model's shape and, unless it is a latent, range."""
    known = denoiser.shape
    require(known is None or image.shape == known, "image", tuple(image.shape), f"the model's shape, {known}")
    require(bool(image.isfinite().all()), "image", "an image with NaN or infinity", "finite numbers")
    if image.ndim == 3 and not latent:
        low, high = float(image.min()), float(image.max())
        allowed = "[-1, 1]: x / 127.5 - 1 for bytes, 2 x - 1 for [0, 1]"
        require(low >= -1.0001 and high <= 1.0001, "image", f"values from {low:g} to {high:g}", allowed)


def _times_below(denoiser: Denoiser, start: float, grid: Grid | None) -> Tensor:
    """The times from `start`, through those of the grid below it, to 0."""
    process = denoiser.process
    times = (grid or default_grid(process)).times(process)
    return torch.cat([times.new_tensor([start]), times[times < start]]) if start > 0 else times[-1:]
