"""The Python of README and docs runs as printed, in one fresh directory with a trained run in it."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
from tiny import unidiff

import unidiff as ud
from unidiff.run.directory import RunDirectory

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "systems").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `unidiff run ncsn_digits` makes, with a small network."""
    run = tmp_path_factory.mktemp("trained") / "ncsn_digits"
    tiny = ["training.steps=2", "backbone.width=8", "process.levels=2", "sampling.solver.steps_per_level=1"]
    words = [word for change in tiny for word in ("--set", change)]
    assert unidiff("run", "ncsn_digits", "--out", run, *words).code == 0
    return run


@pytest.mark.cases(3)
@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if "runs/ncsn_digits" in block:
        shutil.copytree(request.getfixturevalue("trained"), tmp_path / "runs" / "ncsn_digits")
    exec(block, {})


def test_the_lines_that_are_promised() -> None:
    page = (ROOT / "docs" / "extend.md").read_text()
    for name, heading in {"Trigonometric": "A process in seven lines", "Midpoint": "A solver in seven lines"}.items():
        assert f"## {heading}\n" in page
        definition = re.search(rf"^@dataclass\(frozen=True\)\nclass {name}.*?\n(?=\S)", page, re.M | re.S)
        assert definition is not None
        assert len([line for line in definition[0].splitlines() if line.strip()]) == 7
    assert "seven lines each" in (ROOT / "README.md").read_text()


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 5


def test_the_index_lists_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    from tree import trees

    listed = [page for _, pages in trees((ROOT / "docs" / "index.md").read_text()) for page in pages]
    own = [page.relative_to(ROOT / "docs").with_suffix("") for page in PAGES if page.parent != ROOT]
    pages = {page.as_posix() for page in own} - {"index"}
    missing = sorted(pages - set(listed))
    assert not missing, f"add a line `- [title]({missing[0]}.md)` to a list of docs/index.md"
    assert len(listed) == len(set(listed)), "a page is listed twice"
    assert {"generated/learn/index", "generated/api/index", "generated/changelog"} <= set(listed)


def test_absolute_links_lead_to_files_of_the_repository() -> None:
    address = re.search(r'^Repository = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)]+)\)", readme)
    own = [target.removeprefix(address) for target in targets if target.startswith(address)]
    assert len(own) > 10
    assert not [path for path in own if not (ROOT / re.sub("^/(blob|raw)/main/|#.*", "", path)).is_file()]
    assert not [target for target in targets if not target.startswith("https://")], "broken on a package's page"
    assert address in (ROOT / "CITATION.cff").read_text()


def test_the_table_of_the_run_directory_names_its_files(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "run_directory.md").read_text()
    assert not [path.name for path in RunDirectory(tmp_path)._own if f"`{path.name}" not in page]


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "learn").glob("plot_*.py")), ids=lambda path: path.stem)
def test_a_script_of_learn_begins_with_a_title_and_ends_with_what_one_can_do(script: Path) -> None:
    text = script.read_text()
    title, line = (ast.get_docstring(ast.parse(text)) or "").split("\n")[:2]
    assert re.fullmatch("=+", line)
    assert len(line) == len(title)
    assert text.split("# %%")[-1].find("**Now you can**") > 0
    assert script.name in (ROOT / "docs" / "index.md").read_text()


@pytest.mark.slow  # 4 s: it describes every public class and prints the help of every command
def test_the_pages_that_are_written_from_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import written

    pages = written.pages("https://forge.example/somebody/unidiff", ["changelog", "security"])
    names = {
        name
        for path, text in pages.items()
        if path.startswith("api/")
        for name in re.findall(r"^   (unidiff\S+)", text, re.M)
    }
    assert {name.split(".")[-1] for name in names} == set(ud.EXPORTS)
    assert "## unidiff sample\n\n```\nUsage: unidiff sample" in pages["commands.md"]
    assert re.search(r"## Generation: .*?^\| `process` \| a process \|", pages["keys.md"], re.M | re.S)
    assert "ParameterError" in pages["errors.rst"]
    assert "## ddpm_digits\n" in pages["recipes.md"]
    assert json.loads(re.search(r"## DDPM\(\)\n\n```json\n(.*?)\n```", pages["schema.md"], re.S)[1])["type"] == "object"
    assert "](https://forge.example/somebody/unidiff/blob/main/" not in pages["security.md"]  # it links to nothing else


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_the_table_of_components_names_every_one() -> None:
    table = (ROOT / "docs" / "components.md").read_text()
    kinds = {"schedule", "process", "parameterization", "exact", "objective", "grid", "solver", "backbone", "data"}
    named = set(re.findall(r"`(\w+)`", table))
    bases = {
        "Schedule",
        "Weighting",
        "Objective",
        "Grid",
        "Backbone",
        "BlockDesign",
        "Attention",
        "Encoder",
        "Dataset",
        "OpenDataset",
        "TensorSource",
        "Process",
        "Level",
        "Parameterization",
        "Prediction",
        "Solver",
        "OneStep",
        "Solution",
        "Sampling",
        "sample",
    }
    expected = {name for name, module in ud.EXPORTS.items() if module.split(".")[0] in kinds} - bases
    assert expected <= named
