"""Imports point one way: what the package is made of, from the parts to the command line, without a circle."""

from __future__ import annotations

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "unidiff"
FILES = sorted(PACKAGE.rglob("*.py"))
# Each line may import itself and the lines above it. Modules of the package's root that a line does not name are in the
# first. The interpreters of a whole package stand apart: they name everything.
ORDER = [
    "errors text memory annotations arguments tensors renamed lazy words reading writable machine files lock progress "
    "display search_paths pretrained basis schedule philox noise noise_spectrum precision batching _version "
    "distribution",
    "process",
    "prediction noise_condition noisy_network parameterization",
    "condition denoiser function_denoiser rescheduled counted split velocity",
    "exact classifier contrastive noisy_network divergence",
    "objective",
    "backbone",
    "guidance",
    "grid fixed_grid acceleration feature_cache",
    "solver sampling",
    "likelihood variational encoding editing inverse",
    "codec pde",
    "data",
    "conditioning",
    "cascade",
    "evaluation",
    "plot",
    "page",
    "recipe",
    "training",
    "run",
    "tasks",
    "interop",
    "figures",
    "app",
    "cli",
]
APART = {"__init__", "__main__", "exports"}
LINE = {name: number for number, line in enumerate(ORDER) for name in line.split()}


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere, but for the sake of a type checker."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            here = module(path).split(".")[: len(path.relative_to(PACKAGE).parts) - node.level + 1]
            base = ".".join([*(here if node.level else []), *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names} & MODULES
            found.update(inner if len(inner) == len(node.names) else {base, *inner})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return (found & MODULES) - {module(path), "unidiff"}


@functools.cache
def imports() -> dict[str, set[str]]:
    return {module(path): imported(path) for path in FILES if path.stem not in APART or path.parent != PACKAGE}


def folder(name: str) -> str:
    return name.split(".")[1]


def test_imports_point_one_way():
    unknown = {folder(name) for name in imports()} - set(LINE)
    assert not unknown, "which line of ORDER are they in?"
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others)
        if LINE.get(folder(other), -1) > LINE[folder(name)]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("of", [str, folder], ids=["files", "folders"])
def test_no_circle(of):
    graph: dict[str, set[str]] = {}
    for name, others in imports().items():
        graph.setdefault(of(name), set()).update(of(other) for other in others if of(other) != of(name))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_circle_and_a_wrong_way_are_seen():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    assert "unidiff.process.base" in imports()["unidiff.process.ddpm"]
