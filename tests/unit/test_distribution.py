"""The name of the distribution, in what is installed, said and documented; and the other package named unidiff."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import yaml

from unidiff.distribution import DISTRIBUTION, require_own_files, warn_of_the_other

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text()
EXTRAS = set(re.findall(r"^([\w-]+) = \[", PROJECT.split("[project.optional-dependencies]")[1].split("\n[")[0], re.M))
# A command that installs the name `unidiff` alone, or with extras: the other package.
OTHER = re.compile(r"install (?:-\S+ )*['\"]?unidiff(?:\[|['\"`]|\s*$)", re.M)


def test_the_name_is_that_of_the_project() -> None:
    assert re.search(r'^name = "(.+)"$', PROJECT, re.M)[1] == DISTRIBUTION
    assert OTHER.search("run `pip install 'unidiff[wandb]'`")
    assert OTHER.search("pip install -U unidiff")
    assert not OTHER.search(f"pip install '{DISTRIBUTION}[wandb]'")


def test_the_wheel_holds_the_package() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling").WheelBuilder(str(ROOT))
    held = {file.distribution_path for file in wheel.recurse_included_files()}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "unidiff").rglob("*.py*") if path.suffix != ".pyc"}
    assert package <= held
    assert all(name.startswith("unidiff/") for name in held)


def test_nothing_tells_to_install_the_other_package() -> None:
    kinds = ("*.md", "*.py", "*.toml", "*.yaml", "*.yml", "*.cff", "Makefile", "Dockerfile")
    folders = (ROOT, ROOT / ".github", *(ROOT / name for name in ("docs", "unidiff", "recipes", "examples", ".ci")))
    places = [(folder.glob if folder == ROOT else folder.rglob)(kind) for folder in folders for kind in kinds]
    assert not [path for found in places for path in found if OTHER.search(path.read_text())]


def test_an_extra_that_is_named_exists() -> None:
    package = {path: path.read_text() for path in (ROOT / "unidiff").rglob("*.py")}
    used = {name for text in package.values() for name in re.findall(r"install\(['\"](\w+)['\"]\)", text)}
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *package]
    written = re.findall(rf"{DISTRIBUTION}\[([\w,]+)\]", "".join(page.read_text() for page in pages))
    assert {"diffusers", "datasets", "wandb"} <= used
    assert used | {name for names in written for name in names.split(",")} <= EXTRAS


def test_files_of_the_other_package_are_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_the_other(tmp_path)
    (tmp_path / "patch.py").touch()
    with pytest.warns(UserWarning, match=r"a parser of diffs, is installed .*pip uninstall -y unidiff"):
        warn_of_the_other(tmp_path)


def test_a_command_without_its_package_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    require_own_files()
    monkeypatch.setitem(sys.modules, "unidiff", types.ModuleType("unidiff"))
    with pytest.raises(SystemExit, match=r"files of another package named unidiff.*pip install unidiff-diffusion`"):
        require_own_files()


def test_what_the_hosted_workflow_covers_is_what_the_project_says() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)", PROJECT)
    least = re.search(r'"torch>=([\d.]+)"', PROJECT)[1]
    assert {row["torch"].removesuffix(".0") for row in matrix["include"]} == {least}
    pinned = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert f"torch=={pinned} " in (ROOT / "Dockerfile").read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    runs = re.findall(r"run: make (\w+)", (ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert {"lint", "docs", "wheel"} <= set(runs) <= targets


def test_the_address_is_filled_in_everywhere_by_one_command(tmp_path: Path) -> None:
    files = ("Makefile", "pyproject.toml", "README.md", "CITATION.cff")
    for name in files:
        shutil.copy(ROOT / name, tmp_path)
    old = re.search(r'^Repository = "(.+)"$', PROJECT, re.M)[1]
    command = ["make", "address", "URL=https://forge.example/somebody/unidiff"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert not [name for name in files if old in (tmp_path / name).read_text()]
    assert (tmp_path / "README.md").read_text().count("https://forge.example/somebody/unidiff/") > 10
