"""Conditions: what a model is told beside state and time. Each is a tensor with a row per sample, handed on by name.

`label` is the class of each sample, whole numbers (B,) from 0; -1 is the null class, "nothing is said". A model that
knows classes takes a missing `label` for -1 in every row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unidiff.errors import ParameterError

__all__ = ["NULL", "check_conditions", "check_label", "nothing"]

NULL = -1


def nothing(cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same conditions with nothing said: the null class for whole numbers, 0 for everything else."""
    return {name: torch.full_like(value, 0 if value.is_floating_point() else NULL) for name, value in cond.items()}


def check_label(label: Tensor, classes: int | None, count: int) -> None:
    """Refuse labels that a model does not know.

    Args:
        label: What was given.
        classes: Number of classes that the model knows; None if it knows none.
        count: Samples, B.

    Raises:
        ParameterError: If the model is unconditional, or a label is no whole number from -1 to classes - 1, or there is
            not one for each sample.
    """
    if classes is None:
        raise ParameterError("label", "this model is unconditional: it was trained without classes. Leave it out.")
    fits = isinstance(label, Tensor) and label.shape == (count,)
    if not fits or label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        what = f"{label.dtype} of shape {tuple(label.shape)}" if isinstance(label, Tensor) else repr(label)
        raise ParameterError("label", f"{what} was given; allowed are whole numbers, one for each of {count} samples.")
    wrong = label[(label < NULL) | (label >= classes)]
    if len(wrong):
        problem = f"class {int(wrong[0])} was given; the {classes} classes are 0 to {classes - 1}, and -1 is none."
        raise ParameterError("label", problem)


def check_conditions(cond: Mapping[str, Tensor], classes: int | None, count: int) -> None:
    """Refuse conditions before a run begins; see `check_label`.

    Raises:
        ParameterError: With the reason.
    """
    for name, value in cond.items():
        if name == "label":
            check_label(value, classes, count)
        elif len(value) != count:
            raise ParameterError(name, f"{len(value)} rows were given; there are {count} samples.")
