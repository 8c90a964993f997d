"""Where arguments come in: NumPy numbers, arrays, lists and paths become what the signature says, or it is an error.

`steps: int` takes `np.int64(5)`, `shape: tuple[int, ...]` an array, `x: Tensor` a list and `path: str` a Path, and what
is kept, compared, shown and written in a recipe is the plain value. Nothing is rounded or guessed: `2.0` and `True`
arrive where an integer is asked for as they are.

What is of another type than its annotation promises is a ParameterError, of a function before it begins. What a
constructor says itself comes first, because it knows more ("an integer >= 1").
"""

from __future__ import annotations

import difflib
import inspect
import operator
import os
import re
from collections.abc import Callable
from functools import cache, wraps
from inspect import Parameter
from numbers import Number
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from unidiff.annotations import got, misfit
from unidiff.errors import ParameterError, UnidiffError, require
from unidiff.progress import progress_bar

__all__ = ["PlainArguments", "plain", "plain_arguments"]

F = TypeVar("F", bound=Callable[..., Any])

_NUMBERS = frozenset({"int", "float", "bool"})
_TUPLES = frozenset({"tuple", "Sequence"})
# The words of an annotation that says all of a plain value: numbers, text and tuples of them.
_PLAIN = _NUMBERS | _TUPLES | {"str", "None", "Optional", "Union", "collections", "abc", "typing"}


def _words(annotation: Any) -> frozenset[str]:
    return _words_in(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))


@cache
def _words_in(annotation: str) -> frozenset[str]:
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
    words = _words(annotation)
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
        listed = isinstance(value, (np.ndarray, list, tuple))
        shown = type(value).__name__ if listed else got(value)
        reason = f" ({error})" if listed and "could not determine the shape" not in str(error) else _samples_of(value)
        raise ParameterError(name, f"must be a tensor or an array of numbers, got {shown}{reason}") from error


def _samples_of(value: Any) -> str:
    """How to get samples as a tensor of data of any form, as a sentence; empty for what is no data."""
    if isinstance(value, type):
        return ""
    if hasattr(value, "batch") or hasattr(value, "open"):  # a data set of unidiff, opened or not
        opened = "data" if hasattr(value, "batch") else "data.open()"
        return f". Pass samples of it, such as {opened}.batch(torch.arange(100))"
    if hasattr(value, "dataset") and hasattr(value, "__iter__"):  # a DataLoader
        return ". Pass a batch of it, such as next(iter(data))"
    many = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return ". Stack samples of it, such as torch.stack([data[i] for i in range(100)])" if many else ""


class _Signature:
    """The parameters of a function, and what a call says of them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        found = inspect.signature(function).parameters.values()
        positional = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
        self.annotations = {own.name: own.annotation for own in found}
        self.positional = [own.name for own in found if own.kind in positional]
        self.others = next((own.annotation for own in found if own.kind is Parameter.VAR_KEYWORD), "Any")

    def plain(self, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call, by position and by name, as `plain` values."""
        annotations = self.annotations
        known = [plain(name, value, annotations[name]) for name, value in zip(self.positional, args)]
        named = {name: plain(name, value, annotations.get(name, self.others)) for name, value in options.items()}
        return [*known, *args[len(known) :]], named

    def meant(self, name: str) -> str:
        """The parameter that was perhaps meant by a name that became a condition, as a question."""
        if name in self.annotations:
            return ""
        steps = "steps" in name and "grid" in self.annotations
        close = ["grid"] if steps else difflib.get_close_matches(name, self.annotations, 1, 0.7)
        return f"Did you mean {close[0]}={'20' if steps else ''}?" if close else ""

    def by_name(self, known: list[Any], named: dict[str, Any], first: int = 0) -> dict[str, Any]:
        """Name -> argument, of positional ones from the number `first` on."""
        return dict(zip(self.positional[first:], known)) | named


