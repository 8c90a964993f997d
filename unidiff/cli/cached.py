"""Facts that cost an import of torch, kept in the user's cache for as long as no source of the package changes."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from unidiff import search_paths
from unidiff._version import __version__
from unidiff.files import whole_file
from unidiff.reading import Unreadable, read_json

__all__ = ["cached"]

_PACKAGE = Path(__file__).parents[1]


def cached(kind: str, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` returns, JSON values, made once for each state of the package's sources.

    Nothing is kept where the cache cannot be read or written to.

    Args:
        kind: The file in the user's cache, without its ending.
        name: What it is about.
        make: Makes it.
    """
    path, state = search_paths.cache() / f"{kind}.json", _state()
    kept: dict[str, Any] = {}
    with suppress(Unreadable, OSError, KeyError, AttributeError):
        content = read_json(path)
        kept = dict(content["values"].items()) if content["state"] == state else {}
    if isinstance(found := kept.get(name), dict):
        return found
    made = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(json.dumps({"state": state, "values": {**kept, name: made}}), encoding="utf-8")
    return made


def _state() -> str:
    """A digest of the version, and of the names, sizes and times of all sources."""
    files = sorted((str(path), path.stat()) for path in _PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi"))
    facts = [__version__, sys.version, *((path, stat.st_size, stat.st_mtime_ns) for path, stat in files)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
