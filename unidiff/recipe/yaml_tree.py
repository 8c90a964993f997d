"""YAML text <-> nodes that know their line and column, without the traps of YAML 1.1.

Only the syntax is PyYAML's. Here `1e-4` is a number, `no`, `on` and `12:30` are words, a key written twice is an error,
and only plain values come out: no tag builds an object, and an alias cannot repeat a value a million times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from unidiff.errors import RecipeError
from unidiff.recipe.node import Location, Node, Scalar, Source

__all__ = ["read_yaml", "write_yaml"]

_TAG = "tag:yaml.org,2002:"
_MAX_DEPTH = 50  # no recipe comes near; far below Python's own limit, which depends on who calls
# What PyYAML reads within seconds, and far more than a recipe has.
_MAX_ITEMS, _MAX_LINES, _MAX_WIDTH = 10_000, 20_000, 100_000  # values and keys; lines; characters of a line
_FLOAT = (
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
# The scalars of YAML 1.2's core schema, as far as a recipe needs them. Whatever matches none of these is a word.
_SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Scalar]]] = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), lambda text: None),
    "bool": (re.compile(r"^(?:true|True|false|False)$"), lambda text: text.lower() == "true"),
    "int": (re.compile(r"^[-+]?[0-9]+$"), int),
    "float": (re.compile(_FLOAT), lambda text: float(text.lower().replace(".i", "i").replace(".n", "n"))),
}
_SURROGATE = re.compile("[\ud800-\udfff]")  # can be written as an escape, but not to a file
# By first character, of which None is any; in place of YAML 1.1's.
_RESOLVERS = {None: [(_TAG + name, pattern) for name, (pattern, _) in _SCALARS.items()]}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS
    depth = items = 0

    def fetch_flow_collection_start(self, token: Any) -> None:
        # The scanner reads up to 1024 brackets ahead of the composer, in a time quadratic in their number.
        if self.flow_level >= _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="the values are nested too deeply", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            problem = "aliases (*name) are not part of a recipe: write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        if self.depth == _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="the values are nested too deeply", problem_mark=mark)
        if self.items == _MAX_ITEMS:
            problem = f"more than {_MAX_ITEMS:,} keys and values; keep long lists in a .npy file"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        self.items += 1
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _RESOLVERS  # so that exactly the words this reader would misread are quoted

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        if node.flow_style and self.default_flow_style is None:  # one key a line where one line would have to wrap
            node.flow_style = sum(len(key.value) + len(value.value) + 4 for key, value in node.value) < 90
        return node

    def represent_float(self, value: float) -> yaml.ScalarNode:
        # repr is the shortest text that reads back as the same number; PyYAML's own would be a word to other readers.
        text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
        return self.represent_scalar(f"{_TAG}float", text)

    def represent_text(self, value: str) -> yaml.ScalarNode:
        # PyYAML's other styles lose some characters that no editor shows, such as U+0085 in a key.
        return self.represent_scalar(f"{_TAG}str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(float, _Dumper.represent_float)
_Dumper.add_representer(str, _Dumper.represent_text)


def read_yaml(text: str, name: str, *, show: bool = True) -> Node:
    """Read a YAML text.

    Args:
        text: The text.
        name: Its name in messages, such as the file's.
        show: Whether messages show line, column and an excerpt. Not for an override, whose name is its text.

    Returns:
        The outermost node. An empty text gives a node with value None.

    Raises:
        RecipeError: If the text is not YAML, writes a key twice, uses tags or aliases, or is too long for a recipe.
    """
    lines = text.splitlines()
    source = Source(name, tuple(lines) or ("",) if show else ())
    if len(lines) > _MAX_LINES or max(map(len, lines), default=0) > _MAX_WIDTH:
        problem = f"not a recipe: it has more than {_MAX_LINES:,} lines, or {_MAX_WIDTH:,} characters in one"
        raise RecipeError(f"{name}: {problem}. Keep long lists in a .npy file.")
    try:
        # The constructor finds characters outside YAML, the composer everything else.
        loader = _Loader(text)
        try:
            tree = loader.get_single_node()
        except (ValueError, OverflowError) as error:  # of Python, for a number that is no character or version
            raise yaml.MarkedYAMLError(problem="a number is out of range", problem_mark=loader.get_mark()) from error
        return Node(None, Location(source)) if tree is None else _node(tree, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = _location(mark, source) if mark else Location(source)
        problem = ", ".join(text for text in (error.context, error.problem) if text)
        raise location.error("", f"not valid YAML: {problem}.") from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        location = Location(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
        # PyYAML's type stubs say bytes; for a text it is the character's number.
        problem = f"the character U+{int(str(error.character)):04X} is not allowed in YAML"
        raise location.error("", f"not valid YAML: {problem}. Remove it.") from error


def write_yaml(value: Any, *, flow: bool = False) -> str:
    """Write plain values as YAML that `read_yaml` reads back as the same values.

    Args:
        value: Mappings, lists and scalars.
        flow: Write it in one line, as `{type: DDIM, eta: 0.0}`.

    Returns:
        The text. Without `flow` it ends with a newline.
    """
    # None: collections of scalars in one line, the others one key a line: the look of a recipe written by hand.
    style = True if flow else None
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=style
    )
    return text.removesuffix("...\n").strip() if flow else text


def _location(mark: yaml.Mark, source: Source) -> Location:
    return Location(source, mark.line + 1, mark.column + 1)


def _node(tree: yaml.Node, source: Source, key: Location | None = None) -> Node:
    location = _location(tree.start_mark, source)
    if isinstance(tree, yaml.MappingNode) and tree.tag == f"{_TAG}map":
        return Node(_mapping(tree, source), location, key)
    if isinstance(tree, yaml.SequenceNode) and tree.tag == f"{_TAG}seq":
        return Node([_node(item, source) for item in tree.value], location, key)
    name, text = tree.tag.removeprefix(_TAG), str(tree.value)
    if not text.isascii() and _SURROGATE.search(text):
        raise location.error("", "half a character, from \\uD800 to \\uDFFF, is not text. Remove it.")
    if isinstance(tree, yaml.ScalarNode) and name == "str":
        return Node(text, location, key)
    pattern, convert = _SCALARS.get(name, (None, str))
    if not (isinstance(tree, yaml.ScalarNode) and pattern and pattern.match(text)):
        tag = tree.tag.replace(_TAG, "!!")
        raise location.error("", f"the tag {tag} is not allowed in a recipe. Remove it.")
    try:
        return Node(convert(text), location, key)
    except ValueError as error:  # Python does not read integers of more than 4300 digits
        raise location.error("", f"an integer of {len(text)} digits is too long.") from error


def _mapping(tree: yaml.MappingNode, source: Source) -> dict[str, Node]:
    children: dict[str, Node] = {}
    for key_tree, value_tree in tree.value:
        location = _location(key_tree.start_mark, source)
        if not isinstance(key_tree, yaml.ScalarNode):
            raise location.error("", "a key must be one word, got a list or a mapping")
        key = str(_node(key_tree, source).value if key_tree.tag == f"{_TAG}str" else key_tree.value)
        if key in children:
            problem = f"duplicate key, first used on line {children[key].at.line}. Remove one of the two."
            raise location.error(key, problem)
        children[key] = _node(value_tree, source, location)
    return children
