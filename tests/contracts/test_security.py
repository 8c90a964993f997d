"""Every sentence of SECURITY.md on what a file may do names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ITEMS = re.findall(r"^- ((?:.+\n?)(?:  .+\n?)*)", (ROOT / "SECURITY.md").read_text(), re.M)
NAMED = re.compile(r"\(`([\w/]+\.py)::(\w+)`\)")


def functions_of(file: Path) -> set[str]:
    """The names of the test functions of a file."""
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_sentence_names_a_test_that_exists():
    assert len(ITEMS) > 15
    without = [item for item in ITEMS if not NAMED.search(item)]
    assert not without, "sentences without a test"
    named = {match for item in ITEMS for match in NAMED.findall(item)}
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not (ROOT / "tests" / file).is_file() or name not in functions_of(ROOT / "tests" / file)
    ]
    assert not missing, "tests that SECURITY.md names and that are not there"
