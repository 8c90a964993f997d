"""What annotations promise: whether a value is of the type of its parameter, and that type in words."""

from __future__ import annotations

import importlib
import inspect
import os
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union

import numpy as np
import torch
from torch import Tensor, nn

import unidiff
from unidiff.errors import ParameterError

__all__ = ["WORDS", "annotations_of", "fits", "got", "list_of", "misfit"]

# Annotations in words, for messages here and about recipes.
WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    type(None): "None",
    Any: "any value",
    tuple: "a list",
    list: "a list",
    dict: "a mapping",
    Callable: "a function",
    Tensor: "a tensor",
    np.ndarray: "an array",
    torch.dtype: "a dtype",
    torch.device: "a device",
}
_PROTOCOLS = {
    "Trainable": "a model with a network to train, such as a NeuralDenoiser",
    "Loss": "an objective, such as Denoising()",
    "Conditions": "a conditioning, such as Labels()",
}
_LISTS = (tuple, list, Sequence, Collection, Iterable)


def _is_number(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, (Tensor, np.ndarray)):
        return float in kinds and value.ndim == 0
    return isinstance(value, kinds) and not isinstance(value, bool)


_PLAIN: dict[Any, Callable[[Any], bool]] = {
    Any: lambda value: True,
    object: lambda value: True,
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    bool: lambda value: isinstance(value, (bool, np.bool_)),
    int: lambda value: _is_number(value, (int, np.integer)),
    float: lambda value: _is_number(value, (int, float, np.integer, np.floating)),
    complex: lambda value: _is_number(value, (int, float, complex, np.number)),
    str: lambda value: isinstance(value, (str, os.PathLike)),  # a name, or a path
    Callable: callable,
}


def fits(annotation: Any, value: object) -> bool:
    """Whether a value is what an annotation promises: a list does for a tuple, an integer for a number."""
    if isinstance(annotation, TypeVar):
        annotation = annotation.__bound__ or Any
    origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(arm, value) for arm in args)
    if origin is Literal:
        return any(value is arm or (type(value) is type(arm) and value == arm) for arm in args)
    if isinstance(origin, str):  # a name that only type checkers know
        return True
    if origin in _PLAIN:
        return _PLAIN[origin](value)
    if isinstance(origin, type) and issubclass(origin, os.PathLike):
        return isinstance(value, (str, os.PathLike))
    if origin in _LISTS:
        return _is_list(origin, args, value)
    if getattr(origin, "_is_protocol", False):
        if isinstance(value, type):  # it has the methods, but is not what they are called on
            return False
        members = {name for base in origin.__mro__ for name in vars(base).get("__annotations__", ())}
        members |= {name for name in vars(origin) if not name.startswith("_")}
        return all(hasattr(value, name) for name in members)
    return not isinstance(origin, type) or isinstance(value, origin)


def _is_list(origin: Any, args: tuple[Any, ...], value: object) -> bool:
    if isinstance(value, (str, bytes, Mapping, type)) or not hasattr(value, "__iter__"):
        return False
    if not args or not isinstance(value, (tuple, list)):
        return True
    if origin is tuple and Ellipsis not in args:
        return len(args) == len(value) and all(map(fits, args, value))
    return all(fits(args[0], part) for part in value)


def list_of(one: str) -> str:
    """A list in words, given its items: `a list of integers`."""
    simple = " or " not in one and ":" not in one
    return f"a list of {one.split(' ', 1)[1]}s" if simple else f"a list, each item {one}"


def _phrase(annotation: Any) -> str:
    """An annotation in words."""
    if isinstance(annotation, TypeVar):
        annotation = annotation.__bound__ or Any
    origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_phrase, args)))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is tuple and args and Ellipsis not in args:
        return f"a list of {len(args)}: {', '.join(map(_phrase, args))}"
    if origin in _LISTS:
        return list_of(_phrase(args[0])) if args else "a list"
    if origin in WORDS:
        return WORDS[origin]
    name = getattr(origin, "__name__", str(origin)).lstrip("_")
    if getattr(origin, "_is_protocol", False) and name in _PROTOCOLS:
        return _PROTOCOLS[name]
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


