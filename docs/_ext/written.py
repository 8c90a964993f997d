"""Pages written from what the program says of itself: the API, commands, recipes, errors, and files of the root."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
from abc import ABC
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import unidiff
import unidiff.errors
from unidiff.cli.app import command_line
from unidiff.cli.describe import _summaries
from unidiff.recipe.describe import signature_rows
from unidiff.recipe.json_schema import json_schema
from unidiff.recipe.registry import PUBLIC, is_component
from unidiff.recipe.schema import is_record
from unidiff.recipe.shipped import shipped_recipes
from unidiff.run.shipped import SHIPPED, locate
from unidiff.run.task import Task, shipped_tasks

ROOT = Path(__file__).parents[2]
_STRUCTURAL = ("denoiser", "exact", "guidance", "classifier")  # made in code, not by a recipe


def pages(address: str, root_files: Iterable[str]) -> dict[str, str]:
    """Path in docs/generated -> text."""
    written = {"commands.md": _commands(), "keys.md": _keys(), "recipes.md": _recipes(), "errors.rst": _errors()}
    return {**_api(), **written, "schema.md": _schema(), **_root_files(address, root_files)}


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def _cell(text: object) -> str:
    """Text in a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _api() -> dict[str, str]:
    kinds = {kind: names for kind, names in _summaries().items() if kind not in ("recipes", "models")}
    found = {}
    for kind, names in sorted(kinds.items()):
        rows, entries = [], []
        for name in sorted(names):
            value = PUBLIC.get(name)
            place = _place(name)
            rows.append(f"   {place}")
            entries.append(f".. {'autoclass' if inspect.isclass(value) else 'autofunction'}:: {place}\n")
        title = _title(kind.replace("_", " ").capitalize())
        found[f"api/{kind}.rst"] = "\n".join([title, ".. autosummary::\n   :nosignatures:\n", *rows, "", *entries])
    tree = "\n".join(f"   {kind}" for kind in sorted(kinds))
    words = (
        "Every public name, by what it is. The equation that it implements, and where from, stand in its description."
    )
    found["api/index.rst"] = f"{_title('API by kind')}\n{words}\n\n.. toctree::\n   :maxdepth: 1\n\n{tree}\n"
    return found


def _place(name: str) -> str:
    """Where a public name is reached."""
    if name in unidiff.__all__:
        return f"unidiff.{name}"
    own = unidiff.EXPORTS[name].split(".")[0]
    spaces = sorted(unidiff.NAMESPACES, key=lambda space: space != own)
    return next(f"unidiff.{space}.{name}" for space in spaces if hasattr(getattr(unidiff, space), name))


