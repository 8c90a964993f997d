"""Studies: means and errors over seeds, records, their arithmetic by hand, and the small form of each script."""

from __future__ import annotations

import json
import math
import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import in_process

from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.figures.equal_seconds import steps_in
from unidiff.figures.study import Row, Study, Table, main, redraw, run_study
from unidiff.plot import Dots, save_dots

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples" / "studies").glob("*.py"))
PAGE = (ROOT / "docs" / "studies.md").read_text()


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "studies" / f"{name}.py"))


def squares(seed: int, quick: bool):
    yield Row("floor", {"y": 1.0}, {"data": "numbers"})
    for x in (2, 3):
        yield Row(f"case {x}", {"y": x**2 + seed, "quick": quick})


def drawn(table: Table, path: Path) -> None:
    save_dots([table.dots("y", "y", "floor")], path, "squares")


SQUARES = Study("squares", "What are squares?", "Euclid", squares, drawn)


def test_means_and_standard_errors_over_seeds(tmp_path):
    lines: list[str] = []
    table = run_study(SQUARES, (0, 1, 5), out=tmp_path, report=lines.append)
    # 4, 5, 9: mean 6, squares of deviations 4 + 1 + 9 = 14, 14 / 2 / 3 = 7 / 3.
    assert table.estimate("case 2", "y") == pytest.approx((6, math.sqrt(7 / 3)), rel=1e-15)
    assert table.curve("y", {2.0: ("case 2", "y"), 3.0: ("case 3", "y")})[2:4] == ([2.0, 3.0], [6.0, 11.0])
    assert table.dots("y", "title", "floor") == Dots(
        "title", [(f"case {x}", x**2 + 2.0, pytest.approx(math.sqrt(7 / 3))) for x in (2, 3)], 1.0
    )
    assert table.text().splitlines()[2:] == [
        "| floor | 1 |  |",
        "| case 2 | 6.0 +- 1.5 | 0 |",
        "| case 3 | 11.0 +- 1.5 | 0 |",
    ]
    record = json.loads((tmp_path / "squares.json").read_text())
    assert record["rows"]["case 3"]["y"] == {
        "mean": 11.0,
        "standard_error": pytest.approx(math.sqrt(7 / 3)),
        "values": [9.0, 10.0, 14.0],
    }
    assert (record["seeds"], record["facts"], record["quick"]) == ([0, 1, 5], {"data": "numbers"}, False)
    assert record["script"]["file"] == Path(__file__).name
    assert "unidiff" in record["environment"]
    assert len(lines) == 9
    with Image.open(tmp_path / "squares.png") as picture:
        assert min(picture.size) > 100
    before = (tmp_path / "squares.png").read_bytes()
    (tmp_path / "squares.png").unlink()
    assert redraw(SQUARES, tmp_path) == table
    assert (tmp_path / "squares.png").read_bytes() == before
    (tmp_path / "squares.json").write_text("[]")
    with pytest.raises(RunFailed, match=r"squares\.json: cannot be read as the record of a study"):
        redraw(SQUARES, tmp_path)


def test_a_number_that_is_not_finite_costs_no_record(tmp_path):
    def diverged(seed: int, quick: bool):
        yield Row("case", {"y": math.nan if seed else math.inf, "z": 1.0})

    table = run_study(Study("diverged", "", "", diverged, lambda table, path: path.touch()), (0, 1), out=tmp_path)
    assert "nan" in table.text()
    record = json.loads((tmp_path / "diverged.json").read_text())["rows"]["case"]
    assert record["y"] == {"mean": None, "standard_error": None, "values": [None, None]}
    assert record["z"]["values"] == [1.0, 1.0]


