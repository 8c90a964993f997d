"""YAML text -> nodes that know their line and column, with the traps of YAML 1.1 taken out.

Only the syntax is PyYAML's. Here `1e-4` is a number, `no`, `on` and `12:30` are words, a key written twice is an error,
and nothing but plain values can come out: no tag builds an object, and an alias cannot repeat a value a million times.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from unidiff.recipe.place import Node, Place, Scalar, SourceText

__all__ = ["read_yaml", "write_yaml"]

_TAG = "tag:yaml.org,2002:"
_DEEPEST = 50  # no recipe comes near; far below Python's own limit, which depends on who calls
# The scalars of YAML 1.2's core schema, as far as a recipe needs them. Whatever matches none of these is a word.
_PLAIN = [
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF")),
    ("int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    ),
]


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, firsts in _PLAIN:
        for first in firsts:
            table.setdefault(first, []).append((_TAG + name, pattern))
    return table


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()  # in place of YAML 1.1's
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not part of a recipe: write the value out", problem_mark=mark
            )
        if self.depth == _DEEPEST:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="the values are nested too deeply", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers()  # so that exactly the words this reader would misread are quoted
    one_line = False

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        if node.flow_style and not self.one_line:  # a line that would have to be wrapped is better one key a line
            node.flow_style = sum(len(key.value) + len(value.value) + 4 for key, value in node.value) < 90
        return node


class _LineDumper(_Dumper):
    one_line = True


def _represent_float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    # repr is the shortest text that reads back as the same number; PyYAML's own would be a word to other readers.
    text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    return dumper.represent_scalar(f"{_TAG}float", text)


def _represent_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # PyYAML's other styles lose some of the characters that no editor shows, such as U+0085 in a key.
    return dumper.represent_scalar(f"{_TAG}str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(float, _represent_float)
_Dumper.add_representer(str, _represent_text)


def read_yaml(text: str, name: str, *, show: bool = True) -> Node:
    """Read a YAML text.

    Args:
        text: The text.
        name: What messages call it, such as the file's name.
        show: Whether messages show line, column and an excerpt. Not for an override, whose name is its text.

    Returns:
        The outermost node. An empty text gives a node with value None.

    Raises:
        RecipeError: If the text is not YAML, writes a key twice, or uses tags or aliases.
    """
    source = SourceText(name, tuple(text.splitlines()) or ("",) if show else ())
    try:
        # The loader finds characters outside YAML while it is made, everything else while it composes.
        tree = _Loader(text).get_single_node()
        return Node(None, Place(source)) if tree is None else _node(tree, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        problem = ", ".join(text for text in (error.context, error.problem) if text)
        raise place.error("", f"not valid YAML: {problem}.") from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
        # PyYAML's type stubs say bytes; for a text it is the character's number.
        what = f"the character U+{int(str(error.character)):04X} is not allowed in YAML"
        raise place.error("", f"not valid YAML: {what}. Remove it.") from error


def write_yaml(value: Any, *, flow: bool = False) -> str:
    """Write plain values as YAML that `read_yaml` reads back as the same values.

    Args:
        value: Mappings, lists and scalars.
        flow: Write it in one line, as `{type: DDIM, eta: 0.0}`.

    Returns:
        The text. Without `flow` it ends with a newline.
    """
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 10**6}
    if flow:
        return yaml.dump(value, Dumper=_LineDumper, default_flow_style=True, **options).removesuffix("...\n").strip()
    # None: collections of scalars in one line, the others one key a line: the look of a recipe written by hand.
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=None, **options)


def _node(tree: yaml.Node, source: SourceText, key: Place | None = None) -> Node:
    place = Place(source, tree.start_mark.line + 1, tree.start_mark.column + 1)
    if isinstance(tree, yaml.MappingNode) and tree.tag == f"{_TAG}map":
        return Node(_mapping(tree, source), place, key)
    if isinstance(tree, yaml.SequenceNode) and tree.tag == f"{_TAG}seq":
        return Node([_node(item, source) for item in tree.value], place, key)
    if isinstance(tree, yaml.ScalarNode):
        return Node(_scalar(tree, place), place, key)
    raise _tag_error(tree, place)


def _mapping(tree: yaml.MappingNode, source: SourceText) -> dict[str, Node]:
    children: dict[str, Node] = {}
    for key_tree, value_tree in tree.value:
        place = Place(source, key_tree.start_mark.line + 1, key_tree.start_mark.column + 1)
        if not isinstance(key_tree, yaml.ScalarNode):
            raise place.error("", "a key must be one word, got a list or a mapping")
        key = str(key_tree.value)
        if key in children:
            first = children[key].at
            raise place.error(key, f"duplicate key, first in line {first.line}. Remove one of the two.")
        children[key] = _node(value_tree, source, place)
    return children


def _scalar(tree: yaml.ScalarNode, place: Place) -> Scalar:
    text, kind = str(tree.value), tree.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    pattern = next((pattern for name, pattern, _ in _PLAIN if name == kind), None)
    if pattern is None or not pattern.match(text):
        raise _tag_error(tree, place)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    try:
        return int(text)
    except ValueError as error:  # Python does not read integers of more than 4300 digits
        raise place.error("", f"an integer of {len(text)} digits is too long.") from error


def _tag_error(tree: yaml.Node, place: Place) -> Exception:
    tag = tree.tag.replace(_TAG, "!!")
    return place.error("", f"the tag {tag} is not allowed in a recipe. Remove it.")
