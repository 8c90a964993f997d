"""Facts in the user's cache: made once for each state of the sources, and never in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unidiff.cli import cached as module
from unidiff.cli.cached import cached


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("unidiff.search_paths.cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_made_once_for_a_state_of_the_sources(folder, monkeypatch):
    made = []

    def make():
        made.append(1)
        return {"number": len(made)}

    assert [cached("facts", name, make)["number"] for name in ("a", "a", "b", "a")] == [1, 1, 2, 1]
    monkeypatch.setattr(module, "_state", lambda: "another")
    assert cached("facts", "a", make) == {"number": 3}
    assert list(json.loads((folder / "facts.json").read_text())["values"]) == ["a"]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"state": 1}', '{"values": 1, "state": STATE}', '{"values": {"a": 1}, "state": STATE}']
)
def test_a_damaged_cache_is_made_again(folder, content):
    folder.mkdir()
    (folder / "facts.json").write_text(content.replace("STATE", json.dumps(module._state())))
    assert cached("facts", "a", lambda: {"number": 1}) == {"number": 1}
    assert cached("facts", "a", dict) == {"number": 1}


def test_without_a_cache_it_is_made_each_time(folder):
    folder.write_text("not a folder")
    assert [cached("facts", "a", lambda n=n: {"number": n})["number"] for n in (1, 2)] == [1, 2]


def test_the_state_is_that_of_the_sources(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("1")
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    before = module._state()
    assert before == module._state()
    (tmp_path / "a.py").write_text("12")
    assert before != module._state()


@pytest.mark.slow  # 2 s: the first description imports torch
def test_a_name_that_was_described_before_needs_no_torch(tmp_path):
    program = (
        "import sys\nfrom unidiff import search_paths\nfrom pathlib import Path\n"
        f"search_paths.cache = lambda: Path({str(tmp_path)!r})\n"
        "from unidiff.cli import main\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    words = [sys.executable, "-c", program, "describe", "ddim"]
    first, second = (subprocess.run(words, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout
    assert [first.stderr.split()[-1], second.stderr.split()[-1]] == ["True", "False"]
    assert Path(tmp_path / "described.json").is_file()
