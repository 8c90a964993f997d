"""What the shell completes."""

from __future__ import annotations

import json
import os

import pytest
from tiny import unidiff

from unidiff.cli import completion


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("runs/one", "runs/other", "photos"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "runs/one/recipe.yaml").touch()
    (tmp_path / "photos.yaml").touch()
    (tmp_path / "photos.txt").touch()


def test_recipes_are_shipped_ones_and_files():
    assert {"photos/", "photos.yaml"} <= set(completion.recipes("ph")) - {"photos.txt"}
    assert completion.recipes("ncsn_d") == ["ncsn_digits"]


def test_runs_are_directories_and_shipped_models():
    assert completion.runs("")[0] == "runs/one"
    assert completion.runs("ru") == ["runs/one", "runs/"]
    assert "shipped:ddpm_digits" in completion.runs("sh")
    assert completion.runs("[") == []


def test_names_and_kinds():
    assert completion.names("ddpm_digits_") == ["ddpm_digits_classes"]
    assert {"DDIM", "DDPM"} <= set(completion.names("DD"))
    kinds = unidiff("list", "--json")
    assert set(completion.kinds("")) == set(json.loads(kinds.out))


@pytest.mark.parametrize(
    ("words", "expected"),
    [("re", {"resume", "report", "reproduce"}), ("sample runs/o", {"runs/one"}), ("run --so", {"--solver"})],
)
def test_bash_asks_and_is_answered(monkeypatch, words, expected):
    monkeypatch.setitem(os.environ, "_UNIDIFF_COMPLETE", "complete_bash")
    monkeypatch.setitem(os.environ, "COMP_WORDS", f"unidiff {words}")
    monkeypatch.setitem(os.environ, "COMP_CWORD", str(len(words.split())))
    assert expected <= set(unidiff().out.split())


def test_the_shell_is_told_how(monkeypatch):
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "bash")  # which typer asks before the argument
    assert "complete -o default" in unidiff("--show-completion", "bash").out
