"""The commands in README and docs: each is one that `unidiff` reads, and each recipe with its changes is valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny import unidiff

from unidiff.cli.app import _command
from unidiff.recipe.shipped import shipped_recipes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$|((?:^    \S.*\n)+)", re.M | re.S)
SAVED = {"mine.yaml": "ddpm_digits"}  # files that a command before writes
RUN_ONLY = {"--out": 2, "--dry-run": 1, "--device": 2}  # option -> its words, which `check` does not have


class Line(NamedTuple):
    page: str
    words: tuple[str, ...]


def lines() -> list[Line]:
    """The commands of all pages, without comments and without what a shell does with their output."""
    found = []
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text()):
            for text in ("" if block[1] else block[2] or block[3]).replace("\\\n", " ").splitlines():
                if text.strip().startswith("unidiff ") and not re.search(r" {2,}\d", text):  # no row of a table
                    words = shlex.split(re.split(r" [|>;] ", text)[0], comments=True)
                    found.append(Line(page.name, tuple(words[1:])))
    return found


LINES = lines()
# Those that change a shipped recipe, but for those that need another run; the recipes themselves have their own tests.
CHECKED = {
    line: name
    for line in LINES
    if line.words[0] in ("run", "check") and (name := SAVED.get(line.words[1], line.words[1])) in shipped_recipes()
    if len(line.words) > 2 and not re.search("runs/(?!short)|^ldm", " ".join(line.words[1:]).replace("--out runs/", ""))
}


def test_there_are_commands():
    assert len(LINES) > 80
    assert len(CHECKED) >= 5


def test_each_command_is_read():
    unread = {}
    for line in LINES:
        if line.words[0].startswith("-"):  # unidiff --version
            continue
        try:
            _command(line.words[0]).make_context(line.words[0], list(line.words[1:]))
        except Exception as error:
            unread[line] = error
    assert not unread


@pytest.mark.slow  # 4 s: each recipe is read, and its network built
def test_each_recipe_is_valid_with_the_changes_beside_it():
    invalid = {}
    for line, name in CHECKED.items():
        words = list(line.words[2:])
        for option, count in RUN_ONLY.items():
            while option in words:
                at = words.index(option)
                del words[at : at + count]
        if (result := unidiff("check", name, *words)).code:
            invalid[line] = result.err
    assert not invalid
