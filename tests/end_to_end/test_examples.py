"""Every example runs whole, in its own process, asserts its own claim and saves a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pairs import some

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
# Fewer samples and steps, where a claim still holds with them.
SHORT = {
    "diffusers_nine_solvers": ["--training", "15", "--count", "2"],
    "nine_samplers": ["--count", "300"],
    "nine_denoisings": ["--steps", "80"],
    "interpolation": ["--count", "3"],
    "heat_digits": ["--steps", "200", "--count", "150"],
    "heat_per_sample": ["--steps", "400", "--count", "200"],
    "heat_mnist": ["--tiny"],
    "latent_digits": ["--codec-steps", "100", "--steps", "250", "--count", "100"],
}

QUICK = {"heat_figure7"}  # 5 s; the others take up to a minute


@pytest.mark.parametrize("example", some(EXAMPLES, lambda path: path.stem in QUICK), ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(example), "--out", str(tmp_path), *SHORT.get(example.stem, [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pictures = list(tmp_path.glob("*.png"))
    assert pictures
    assert all(path.stat().st_size > 3_000 for path in pictures)
