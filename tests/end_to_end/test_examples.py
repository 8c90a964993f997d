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


RUNS = Path(__file__).parents[1] / "data" / "before" / "runs"


@pytest.mark.parametrize("run", ["generation", "heat", "classifier", "autoencoder"])
@pytest.mark.parametrize("example", ["nine_denoisings", "interpolation"])
def test_examples_take_any_run_of_images(example: str, run: str, tmp_path: Path) -> None:
    short = {"nine_denoisings": ["--steps", "3"], "interpolation": ["--count", "3"]}[example]
    command = [sys.executable, str(EXAMPLES[0].with_name(f"{example}.py")), "--out", str(tmp_path), *short]
    done = subprocess.run([*command, "--run", str(RUNS / run)], capture_output=True, text=True, check=False)
    generates = run in ("generation", "heat")
    assert done.returncode == (0 if generates else 2), done.stderr
    assert len(list(tmp_path.glob("*.png"))) == int(generates)
    assert generates or "it does not generate samples" in done.stderr.splitlines()[-1]
