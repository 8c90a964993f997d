"""`unidiff list` and `unidiff describe`: what there is, and what a part is."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

import unidiff
from unidiff.cli.options import AsJson
from unidiff.errors import UnidiffError

__all__ = ["describe", "list_names"]


def list_names(
    kind: Annotated[str | None, typer.Argument(help="process, solver, data, ..., recipes; all if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """List everything that a recipe or a program can name, by kind."""
    found = _summaries()
    if kind is not None:
        if kind not in found:
            raise UnidiffError(f"list {kind}: there is no such kind. Kinds: {', '.join(found)}.")
        found = {kind: found[kind]}
    if as_json:
        print(json.dumps(found))
        return
    for title, names in found.items():
        print(f"{title}:")
        for name, summary in names.items():
            print(f"  {name:18} {summary}")


def describe(
    name: Annotated[str, typer.Argument(help="A public name, such as NCSN, or a shipped recipe.")],
    as_json: AsJson = False,
) -> None:
    """Describe a class or function: parameters, equation and references; or print a shipped recipe."""
    from unidiff.recipe.shipped import shipped_recipes

    if (path := shipped_recipes().get(name)) is not None:
        text = path.read_text()
        print(json.dumps({"name": name, "kind": "recipes", "doc": text}) if as_json else text.rstrip())
        return
    known = {public.lower(): public for public in unidiff.EXPORTS}
    public = name if name in unidiff.EXPORTS else known.get(name.replace("_", "").lower()) or known.get(name.lower())
    if public is None:
        near = difflib.get_close_matches(name, [*unidiff.EXPORTS, *shipped_recipes()], n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`unidiff list` shows all names."
        raise UnidiffError(f"describe {name}: there is no such name. {hint}")
    from unidiff.recipe.registry import PUBLIC

    value = PUBLIC.get(public)
    facts: dict[str, Any] = {
        "name": public,
        "kind": _kind(public),
        "signature": public + _signature(value),
        "doc": inspect.getdoc(value) or "",
    }
    from unidiff.recipe.registry import is_component
    from unidiff.recipe.schema import is_record

    component = is_component(value) and facts["kind"] not in ("denoiser", "exact", "guidance", "classifier")
    if (component or is_record(value)) and not inspect.isabstract(value):
        from unidiff.recipe.describe import signature_rows

        facts["parameters"] = [row._asdict() for row in signature_rows(value)]
    if as_json:
        print(json.dumps(facts))
        return
    print(f"{facts['signature']}\n({facts['kind']}, in unidiff.{unidiff.EXPORTS[public]})\n\n{facts['doc']}")
    if facts.get("parameters"):
        print("\nIn a recipe:")
        for row in facts["parameters"]:
            print(f"  {row['name']}: {row['type']} [{row['default']}]")


def _signature(value: Any) -> str:
    """The parameters as one would write them: names and plain defaults; for any other default `...`."""
    signature = inspect.signature(value)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return re.sub(r"<(?:[^<>]|<[^<>]*>)*>", "...", text)


def _kind(name: str) -> str:
    return unidiff.EXPORTS[name].split(".")[0]


def _summaries() -> dict[str, dict[str, str]]:
    """Kind -> name -> first sentence, read from the sources: importing them would cost an import of torch."""
    from unidiff.recipe.shipped import shipped_recipes

    package = Path(unidiff.__file__).parent
    found: dict[str, dict[str, str]] = {}
    for name, module in unidiff.EXPORTS.items():
        for node in ast.parse((package / (module.replace(".", "/") + ".py")).read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
                summary = (ast.get_docstring(node) or "").split("\n")[0]
                found.setdefault(_kind(name), {})[name] = summary
    found["recipes"] = {name: _first_comment(path) for name, path in shipped_recipes().items()}
    return found


def _first_comment(path: Path) -> str:
    first = path.read_text().split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
