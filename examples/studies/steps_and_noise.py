"""How many steps, and how much noise in them: eta x S on a trained model.

The model that comes with unidiff, trained with T = 1000, is sampled in S steps with eta = 0 (DDIM), 0.2, 0.5, 1 (DDPM's
chain with the small variance) and sigma-hat (the large one). All from the same noise; the seeds are those of the noise.

    python examples/studies/steps_and_noise.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import unidiff as ud
from unidiff.figures.study import Row, Study, Table, main, qualities
from unidiff.plot import Panel, save_curves

MODEL = "shipped:ddpm_digits"
STEPS = (10, 20, 50, 100, 1000)
COUNT = 100  # samples of each seed
REAL, FRECHET = "real data", "frechet"
SOLVERS: dict[str, ud.Solver] = {f"eta = {eta:g}": ud.DDIM(eta) for eta in (0.0, 0.2, 0.5, 1.0)}
SOLVERS["sigma-hat"] = ud.Ancestral(variance_interpolation=1.0)


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """The solvers, a column for each number of steps."""
    run = ud.load(MODEL, device="cpu")
    count, steps = (20, (2, 4)) if quick else (COUNT, STEPS)
    shape, data = run.recipe.data.shape, run.recipe.data
    for s in steps:
        seeds = range(count * seed, count * (seed + 1))
        x = {name: ud.sample(run.denoiser, solver, ud.Uniform(s), shape, seeds).x for name, solver in SOLVERS.items()}
        for name, (_, numbers, facts) in qualities(x, data, seed, [FRECHET]).items():
            if name != REAL:
                yield Row(
                    name, {f"S = {s}": numbers[FRECHET]}, {**facts, "model": {"name": MODEL, "digest": run.digest}}
                )
            elif s == steps[0]:
                yield Row(name, numbers)


def draw(table: Table, path: Path) -> None:
    """The distance over the number of steps, a curve for each eta."""
    curves = [
        table.curve(name, {float(column.split()[-1]): (name, column) for column in table.values[name]})
        for name in SOLVERS
    ]
    floor = table.estimate(REAL, FRECHET).value
    panel = Panel("samples of one model", "Frechet distance", curves, floor, REAL)
    save_curves([panel], "steps S", path, CAPTION)


CAPTION = f"Steps and their noise, {MODEL}: mean and standard error over the seeds of the noise."
STUDY = Study(
    "steps_and_noise",
    "How does the quality of samples depend on the number of steps and on the noise in them?",
    "Song, Meng & Ermon 2021, table 1; Sedykh's thesis, figure 4.2",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
