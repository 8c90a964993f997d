"""Colours of lines stay apart for the colour-blind, marks in grey print; each figure of the docs has what makes it."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from colour_vision import DEUTERANOPIA, GREY, PROTANOPIA, lab, main, seen
from PIL import Image

from unidiff.figures.registry import FIGURES
from unidiff.plot.appearance import COLOURS, look
from unidiff.recipe.shipped import shipped_recipes

RGB = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])


def distances(matrix):
    """CIELAB distances of all pairs of colours, seen through a matrix."""
    return {
        pair: float(np.linalg.norm(np.subtract(*lab(seen(RGB, matrix))[[*pair]]))) for pair in combinations(range(7), 2)
    }


@pytest.mark.parametrize("matrix", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "deuteranopia", "protanopia"])
def test_any_two_colours_stay_apart(matrix):
    """A distance of 2.3 is just noticed side by side; 10 is seen at a glance, on thin lines, too."""
    assert min(distances(matrix).values()) >= 10
    assert min(np.linalg.norm(lab(seen(RGB, matrix)) - lab(np.ones(3)), axis=-1)) >= 10  # and from paper


def test_in_grey_markers_and_dashes_tell_lines_apart():
    alike = [pair for pair, distance in distances(GREY).items() if distance < 10]
    assert alike  # so that colours alone would not do
    for a, b in combinations(range(56), 2):
        one, other = look(a), look(b)
        assert (one["marker"], one["color"]) != (other["marker"], other["color"])
        if b - a < 7:
            assert one["marker"] != other["marker"]
    assert all(look(a)["linestyle"] != look(b)["linestyle"] or abs(a - b) == 4 for a, b in alike)


def test_known_colours():
    """White, black and the red of sRGB: L* = 53.24, a* = 80.09, b* = 67.20."""
    assert lab(np.eye(3)[:1]) == pytest.approx(np.array([[53.24, 80.09, 67.20]]), abs=0.02)
    assert lab(np.array([[1.0, 1, 1], [0, 0, 0]])) == pytest.approx(np.array([[100.0, 0, 0], [0, 0, 0]]), abs=0.02)
    # Grey stays the grey it is: the rows of each matrix sum to 1.
    greys = np.linspace(0, 1, 5)[:, None].repeat(3, 1)
    for matrix in (GREY, DEUTERANOPIA, PROTANOPIA):
        assert seen(greys, matrix) == pytest.approx(greys, abs=1e-4)


def test_a_figure_is_written_as_it_is_seen(tmp_path):
    Image.new("RGB", (4, 3), (0, 114, 178)).save(tmp_path / "x.png")
    main(str(tmp_path / "x.png"), str(tmp_path / "seen.png"))
    with Image.open(tmp_path / "seen.png") as image:
        assert image.size == (8, 6)
        assert len(image.getcolors()) == 4
        assert len(set(image.getpixel((6, 1)))) == 1  # the grey one


ROOT = Path(__file__).parents[2]
MADE_BY = dict(re.findall(r"^\| `([\w./-]+)\.png` \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M))
IMAGES = {
    path.relative_to(ROOT / "docs/images").with_suffix("").as_posix() for path in (ROOT / "docs/images").rglob("*.*")
}


def test_each_figure_of_the_docs_is_on_a_page_and_has_what_makes_it():
    pages = "".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    assert not {name for name in IMAGES if f"images/{name}.png)" not in pages}, "on no page"
    own = {name for name in IMAGES if not name.startswith(("figures/", "studies/"))}
    assert own == MADE_BY.keys() - {"figures/NAME", "studies/NAME"}, "the table in CONTRIBUTING.md"
    studies = {f"studies/{script.stem}" for script in (ROOT / "examples/studies").glob("*.py")}
    assert {f"figures/{name}" for name in FIGURES} <= IMAGES - own <= studies | {f"figures/{name}" for name in FIGURES}


@pytest.mark.parametrize("name", sorted(MADE_BY.keys() - {"studies/NAME"}))
def test_what_makes_a_figure_is_there(name):
    """A script that writes a file of this name, or of the one after the colon; or a recipe that is there."""
    *_, command = re.findall(r"`((?:python|unidiff) [^`]+)`", MADE_BY[name])
    program, word, *words = command.split()
    _, colon, file = MADE_BY[name].rpartition("`: ")
    if program == "python":
        text = (ROOT / word).read_text()
        assert "--figure" in words or (file if colon else f"{name}.png") in text or '"--picture"' in text
    elif word in ("run", "compare"):
        assert words[0] in shipped_recipes() or (ROOT / re.search(r"docs/\w+\.md", MADE_BY[name])[0]).is_file()
        assert file
    else:
        assert word in ("reproduce", "evaluate", "report")
