"""Where arguments come in: NumPy numbers, arrays, lists and paths become what the signature says.

`steps: int` takes `np.int64(5)`, `shape: tuple[int, ...]` an array, `x: Tensor` a list and `path: str` a Path, and what
is kept, compared, shown and written in a recipe is the plain value. Whether a value is allowed is for the code behind:
nothing is rounded or guessed here, so that `2.0` and `True` arrive where an integer is asked for as they are.
"""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Callable, Mapping
from functools import cache, wraps
from inspect import Parameter
from numbers import Number
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import ParameterError, require

__all__ = ["PlainArguments", "plain", "plain_arguments"]

F = TypeVar("F", bound=Callable[..., Any])

_NUMBERS = frozenset({"int", "float", "bool"})
_TUPLES = frozenset({"tuple", "Sequence"})
# The words of an annotation that says all of a plain value: numbers, text and tuples of them.
_PLAIN = _NUMBERS | _TUPLES | {"str", "None", "Optional", "Union", "collections", "abc", "typing"}


@cache
def _words(annotation: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", annotation))


def plain(name: str, value: Any, annotation: Any) -> Any:
    """A value as its annotation says, if it can be that without loss; else the value itself.

    Args:
        name: The parameter.
        value: Its argument.
        annotation: The parameter's annotation, as a string or a type. It is not evaluated.

    Raises:
        ParameterError: If a tensor is asked for and this is no array of numbers, or a string and this is no path.
    """
    words = _words(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))
    if "Tensor" in words and words <= {"Tensor", "torch", "float", "None"}:
        return value if value is None and "None" in words else _tensor(name, value, words)
    if "dtype" in words and not isinstance(value, torch.dtype):  # NumPy's, or a name
        return getattr(torch, getattr(value, "__name__", str(value)), value)
    if value is None or type(value) in (str, bool):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if words <= _PLAIN and isinstance(value, (np.ndarray, Tensor)):
        if isinstance(value, Tensor) and value.requires_grad:
            return value  # as a number it would lose its gradient without a word
        if value.ndim == 0 or words & _TUPLES:
            value = value.tolist()
    if words <= {"str", "Path", "None"}:
        return _text(name, value, words)
    if (isinstance(value, (list, tuple)) and words & _TUPLES) or (isinstance(value, range) and "tuple" in words):
        return _tuple(value, words)
    return _scalar(value, words)


def _scalar(value: Any, words: frozenset[str]) -> Any:
    """A number or path as a plain one: anything with an index for `int`, other real numbers for `float`."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (int, float, bool, str):
        return value
    if isinstance(value, os.PathLike) and "str" in words and "Path" not in words:
        return os.fspath(value)
    if isinstance(value, Number) and not isinstance(value, complex) and words & _NUMBERS:
        if hasattr(value, "__index__"):
            return operator.index(cast(Any, value))
        return float(cast(Any, value)) if "float" in words else value
    return value


def _tuple(values: Any, words: frozenset[str]) -> Any:
    """Lists, arrays and what is in them as tuples; a tuple with names stays what it is."""
    if hasattr(values, "_fields"):
        return values
    lists = (list, tuple, np.ndarray)
    parts = (part.tolist() if isinstance(part, np.ndarray) and words <= _PLAIN else part for part in values)
    return tuple(_tuple(part, words) if isinstance(part, lists) else _scalar(part, words) for part in parts)


def _text(name: str, value: Any, words: frozenset[str]) -> Any:
    """Text, of a path or of a device too."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    text = str(text) if isinstance(text, torch.device) else text
    require(isinstance(text, str), name, value, "a string or a path")  # the path of bytes is not portable
    return value if "Path" in words else text


def _tensor(name: str, value: Any, words: frozenset[str]) -> Any:
    """A tensor of an array or of lists of numbers; where a number is allowed too, other values stay what they are."""
    if isinstance(value, Tensor):
        return value
    if "float" in words and not isinstance(value, (np.ndarray, list, tuple)):
        return _scalar(value, words)
    try:
        # An array that may not be written to would be shared with a tensor that may.
        return torch.as_tensor(value if getattr(getattr(value, "flags", None), "writeable", True) else value.copy())
    except (TypeError, ValueError, RuntimeError) as error:
        shown = repr(value) if value is None or isinstance(value, str) else f"{type(value).__name__} ({error})"
        problem = f"must be a tensor or an array of numbers, got {shown}"
        raise ParameterError(name, problem) from error


def plain_arguments(function: F) -> F:
    """Decorate a public function: its arguments become `plain` by its annotations, those of `**cond` too."""
    found = inspect.signature(function).parameters.values()
    annotations = {parameter.name: parameter.annotation for parameter in found}
    positional = [p.name for p in found if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    others = next((p.annotation for p in found if p.kind is Parameter.VAR_KEYWORD), "Any")

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        known = [plain(name, value, annotations[name]) for name, value in zip(positional, args)]
        named = {name: plain(name, value, annotations.get(name, others)) for name, value in options.items()}
        return function(*known, *args[len(known) :], **named)

    return cast(F, call)


class PlainArguments:
    """A base of classes whose constructors take their arguments as `plain` values, by their annotations.

    Dataclasses below it are checked by their own `__post_init__` after that; other classes have their `__init__`
    decorated. A class of one's own below a public base has it from there.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        replaced: Mapping[str, Any] = {
            "__init__": plain_arguments(own["__init__"]) if "__init__" in own else None,
            "__post_init__": _after_plain(own["__post_init__"]) if "__post_init__" in own else None,
        }
        for name, function in replaced.items():
            if function is not None:
                setattr(cls, name, function)

    def __post_init__(self) -> None:
        for name, field in getattr(self, "__dataclass_fields__", {}).items():
            if name in vars(self):
                value = vars(self)[name]
                converted = plain(name, value, field.type)
                if converted is not value:
                    object.__setattr__(self, name, converted)


def _after_plain(post_init: F) -> F:
    @wraps(post_init)
    def call(self: Any, *args: Any) -> None:
        PlainArguments.__post_init__(self)
        post_init(self, *args)

    return cast(F, call)
