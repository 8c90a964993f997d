"""What the shell completes: recipes, runs, public names and kinds. No torch in here."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator

__all__ = ["data", "kinds", "names", "recipes", "runs"]


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes, and YAML files."""
    from unidiff.recipe.shipped import shipped_recipes

    files = (path for path in _paths(incomplete) if path.endswith((os.sep, ".yaml", ".yml")))
    return _beginning(incomplete, [*shipped_recipes(), *files])


def runs(incomplete: str) -> list[str]:
    """Run directories, those below `runs` first, and shipped models."""
    from unidiff.run.shipped import PREFIX, SHIPPED

    near = (os.path.dirname(path) for path in sorted(glob.glob(os.path.join("runs", "*", "recipe.yaml"))))
    folders = (path for path in _paths(incomplete) if path.endswith(os.sep))
    return _beginning(incomplete, [*near, *(f"{PREFIX}{name}" for name in SHIPPED), *folders])


def names(incomplete: str) -> list[str]:
    """Public names and shipped recipes."""
    import unidiff
    from unidiff.recipe.shipped import shipped_recipes

    return _beginning(incomplete, [*sorted(unidiff.EXPORTS), *shipped_recipes()])


def kinds(incomplete: str) -> list[str]:
    """Kinds of public names, recipes and models."""
    import unidiff

    modules = {module.split(".")[0] for module in unidiff.EXPORTS.values()}
    return _beginning(incomplete, [*sorted(modules), "recipes", "models"])


def data(incomplete: str) -> list[str]:
    """Data sets, by public name, and all that has data."""
    import unidiff

    sets = [name for name, module in unidiff.EXPORTS.items() if module.startswith("data.") and name[:1].isupper()]
    return [*_beginning(incomplete, sorted(sets)), *runs(incomplete), *recipes(incomplete)]


def _paths(incomplete: str) -> Iterator[str]:
    """Files and folders that begin so, folders with a slash."""
    for path in sorted(glob.glob(f"{glob.escape(incomplete)}*")):
        yield f"{path}{os.sep}" if os.path.isdir(path) else path


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for word in words if word.startswith(incomplete)))