def test_one_seed_has_no_error_and_its_files_stay_if_the_next_fails(tmp_path):
    def once(seed: int, quick: bool):
        if seed:
            raise OSError("No space left on device")
        yield from squares(seed, quick)

    with pytest.raises(OSError, match="No space"):
        run_study(Study("once", "", "", once, drawn), (0, 1), out=tmp_path)
    record = json.loads((tmp_path / "once.json").read_text())
    assert record["seeds"] == [0]
    assert record["rows"]["case 2"]["y"] == {"mean": 4.0, "standard_error": None, "values": [4.0]}

    def full(table: Table, path: Path) -> None:
        raise OSError("No space left on device")

    with pytest.raises(RunFailed, match="No space left on device"):
        run_study(Study("once", "", "", squares, full), (3,), out=tmp_path)
    assert json.loads((tmp_path / "once.json").read_text())["seeds"] == [0]


@pytest.mark.parametrize(("seeds", "message"), [((), "at least one"), ((1, 1), "different"), ((-1,), "from 0 to")])
def test_seeds_that_are_refused(seeds, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        run_study(SQUARES, seeds, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_on_the_command_line(tmp_path):
    done = in_process(lambda: main("A script.", SQUARES), "script.py", "--seeds", 0, 2, "--quick", "--out", tmp_path)
    assert done.code == 0, done.err
    assert "| case 2 | 5.0 +- 1.0 | 1 |" in done.out
    assert "seed 2, " in done.err
    (tmp_path / "file").touch()
    done = in_process(lambda: main("A script.", SQUARES), "script.py", "--out", tmp_path / "file")
    assert done.code == 2
    assert "is not a directory" in done.err
    with pytest.raises(RunError):
        run_study(SQUARES, out=tmp_path / "file")


def test_steps_that_fit_into_seconds():
    now = [0.0]

    def train(steps: int) -> None:
        # 100 seconds for the first, 3 to begin with for each.
        now[0] += 3.0 + 0.25 * steps + (0.0 if now[0] else 100.0)

    assert steps_in(10.0, train, lambda: now[0]) == 40
    assert now[0] == 109.0 + 0.25 * 100
    assert steps_in(0.01, train, lambda: now[0]) == 1

    slow = iter([5.0, 9.0, 9.0])  # the second was slowed down by others: 9 / 60 of a second, and at least half of it
    assert steps_in(9.0, lambda steps: now.__setitem__(0, now[0] + next(slow)), lambda: now[0]) == 120


def test_copies_and_shares_of_the_memorisation_study():
    memorisation = script("memorisation")
    images = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 8.0]])
    rows, ratio = memorisation["two_nearest"](torch.tensor([[0.0, 0.0], [0.0, 2.0]]), images)
    assert rows.tolist() == [0, 0]
    assert ratio.tolist() == pytest.approx([0.0, 2 / math.sqrt(13)])  # to (0, 0) and to (3, 4)
    assert memorisation["share_of_data"](1, 4) == 0.25
    assert memorisation["share_of_data"](3, 4) == 0.5


def test_entries_of_a_long_chain():
    strided = script("few_of_many")["strided"]
    assert strided(4000) == [*range(4000, 0, -1)]
    assert strided(4, 10) == [10, 7, 4, 1]
    assert strided(3, 10) == [10, 6, 1]  # 5.5 to the even number
    for steps in (25, 50, 100, 200, 400, 1000):
        entries = strided(steps)
        assert (len(entries), entries[0], entries[-1]) == (steps, 4000, 1)
        gaps = {a - b for a, b in pairwise(entries)}
        assert max(gaps) - min(gaps) <= 1  # of equal strides, each rounded


def test_every_study_is_on_its_page():
    assert len(SCRIPTS) == 7
    for path in SCRIPTS:
        assert f"python examples/studies/{path.name}" in PAGE
        assert f"python examples/studies/{path.name}\n" in path.read_text()


@pytest.mark.slow  # 4 s: they train and draw, a little
@pytest.mark.parametrize("name", ["memorisation", "schedules", "few_of_many", "three_families"])
def test_the_small_form_of_a_study(name, tmp_path):
    study: Study = script(name)["STUDY"]
    table = run_study(study, (0,), out=tmp_path, quick=True)
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["facts"]["evaluation"]["features"]["network"] == "unidiff's digits"
    assert {*record["rows"]} == {*table.values}
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert min(picture.size) > 150
