"""Each script of benchmarks/ starts: with `--help`, or imported where it has no options; the short ones run, too."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from tiny import in_process

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
WITHOUT_OPTIONS = ("inpainting", "inverse", "joint_conditions", "rows")
# Arguments of those that need no run and no data: tiny, so the numbers say nothing.
TINY = {
    "couplings": "--steps 2 --batch 8 --samples 20",
    "likelihood": "--samples 1 --probes 2 --tolerances 1e-2",
    "latent_step": "--size 8 --width 8 --batch 2 --steps 1",
}


def run(script: Path, *words: str):
    return in_process(lambda: runpy.run_path(str(script), run_name="__main__"), script, *words)


@pytest.mark.slow  # 3 s: seventeen scripts with their imports
@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_starts(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)  # some import another, as in a shell
    if script.stem in WITHOUT_OPTIONS:
        assert runpy.run_path(str(script), run_name="imported")
        return
    result = run(script, "--help")
    assert result.code == 0
    assert "usage:" in result.out


@pytest.mark.slow  # 5 s in all: they train and sample
@pytest.mark.parametrize("name", TINY)
def test_a_short_benchmark_finishes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(next(path for path in BENCHMARKS if path.stem == name), *TINY[name].split())
    assert result.code in (0, None)
    assert result.out.strip()
