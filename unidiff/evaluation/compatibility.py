"""What must agree before models can be compared: their samples' shape, and the data they are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.process.level import Level

__all__ = ["check_same_data", "check_samples", "one_shape"]

_FEWEST = 10  # samples of the truth: the jackknife of the sliced distance leaves out a tenth of them in turn
_ASKED = 32  # draws of each of two models about which both are asked


def one_shape(models: Sequence[tuple[str, Denoiser]], shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of one sample of all models.

    Args:
        models: (label, denoiser) of each.
        shape: What the caller says; None to ask the models. A network may well make samples of another shape than it
            says, a closed form cannot.

    Raises:
        ParameterError: If nobody knows it, or two disagree.
    """
    known = {label: tuple(model.shape) for label, model in models if model.shape is not None}
    if len(set(known.values())) > 1:
        said = ", ".join(f"{label!r} of {own}" for label, own in known.items())
        raise ParameterError(
            "models", f"they make samples of different shapes, {said}. Compare models of the same data."
        )
    if shape is None:
        if not known:
            problem = "these models do not know the shape of their samples; give it, as (1, 28, 28)."
            raise ParameterError("shape", problem)
        return next(iter(known.values()))
    for _, model in models:
        if model.closed_form and tuple(shape) != model.shape:
            raise ParameterError("shape", f"{tuple(shape)} was given; the data have {model.shape}. Leave it out.")
    return tuple(shape)


@torch.no_grad()
def check_same_data(models: Sequence[tuple[str, Denoiser]]) -> None:
    """Refuse closed-form models of different data; what a network has learned, nobody can ask it.

    E[x0 | x0 + s eps] at any one s > 0 decides the distribution of x0: by Tweedie's formula it gives the score of the
    noisy data. So models are asked, in pixels and at four noise scales, about noisy draws of each: whatever process,
    basis and order of components they are written in, they agree to rounding or are of different data.

    Raises:
        ParameterError: If two of them disagree.
    """
    closed = [(label, model) for label, model in models if model.closed_form]
    for (label, first), (other_label, other) in pairwise(closed):
        generator = torch.Generator().manual_seed(0)
        data = torch.cat([_draw(model, generator) for model in (first, other)])
        scale = float(data.std()) or 1.0
        for share in (0.03, 0.3, 1.0, 3.0):
            x = data + share * scale * torch.randn(data.shape, generator=generator, dtype=torch.float64)
            expected, found = (_ask(model, x, share * scale) for model in (first, other))
            # Rounding, 1e-16 of |x|^2 / s^2 = 1e3 in an exponent, moves the share of a component by 1e-12 or so.
            apart = float((expected - found).abs().max())
            if not apart <= 1e-8 * (scale + float(data.abs().max())):
                said = f"{label!r} and {other_label!r} are of different data: their answers to one state differ by"
                raise ParameterError("models", f"{said} {apart:.1e}. Compare models of the same data.")


def _draw(model: Denoiser, generator: torch.Generator) -> Tensor:
    """Some of a model's data in pixels, (B, *shape) float64 on the CPU."""
    noise = torch.randn(_ASKED, *(model.shape or ()), generator=generator, dtype=torch.float64)
    uniform = torch.rand(_ASKED, generator=generator, dtype=torch.float64)
    place = next(model.buffers()).device
    return model.draw(noise.to(place), uniform.to(place)).cpu()


def _ask(model: Denoiser, x: Tensor, scale: float) -> Tensor:
    """E[x0 | x0 + scale eps = x] in pixels."""
    basis, nan = model.process.basis, math.nan
    level = Level(nan, 1.0, scale, -2 * math.log(scale))
    u = basis.forward(x).to(next(model.buffers()).device)
    return basis.inverse(model(u, level).x0).cpu()


def check_samples(name: str, x: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse samples, (M, *shape), that no distance can be measured to.

    Raises:
        ParameterError: If the shape is another one, they are too few, or they are not finite floating-point numbers.
    """
    if x is None:
        return
    given = f"{x.dtype} of shape {tuple(x.shape)} was given"
    if tuple(x.shape[1:]) != shape or len(x) < _FEWEST or not x.is_floating_point():
        raise ParameterError(name, f"{given}; allowed is floating point (M, *{shape}), M at least {_FEWEST}.")
    if not bool(x.isfinite().all()):
        raise ParameterError(name, "it holds NaN or infinity. Remove such samples.")
