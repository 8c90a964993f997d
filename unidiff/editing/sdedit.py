"""SDEdit: noise to a time, then denoise; inpainting by replacement; variations by the probability flow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.basis import Basis
from unidiff.batching import Progress, batches
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Counted, Denoiser
from unidiff.editing.inversion import decode, encode
from unidiff.editing.repaint import Replacement, check_strength
from unidiff.errors import require
from unidiff.grid import Grid
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.noise import Seeded, seeds_of
from unidiff.precision import precise
from unidiff.process.level import axpby
from unidiff.solver.base import Solver
from unidiff.solver.finite import warn_if_not_finite
from unidiff.solver.gradients import optional_gradients
from unidiff.solver.ode import ProbabilityFlow
from unidiff.solver.request import check_request
from unidiff.solver.sample import DEFAULT_SOLVER, Solution
from unidiff.solver.spec import solver_and_grid
from unidiff.tensors import check_floats

__all__ = ["edit", "inpaint", "variations"]

_FLOW = ProbabilityFlow()


@plain_arguments
@enough_memory(LOWER_BATCH)
@optional_gradients
def edit(
    denoiser: Denoiser,
    image: Tensor,
    /,
    strength: float | Tensor,
    solver: Solver | str = DEFAULT_SOLVER,
    grid: Grid | str | int | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    latent: bool = False,
    batch: int | None = None,
    grad: bool = False,
    progress: Progress | bool | None = None,
    **cond: Tensor,
) -> Solution:
    """Change an image: noise to the time t = strength, then denoise (SDEdit, Meng et al. 2022, algorithm 1).

    At strength 0 it is the image itself, at 1 a sample of the model, independent of the image. With a map of strengths
    each pixel has its own (Levin & Fried 2023; `Replacement`): those of strength 0 are kept exactly.

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), in [-1, 1] if it has three axes.
        strength: The time to start from, in [0, 1], at least the process's t_min unless 0. Or one for each pixel,
            broadcast against the image, such as (H, W).
        solver: The method. A multistep solver loses order where a pixel of a map becomes free.
        grid: The times, of which those below the strength are used; the process's default if None.
        seeds: One seed per sample, or their number.
        latent: Whether the image is a codec's latent, (c, h, w), of unbounded values.
        batch: Samples drawn together; all by default.
        grad: Whether the result can be differentiated, in the image too; see `sample`.
        progress: Called with (steps done, steps in all) after each step; True draws a bar.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Returns:
        The samples, in the image's dtype and on its device.

    Raises:
        ParameterError: If strength is out of range, or the shapes of image, strength and model differ.

    Warns:
        UserWarning: If samples hold NaN or infinity; it names them.
    """
    process = denoiser.process
    _check_image(denoiser, image, latent)
    by_pixel = check_strength(torch.as_tensor(strength, dtype=torch.float64), image)
    by_pixel = by_pixel.to(image.device, precise(image.device))
    by_pixel = torch.where(by_pixel > 0, by_pixel.clamp(min=process.t_min), 0.0)
    _, seeds, cond = check_request(denoiser, image.shape, seeds, cond, image.device, image.dtype, batch)
    solver, grid = solver_and_grid(process, solver, grid)
    start, times = float(by_pixel.max()), grid.times(process)
    solver.check(process)
    if start == 0:
        return Solution(image.expand(len(seeds), *image.shape).clone(), times[-1:], 0)
    times = torch.cat([times.new_tensor([start]), times[times < start]])
    uniform = bool((by_pixel == start).all())
    model = denoiser if uniform else Replacement(denoiser, image, by_pixel)
    # In a basis of modes a blur mixes pixels: those to be replaced hold the mean of the others.
    replaced = (by_pixel == 1).expand(image.shape)
    filled = torch.where(replaced, image[~replaced].mean(), image)
    samples, nfe, steps = [], 0, len(times) - 1
    for part in batches(seeds, batch, cond, progress):
        noise, counted = Seeded(part.seeds), Counted(model)
        x = image.expand(len(part.seeds), *image.shape)
        u = process.start(noise, torch.empty_like(x)) if start == 1 else None
        if u is None or not uniform:
            noisy = process.perturb(process.basis.forward(filled.expand_as(x)), noise(x), process.level(start, x))
            # Pixels that are free from the beginning start from noise alone, as a sample does.
            u = noisy if u is None else _where(process.basis, by_pixel == 1, u, noisy)
        for done, state in enumerate(solver.trajectory(counted, u, times, noise, **part.cond)):
            u = state.u
            if done > 0:
                part.progress(done, steps)
        samples.append(torch.where(by_pixel == 0, x, process.basis.inverse(u).to(image.dtype)))
        nfe = max(nfe, counted.nfe)
    solution = Solution(torch.cat(samples), times, nfe)
    warn_if_not_finite(solution.x)
    return solution


@plain_arguments
@enough_memory(LOWER_BATCH)
@optional_gradients
def variations(
    denoiser: Denoiser,
    image: Tensor,
    /,
    amount: float,
    solver: Solver | str = _FLOW,
    grid: Grid | str | int | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    grad: bool = False,
    **cond: Tensor,
) -> Tensor:
    """Variations of an image, (B, *shape): its latent, rotated by amount pi / 2 towards new noise, and decoded.

    z' = cos(a) z + sin(a) eps, a = amount pi / 2, is standard normal if z is: a variation has the distribution of
    samples if the image has. At amount 0 it is the round trip of `encode` and `decode`, at 1 a sample.

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), in [-1, 1] if it has three axes.
        amount: How far, in [0, 1].
        solver: A deterministic solver.
        grid: The times, used in both directions.
        seeds: One seed per variation, or their number.
        grad: Whether the result can be differentiated, in the image too; see `sample`.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Raises:
        ParameterError: If amount is out of range, the image is not of the model's shape, or the solver draws noise.
    """
    _check_image(denoiser, image)
    require(0 <= amount <= 1, "amount", amount, "a number from 0 to 1")
    seeds = seeds_of(seeds)
    cond = check_conditions(cond, denoiser, len(seeds), image.device)
    first = {name: value[:1] for name, value in cond.items()}
    latent = encode(denoiser, image[None], solver, grid, grad=grad, **first).expand(len(seeds), *image.shape)
    angle = amount * math.pi / 2
    turned = axpby(math.cos(angle), latent, math.sin(angle), Seeded(seeds)(latent))
    return decode(denoiser, turned, solver, grid, grad=grad, **cond)


@plain_arguments
@enough_memory(LOWER_BATCH)
@optional_gradients
def inpaint(
    denoiser: Denoiser,
    image: Tensor,
    /,
    known: Tensor,
    solver: Solver | str = DEFAULT_SOLVER,
    grid: Grid | str | int | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    batch: int | None = None,
    grad: bool = False,
    progress: Progress | bool | None = None,
    **cond: Tensor,
) -> Solution:
    """Complete an image: the known pixels are kept exactly, the others are drawn by the model (`Replacement`).

    With the solver `Resampling` this is RePaint (Lugmayr et al. 2022), except that the known pixels keep their noise
    instead of drawing it anew at each step, with the same marginal distributions.

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), in [-1, 1] if it has three axes; unknown pixels may be any finite numbers.
        known: True or 1 where pixels are known, broadcast against the image, such as (H, W).
        solver: The method.
        grid: The times; the process's default if None.
        seeds: One seed per sample, or their number.
        batch: Samples drawn together; all by default.
        grad: Whether the result can be differentiated, in the image too; see `sample`.
        progress: Called with (steps done, steps in all) after each step; True draws a bar.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Returns:
        The samples, in the image's dtype and on its device.

    Raises:
        ParameterError: If the shapes of image, known and model differ.

    Warns:
        UserWarning: If samples hold NaN or infinity; it names them.
    """
    known = torch.as_tensor(known)
    require(bool(((known == 0) | (known == 1)).all()), "known", tuple(known.shape), "an array of 0 and 1")
    strength = 1 - known.to(torch.float64)
    return edit(
        denoiser, image, strength, solver, grid, seeds, latent=False, batch=batch, grad=grad, progress=progress, **cond
    )


def _where(basis: Basis, chosen: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Modes of the image with the pixels of the first state where `chosen`, of the second elsewhere."""
    return basis.forward(torch.where(chosen, basis.inverse(first), basis.inverse(second)))


def _check_image(denoiser: Denoiser, image: Tensor, latent: bool = False) -> None:
    """Raise unless an image is finite, of the model's shape and, if it is not a latent, in [-1, 1]."""
    own = denoiser.shape
    check_floats("image", image, own or ("*shape",), image.shape == own if own else image.ndim > 0)
    if image.ndim > 2 and not latent:
        low, high = float(image.min()), float(image.max())
        allowed = "in [-1, 1] (bytes: x / 127.5 - 1; [0, 1]: 2 x - 1)"
        require(low >= -1.0001 and high <= 1.0001, "image", f"values from {low:g} to {high:g}", allowed)
