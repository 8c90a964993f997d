"""`--format svg,pdf`: figures as vector files beside the PNG, which is always written."""

from __future__ import annotations

import pytest
from tiny import refused, unidiff, write

TINY = {"domain": {"type": "Interval", "cells": 8}, "times": [0.1], "start": {"type": "RandomField"}}


@pytest.mark.slow  # a run with all its figures as PDF and SVG
def test_a_run_writes_vector_files_too(tmp_path):
    words = ["run", write(tmp_path, TINY), "--out", tmp_path / "out", "--device", "cpu", "--format", "svg, png"]
    result = unidiff(*words)
    assert result.code == 0, result
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"profiles.png", "profiles.svg", "shares.png", "shares.svg"} <= names
    assert not [name for name in names if name.endswith(".pdf")]
    # Words and formulas are in it; nothing in it depends on the day.
    text = (tmp_path / "out/profiles.svg").read_text()
    assert text.count("<svg") == 1
    assert "dc:date" not in text
    assert unidiff(*words, "--overwrite").code == 0
    assert (tmp_path / "out/profiles.svg").read_text() == text


@pytest.mark.parametrize(
    "words", [["compare", "compare_exact"], ["evaluate", "x"], ["reproduce", "higham-7"], ["run", "x"]]
)
def test_another_format_is_refused_before_anything_is_read(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = "--format svg,jpg: must be one or several of png, svg, pdf, separated by commas, got 'jpg'."
    assert expected in " ".join(refused(*words, "--format", "svg,jpg").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # a figure of the papers, three times
def test_a_reproduced_figure(tmp_path):
    assert unidiff("reproduce", "higham-7", "--quick", "--out", tmp_path, "--format", "pdf").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["higham-7.json", "higham-7.pdf", "higham-7.png"]
