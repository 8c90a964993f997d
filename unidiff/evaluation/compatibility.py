"""What models must have in common to be compared: the shape of their samples, and their data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.process.level import Level
from unidiff.tensors import described
from unidiff.text import rows_of

__all__ = ["check_same_data", "check_samples", "draw_data", "one_shape"]

_FEWEST = 10  # reference samples: the jackknife of the sliced distance leaves out a tenth of them in turn


def one_shape(models: Sequence[tuple[str, Denoiser]], shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of one sample of all (label, denoiser): `shape`, or their own; a ParameterError if they differ.

    `shape` may differ from a network's own shape, but not from a closed form's.
    """
    shapes = {label: tuple(model.shape) for label, model in models if model.shape is not None}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{label!r} of {own}" for label, own in shapes.items())
        raise ParameterError("models", f"must have samples of one shape, got {listed}")
    if shape is None:
        if not shapes:
            raise ParameterError("shape", "must be passed, such as (1, 28, 28): these models do not define it")
        return next(iter(shapes.values()))
    for _, model in models:
        if model.closed_form and tuple(shape) != model.shape:
            raise ParameterError("shape", f"must be that of the data, {model.shape}, got {tuple(shape)}. Leave it out.")
    return tuple(shape)


@torch.no_grad()
def check_same_data(models: Sequence[tuple[str, Denoiser]]) -> None:
    """Raise a ParameterError if two closed-form models are of different data; networks cannot be checked.

    E[x0 | x0 + s eps] at any one s > 0 determines the distribution of x0: by Tweedie's formula it gives the score of
    the noisy data. So it is compared, in pixels and at four noise scales, on noisy data of each model: models of the
    same data agree to rounding, whatever their process, basis and order of components.
    """
    closed = [(label, model) for label, model in models if model.closed_form]
    for (label, first), (other_label, other) in pairwise(closed):
        generator = torch.Generator().manual_seed(0)
        data = torch.cat([draw_data(model, 32, generator) for model in (first, other)])
        scale = float(data.std()) or 1.0
        for sigma in (0.03 * scale, 0.3 * scale, scale, 3 * scale):
            x = data + sigma * torch.randn(data.shape, generator=generator, dtype=torch.float64)
            # Rounding, 1e-16 of |x|^2 / s^2 = 1e3 in an exponent, moves the share of a component by 1e-12 or so.
            difference = float((_expected_data(first, x, sigma) - _expected_data(other, x, sigma)).abs().max())
            if not difference <= 1e-8 * (scale + float(data.abs().max())):
                problem = f"{label!r} and {other_label!r} are of different data: E[x0 | u] differs by {difference:.1e}."
                raise ParameterError("models", problem)


def draw_data(
    model: Denoiser, count: int, generator: torch.Generator, cond: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Data of a closed form in pixels, (count, *shape) float64 on the CPU; rows of conditions are taken in turn."""
    noise = torch.randn(count, *(model.shape or ()), generator=generator, dtype=torch.float64)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    device = next(model.buffers()).device
    rows = {name: value[torch.arange(count, device=value.device) % len(value)] for name, value in (cond or {}).items()}
    return model.draw(noise.to(device), uniform.to(device), **rows).cpu()


def _expected_data(model: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x0 + sigma eps = x] in pixels."""
    basis = model.process.basis
    level = Level(math.nan, 1.0, sigma, -2 * math.log(sigma))
    return basis.inverse(model(basis.forward(x).to(next(model.buffers()).device), level).x0).cpu()


def check_samples(name: str, x: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise a ParameterError unless samples are finite floats, (M, *shape), enough to measure a distance."""
    if x is None:
        return
    if tuple(x.shape[1:]) != shape or len(x) < _FEWEST or not x.is_floating_point():
        allowed = f"floats of shape {rows_of(shape, 'M')}, M at least {_FEWEST}"
        raise ParameterError(name, f"must be {allowed}, got {described(x)}")
    if not bool(x.isfinite().all()):
        raise ParameterError(name, "contains NaN or infinity. Remove such samples.")