def _commands() -> str:
    """The help of every command, as it prints it."""

    def help_of(*words: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            command_line([*words, "--help"], prog_name="unidiff", standalone_mode=False)
        return f"```\n{output.getvalue().rstrip()}\n```"

    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    parts = ["# Commands", "What `unidiff COMMAND --help` prints.", help_of()]
    for name in command_line.commands:
        parts += [f"## unidiff {name}", help_of(name)]
    return "\n\n".join(parts) + "\n"


def _table(cls: type) -> list[str]:
    rows = [
        f"| `{row.name}` | {_cell(row.type)} | `{_cell(row.default)}` | {_cell(row.doc)} |"
        for row in signature_rows(cls)
    ]
    return ["\n".join(["| key | value | default | |", "|---|---|---|---|", *rows])] if rows else ["No keys."]


def _keys() -> str:
    """What a recipe may hold: the keys of each kind of recipe, of its records, and of every component."""
    tasks = [value for name in unidiff.EXPORTS if _is_task(value := PUBLIC.get(name))]
    parts = [
        "# Keys of a recipe",
        "A recipe is nested constructor arguments: each key is a parameter, and `type` names a class. The"
        " class's name alone stands for it with its defaults. The kind of a recipe follows from one of its keys.",
    ]
    for task in sorted(tasks, key=lambda task: task.__name__):
        parts += [f"## {task.__name__}: {task.noun}", f"Recognised by its key `{task.key}`.", *_table(task)]
    components: dict[str, list[type]] = {}
    for name in unidiff.EXPORTS:
        value, kind = PUBLIC.get(name), unidiff.EXPORTS[name].split(".")[0]
        if isinstance(value, type) and not inspect.isabstract(value) and kind not in _STRUCTURAL:
            if is_component(value) and ABC not in value.__bases__ and not _is_task(value):
                components.setdefault(kind, []).append(value)
            elif is_record(value) and value.__name__ in ("Training", "Sampling"):
                parts += [f"## {value.__name__.lower()}", *_table(value)]
    for kind, classes in sorted(components.items()):
        parts.append(f"## {kind.replace('_', ' ')}")
        for cls in sorted(classes, key=lambda cls: cls.__name__):
            parts += [f"### {cls.__name__}", *_table(cls)]
    return "\n\n".join(parts) + "\n"


def _schema() -> str:
    """The JSON Schema of recipes, as `unidiff schema` prints it."""
    schema = json_schema(shipped_tasks())
    parts = [
        "# JSON Schema of recipes",
        "What `unidiff schema` prints, for editors and other programs; how an editor is told of it:"
        " [the command line](../command_line.md#a-schema-for-editors). In tables: [keys of a recipe](keys.md).",
        f"Draft 7, {len(schema['definitions'])} definitions. A recipe is one of these mappings:",
        f"```json\n{json.dumps(schema['anyOf'], indent=1)}\n```",
    ]
    for name, definition in schema["definitions"].items():
        parts += [f"## {name}", f"```json\n{json.dumps(definition, indent=1)}\n```"]
    return "\n\n".join(parts) + "\n"


def _is_task(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and not inspect.isabstract(value) and bool(value.key)


def _recipes() -> str:
    """The shipped recipes: what their first line says, the picture, and the time of those that come trained."""
    parts = [
        "# Shipped recipes",
        "`unidiff run NAME` runs one, `unidiff describe NAME` prints it. Those with a model in the package need no"
        " training: `shipped:NAME`. More seconds, of longer recipes, are in [MNIST on one core](../mnist_cpu.md).",
    ]
    for name, path in sorted(shipped_recipes().items()):
        text = path.read_text()
        first = text.split("\n", 1)[0].lstrip("# ")
        parts += [f"## {name}", first]
        if name in SHIPPED:
            parts.append(_seconds(locate(f"shipped:{name}")))
        if (ROOT / "docs" / "images" / f"{name}.png").exists():
            parts.append(f"![samples of {name}](../images/{name}.png)")
        parts.append(f"```yaml\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _seconds(run: Path) -> str:
    manifest = json.loads((run / "manifest.json").read_text())
    seconds, processor = manifest["training_seconds"], manifest["processor"]
    size = f"{manifest['parameters']:,} parameters"
    return f"Comes trained: {seconds:.0f} s of training on one thread of an {processor}, beside other work; {size}."


def _errors() -> str:
    classes = [
        value for value in vars(unidiff.errors).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    rows = [
        f"   * - ``{cls.__name__}``\n     - {getattr(cls, 'exit_code', '')}"
        for cls in classes
        if cls.__module__ == "unidiff.errors"
    ]
    codes = """
A user's mistake is one sentence: what is wrong, where, and what to do. The command prints it, and a traceback with
``--debug``; in Python it is an exception below ``unidiff.errors.UnidiffError``. Exit codes of the command: 0 for
success, those of the table, 128 and its number for a signal (130 for Ctrl-C), and 70 for an error that nobody foresaw,
which is written to a file to be reported.

.. list-table::
   :header-rows: 1

   * - error
     - exit code
"""
    entries = [
        f".. autoexception:: unidiff.errors.{cls.__name__}\n   :no-members:\n"
        for cls in classes
        if cls.__module__ == "unidiff.errors"
    ]
    return "\n".join([_title("Errors"), codes.rstrip(), *rows, "", *entries])


def _root_files(address: str, names: Iterable[str]) -> dict[str, str]:
    """Markdown of the repository's root, its links led to the site's pages or to the repository."""

    def led(match: re.Match[str]) -> str:
        target = match[1]
        if target.startswith("docs/") and target.split("#")[0].endswith(".md"):
            return f"](../{target.removeprefix('docs/')})"
        return match[0] if re.match(r"#|\w+:", target) else f"]({address}/blob/main/{target})"

    texts = {f"{name}.md": (ROOT / f"{name.upper()}.md").read_text() for name in names}
    return {page: re.sub(r"\]\(([^)]+)\)", led, text) for page, text in texts.items()}
