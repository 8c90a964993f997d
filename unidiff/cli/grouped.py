"""Groups of options: a command's parameters that are dataclasses become the options that are their fields."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

__all__ = ["AsJson", "grouped"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are dataclasses become the options that are their fields."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        _call(command, values)

    options = [own.replace(kind=own.KEYWORD_ONLY) for own in _options(command)]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def _parameters(of: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any]]:
    """The parameters, each with its class if it is a group of options."""
    for own in inspect.signature(of, eval_str=True).parameters.values():
        yield own, own.annotation if dataclasses.is_dataclass(own.annotation) else None


def _options(of: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    for own, group in _parameters(of):
        yield from [own] if group is None else _options(group)


def _call(of: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    arguments = {
        own.name: values[own.name] if group is None else _call(group, values) for own, group in _parameters(of)
    }
    return of(**arguments)