def plain_arguments(function: F) -> F:
    """Decorate a public function: its arguments become `plain` by its annotations, those of `**cond` too.

    One of a wrong type is an error before the function begins. A parameter `progress` may also be True, for a bar.
    """
    signature = _Signature(function)

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if isinstance(shown := options.get("progress"), bool) and "progress" in signature.annotations:
            with progress_bar(function.__name__.replace("_", " "), shown) as bar:
                return call(*args, **{**options, "progress": bar})
        known, named = signature.plain(args, options)
        if wrong := misfit(function, signature.by_name(known, named)):
            raise wrong
        try:
            return function(*known, **named)
        except ParameterError as error:
            if error.parameter in named and (hint := signature.meant(error.parameter)) and hint not in error.problem:
                raise ParameterError(error.parameter, f"{error.problem.rstrip('.')}. {hint}") from error
            raise

    return cast(F, call)


class PlainArguments:
    """A base of classes whose constructors take their arguments as `plain` values, by their annotations.

    Dataclasses below it are checked by their own `__post_init__` after that; other classes have their `__init__`
    decorated. Then follows what is of a wrong type and was not rejected. A class of one's own below a public base has
    the first from there; what its annotations mean is its own affair.

    Attributes:
        keeps_arguments: Whether an object has the arguments that it was made with, by name, as `arguments`.
    """

    keeps_arguments: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "__init__" in own:
            setattr(cls, "__init__", _constructor(cls, own["__init__"]))  # noqa: B010 (mypy forbids the other)
        if "__post_init__" in own:
            setattr(cls, "__post_init__", _after_plain(cls, own["__post_init__"]))  # noqa: B010

    def __post_init__(self) -> None:
        _make_plain(self)
        if _is_last(PlainArguments, "__post_init__", self) and (wrong := _wrong_field(self)):
            raise wrong


def _source(cls: type, method: str) -> type:
    """The class that a method is from."""
    return next(base for base in cls.__mro__ if method in vars(base))


def _is_last(owner: type, method: str, made: object) -> bool:
    """Whether this method of a class ends the making of an object of ours: no class below it goes on after that."""
    return type(made).__module__.startswith("unidiff.") and _source(type(made), method) is owner


def _make_plain(made: Any) -> None:
    for name, field in getattr(made, "__dataclass_fields__", {}).items():
        if name in vars(made):
            value = vars(made)[name]
            converted = plain(name, value, field.type)
            if converted is not value:
                object.__setattr__(made, name, converted)


def _wrong_field(made: object) -> ParameterError | None:
    source = _source(type(made), "__init__")  # a constructor of another kind below a dataclass is checked itself
    return misfit(source, vars(made)) if "__dataclass_fields__" in vars(source) else None


def _constructor(owner: type, init: F) -> F:
    signature = _Signature(init)

    @wraps(init)
    def call(self: Any, *args: Any, **options: Any) -> None:
        known, named = signature.plain((self, *args), options)
        last = _is_last(owner, "__init__", self)
        try:
            init(*known, **named)
        except UnidiffError:
            raise
        except Exception as error:
            if last and (wrong := misfit(owner, signature.by_name(known, named))):
                raise wrong from error
            raise
        if last and (wrong := misfit(owner, signature.by_name(known, named), self)):
            raise wrong
        if self.keeps_arguments and _source(type(self), "__init__") is owner:
            self.arguments = signature.by_name(known[1:], named, 1)

    return cast(F, call)


def _after_plain(owner: type, post_init: F) -> F:
    @wraps(post_init)
    def call(self: Any, *args: Any) -> None:
        _make_plain(self)
        last = _is_last(owner, "__post_init__", self)
        try:
            post_init(self, *args)
        except UnidiffError:
            raise
        except Exception as error:
            if last and (wrong := _wrong_field(self)):
                raise wrong from error
            raise
        if last and (wrong := _wrong_field(self)):
            raise wrong

    return cast(F, call)
