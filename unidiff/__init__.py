"""unidiff: DDPM, score-based models and flow matching in one framework, each part tested against an exact answer.

The top level holds what composes a model; the rest is in the namespaces `data`, `codec`, `inverse`, `evaluation`,
`pde` and `tasks`. Public names are imported when first used, so `import unidiff` does not import torch. They are listed
in the `__init__.pyi` of each package. A recipe names them without their namespace.
"""

from __future__ import annotations

from pathlib import Path

from unidiff._version import __version__
from unidiff.distribution import warn_of_the_other
from unidiff.lazy import attach, exports
from unidiff.renamed import RENAMED

warn_of_the_other(Path(__file__).parent)

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

_plain = ("errors", "plot")  # packages and modules whose names no recipe has
__all__ = ["EXPORTS", "NAMESPACES", "__version__", *_top, *NAMESPACES, *_plain]

__getattr__ = attach(__name__, _top, _old, (*NAMESPACES, *_plain))


def __dir__() -> list[str]:
    return sorted(__all__)
