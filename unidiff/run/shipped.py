"""The trained models that come with unidiff: run directories inside the package, which nothing is written to."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from unidiff.errors import RunError
from unidiff.files import digest_of, is_inside
from unidiff.pretrained import is_saved
from unidiff.reading import Unreadable, read_bytes
from unidiff.recipe.shipped import shipped_recipes
from unidiff.text import operand

__all__ = ["PREFIX", "SHIPPED", "is_shipped", "locate", "not_a_run", "require_own", "run_digest"]

PREFIX = "shipped:"
# Name -> digest of its recipe and of its averaged weights in float16. Each was made by the recipe of its name;
# benchmarks/shipped_models.py makes them again.
SHIPPED: dict[str, str] = {
    "ddpm_digits": "sha256:9c91a0ca57fe8db9bf3a5c828ba4a50e5c4db5d11aed41a32586e7d2386e7495",
    "ncsn_digits": "sha256:8414452e7e8f23a083751e6a871cc3eb31ca4336125a582b9236d2b7efd124c1",
    "heat_digits": "sha256:a46462ad41d79931fc62aecc9fc53fadce47835d9043cb42b2b25a72c57b8197",
    "ddpm_digits_classes": "sha256:53c8776c1a72f0f177ecebcc0cb8de29ea94be37a07a313a60aec2e02737e314",
}
_FOLDER = Path(__file__).parent / "models"


def locate(path: str | Path) -> Path:
    """The folder of a run: for shipped:NAME, unless there is such a path, that of a model inside the package.

    Raises:
        RunError: If there is no shipped model of this name, or it is not the one that was shipped.
    """
    text = os.fspath(path)
    if not text.startswith(PREFIX) or os.path.lexists(text):
        return Path(path)
    name = text.removeprefix(PREFIX)
    if name not in SHIPPED:
        names = ", ".join(f"{PREFIX}{known}" for known in SHIPPED)
        raise RunError(f"{text}: no model of this name comes with unidiff. There are: {names}.")
    return _verified(name)


@cache
def _verified(name: str) -> Path:
    folder = _FOLDER / name
    remedy = "Install unidiff again."
    try:
        found = run_digest(folder / "recipe.yaml", *folder.glob("checkpoints/step-*/ema.safetensors"))
    except Unreadable as error:
        raise RunError(f"{error.path}: {error.problem}, of a model that comes with unidiff. {remedy}") from error
    if found != SHIPPED[name]:
        raise RunError(f"{folder} has the digest {found}, and {SHIPPED[name]} was shipped. {remedy}")
    return folder


def not_a_run(path: str | Path) -> RunError:
    """The error about a path that is not a run directory, with what may be meant."""
    text = os.fspath(path)
    if text in SHIPPED:
        remedy = f"{PREFIX}{text} is the model of this name that comes with unidiff; `unidiff run {text}` trains one."
    elif text in shipped_recipes() or text.endswith((".yaml", ".yml")):
        remedy = f"It is a recipe: `unidiff run {operand(text)}`."
    elif os.path.lexists(path) and is_saved(path):
        remedy = (
            "It is a model in the format of diffusers: sample, edit, inpaint, compare, evaluate and tune take it, and "
        )
        remedy += f"and a recipe with `start: {text}` trains it further, which makes a run."
    elif os.path.lexists(path):
        remedy = "Pass a directory that `unidiff run` wrote."
    else:
        remedy = f"`unidiff run RECIPE --out {operand(text)}` creates one."
    return RunError(f"{text}: not a run directory. {remedy}")


def run_digest(recipe: Path, *weights: Path) -> str:
    """The digest of a recipe and of averaged weights."""
    return digest_of(read_bytes(path) for path in (recipe, *weights))


def is_shipped(path: str | Path) -> bool:
    """Whether a path leads into the models of the package."""
    return is_inside(locate(path), _FOLDER)


def require_own(path: str | Path) -> Path:
    """A path to write to, as it is; a RunError if it is named like a shipped model, or is one."""
    if os.fspath(path).startswith(PREFIX) or is_shipped(path):
        problem = "this names a model that comes with unidiff, and nothing is written there"
        remedy = f"Choose another directory; `start: {PREFIX}NAME` in a recipe begins with its weights"
        raise RunError(f"{path}: {problem}. {remedy}.")
    return Path(path)
