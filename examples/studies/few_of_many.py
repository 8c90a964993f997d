"""A model with T = 4000 in S steps: how few are enough, with a learned variance and with fixed ones?

Two networks, for the linear and the cosine schedule, trained alike by L_hybrid (L_simple and the bound for the
variance). The chain is thinned to S equally spaced entries, with the learned variance, the small and the large one; and
DDIM. Nichol & Dhariwal 2021 asked this of ImageNet (section 4, figure 8).

    python examples/studies/few_of_many.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

import unidiff as ud
from unidiff.figures.study import Row, Study, Table, main, qualities
from unidiff.plot import Panel, save_curves

DATA = ud.data.Digits()
T = 4000
SCHEDULES = {"linear": ud.Linear(1e-4 * 1000 / T, 0.02 * 1000 / T), "cosine": ud.Cosine()}
SOLVERS = {
    "learned": ud.Ancestral(),
    "small": ud.Ancestral(variance_interpolation=0.0),
    "large": ud.Ancestral(variance_interpolation=1.0),
    "DDIM": ud.DDIM(),
}
STEPS = (25, 50, 100, 200, 400, 1000, 4000)
FIXED = 400  # the most steps of all but the learned variance
REAL, FRECHET = "real data", "frechet"


def strided(steps: int, table: int = T) -> list[int]:
    """Entries of a table of T: so many equally spaced numbers from T to 1, rounded."""
    return [round(table - step * (table - 1) / (steps - 1)) for step in range(steps)]


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """The two schedules, a row for each variance and a column for each number of steps."""
    trained, count, some = (20, 40, STEPS[:1]) if quick else (1500, 200, STEPS)
    for schedule, rule in SCHEDULES.items():
        torch.manual_seed(seed)
        network = ud.MLP(DATA.shape, width=128, depth=3, learned_variance=True)
        settings = ud.Training(trained, batch=64, lr=2e-3, ema=0.99, precision="fp32", tensorboard=False)
        model = ud.NeuralDenoiser(ud.DDPM(T, rule), ud.V(), network)
        model = ud.train(model, DATA.open(), ud.Hybrid(ud.EpsilonWeighting()), settings, seed=seed)
        for s in some:
            seeds, grid = (
                range(count * seed, count * (seed + 1)),
                ud.FixedGrid(tuple(entry / T for entry in strided(s)[1:-1])),
            )
            x = {
                f"{schedule}, {name}": ud.sample(model, solver, grid, DATA.shape, seeds).x
                for name, solver in SOLVERS.items()
                if name == "learned" or s <= FIXED
            }
            for name, (_, numbers, facts) in qualities(x, DATA, seed, [FRECHET]).items():
                if name != REAL:
                    yield Row(name, {f"S = {s}": numbers[FRECHET]}, facts)
                elif (schedule, s) == ("linear", some[0]):
                    yield Row(name, numbers)


def draw(table: Table, path: Path) -> None:
    """The distance over the number of steps, a panel for each schedule."""
    floor = table.estimate(REAL, FRECHET).value
    panels = []
    for schedule in SCHEDULES:
        rows = {name: f"{schedule}, {name}" for name in SOLVERS}
        curves = [
            table.curve(name, {float(column.split()[-1]): (row, column) for column in table.values[row]})
            for name, row in rows.items()
        ]
        panels.append(Panel(schedule, "Frechet distance", curves, floor, REAL))
    save_curves(panels, "steps S", path, f"Models trained with T = {T}, sampled in S steps; by the variance of a step.")


STUDY = Study(
    "few_of_many",
    "How many steps does a model with T = 4000 need, with a learned variance and with fixed ones?",
    "Nichol & Dhariwal 2021, section 4 and figure 8; Sedykh's thesis, section 4.1",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
