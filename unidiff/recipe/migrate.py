"""Recipes of earlier releases, read as they are written now."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import replace

from unidiff.recipe.errors import join
from unidiff.recipe.node import Node
from unidiff.recipe.yaml_tree import write_yaml
from unidiff.renamed import renamed_parameters

__all__ = ["current_keys", "migrate"]

_MOVED = {"log_sigma_mean": "mean", "log_sigma_std": "std"}  # from EDM to the objective's LogNormal times


def current_keys(cls: type, children: dict[str, Node], key: str, *, in_run: bool) -> dict[str, Node]:
    """The children under the current names of the class's parameters.

    Of an old and a new name together, an override of the old one wins. The recipe of a run gives no notice.
    """
    renamed = renamed_parameters(cls)
    current = {name: child for name, child in children.items() if name not in renamed}
    for old in renamed.keys() & children.keys():
        new, child = renamed[old], children[old]
        if new in current and not child.at.source.is_override:
            problem = f"this is the old name of {new!r}, which is also set. Remove it."
            raise child.at.error(join(key, old), problem)
        if not in_run:
            notice = f"{child.at.source.name}: the key {join(key, old)!r} is now called {new!r}."
            warnings.warn(notice, DeprecationWarning, stacklevel=2)
        current[new] = child
    return current


def migrate(recipe: Node, keys: Collection[str], *, in_run: bool) -> Node:
    """The recipe in today's keys; a notice says what was moved.

    Args:
        recipe: A recipe as it was written.
        keys: The top-level keys that such a recipe may have.
        in_run: Whether it is the resolved recipe of a run, which has every key of its release.
    """
    if not isinstance(recipe.value, dict):
        return recipe
    parts = dict(recipe.value)
    if in_run and "noise_condition" in keys:
        parts.setdefault("noise_condition", Node("Timestep", recipe.location))
    if (process := parts.get("process")) is None:
        return replace(recipe, value=parts)
    parts["process"] = _without_times(process)
    if _is_edm(process) and not {"objective", "times"}.isdisjoint(keys):
        key, holder = "times", parts
        if "objective" in keys:
            objective = parts.get("objective", Node("Denoising", recipe.location))
            key, holder = "objective.times", dict(objective.children())
            parts["objective"] = replace(objective, value=holder)
        if "times" not in holder:
            moved = {_MOVED[old]: child for old, child in process.children().items() if old in _MOVED}
            holder["times"] = Node({"type": Node("LogNormal", recipe.location), **moved}, recipe.location)
            written = write_yaml(holder["times"].plain(), flow=True)
            notice = f"EDM no longer sets the training times: `{key}` is taken as {written}, as before. Write it there."
            warnings.warn(notice, DeprecationWarning, stacklevel=2)
    return replace(recipe, value=parts)


def _is_edm(node: Node) -> bool:
    name = node.children().get("type")
    return name is not None and str(name.value).lower() == "edm"


def _without_times(node: Node) -> Node:
    """The node without what was moved, at any depth: the EDM may be the base of another process."""
    if not isinstance(node.value, dict):
        return node
    moved = _MOVED if _is_edm(node) else {}
    return replace(node, value={k: _without_times(child) for k, child in node.value.items() if k not in moved})
