"""Pictures completed and changed by a model that was not trained for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unidiff.basis import Basis
from unidiff.denoiser import Counted, Denoiser
from unidiff.encoding import decode, encode
from unidiff.errors import require
from unidiff.grid import Grid, default_grid
from unidiff.noise import Seeded
from unidiff.parameterization import Prediction
from unidiff.precision import precise
from unidiff.process.level import Level, Scale, axpby, eps_of
from unidiff.solver.base import Solver
from unidiff.solver.ode import ProbabilityFlow
from unidiff.solver.sample import DEFAULT_SOLVER, Solution, asked_for

__all__ = ["Replacement", "edit", "inpaint", "variations"]

Progress = Callable[[int, int], None]
_FLOW = ProbabilityFlow()


class Replacement(Denoiser):
    """A model told what some pixels are, or are until some time: there its E[x0 | u] is replaced by the image.

    Whatever the solver, such a pixel then follows a path of the forward process that ends in the image: its noise stays
    what it was under a deterministic solver, and is renewed as the posterior q(u_s | u_t, x0) says under a random one.
    This is the replacement of Song et al. 2021, section 5 and appendix I.2, with noise that is consistent from step to
    step. The other pixels follow the model's unconditional score of the whole, which is not the conditional one: the
    known pixels are noisy where they are asked, so that samples are biased; see docs/inverse.md.

    With a strength between 0 and 1 a pixel is tied to the image while t > strength, and free from then on (Levin &
    Fried 2023, differential diffusion).

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), or one per sample, (B, *shape).
        strength: 0 where a pixel is known, 1 where it is free; tied until t = strength in between. Broadcasts against
            the image.
    """

    picture: Tensor
    strength: Tensor

    def __init__(self, denoiser: Denoiser, image: Tensor, strength: Tensor) -> None:
        super().__init__()
        self._copy_interface(denoiser)
        self.denoiser = denoiser
        self.register_buffer("picture", image.detach().clone())
        self.register_buffer("strength", _checked_map(strength, image))

    def free(self, t: Scale, device: torch.device | str = "cpu") -> Tensor:
        """Where the model decides at time t, () or (B, 1, ..., 1): bool, of the shape of the strength."""
        strength = self.strength.to(device)
        return (strength > 0) & (strength >= t)

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise with what is known; see `Denoiser.forward`."""
        basis = self.process.basis
        x0, _, _, variance = self.denoiser(u, level, **cond)
        pixels, free = basis.inverse(x0), self.free(level.time, u.device)
        x0 = basis.forward(torch.where(free, pixels, self.picture.to(pixels)))
        if variance is not None:
            variance = torch.where(free, variance, 0.0)  # a known pixel is data at a point
        return Prediction(x0, eps_of(x0, u, level), level, variance)


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
        progress: Called with (steps done, steps in all) after each step.
        **cond: Conditions, each (B, ...), handed to the denoiser.

    Returns:
        The samples, in the image's dtype and on its device.

    Raises:
        ParameterError: If image and known do not fit each other or the model.
    """
    known = torch.as_tensor(known)
    require(bool(((known == 0) | (known == 1)).all()), "known", tuple(known.shape), "an array of 0 and 1")
    strength = 1 - known.to(torch.float64)
    return edit(denoiser, image, strength, solver, grid, seeds, latent=False, progress=progress, **cond)


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
        progress: Called with (steps done, steps in all) after each step.
        **cond: Conditions, each (B, ...), handed to the denoiser.

    Returns:
        The samples, in the image's dtype and on its device.

    Raises:
        ParameterError: If strength is out of range, or image, strength and model do not fit one another.
    """
    process = denoiser.process
    _check_image(denoiser, image, latent)
    spread = _checked_map(torch.as_tensor(strength, dtype=torch.float64), image)
    spread = spread.to(image.device, precise(image.device))
    spread = torch.where(spread > 0, spread.clamp(min=process.t_min), 0.0)
    _, seeds = asked_for(denoiser, image.shape, seeds, cond)
    start, noise = float(spread.max()), Seeded(seeds)
    uniform = bool((spread == start).all())
    x = image.expand(len(seeds), *image.shape)
    times = _times_below(denoiser, start, grid)
    solver.check(process)
    if start == 0:
        return Solution(x.clone(), times, 0)
    model = Counted(denoiser if uniform else Replacement(denoiser, image, spread))
    u = process.draw_prior(noise, torch.empty_like(x)) if start == 1 else None
    if u is None or not uniform:
        # In a basis of modes a blur mixes pixels: those that are to be forgotten hold the mean of the others.
        forgotten = (spread == 1).expand(image.shape)
        filled = torch.where(forgotten, image[~forgotten].mean(), image).expand_as(x)
        tied = process.perturb(process.basis.forward(filled), noise(x), process.level(start, x))
        # What is free from the beginning starts from noise alone, as a sample does.
        u = tied if u is None else _where(process.basis, spread == 1, u, tied)
    steps = len(times) - 1
    for done, state in enumerate(solver.trajectory(model, u, times, noise, **cond)):
        u = state.u
        if progress is not None and done > 0:
            progress(done, steps)
    drawn = process.basis.inverse(u).to(image.dtype)
    return Solution(torch.where(spread == 0, x, drawn), times, model.nfe)


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
        **cond: Conditions, each (B, ...), handed to the denoiser.

    Returns:
        The variations, (B, *shape).

    Raises:
        ParameterError: If amount is out of range, the image does not fit the model, or the solver draws noise.
    """
    _check_image(denoiser, image)
    require(0 <= amount <= 1, "amount", amount, "a number from 0 to 1")
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    require(len(seeds) > 0, "seeds", seeds, "a number of at least 1, or one seed per variation")
    first = {name: value[:1] for name, value in cond.items()}
    latent = encode(denoiser, image[None], solver, grid, **first).expand(len(seeds), *image.shape)
    angle = amount * math.pi / 2
    turned = axpby(math.cos(angle), latent, math.sin(angle), Seeded(seeds)(latent))
    return decode(denoiser, turned, solver, grid, **cond)


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


def _checked_map(strength: Tensor, image: Tensor) -> Tensor:
    """The strength as float64, refused if it is out of range or does not broadcast against the image."""
    strength = strength.to(torch.float64)
    allowed = "numbers from 0 (keep) to 1 (free)" if strength.ndim else "a number from 0 (keep) to 1 (free)"
    fits = bool(((strength >= 0) & (strength <= 1)).all())
    require(fits, "strength", tuple(strength.shape) if strength.ndim else strength.item(), allowed)
    try:
        fits = torch.broadcast_shapes(strength.shape, image.shape) == image.shape
    except RuntimeError:
        fits = False
    require(fits, "strength", tuple(strength.shape), f"one for each pixel of the image, {tuple(image.shape)}")
    return strength


def _times_below(denoiser: Denoiser, start: float, grid: Grid | None) -> Tensor:
    """The times from `start`, through those of the grid below it, to 0."""
    process = denoiser.process
    times = (grid or default_grid(process)).times(process)
    return torch.cat([times.new_tensor([start]), times[times < start]]) if start > 0 else times[-1:]
