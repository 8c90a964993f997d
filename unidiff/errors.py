"""The errors a user can cause, and mend: each names the place, the value and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "DataError",
    "ParameterError",
    "RecipeError",
    "RunError",
    "RunFailed",
    "UnidiffError",
    "complaint",
    "is_whole",
    "require",
    "require_shape",
    "require_whole",
]


class UnidiffError(Exception):
    """A mistake that the user can mend. The command line prints it alone, without traceback.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code: ClassVar[int] = 2


def complaint(name: str, problem: str) -> str:
    """The sentence about a parameter or key: `steps must be an integer >= 1, got 0`, or `name: problem` for others."""
    return f"{name} {problem}" if problem.startswith("must ") else f"{name}: {problem}"


class ParameterError(UnidiffError, ValueError):
    """A constructor argument out of range, or one that does not fit another.

    Attributes:
        parameter: Name of the constructor's parameter. A recipe's error message points at this key.
        problem: What is wrong, without the parameter's name in front: "must be an integer >= 1, got 0".
    """

    def __init__(self, parameter: str, problem: str) -> None:
        self.parameter = parameter
        self.problem = problem
        super().__init__(complaint(parameter, problem))


class RecipeError(UnidiffError):
    """A recipe cannot be used as written. The message names file, line, key, what was given and what is allowed."""


class DataError(UnidiffError):
    """A data file is missing, corrupt, or not what its name says."""


class RunError(UnidiffError):
    """A run directory, checkpoint or output place cannot be used as asked."""


class RunFailed(RunError):
    """A run that began well failed on its way: the loss is not finite, the disk is full."""

    exit_code: ClassVar[int] = 1


def require(condition: bool, parameter: str, value: object, allowed: str) -> None:
    """Raise a ParameterError unless `condition` holds.

    Args:
        condition: What must be true of the parameter.
        parameter: The parameter's name in the constructor.
        value: What was given.
        allowed: What is allowed, as a phrase: "an integer >= 1".

    Raises:
        ParameterError: If the condition is false (or was computed from a NaN, which fails every comparison).
    """
    if not condition:
        raise ParameterError(parameter, f"must be {allowed}, got {value!r}")


def require_shape(parameter: str, what: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    """Raise a ParameterError unless a tensor has the expected shape; broadcasting would hide another.

    Args:
        parameter: The parameter that the tensor comes from.
        what: What the tensor holds, in the plural: "predictions".
        shape: Its shape.
        expected: The shape it must have.
    """
    if tuple(shape) != tuple(expected):
        raise ParameterError(parameter, f"{what} must have shape {tuple(expected)}, got {tuple(shape)}")


def is_whole(value: object, least: int = 1, most: int | None = None) -> bool:
    """Whether the value is an integer (True and False are not) from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return least <= value and (most is None or value <= most)


def require_whole(parameter: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise a ParameterError unless `value` is an integer (True and False are not) in a range.

    Args:
        parameter: The parameter's name in the constructor.
        value: What was given.
        least: The smallest value allowed.
        most: The largest value allowed; None for no limit. A limit far above any use turns a slip of the finger into a
            message instead of a full memory.
    """
    allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
    require(is_whole(value, least, most), parameter, value, allowed)
