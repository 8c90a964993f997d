"""The recipes that come with unidiff, and how a name or a path becomes the text of a recipe. No torch in here."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from unidiff.errors import RecipeError
from unidiff.reading import Unreadable, read_bytes, read_pipe

__all__ = ["read_source", "shipped_folder", "shipped_recipes"]

_LIMIT = 1_000_000  # bytes; the longest recipe that is shipped has about three thousand


def shipped_folder(name: str) -> Path:
    """The folder of this name that comes with unidiff, such as "recipes"."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    # A wheel has the folder inside the package, a checkout beside it. The pyproject.toml tells a checkout from a
    # site-packages folder, in which `recipes` would be somebody else's package.
    if not os.path.isdir(package / name) and os.path.isfile(checkout / "pyproject.toml"):
        return checkout / name
    return package / name


def shipped_recipes() -> dict[str, Path]:
    """Find the recipes that come with unidiff.

    Returns:
        Name of each recipe (its file name without `.yaml`) and its file, sorted by name.
    """
    return {path.stem: path for path in sorted(shipped_folder("recipes").glob("*.yaml"))}


def read_source(source: str | Path) -> tuple[str, str]:
    """Read a recipe's text.

    Args:
        source: A path, "-" or a pipe such as /dev/stdin, or the name of a shipped recipe.

    Returns:
        The file's name for messages, and the text.

    Raises:
        RecipeError: If there is no such file or recipe, or it is not a UTF-8 text of at most 1 MB.
    """
    path = Path(source)
    if not os.path.isfile(path) and str(source) in (shipped := shipped_recipes()):
        path = shipped[str(source)]
    if os.path.isdir(path):
        inside = path / "recipe.yaml"
        remedy = f"Did you mean {str(inside)!r}?" if os.path.isfile(inside) else "Name a recipe file inside it."
        raise RecipeError(f"{source}: this is a directory; a recipe is one YAML file. {remedy}")
    piped = str(source) == "-" or (os.path.exists(path) and not os.path.isfile(path))
    try:
        data = read_pipe(source, _LIMIT) if piped else read_bytes(path, _LIMIT)
        return "standard input" if str(source) == "-" else _short(path), data.decode("utf-8-sig")
    except Unreadable as error:
        if not error.missing:
            remedy = "A recipe is a YAML file of at most 1 MB, or comes through a pipe"
            raise RecipeError(f"{source}: {error.problem}. {remedy}.") from error
        names = list(shipped_recipes())
        close = difflib.get_close_matches(path.stem, names, n=3, cutoff=0.5)
        remedy = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Shipped recipes: {', '.join(names)}."
        raise RecipeError(f"{source}: neither a file nor a shipped recipe. {remedy}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise RecipeError(
            f"{_short(path)}:{line}:{column}: the byte 0x{data[error.start]:02x} is not UTF-8. "
            "A recipe is a UTF-8 text file: save it as UTF-8 in your editor."
        ) from error


def _short(path: Path) -> str:
    """The path, relative to the working directory where it lies inside: short, and clickable in a terminal."""
    try:
        return str(path.absolute().relative_to(os.getcwd()))
    except (ValueError, OSError):  # outside of it, or it has been removed
        return str(path)