@lru_cache(maxsize=1000)
def annotations_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Parameter -> annotation of a constructor or a function; one that cannot be evaluated stays a string."""
    known: dict[str, Any] = {}
    if isinstance(function, type) and "__dataclass_fields__" in vars(function) and "__init__" in vars(function):
        for base in reversed(function.__mro__):
            known |= _evaluated(vars(base).get("__annotations__", {}), base.__module__)
    called: Any = function
    if isinstance(function, type):
        called = getattr(function, "__init__")  # noqa: B009 (of the class itself)
    own = _evaluated(getattr(called, "__annotations__", {}), inspect.unwrap(called).__module__)
    known = {**own, **known}
    return {name: known[name] for name in inspect.signature(function).parameters if name in known}


class _Public(dict[str, Any]):
    """The public names of the package: for those that a module imports for type checkers only."""

    def __missing__(self, name: str) -> Any:
        return getattr(importlib.import_module(f"unidiff.{unidiff.EXPORTS[name]}"), name)


def _evaluated(annotations: Mapping[str, Any], module: str) -> dict[str, Any]:
    space, found = vars(sys.modules[module]), {}
    for name, annotation in annotations.items():
        found[name] = annotation
        if isinstance(annotation, str):
            for names in (dict[str, Any](), _Public()):
                with suppress(NameError):
                    found[name] = eval(annotation, space, names)  # our own source, as `typing.get_type_hints` does
                    break
    return found


def misfit(function: Callable[..., Any], values: Mapping[str, Any], made: object = None) -> ParameterError | None:
    """The error of the first argument, by name, that is neither what its annotation promises nor the default.

    What a constructor has made of an argument is as good: see `made`, the object.
    """
    annotations, defaults = annotations_of(function), _defaults(function)
    for name in (name for name in defaults if name in values and name in annotations):
        value, annotation = values[name], annotations[name]
        if value is defaults[name] or fits(annotation, value):
            continue
        if made is None or not fits(annotation, getattr(made, name, value)):
            return ParameterError(name, f"must be {_phrase(annotation)}, got {got(value)}{_remedy(annotation, value)}")
    return None


class _Short(reprlib.Repr):
    """Short texts of values; of a tensor its shape, in lists and dictionaries too."""

    def repr_Tensor(self, x: Tensor, level: int) -> str:
        return f"a tensor of shape {tuple(x.shape)}"

    repr_Parameter = repr_Tensor


def got(value: object) -> str:
    """A value in a message: of a tensor its shape, of a class, a function or a network its name."""
    if isinstance(value, (type, types.FunctionType)):
        return f"the {'class' if isinstance(value, type) else 'function'} {value.__name__}"
    return f"an object of {type(value).__name__}" if isinstance(value, nn.Module) else _Short().repr(value)


def _remedy(annotation: Any, value: object) -> str:
    """What to pass instead, as a sentence, where that is known: to a class its object, else what the kind says."""
    if isinstance(value, (list, tuple)):
        return next((remedy for part in value if (remedy := _remedy(annotation, part))), "")
    for kind in (kind for kind in _kinds(annotation) if kind is not Any):
        if not getattr(kind, "_is_protocol", False) and isinstance(value, kind):
            return ""
        if isinstance(value, type):
            if getattr(kind, "_is_protocol", False) or issubclass(value, kind):
                return f". Make an object of it: {value.__name__}({'...' if _needs(value) else ''})"
        elif (instead := getattr(kind, "_instead_of", None)) is not None and (remedy := instead(value)):
            return f". {remedy}"
    return ""


def _needs(cls: type) -> bool:
    """Whether a constructor needs arguments."""
    return any(default is inspect.Parameter.empty for default in _defaults(cls).values())


def _kinds(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names, those of the items of a list too."""
    if isinstance(annotation, TypeVar):
        annotation = annotation.__bound__ or Any
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for arm in (
        *typing.get_args(annotation),
        *([] if isinstance(annotation, type) else [typing.get_origin(annotation)]),
    ):
        if arm not in (None, Union, types.UnionType, Ellipsis, *_LISTS):
            yield from _kinds(arm)


@lru_cache(maxsize=1000)
def _defaults(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Parameter -> default, of those that take one argument."""
    several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return {
        name: own.default for name, own in inspect.signature(function).parameters.items() if own.kind not in several
    }
