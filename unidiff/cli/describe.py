"""`unidiff list` and `unidiff describe`: all public names, and what one of them is."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
from typing import Annotated, Any

import typer

import unidiff
from unidiff.cli import completion
from unidiff.cli.console import styled, width
from unidiff.cli.grouped import AsJson
from unidiff.cli.summaries import summaries
from unidiff.errors import UnidiffError
from unidiff.recipe.registry import PUBLIC, is_component, same_name
from unidiff.recipe.shipped import shipped_recipes
from unidiff.run.shipped import PREFIX, SHIPPED

__all__ = ["describe", "list_names"]


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="process, solver, data, ..., recipes or models [default: all].", autocompletion=completion.kinds
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all public names, shipped recipes and models, by kind."""
    kinds = _summaries()
    if kind is not None:
        if kind not in kinds:
            raise UnidiffError(f"list {kind}: unknown kind. Kinds: {', '.join(kinds)}.")
        kinds = {kind: kinds[kind]}
    if as_json:
        print(json.dumps(kinds))
        return
    for title, names in kinds.items():
        print("\n".join([styled(f"{title}:", "1"), *(_entry(name, summary) for name, summary in names.items())]))


def _entry(name: str, summary: str) -> str:
    """A name and its first sentence, in lines that are no longer than the terminal is wide."""
    label, columns = f"  {name:18}", width()
    if columns is None:
        return f"{styled(label, '36')} {summary}"
    beside = columns - len(label) - 1
    first, indent = (" ", " " * (len(label) + 1)) if beside >= 20 else ("\n    ", "    ")
    lines = textwrap.wrap(summary, max(beside if beside >= 20 else columns - 4, 10))
    return styled(label if beside >= 20 else label.rstrip(), "36") + first + f"\n{indent}".join(lines)


def describe(
    name: Annotated[
        str, typer.Argument(help="A public name, such as NCSN, or a shipped recipe.", autocompletion=completion.names)
    ],
    as_json: AsJson = False,
) -> None:
    """Describe a class or function: parameters, equation and references; or print a shipped recipe."""
    if (path := shipped_recipes().get(name)) is not None:
        text = path.read_text()
        print(json.dumps({"name": name, "kind": "recipes", "doc": text}) if as_json else text.rstrip())
        return
    alike = (public for public in unidiff.EXPORTS if same_name(public, name))
    public = name if name in unidiff.EXPORTS else next(alike, None)
    if public is None:
        names = {known.lower(): known for known in (*shipped_recipes(), *unidiff.EXPORTS)}
        near = [names[match] for match in difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)]
        hint = f"Did you mean {' or '.join(near)}?" if near else "`unidiff list` shows all names."
        raise UnidiffError(f"describe {name}: unknown name. {hint}")
    from unidiff.cli.cached import cached

    facts = cached("described", public, lambda: _facts(public))
    if as_json:
        print(json.dumps(facts))
        return
    print(f"{facts['signature']}\n({facts['kind']}, in unidiff.{unidiff.EXPORTS[public]})\n\n{facts['doc']}")
    if rows := facts.get("parameters"):
        print("\nIn a recipe:")
        print("\n".join(f"  {row['name']}: {row['type']} [{row['default']}]" for row in rows))
    print(f"\nIn the docs: {facts['page']}")


def _facts(public: str) -> dict[str, Any]:
    """What is said of a public name: its kind, signature, docstring and parameters in a recipe."""
    from unidiff.recipe.describe import signature_rows
    from unidiff.recipe.schema import is_record

    value, module = PUBLIC.get(public), unidiff.EXPORTS[public]
    kind = module.split(".")[0]
    # The parameters as one would write them: names and plain defaults; for any other default `...`.
    bare = [own.replace(annotation=own.empty) for own in inspect.signature(value).parameters.values()]
    signature = re.sub(r"<(?:[^<>]|<[^<>]*>)*>", "...", public + str(inspect.Signature(bare)))
    facts: dict[str, Any] = {"name": public, "kind": kind, "signature": signature, "doc": inspect.getdoc(value) or ""}
    facts["page"] = f"generated/api/{kind}.html"
    component = is_component(value) and kind not in ("denoiser", "exact", "guidance", "classifier", "contrastive")
    if (component or is_record(value)) and not inspect.isabstract(value):
        facts["parameters"] = [row._asdict() for row in signature_rows(value)]
    return facts


def _summaries() -> dict[str, dict[str, str]]:
    """Kind -> name -> first sentence."""
    kinds: dict[str, dict[str, str]] = {}
    for name, summary in summaries(unidiff.EXPORTS).items():
        kinds.setdefault(unidiff.EXPORTS[name].split(".")[0], {})[name] = summary
    firsts = {name: path.read_text().split("\n", 1)[0] for name, path in shipped_recipes().items()}
    kinds["recipes"] = {name: line.lstrip("# ") if line.startswith("#") else "" for name, line in firsts.items()}
    kinds["models"] = {f"{PREFIX}{name}": f"Trained by the recipe {name}." for name in SHIPPED}
    return kinds
