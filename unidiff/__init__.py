"""unidiff: diffusion models as one thing seen from different sides, each part held against an exact answer.

The public names are imported when they are first used, so `import unidiff` does not import torch. They are listed in
`__init__.pyi`, here and in each namespace; a `type:` in a recipe is one of them, whatever its namespace.
"""

from __future__ import annotations

from pathlib import Path

from unidiff._version import __version__
from unidiff.lazy import attach, exports
from unidiff.renamed import RENAMED

NAMESPACES = ("codec", "data", "evaluation", "inverse", "pde", "tasks")

_top = exports(__file__)
_spaces = {space: exports(str(Path(__file__).parent / space / "__init__.py")) for space in NAMESPACES}
# Old name -> what replaces it: names that have moved to a namespace, and names that were changed.
_moved = {name: f"{space}.{name}" for space in reversed(NAMESPACES) for name in _spaces[space] if name not in _top}
_old = _moved | {old: _moved.get(new, new) for old, new in RENAMED.items()}
# Public name -> the module inside the package that defines it, over all namespaces.
EXPORTS: dict[str, str] = {
    name: module.removeprefix("unidiff.")
    for names in (_top, *_spaces.values())
    for name, module in reversed(names.items())
}
EXPORTS["Posterior"] = "inverse.posterior"  # ud.pde.Posterior is reached by its namespace only

__all__ = ["EXPORTS", "NAMESPACES", "__version__", *_top, *NAMESPACES]

__getattr__ = attach(__name__, _top, _old, NAMESPACES)


def __dir__() -> list[str]:
    return sorted(__all__)
