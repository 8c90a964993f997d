"""Every example runs whole, asserts its own claim and saves an image."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from tiny import Result, in_process

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
# Fewer samples and steps, where a claim still holds with them.
SHORT = {
    "diffusers_nine_solvers": ["--count", "2", "--steps", "6", "20"],
    "fine_tuning": ["--steps", "40", "--count", "40", "--set", "backbone.width=8"],
    "nine_samplers": ["--count", "300"],
    "interpolation": ["--count", "3"],
    "heat_gaussian_samplers": ["--side", "10"],
    "heat_digits": ["--steps", "120", "--count", "80"],
    "heat_exact_posterior": ["--count", "200", "--images", "500"],
    "heat_stochastic": ["--paths", "250"],
    "heat_per_sample": ["--steps", "80", "--count", "40"],
    "heat_mnist": ["--tiny"],
    "inverse_problems": ["--count", "4"],
    "universal_guidance": ["--count", "3", "--steps", "25"],
    "latent_digits": ["--codec-steps", "50", "--steps", "180", "--batch", "32", "--count", "60"],
}


def run(example: Path, *words: object) -> Result:
    return in_process(lambda: runpy.run_path(str(example), run_name="__main__"), example, *words)


@pytest.mark.slow  # up to a minute each; the everyday tests run scripts of examples/papers in test_reproduce.py
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    done = run(example, "--out", tmp_path, *SHORT.get(example.stem, []))
    assert done.code == 0, done.err
    images = list(tmp_path.glob("*.png"))
    assert images
    assert all(path.stat().st_size > 3_000 for path in images)


RUNS = Path(__file__).parents[1] / "data" / "before" / "runs"


@pytest.mark.slow  # four runs
@pytest.mark.parametrize("kind", ["generation", "heat", "classifier", "autoencoder"])
def test_interpolation_takes_any_run_of_images(kind: str, tmp_path: Path) -> None:
    short = ["--count", "3", "--tolerance", "1e-2"]
    done = run(EXAMPLES[0].with_name("interpolation.py"), "--out", tmp_path, *short, "--run", RUNS / kind)
    generates = kind in ("generation", "heat")
    assert done.code == (0 if generates else 2), done.err
    assert len(list(tmp_path.glob("*.png"))) == int(generates)
    assert generates or "it does not generate samples" in done.err.splitlines()[-1]
