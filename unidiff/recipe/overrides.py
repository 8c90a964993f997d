"""`--set training.steps=20`: one value of a recipe replaced from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from unidiff.errors import RecipeError
from unidiff.recipe.place import Node
from unidiff.recipe.yaml_tree import read_yaml

__all__ = ["apply_overrides"]


def apply_overrides(recipe: Node, overrides: Sequence[str]) -> Node:
    """Replace values of a recipe, or add ones that it does not write.

    Args:
        recipe: The recipe as read.
        overrides: Texts `KEY=VALUE`; the key is a dotted path, the value is YAML. Later ones win.

    Returns:
        A new tree. The replaced values name the override as their place.

    Raises:
        RecipeError: If an override has no key or value, its value is not YAML, or its path leads through a value that
            has no keys.
    """
    for override in overrides:
        name = f"--set {override}"
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise RecipeError(f"{name}: write KEY=VALUE, such as --set training.steps=20.")
        if not text.strip():
            raise RecipeError(f"{name}: missing value after '='. Write null for none.")
        value = read_yaml(text, name, show=False)
        recipe = _replaced(recipe, path, Node(value.value, value.place, value.place), [])
    return recipe


def _replaced(node: Node, path: list[str], new: Node, above: list[str]) -> Node:
    if not path:
        return new
    if isinstance(node.value, dict):
        children = node.value
    elif node.value is None:  # nothing was written here: the override begins it
        children = {}
    elif isinstance(node.value, str) and above:  # the short form of a component
        children = {"type": Node(node.value, node.place, node.key)}
    else:
        what = "a list; set it as a whole" if isinstance(node.value, list) else f"{node.value!r}, which has no keys"
        raise new.place.error(".".join([*above, path[0]]), f"{'.'.join(above) or 'the recipe'} is {what}.")
    child = children.get(path[0]) or Node(None, new.place, new.place)
    return Node({**children, path[0]: _replaced(child, path[1:], new, [*above, path[0]])}, node.place, node.key)
