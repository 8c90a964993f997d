"""A process that is killed at its n-th operation on files, without a process of its own."""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch

from unidiff import files
from unidiff.training import checkpoint

_EXPORT = importlib.import_module("unidiff.interop.diffusers.export")  # `export` of the package is the function
_PLAIN = ("replace", "rename", "mkdir", "rmdir", "unlink", "remove", "fsync", "link", "symlink", "ftruncate", "write")
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """Nothing in the package may catch it, and after it nothing changes a file: what clean-up code tries fails too."""


def _writes(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    if name == "open":  # of the module os: flags; elsewhere: a mode
        how = arguments[1] if len(arguments) > 1 else options.get("mode", options.get("flags", "r"))
        return bool(how & _TO_WRITE) if isinstance(how, int) else not set("wax+").isdisjoint(how)
    return True


@contextmanager
def killed_at(moment: int | None) -> Iterator[list[str]]:
    """Raise `Killed` instead of the operation of this number and of all after it; None only counts.

    Yields:
        The names of the operations so far.
    """
    done: list[str] = []

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def counted(*arguments: Any, **options: Any) -> Any:
            if _writes(name, arguments, options):
                done.append(name)
                if moment is not None and len(done) > moment:
                    raise Killed
            return original(*arguments, **options)

        return counted

    owners: list[tuple[Any, str]] = [(os, name) for name in (*_PLAIN, "open")]
    owners += [(builtins, "open"), (io, "open"), (torch, "save"), (checkpoint, "save_file"), (_EXPORT, "save_file")]
    owners += [(safetensors.torch, "save_file"), (files, "_exchanged")]
    before = [(owner, name, getattr(owner, name)) for owner, name in owners]
    for owner, name, original in before:
        setattr(owner, name, wrapped(name, original))
    try:
        yield done
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)
