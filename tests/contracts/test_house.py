"""What CONTRIBUTING.md promises of the files: each has its tests, none is long, and no object is asked for its type."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "unidiff"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
ROWS = {
    match[1]: re.findall(r"`([\w/]+\.py)`", match[2])
    for match in re.finditer(r"^\| `([\w/]+\.py)` \| (.+) \|$", TEXT, re.M)
}
# A row of the list of isinstance: file, what is looked for, why.
LISTED = set(re.findall(r"^- `([\w/]+\.py)`: `(\w+)`: .{10,}", TEXT, re.M))


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for path in FILES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }


def types_asked(source: str) -> set[str]:
    """Our own classes that a source passes to isinstance."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)) if "isinstance" in source else ():  # most have none; a walk takes long
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            names = re.findall(r"(?<!nn\.)(?<!datasets\.)(?<!optim\.)\b\w+", ast.unparse(node.args[1]))
            found |= set(names) & classes().keys()
    return found


def test_every_file_has_its_tests():
    expected = {name for name, path in FILES.items() if path.name != "__init__.py" and path.read_text().strip()}
    assert not expected - set(ROWS), "files without a row in CONTRIBUTING.md"
    assert not set(ROWS) - expected, "rows of CONTRIBUTING.md without a file"
    missing = {test for tests in ROWS.values() for test in tests if not (ROOT / "tests" / test).is_file()}
    assert not missing, "tests that CONTRIBUTING.md names and that are not there"
    assert all(ROWS.values())


def test_no_file_is_long():
    assert not {name for name, path in FILES.items() if len(path.read_text().splitlines()) > 300}


def test_objects_are_not_asked_for_their_type():
    asked = {(name, cls) for name, path in FILES.items() for cls in types_asked(path.read_text())}
    assert not {(name, cls) for name, cls in asked if name.split("/")[0] in ("run", "tasks", "cli")}
    assert not asked - LISTED, "not in the list of CONTRIBUTING.md"
    assert not LISTED - asked, "in the list, and gone from the file"


def test_an_isinstance_is_seen():
    assert types_asked("isinstance(x, (int, ud.DDPM))") == {"DDPM"}
    assert types_asked("isinstance(x, (int, nn.Linear, torch.optim.AdamW))") == set()  # torch's, not ours


def documented(cls: ast.ClassDef, method: str) -> bool:
    """Whether a class or one of its bases in the package describes a method."""
    own = [node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == method]
    bases = [classes()[name] for name in (ast.unparse(base).split("[")[0] for base in cls.bases) if name in classes()]
    return any(map(ast.get_docstring, own)) or any(documented(base, method) for base in bases)


def test_a_public_method_is_described_by_its_class_or_a_base():
    # ruff's D102 would want the words of the base class again at each method that overrides.
    methods = [(cls, node.name) for cls in classes().values() for node in cls.body if isinstance(node, ast.FunctionDef)]
    public = [(cls, name) for cls, name in methods if not cls.name.startswith("_") and not name.startswith("_")]
    assert len(public) > 100
    assert not [f"{cls.name}.{name}" for cls, name in public if not documented(cls, name)]
    assert not documented(classes()["Denoiser"], "no_such_method")


MACHINE = re.compile(r"""["'`\s=(]/(?!usr/|bin/|dev/|tmp/|far/|proc/|sys/|etc/)[a-z]+/[\w.-]+/[\w./-]+""")


def test_no_path_of_a_machine_is_mentioned():
    assert MACHINE.search(' "/home/somebody/unidiff/x.py"')
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a checkout")
    text = {".py", ".md", ".yaml", ".json", ".toml", ".jsonl", ".txt", ".pyi", ""}
    paths = [ROOT / name for name in listed.splitlines() if Path(name).suffix in text]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in paths
        if path.is_file() and path != Path(__file__)
        for match in MACHINE.finditer(path.read_text(errors="replace"))
    ]
    assert not found
