"""Recipes of the last release, as they are written now."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from unidiff.recipe.place import Node

__all__ = ["as_now"]

_MOVED = {"log_sigma_mean": "mean", "log_sigma_std": "std"}  # of EDM, now of the objective's LogNormal times


def as_now(recipe: Node, keys: Collection[str], *, in_run: bool) -> Node:
    """The recipe in today's keys; a notice says what was moved.

    Args:
        recipe: A recipe as it was written.
        keys: The top-level keys that such a recipe may have.
        in_run: Whether it is the resolved recipe of a run, in which no key of its release is missing.
    """
    if not isinstance(recipe.value, dict):
        return recipe
    parts = dict(recipe.value)
    if in_run and "noise_condition" in keys:
        parts.setdefault("noise_condition", Node("Timestep", recipe.place))
    given: dict[str, Node] = {}
    if "process" in parts:
        own = _edm(parts["process"])
        given = {new: own[old] for old, new in _MOVED.items() if old in own}
        parts["process"] = _without(parts["process"])
    if _is_edm(recipe.value.get("process")) and not {"objective", "times"}.isdisjoint(keys):
        times = Node({"type": Node("LogNormal", recipe.place), **given}, recipe.place)
        at, holder = "times", parts
        if "objective" in keys:
            objective = parts.get("objective", Node("Denoising", recipe.place))
            arguments = objective.value if isinstance(objective.value, dict) else {"type": replace(objective, key=None)}
            at, holder = "objective.times", dict(arguments)
            parts["objective"] = replace(objective, value=holder)
        if "times" not in holder:
            holder["times"] = times
            notice = f"EDM no longer decides when a network is trained: `{at}` is taken as {_flow(times)}, as before"
            warnings.warn(f"{notice}. Write it there.", DeprecationWarning, stacklevel=2)
    return replace(recipe, value=parts)


def _is_edm(node: Node | None) -> bool:
    if node is None:
        return False
    name = node.value.get("type", node).value if isinstance(node.value, dict) else node.value
    return isinstance(name, str) and name.lower() == "edm"


def _edm(node: Node) -> dict[str, Node]:
    """The parameters of a node that is an EDM; empty for any other."""
    return node.value if _is_edm(node) and isinstance(node.value, dict) else {}


def _without(node: Node) -> Node:
    """The node without what was moved, at any depth: the EDM may be the base of another process."""
    if not isinstance(node.value, dict):
        return node
    own = _edm(node)
    kept = {key: _without(child) for key, child in node.value.items() if key not in own or key not in _MOVED}
    return replace(node, value=kept)


def _flow(times: Node) -> str:
    plain: dict[str, Any] = times.plain()
    return "{" + ", ".join(f"{key}: {value}" for key, value in plain.items()) + "}"
