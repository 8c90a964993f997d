"""The Python of README and docs runs as printed, in one fresh directory with a trained run in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tiny import unidiff

import unidiff as ud

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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


@pytest.mark.cases(5)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_table_of_readme_names_every_component() -> None:
    table = (ROOT / "README.md").read_text().split("## What exists")[1]
    kinds = {"schedule", "process", "parameterization", "exact", "objective", "grid", "solver", "backbone", "data"}
    named = set(re.findall(r"`(\w+)`", table))
    bases = {
        "Schedule",
        "Weighting",
        "Objective",
        "Grid",
        "Backbone",
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
