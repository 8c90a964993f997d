"""The errors that a user can correct: each message names the position, the value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from typing import ClassVar

from unidiff.text import clean

__all__ = [
    "REPORT",
    "DataError",
    "ParameterError",
    "RecipeError",
    "RunError",
    "RunFailed",
    "UnidiffError",
    "abridged",
    "complaint",
    "is_whole",
    "require",
    "require_shape",
    "require_whole",
]

REPORT = "unidiff-error-"  # how the names of reports of unforeseen errors begin, which are in nobody's way
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|inf|nan)"
_LONG_LIST = re.compile(rf"\b((?:{_NUMBER}, ){{3}})(?:{_NUMBER}, ){{20,}}({_NUMBER})")
_LONGEST = 400  # characters of a value in a message


def abridged(text: str) -> str:
    """A message in which lists of many numbers are cut to the first three and the last."""
    return _LONG_LIST.sub(r"\1..., \2", text)


class UnidiffError(Exception):
    """An error that the user can correct. The command line prints its message alone, without a traceback.

    Lists of many numbers in the message are cut, and control characters, such as those of names and libraries, written
    out.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(clean(abridged(message)))


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
        self.problem = clean(abridged(problem))
        super().__init__(complaint(parameter, problem))


class RecipeError(UnidiffError):
    """A recipe cannot be used as written. The message names file, line, key, value and what is allowed.

    Attributes:
        position: Line and column, from 1; (0, 0) where there are none.
        problems: All mistakes of the recipe, each as an error of its own, where there are several.
    """

    position: tuple[int, int] = (0, 0)
    problems: tuple[RecipeError, ...] = ()


class DataError(UnidiffError):
    """A data file is missing, corrupt, or not what its name says."""


class RunError(UnidiffError):
    """A run directory, a checkpoint or an output path cannot be used, or options do not fit each other."""


class RunFailed(RunError):
    """A run that was valid failed later: the loss is not finite, the disk is full."""

    exit_code: ClassVar[int] = 1


def require(condition: bool, parameter: str, value: object, allowed: str) -> None:
    """Raise a ParameterError unless `condition` holds.

    Args:
        condition: What must be true of the parameter; a comparison with NaN is false.
        parameter: The parameter's name in the constructor.
        value: Its value.
        allowed: What is allowed, as a phrase: "an integer >= 1".
    """
    if not condition:
        shown = abridged(_shown(value))
        shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 4 :]}"
        raise ParameterError(parameter, f"must be {allowed}, got {shown}")


def _shown(value: object) -> str:
    """The repr of a value, but of tensors and arrays, in lists too, their numbers alone or their shapes."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "tolist"):
        return repr(value.tolist()) if value.shape == () else f"{value.dtype} of shape {tuple(value.shape)}"
    if type(value) in (list, tuple):
        inside = ", ".join(map(_shown, value))  # type: ignore[call-overload]
        return f"[{inside}]" if type(value) is list else f"({inside}{',' * (len(value) == 1)})"  # type: ignore[arg-type]
    return repr(value)


def require_shape(parameter: str, what: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    """Raise a ParameterError unless a tensor of `what` ("predictions") has the expected shape.

    Broadcasting would otherwise hide the mistake.
    """
    if tuple(shape) != tuple(expected):
        raise ParameterError(parameter, f"{what} must have shape {tuple(expected)}, got {tuple(shape)}")


def is_whole(value: object, least: int = 1, most: int | None = None) -> bool:
    """Whether the value is an integer (True and False are not) from `least` to `most`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)  # NumPy's integers are Integral
    return whole and least <= value and (most is None or value <= most)  # type: ignore[operator]


def require_whole(parameter: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise a ParameterError unless `is_whole(value, least, most)`.

    A limit far above any use turns a typing error into a message instead of a full memory.
    """
    allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
    require(is_whole(value, least, most), parameter, value, allowed)
