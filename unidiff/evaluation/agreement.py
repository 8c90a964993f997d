"""What must agree before models can be compared: their samples' shape, and the data they are held against."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.exact import ClosedForm

__all__ = ["check_samples", "one_shape"]

_FEWEST = 10  # samples of the truth: the jackknife of the sliced distance leaves out a tenth of them in turn


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
        if isinstance(model, ClosedForm) and tuple(shape) != model.shape:
            raise ParameterError("shape", f"{tuple(shape)} was given; the data have {model.shape}. Leave it out.")
    return tuple(shape)


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
